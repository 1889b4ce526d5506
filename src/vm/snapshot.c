#include "vm/snapshot.h"

#include "base/bits.h"
#include "vm/machine_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void machine_cpu_get(struct machine *m, vcpu_idx_t cpu, struct machine_cpu *out)
{
    struct engine_vcpu *v = m->ops->vcpu(m->engine, cpu);
    memset(out, 0, sizeof *out);
    epoch_enter(&m->epoch, m->epoch_slot);
    m->ops->get_state(v, &out->state);
    m->ops->get_apic(v, &out->apic);
    epoch_leave(&m->epoch, m->epoch_slot);
}

/* The APIC after the state: what waits to be delivered is part of the APIC's form, and a state that is set clears it.
 */
bool machine_cpu_set(struct machine *m, vcpu_idx_t cpu, const struct machine_cpu *in)
{
    struct engine_vcpu *v = m->ops->vcpu(m->engine, cpu);
    epoch_enter(&m->epoch, m->epoch_slot);
    m->ops->set_state(v, &in->state);
    bool ok = m->ops->set_apic(v, &in->apic);
    epoch_leave(&m->epoch, m->epoch_slot);
    return ok;
}

int machine_snapshot(struct machine *m, struct machine_snapshot **out, struct err *e)
{
    uint32_t n = m->cfg->smp.cpus;
    struct machine_snapshot *s = malloc(sizeof *s + n * sizeof s->cpu[0]);
    if (!s)
        return err_set(e, -ENOMEM, "out of memory for the state of %u vCPUs", n);
    s->cpus = n;
    for (uint32_t i = 0; i < n; i++)
        machine_cpu_get(m, VCPU_IDX(i), &s->cpu[i]);
    *out = s;
    return 0;
}

int machine_restore(struct machine *m, const struct machine_snapshot *s, struct err *e)
{
    uint32_t n = m->cfg->smp.cpus;
    if (s->cpus != n)
        return err_set(e, -EINVAL, "a state of %u vCPUs for a machine of %u", s->cpus, n);
    for (uint32_t i = 0; i < n; i++)
        if (!machine_cpu_set(m, VCPU_IDX(i), &s->cpu[i]))
            return err_set(e, -EINVAL, "vCPU %u: its local APIC can't be in the state it is to have", i);
    return 0;
}

/* ---- hash ---- */

static uint64_t fnv(uint64_t h, const void *p, uint64_t n)
{
    for (const uint8_t *b = p; n; n--)
        h = (h ^ *b++) * UINT64_C(0x100000001b3);
    return h;
}

/* Field by field: the structure has padding, which an engine need not keep. */
static uint64_t hash_state(uint64_t h, const struct cpu_state *s)
{
    const uint64_t plain[] = {s->rip,        s->rflags,         s->cr0,           s->cr2,          s->cr3,
                              s->cr4,        s->efer,           s->star,          s->lstar,        s->cstar,
                              s->fmask,      s->kernel_gs_base, s->sysenter_cs,   s->sysenter_esp, s->sysenter_eip,
                              s->pat,        s->tsc_aux,        s->misc_enable,   s->spec_ctrl,    s->feat_ctl,
                              s->tsc_offset, s->tsc_adjust,     s->mtrr_def_type, s->mcg_status,   s->umwait_control,
                              s->xcr0,       s->activity,       s->nmi_blocked,   s->int_shadow,   s->gdtr.base,
                              s->gdtr.limit, s->idtr.base,      s->idtr.limit};
    h = fnv(h, s->gpr, sizeof s->gpr);
    h = fnv(h, plain, sizeof plain);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const uint64_t seg[] = {s->seg[i].base, s->seg[i].limit, s->seg[i].attr, s->seg[i].sel};
        h = fnv(h, seg, sizeof seg);
    }
    h = fnv(h, s->dr, sizeof s->dr);
    h = fnv(h, s->mtrr_fixed, sizeof s->mtrr_fixed);
    h = fnv(h, s->mtrr_phys, sizeof s->mtrr_phys);
    return fnv(h, &s->fx, offsetof(struct cpu_fx, reserved1));
}

static uint64_t hash_apic(uint64_t h, const struct cpu_apic *a)
{
    const uint64_t plain[] = {a->base,
                              a->tsc_deadline,
                              a->timer_left,
                              a->nmi_pending,
                              a->smi_pending,
                              a->init_pending,
                              a->sipi_pending,
                              a->sipi_page,
                              a->exception,
                              a->injected,
                              a->exception_vector,
                              a->exception_has_error,
                              a->exception_error,
                              a->injected_vector};
    h = fnv(h, plain, sizeof plain);
    return fnv(h, a->regs, sizeof a->regs);
}

uint64_t machine_cpu_hash(uint64_t h, const struct machine_cpu *c)
{
    return hash_apic(hash_state(h, &c->state), &c->apic);
}
