/* Shared by the files of acpi/. */
#ifndef HEC_ACPI_PRIV_H
#define HEC_ACPI_PRIV_H

#include "acpi/acpi.h"
#include "acpi/bytes.h"

#define ACPI_ID8_MAX 254u /* largest APIC ID an 8-bit MADT field may hold */

/* A device of the ISA bus; irq < 0: none. */
void legacy_device(struct bytes *b, const char *name, const char *hid, uint16_t port, uint8_t len, int irq);

/* Everything after a table's 36-byte header. `cpu_of_uid[uid]` is a vCPU index. */
void ivrs_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void pci_root_device(struct bytes *b, const struct acpi_config *c); /* within \_SB; dsdt_pci.c */
void pic_method(struct bytes *b);                                   /* at the root, before \_SB */
void dsdt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void madt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void dmar_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void srat_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);

#endif
