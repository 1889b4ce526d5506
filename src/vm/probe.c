#include "vm/probe.h"

#include "vm/machine_priv.h"
#include "vm/probe_priv.h"
#include "x86/apic.h"
#include "x86/cpu.h"

#include <errno.h>
#include <stdlib.h>

#define PROBE_MEM (UINT64_C(64) << 20) /* none of it is touched but what a remapping table takes */

/* ---- lifecycle ---- */

int probe_create(const struct vm_config *c, struct probe **out, struct err *e)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, -ENOMEM, "out of memory for the machine");
    p->cfg = *c;
    p->cfg.serial[0] = (struct vm_serial){.kind = VM_SERIAL_NULL};
    p->cfg.dev = (struct vm_devices){.drives = NULL};
    p->cfg.trace_mask = 0;
    p->cfg.trace_json = false;
    p->cfg.trace_file = NULL;
    p->cfg.mem_size = PROBE_MEM;
    p->cfg.workers = 1;
    p->cfg.engine = VM_ACCEL_SOFT; /* whose fabric can be asked; the messages are the same under every engine */
    int rc = machine_create(&p->cfg, &p->m, e);
    if (rc) {
        free(p);
        return rc;
    }
    epoch_enter(&p->m->epoch, p->m->epoch_slot);
    *out = p;
    return 0;
}

void probe_destroy(struct probe *p)
{
    if (!p)
        return;
    epoch_leave(&p->m->epoch, p->m->epoch_slot);
    machine_destroy(p->m);
    free(p);
}

/* ---- looking at it ---- */

const struct remap *probe_remap(const struct probe *p)
{
    return &p->m->remap;
}

struct fabric *probe_fabric(const struct probe *p)
{
    return p->m->fabric;
}

struct bus *probe_mmio(struct probe *p)
{
    return &p->m->mmio;
}

requester_id_t probe_ioapic_rid(const struct probe *p)
{
    return REQUESTER_ID(IOAPIC_REQUESTER);
}

uint32_t probe_cpus(const struct probe *p)
{
    return p->cfg.smp.cpus;
}

bool probe_has_x2apic(const struct probe *p)
{
    return p->m->cpuid.std1_ecx & CPUID_1_ECX_X2APIC;
}

/* ---- using it ---- */

static bool in_x2apic(const struct probe *p, vcpu_idx_t cpu)
{
    uint64_t base = 0;
    fabric_msr_read(p->m->fabric, cpu, 0, MSR_APIC_BASE, &base);
    return base & APIC_BASE_EXTD;
}

static bool set_base(const struct probe *p, vcpu_idx_t cpu, uint64_t flags)
{
    return fabric_msr_write(p->m->fabric, cpu, 0, MSR_APIC_BASE,
                            APIC_BASE_DEFAULT | (cpu.i ? 0 : APIC_BASE_BSP) | flags);
}

static bool write_reg(const struct probe *p, vcpu_idx_t cpu, unsigned reg, uint32_t val)
{
    if (in_x2apic(p, cpu))
        return fabric_msr_write(p->m->fabric, cpu, 0, MSR_X2APIC_FIRST + reg, val);
    fabric_mmio_write(p->m->fabric, cpu, 0, reg << 4, val);
    return true;
}

/* The way back from x2APIC mode is through "disabled". A mode that is right already is left alone: each change is a new
 * destination map. */
static bool set_mode(const struct probe *p, vcpu_idx_t cpu, bool x2apic)
{
    if (in_x2apic(p, cpu) == x2apic)
        return true;
    return x2apic ? set_base(p, cpu, APIC_BASE_EN | APIC_BASE_EXTD)
                  : set_base(p, cpu, 0) && set_base(p, cpu, APIC_BASE_EN);
}

static bool bring_up_one(const struct probe *p, vcpu_idx_t cpu, bool x2apic)
{
    if (!set_mode(p, cpu, x2apic))
        return false;
    if (!x2apic && p->cfg.smp.cpus <= 8)
        write_reg(p, cpu, APIC_LDR, 1u << (24 + cpu.i));
    return write_reg(p, cpu, APIC_SVR, APIC_SVR_ENABLE | 0xff);
}

bool probe_bring_up(struct probe *p, bool x2apic)
{
    bool ok = true;
    fabric_reset(p->m->fabric);
    for (uint32_t i = 0; i < p->cfg.smp.cpus && ok; i++)
        ok = bring_up_one(p, VCPU_IDX(i), x2apic);
    return ok;
}

int probe_deliver(struct probe *p, struct irq irq)
{
    return fabric_deliver(p->m->fabric, irq);
}

bool probe_icr(struct probe *p, vcpu_idx_t cpu, uint64_t icr)
{
    if (in_x2apic(p, cpu))
        return fabric_msr_write(p->m->fabric, cpu, 0, MSR_X2APIC_FIRST + APIC_ICR, icr);
    write_reg(p, cpu, APIC_ICR2, (uint32_t)(icr >> 32));
    write_reg(p, cpu, APIC_ICR, (uint32_t)icr);
    return true;
}

struct probe_got probe_take(struct probe *p, vcpu_idx_t cpu)
{
    struct probe_got got = {.vector = -1};
    got.events = fabric_events_take(p->m->fabric, cpu, &got.sipi);
    got.vector = fabric_irq_pending(p->m->fabric, cpu);
    if (got.vector < 0 || got.vector == FABRIC_IRQ_EXTINT)
        return got;
    fabric_irq_take(p->m->fabric, cpu);
    write_reg(p, cpu, APIC_EOI, 0);
    return got;
}
