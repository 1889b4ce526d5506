/* Machines whose tables are tested. */
#ifndef TEST_ACPI_SHAPES_H
#define TEST_ACPI_SHAPES_H

#include "acpi/acpi.h"

#include <stdlib.h>
#include <string.h>

struct shape {
    struct acpi_config c;
    apic_id_t *ids;
    uint32_t *node;
    struct acpi_memory mem[4];
};

static uint32_t shape_id(const char *name, uint32_t i)
{
    if (!strcmp(name, "sparse300"))
        return i ? 255 + i : 0; /* 0,256-554 */
    if (!strcmp(name, "numa"))
        return i * 7 + (i > 100 ? 20000 : 0);
    return i;
}

static struct acpi_amdvi shape_amdvi(bool ioapic_only)
{
    return (struct acpi_amdvi){.gpa = 0xfed80000,
                               .intremap = true,
                               .ioapic_only = ioapic_only,
                               .dma_translation = !ioapic_only,
                               .rid = 2,
                               .capability = 0x40,
                               .efr = ioapic_only ? 0xcc1 : 0x8c5,
                               .efr2 = 0x100};
}

static int shape_init(struct shape *s, const char *name)
{
    static const struct {
        const char *name;
        uint32_t cpus, nodes;
    } known[] = {{"one", 1, 1},    {"sparse300", 300, 1}, {"big8192", 8192, 1},
                 {"numa", 512, 4}, {"amdvi", 300, 1},     {"amdvi-ioapic", 3, 1}};
    unsigned k = 0;
    while (k < sizeof known / sizeof known[0] && strcmp(known[k].name, name))
        k++;
    if (k == sizeof known / sizeof known[0])
        return -1;
    uint32_t n = known[k].cpus;
    s->ids = calloc(n, sizeof *s->ids);
    s->node = calloc(n, sizeof *s->node);
    for (uint32_t i = 0; i < n; i++) {
        s->ids[i] = APIC_ID(shape_id(name, n - 1 - i)); /* descending: an index is no ID */
        s->node[i] = i % known[k].nodes;
    }
    for (uint32_t i = 0; i < 4; i++)
        s->mem[i] = (struct acpi_memory){{i * UINT64_C(0x40000000), 0x40000000}, i};
    s->c = (struct acpi_config){.cpus = n,
                                .ids = s->ids,
                                .cpu_node = s->node,
                                .nodes = known[k].nodes,
                                .mem = s->mem,
                                .mems = known[k].nodes,
                                .physical_destination = n > 1,
                                .ioapic_id = 0,
                                .ioapic_gpa = 0xfec00000,
                                .ioapic_rid = 0xa0,
                                .sci_gsi = 9,
                                .pm_base = 0x600,
                                .smi_cmd = 0xb2,
                                .acpi_enable = 2,
                                .acpi_disable = 3,
                                .s5_typ = 0,
                                .reset_port = 0xcf9,
                                .reset_value = 0xf,
                                .serial = true,
                                .pci32 = {0xe0000000, 0x1ec00000},
                                .pci64 = {UINT64_C(0x800000000), UINT64_C(0x800000000)}};
    if (n > 1) /* a machine without PCI has no routes */
        s->c.ecam = (struct acpi_range){0xb0000000, 0x10000000};
    for (unsigned i = 0; n > 1 && i < 128; i++) {
        s->c.intx_gsi[i / 4][i % 4] = (uint8_t)(16 + (i / 4 + i % 4) % 8);
        s->c.intx_irq[i / 4][i % 4] = (uint8_t)(10 + (i / 4 + i % 4) % 2);
    }
    if (!strncmp(name, "amdvi", 5))
        s->c.amdvi = shape_amdvi(!strcmp(name, "amdvi-ioapic"));
    if (!strcmp(name, "sparse300") || !strcmp(name, "numa"))
        s->c.vtd = (struct acpi_vtd){
            .gpa = 0xfed90000, .intremap = true, .ioapic_only = !strcmp(name, "numa"), .phys_bits = 46};
    return 0;
}

#endif
