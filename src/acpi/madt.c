#include "acpi/acpi_priv.h"

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_NMI = 4, MADT_X2APIC = 9, MADT_X2APIC_NMI = 10 };

#define MADT_ENABLED     1u
#define MADT_PCAT_COMPAT 1u
#define INTI_LEVEL_HIGH  0x0du /* MPS INTI flags: active high, level */
#define LAPIC_GPA        0xfee00000u
#define UID_ALL          UINT32_MAX

static void cpu_entry(struct bytes *b, uint32_t uid, apic_id_t id, uint32_t flags)
{
    if (id.id <= ACPI_ID8_MAX) {
        put(b, MADT_LAPIC, 1);
        put(b, 8, 1);
        put(b, uid, 1);
        put(b, id.id, 1);
        put(b, flags, 4);
        return;
    }
    put(b, MADT_X2APIC, 1);
    put(b, 16, 1);
    put(b, 0, 2);
    put(b, id.id, 4);
    put(b, flags, 4);
    put(b, uid, 4);
}

static void override(struct bytes *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    put(b, MADT_OVERRIDE, 1);
    put(b, 10, 1);
    put(b, 0, 1); /* ISA */
    put(b, irq, 1);
    put(b, gsi, 4);
    put(b, flags, 2);
}

/* LINT1 is NMI on every CPU; the x2APIC form only where an ID needs it. */
static void nmi_entries(struct bytes *b, bool wide)
{
    if (wide) {
        put(b, MADT_X2APIC_NMI, 1);
        put(b, 12, 1);
        put(b, 0, 2);
        put(b, UID_ALL, 4);
        put(b, 1, 1);
        put(b, 0, 3);
        return;
    }
    put(b, MADT_LAPIC_NMI, 1);
    put(b, 6, 1);
    put(b, 0xff, 1);
    put(b, 0, 2);
    put(b, 1, 1);
}

void madt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    bool wide = false;
    put(b, LAPIC_GPA, 4);
    put(b, MADT_PCAT_COMPAT, 4);
    for (uint32_t uid = 0; uid < c->cpus; uid++) {
        apic_id_t id = c->ids[cpu_of_uid[uid]];
        cpu_entry(b, uid, id, c->no_id_255 && id.id == 255 ? 0 : MADT_ENABLED);
        wide |= id.id > ACPI_ID8_MAX;
    }
    put(b, MADT_IOAPIC, 1);
    put(b, 12, 1);
    put(b, c->ioapic_id, 1);
    put(b, 0, 1);
    put(b, c->ioapic_gpa, 4);
    put(b, 0, 4); /* first GSI */
    override(b, 0, 2, 0);
    override(b, c->sci_gsi, c->sci_gsi, INTI_LEVEL_HIGH);
    nmi_entries(b, wide);
}

/* ACPI 6.5, 5.2.16 "System Resource Affinity Table (SRAT)". */
void srat_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    put(b, 1, 4);
    put(b, 0, 8);
    for (uint32_t uid = 0; uid < c->cpus; uid++) {
        uint32_t cpu = cpu_of_uid[uid];
        put(b, 2, 1); /* processor local x2APIC affinity */
        put(b, 24, 1);
        put(b, 0, 2);
        put(b, c->cpu_node ? c->cpu_node[cpu] : 0, 4);
        put(b, c->ids[cpu].id, 4);
        put(b, 1, 4);
        put(b, 0, 8);
    }
    for (uint32_t i = 0; i < c->mems; i++) {
        put(b, 1, 1); /* memory affinity */
        put(b, 40, 1);
        put(b, c->mem[i].node, 4);
        put(b, 0, 2);
        put(b, c->mem[i].range.base, 8);
        put(b, c->mem[i].range.len, 8);
        put(b, 0, 4);
        put(b, 1, 4);
        put(b, 0, 8);
    }
}
