/* The probe's remapping unit: switched on as a guest's kernel does it, through its registers, with tables in the
 * probe's own memory. VT-d, "Software Interface for Interrupt Remapping"; 48882, "Device Table", "Interrupt Remapping
 * Tables". */
#include "irq/amdvi.h"
#include "irq/vtd.h"
#include "vm/machine_priv.h"
#include "vm/probe_priv.h"

#define TABLE_GPA   (UINT64_C(16) << 20) /* the entries: 64 Ki of VT-d's, or one device's of AMD's */
#define DEVICES_GPA (UINT64_C(32) << 20) /* AMD's device table, 2 MiB */
#define VTD_ENTRIES 65536u
#define AMD_ENTRIES 512u
#define AMD_LEN     9 /* log2 of that */

enum { VTD_REG_GCMD = 0x18, VTD_REG_IRTA = 0xb8 };
enum { AMD_REG_DEVTAB = 0x00, AMD_REG_CONTROL = 0x18 };

/* An entry that says its own index: in the destination, or half there and half in the vector where it has 8 bits. */
static struct probe_entry coded(const struct probe *p, uint32_t i)
{
    bool wide = vm_config_remaps_wide(&p->cfg), intel = p->cfg.iommu.kind == VM_IOMMU_INTEL;
    uint64_t dest = wide ? i : i & 0xff, vector = wide ? 0x20 : i >> 8;
    if (intel)
        return (struct probe_entry){.low = 1 | vector << 16 | dest << (wide ? 32 : 40)};
    return (struct probe_entry){.low = 1 | dest << 8, .high = vector};
}

static uint32_t decoded(const struct probe *p, const struct irq *irq)
{
    return vm_config_remaps_wide(&p->cfg) ? irq->dest : irq->dest | (uint32_t)irq->vector << 8;
}

static void fill(struct probe *p, const struct probe_entry *all)
{
    uint32_t n = p->cfg.iommu.kind == VM_IOMMU_INTEL ? VTD_ENTRIES : AMD_ENTRIES;
    uint8_t *at = ram_hva(&p->m->ram, TABLE_GPA, (uint64_t)n * 16);
    for (uint32_t i = 0; at && i < n; i++, at += 16) {
        struct probe_entry e = all ? *all : coded(p, i);
        st64(at, e.low);
        st64(at + 8, e.high);
    }
}

static void vtd_on(struct probe *p)
{
    uint64_t eime = vm_config_remaps_wide(&p->cfg) ? BIT(11) : 0;
    bus_write(&p->m->mmio, VTD_GPA + VTD_REG_IRTA, 8, TABLE_GPA | eime | 0xf);
    bus_write(&p->m->mmio, VTD_GPA + VTD_REG_GCMD, 4, BIT(24));
    bus_write(&p->m->mmio, VTD_GPA + VTD_REG_GCMD, 4, BIT(25));
}

/* The device's entry: interrupts are remapped by a table of 512 entries; NMI, INIT and ExtINT pass. */
static void amdvi_on(struct probe *p, requester_id_t from)
{
    uint64_t xt = vm_config_remaps_wide(&p->cfg) ? BIT(50) : 0;
    uint8_t *dte = ram_hva(&p->m->ram, DEVICES_GPA + (uint64_t)from.rid * 32, 32);
    if (dte) {
        st64(dte, 1);
        st64(dte + 16, 1 | AMD_LEN << 1 | TABLE_GPA | UINT64_C(7) << 56 | UINT64_C(2) << 60);
    }
    bus_write(&p->m->mmio, AMDVI_GPA + AMD_REG_DEVTAB, 8, DEVICES_GPA | 0x1ff);
    bus_write(&p->m->mmio, AMDVI_GPA + AMD_REG_CONTROL, 8, BIT(0) | BIT(17) | xt);
}

bool probe_unit_on(struct probe *p, requester_id_t from)
{
    if (p->cfg.iommu.kind == VM_IOMMU_NONE || !p->cfg.iommu.intremap)
        return false;
    if (p->cfg.iommu.kind == VM_IOMMU_INTEL)
        vtd_on(p);
    else
        amdvi_on(p, from);
    return true;
}

bool probe_unit_index(struct probe *p, struct msi_msg msg, requester_id_t from, struct remap_result *r, uint32_t *index)
{
    fill(p, NULL);
    *r = remap_msi(&p->m->remap, msg, from, REMAP_LOOKUP);
    if (r->fault != REMAP_OK || !r->cookie)
        return false;
    *index = decoded(p, &r->irq);
    return true;
}

void probe_unit_entry(struct probe *p, struct probe_entry e)
{
    fill(p, &e);
}
