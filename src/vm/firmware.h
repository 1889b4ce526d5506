/* What firmware would have left in RAM: ACPI tables and SMBIOS structures. Private to vm/. */
#ifndef HEC_VM_FIRMWARE_H
#define HEC_VM_FIRMWARE_H

#include "boot/layout.h"
#include "vm/config.h"

/* Write the tables of the machine `c` with these APIC IDs and this CPU into RAM through `layout`; *rsdp gets the RSDP's
 * gpa. The owner's thread, before the guest runs. -errno with `e`. */
int firmware_tables(const struct vm_config *c, const struct cpuid_model *cpuid, const apic_id_t *ids,
                    struct boot_layout *layout, gpa_t *rsdp, struct err *e);

/* Where BARs above RAM may lie, within the CPU's physical addresses; *len 0: nowhere. */
void firmware_pci64(const struct ram *ram, unsigned phys_bits, uint64_t *base, uint64_t *len);

#endif
