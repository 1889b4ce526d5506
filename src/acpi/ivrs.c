/* IVRS: where the AMD I/O virtualization unit is and which functions it serves. 48882, "I/O Virtualization ACPI Table".
 * The unit comes twice, as types 10h and 11h: old guests know only the first, and the second has the whole feature
 * register. Type 40h would add devices named by ACPI, of which there are none. */
#include "acpi/acpi_priv.h"

enum { IVHD_BASIC = 0x10, IVHD_EFR = 0x11 };
enum { ENTRY_PAD4 = 0x00, ENTRY_ALL = 0x01, ENTRY_SELECT = 0x02, ENTRY_SPECIAL = 0x48 };

#define LAST_FUNCTION 0xffffu
#define IVHD_PREFETCH 0x40u
#define IVHD_COHERENT 0x20u
#define HATDIS        1u

/* Device table settings for the I/O APIC: INIT, ExtINT, NMI and LINT0/1 pass. */
#define PASS_ALL        0xc7u
#define VARIETY_IOAPIC  1u
#define IVINFO_EFR      1u
#define IVINFO_GVA_48   (2u << 5)
#define IVINFO_PA(bits) ((uint32_t)(bits) << 8)
#define IVINFO_VA(bits) ((uint32_t)(bits) << 15)

/* The extended feature register, as far as type 10h tells of it: 48882, "IOMMU Feature Reporting Field". */
static uint32_t feature_info(uint64_t efr)
{
    return (uint32_t)(bits(efr, 2, 2) | bits(efr, 6, 6) << 5 | bits(efr, 7, 7) << 6 | bits(efr, 11, 10) << 30);
}

static void select_entry(struct bytes *b, uint8_t type, uint16_t devid, uint8_t settings)
{
    put(b, type, 1);
    put(b, devid, 2);
    put(b, settings, 1);
}

/* The I/O APIC's entry only with interrupt remapping: without it a guest must not expect any. Linux makes its tables as
 * long as the last function named needs, and looks every function up in them: so the last one there can be is named. */
static void device_entries(struct bytes *b, const struct acpi_config *c)
{
    if (c->amdvi.ioapic_only) {
        select_entry(b, ENTRY_SELECT, c->ioapic_rid, PASS_ALL);
        select_entry(b, ENTRY_SELECT, LAST_FUNCTION, 0);
    } else {
        select_entry(b, ENTRY_ALL, 0, 0);
        select_entry(b, ENTRY_PAD4, 0, 0);
    }
    if (!c->amdvi.intremap)
        return;
    select_entry(b, ENTRY_SPECIAL, 0, PASS_ALL);
    put(b, c->ioapic_id, 1);
    put(b, c->ioapic_rid, 2);
    put(b, VARIETY_IOAPIC, 1);
}

static void ivhd(struct bytes *b, const struct acpi_config *c, uint8_t type)
{
    uint64_t at = b->len;
    put(b, type, 1);
    put(b, IVHD_COHERENT | IVHD_PREFETCH, 1);
    put(b, 0, 2); /* length */
    put(b, c->amdvi.rid, 2);
    put(b, c->amdvi.capability, 2);
    put(b, c->amdvi.gpa, 8);
    put(b, 0, 2); /* segment */
    put(b, 0, 2); /* MSI message and unit numbers */
    if (type == IVHD_BASIC) {
        put(b, feature_info(c->amdvi.efr), 4);
    } else {
        put(b, c->amdvi.dma_translation ? 0 : HATDIS, 4);
        put(b, c->amdvi.efr, 8);
        put(b, c->amdvi.efr2, 8);
    }
    device_entries(b, c);
    if (!b->overflow)
        st16(b->buf + at + 2, (uint16_t)(b->len - at));
}

void ivrs_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    put(b, IVINFO_EFR | IVINFO_GVA_48 | IVINFO_PA(48) | IVINFO_VA(64), 4);
    put(b, 0, 8);
    ivhd(b, c, IVHD_BASIC);
    ivhd(b, c, IVHD_EFR);
}
