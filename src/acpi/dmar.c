/* VT-d, "BIOS Considerations": the DMA Remapping Reporting structure. */
#include "acpi/acpi_priv.h"

enum { DMAR_INTR_REMAP = 1, DRHD_ALL = 1, SCOPE_IOAPIC = 3 };

#define DRHD_LEN  16u
#define SCOPE_LEN 8u

/* The I/O APIC has to be named even where the unit takes everybody: no PCI enumeration finds it. */
void dmar_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    put(b, c->vtd.phys_bits - 1u, 1);
    put(b, c->vtd.intremap ? DMAR_INTR_REMAP : 0, 1); /* x2APIC opt-out stays clear */
    put_zero(b, 10);

    put(b, 0, 2); /* DRHD */
    put(b, DRHD_LEN + SCOPE_LEN, 2);
    put(b, c->vtd.ioapic_only ? 0 : DRHD_ALL, 1);
    put(b, 0, 1); /* one 4 KiB page of registers */
    put(b, 0, 2); /* segment */
    put(b, c->vtd.gpa, 8);

    put(b, SCOPE_IOAPIC, 1);
    put(b, SCOPE_LEN, 1);
    put(b, 0, 2);
    put(b, c->ioapic_id, 1); /* as in the MADT */
    put(b, c->ioapic_rid >> 8, 1);
    put(b, c->ioapic_rid >> 3 & 0x1f, 1);
    put(b, c->ioapic_rid & 7, 1);
}
