/* struct cpu_state from and to the kernel. What KVM has no place for, or does not take, is kept beside it (`kept`), so
 * that a vCPU comes back as it was handed in.
 *
 * The guest's TSC runs at KVM's rate: TSC = guest ns * rate + tsc_offset. An offset that nobody has moved since it was
 * set comes back exactly: KVM_VCPU_TSC_OFFSET tells.
 */
#include "cpu/kvm/kvm_priv.h"
#include "x86/cpu.h"

#include <errno.h>
#include <stdlib.h>

enum { MSR_PV_FIRST = 0x4b564d00, MXCSR_MASK_ALL = 0xffff, XSTATE_LEGACY = 3, XSAVE_HEADER = 512 };

/* The first of a state's parts that KVM refuses is kept, and the vCPU does not run with it: kvm_vcpu_run() tells. What
 * a kernel may not know at all is not among them. */
static void must(struct kvm_vcpu *v, int rc, const char *what)
{
    if (rc >= 0 || v->refused_rc)
        return;
    v->refused_rc = rc;
    v->refused = what;
}

/* ---- MSRs ---- */

/* Where each is in struct cpu_state; runs of consecutive numbers are consecutive there, too. */
static const struct msr_run {
    uint32_t msr;
    uint16_t n;
    uint16_t at;
} msr_runs[] = {
    {MSR_STAR, 1, offsetof(struct cpu_state, star)},
    {MSR_LSTAR, 1, offsetof(struct cpu_state, lstar)},
    {MSR_CSTAR, 1, offsetof(struct cpu_state, cstar)},
    {MSR_FMASK, 1, offsetof(struct cpu_state, fmask)},
    {MSR_KERNEL_GS_BASE, 1, offsetof(struct cpu_state, kernel_gs_base)},
    {MSR_SYSENTER_CS, 1, offsetof(struct cpu_state, sysenter_cs)},
    {MSR_SYSENTER_ESP, 1, offsetof(struct cpu_state, sysenter_esp)},
    {MSR_SYSENTER_EIP, 1, offsetof(struct cpu_state, sysenter_eip)},
    {MSR_PAT, 1, offsetof(struct cpu_state, pat)},
    {MSR_TSC_AUX, 1, offsetof(struct cpu_state, tsc_aux)},
    {MSR_MISC_ENABLE, 1, offsetof(struct cpu_state, misc_enable)},
    {MSR_SPEC_CTRL, 1, offsetof(struct cpu_state, spec_ctrl)},
    {MSR_FEAT_CTL, 1, offsetof(struct cpu_state, feat_ctl)},
    {MSR_TSC_ADJUST, 1, offsetof(struct cpu_state, tsc_adjust)},
    {MSR_MCG_STATUS, 1, offsetof(struct cpu_state, mcg_status)},
    {MSR_UMWAIT_CONTROL, 1, offsetof(struct cpu_state, umwait_control)},
    {MSR_MTRR_DEF_TYPE, 1, offsetof(struct cpu_state, mtrr_def_type)},
    {MSR_MTRR_FIX64K, 1, offsetof(struct cpu_state, mtrr_fixed[0])},
    {MSR_MTRR_FIX16K_0, 2, offsetof(struct cpu_state, mtrr_fixed[1])},
    {MSR_MTRR_FIX4K_0, 8, offsetof(struct cpu_state, mtrr_fixed[3])},
    {MSR_MTRR_PHYS_BASE0, 16, offsetof(struct cpu_state, mtrr_phys)},
    {MSR_PV_FIRST, CPU_PV_MSRS, offsetof(struct cpu_state, pv_msr)},
};

#define MSRS (17 + 1 + 2 + 8 + 16 + CPU_PV_MSRS)
_Static_assert(MSRS <= 64, "`missing` has a bit for each");

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry e[MSRS];
};

static uint64_t *field(struct cpu_state *s, uint16_t at, unsigned i)
{
    return (uint64_t *)((char *)s + at) + i;
}

/* Fill in numbers, and values from `s`. */
static void list_from(struct msr_list *l, struct cpu_state *s)
{
    unsigned n = 0;
    for (unsigned r = 0; r < ARRAY_SIZE(msr_runs); r++)
        for (unsigned i = 0; i < msr_runs[r].n; i++, n++)
            l->e[n] = (struct kvm_msr_entry){.index = msr_runs[r].msr + i, .data = *field(s, msr_runs[r].at, i)};
    l->head = (struct kvm_msrs){.nmsrs = n};
}

/* KVM stops at the first that it does not take: go on behind it. Bits of the list's entries that were refused. */
static uint64_t transfer(struct kvm_vcpu *v, unsigned long request, const struct msr_list *all, struct msr_list *done)
{
    uint64_t refused = 0;
    unsigned at = 0, n = all->head.nmsrs;
    while (at < n) {
        struct msr_list part = {.head.nmsrs = n - at};
        memcpy(part.e, all->e + at, (n - at) * sizeof part.e[0]);
        int rc = kvm_vcpu_iop(v, request, &part);
        unsigned took = rc > 0 ? (unsigned)rc : 0;
        memcpy(done->e + at, part.e, took * sizeof part.e[0]);
        at += took;
        if (at < n)
            refused |= BIT(at++);
    }
    return refused;
}

static void set_msrs(struct kvm_vcpu *v)
{
    struct msr_list l, done;
    list_from(&l, &v->kept);
    v->missing = transfer(v, KVM_SET_MSRS, &l, &done);
}

static void get_msrs(struct kvm_vcpu *v, struct cpu_state *s)
{
    struct msr_list l, done;
    list_from(&l, s);
    uint64_t refused = transfer(v, KVM_GET_MSRS, &l, &done) | v->missing;
    unsigned n = 0;
    for (unsigned r = 0; r < ARRAY_SIZE(msr_runs); r++)
        for (unsigned i = 0; i < msr_runs[r].n; i++, n++)
            if (!(refused >> n & 1))
                *field(s, msr_runs[r].at, i) = done.e[n].data;
}

bool kvm_msr_get(struct kvm_vcpu *v, uint32_t msr, uint64_t *val)
{
    struct msr_list l = {.head.nmsrs = 1, .e[0].index = msr};
    bool ok = kvm_vcpu_iop(v, KVM_GET_MSRS, &l) == 1;
    *val = ok ? l.e[0].data : 0;
    return ok;
}

bool kvm_msr_set(struct kvm_vcpu *v, uint32_t msr, uint64_t val)
{
    struct msr_list l = {.head.nmsrs = 1, .e[0] = {.index = msr, .data = val}};
    return kvm_vcpu_iop(v, KVM_SET_MSRS, &l) == 1;
}

/* ---- time ---- */

static uint64_t tsc_of(const struct kvm_vm *vm, uint64_t ns)
{
    uint64_t khz = vm->model.tsc_khz ? vm->model.tsc_khz : 1000000;
    return (uint64_t)((unsigned __int128)ns * khz / 1000000);
}

static bool tsc_base(struct kvm_vcpu *v, uint64_t *base)
{
    struct kvm_device_attr a = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)base};
    return v->vm->has_tsc_offset && kvm_vcpu_iop(v, KVM_GET_DEVICE_ATTR, &a) >= 0;
}

static void set_tsc(struct kvm_vcpu *v)
{
    kvm_msr_set(v, MSR_TSC, tsc_of(v->vm, guest_clock_now(v->vm->cfg.clock)) + v->kept.tsc_offset);
    if (!tsc_base(v, &v->tsc_base))
        v->tsc_base = 0;
}

static uint64_t get_tsc_offset(struct kvm_vcpu *v)
{
    uint64_t base, tsc;
    if (tsc_base(v, &base))
        return v->kept.tsc_offset + (base - v->tsc_base);
    if (!kvm_msr_get(v, MSR_TSC, &tsc))
        return v->kept.tsc_offset;
    return tsc - tsc_of(v->vm, guest_clock_now(v->vm->cfg.clock));
}

/* ---- general and segment registers ---- */

static void regs_out(const struct kvm_regs *r, struct cpu_state *s)
{
    const uint64_t gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                              r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    memcpy(s->gpr, gpr, sizeof gpr);
    s->rip = r->rip;
    s->rflags = r->rflags;
}

static void regs_in(const struct cpu_state *s, struct kvm_regs *r)
{
    const uint64_t *g = s->gpr;
    *r = (struct kvm_regs){.rax = g[RAX],
                           .rcx = g[RCX],
                           .rdx = g[RDX],
                           .rbx = g[RBX],
                           .rsp = g[RSP],
                           .rbp = g[RBP],
                           .rsi = g[RSI],
                           .rdi = g[RDI],
                           .r8 = g[8],
                           .r9 = g[9],
                           .r10 = g[10],
                           .r11 = g[11],
                           .r12 = g[12],
                           .r13 = g[13],
                           .r14 = g[14],
                           .r15 = g[15],
                           .rip = s->rip,
                           .rflags = s->rflags};
}

/* Of an unusable segment only that, its DPL and its selector mean anything; the rest comes back as it went in. */
static void segment_out(const struct kvm_segment *k, struct cpu_segment *s)
{
    uint32_t attr = k->type | (uint32_t)k->s << 4 | (uint32_t)k->dpl << SEGA_DPL_SHIFT | (k->present ? SEGA_P : 0) |
                    (k->avl ? SEGA_AVL : 0) | (k->l ? SEGA_L : 0) | (k->db ? SEGA_DB : 0) | (k->g ? SEGA_G : 0);
    if (k->unusable && s->attr & SEGA_UNUSABLE && k->selector == s->sel) {
        s->attr = (s->attr & ~(3u << SEGA_DPL_SHIFT)) | (uint32_t)k->dpl << SEGA_DPL_SHIFT;
        s->base = k->base;
        return;
    }
    *s = (struct cpu_segment){.base = k->base,
                              .limit = k->limit,
                              .sel = k->selector,
                              .attr = k->unusable ? SEGA_UNUSABLE | (uint32_t)k->dpl << SEGA_DPL_SHIFT : attr};
}

static void segment_in(const struct cpu_segment *s, struct kvm_segment *k)
{
    uint32_t a = s->attr;
    *k = (struct kvm_segment){.base = s->base,
                              .limit = s->limit,
                              .selector = s->sel,
                              .type = a & SEGA_TYPE,
                              .s = !!(a & SEGA_S),
                              .dpl = a >> SEGA_DPL_SHIFT & 3,
                              .present = !!(a & SEGA_P),
                              .avl = !!(a & SEGA_AVL),
                              .l = !!(a & SEGA_L),
                              .db = !!(a & SEGA_DB),
                              .g = !!(a & SEGA_G),
                              .unusable = !!(a & SEGA_UNUSABLE)};
}

static struct kvm_segment *segment_of(struct kvm_sregs *k, unsigned i)
{
    struct kvm_segment *seg[SEG_COUNT] = {&k->es, &k->cs, &k->ss, &k->ds, &k->fs, &k->gs, &k->ldt, &k->tr};
    return seg[i];
}

static void sregs_out(struct kvm_sregs *k, struct cpu_state *s)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_out(segment_of(k, i), &s->seg[i]);
    s->gdtr = (struct cpu_dtable){.base = k->gdt.base, .limit = k->gdt.limit};
    s->idtr = (struct cpu_dtable){.base = k->idt.base, .limit = k->idt.limit};
    s->cr0 = k->cr0;
    s->cr2 = k->cr2;
    s->cr3 = k->cr3;
    s->cr4 = k->cr4;
    s->efer = k->efer;
}

/* CR8 and the APIC's base are the local APIC's; what is queued for injection goes with the events. */
static void sregs_in(const struct cpu_state *s, struct kvm_sregs *k)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_in(&s->seg[i], segment_of(k, i));
    k->gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
    k->idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
    k->cr0 = s->cr0;
    k->cr2 = s->cr2;
    k->cr3 = s->cr3;
    k->cr4 = s->cr4;
    k->efer = s->efer;
    memset(k->interrupt_bitmap, 0, sizeof k->interrupt_bitmap);
}

/* ---- FPU ---- */

/* The legacy area of XSAVE is FXSAVE's image; components past it are left as they are. SDM 1, "XSAVE Area". */
static void get_xsave(struct kvm_vcpu *v, struct cpu_fx *fx)
{
    uint8_t *area = calloc(1, v->vm->xsave_size);
    bool big = v->vm->xsave_size > sizeof(struct kvm_xsave);
    if (area && kvm_vcpu_iop(v, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area) >= 0) {
        memcpy(fx, area, sizeof *fx);
        memset(fx->reserved1, 0, sizeof fx->reserved1);
        fx->mxcsr_mask = MXCSR_MASK_ALL;
    }
    free(area);
}

static void set_xsave(struct kvm_vcpu *v, const struct cpu_fx *fx)
{
    uint8_t *area = calloc(1, v->vm->xsave_size);
    bool big = v->vm->xsave_size > sizeof(struct kvm_xsave);
    if (area && kvm_vcpu_iop(v, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area) >= 0) {
        uint32_t mask = ld32(area + offsetof(struct cpu_fx, mxcsr_mask));
        memcpy(area, fx, offsetof(struct cpu_fx, reserved1));
        st32(area + offsetof(struct cpu_fx, mxcsr_mask), mask);
        st64(area + XSAVE_HEADER, ld64(area + XSAVE_HEADER) | XSTATE_LEGACY);
        must(v, kvm_vcpu_iop(v, KVM_SET_XSAVE, area), "KVM_SET_XSAVE");
    }
    free(area);
}

static void get_fpu(struct kvm_vcpu *v, struct cpu_fx *fx)
{
    struct kvm_fpu f;
    if (kvm_vcpu_iop(v, KVM_GET_FPU, &f) < 0)
        return;
    *fx = (struct cpu_fx){.fcw = f.fcw,
                          .fsw = f.fsw,
                          .ftw_abridged = f.ftwx,
                          .fop = f.last_opcode,
                          .fip = f.last_ip,
                          .fdp = f.last_dp,
                          .mxcsr = f.mxcsr,
                          .mxcsr_mask = MXCSR_MASK_ALL};
    memcpy(fx->st, f.fpr, sizeof fx->st);
    memcpy(fx->xmm, f.xmm, sizeof fx->xmm);
}

static void set_fpu(struct kvm_vcpu *v, const struct cpu_fx *fx)
{
    struct kvm_fpu f = {.fcw = fx->fcw,
                        .fsw = fx->fsw,
                        .ftwx = fx->ftw_abridged,
                        .last_opcode = fx->fop,
                        .last_ip = fx->fip,
                        .last_dp = fx->fdp,
                        .mxcsr = fx->mxcsr};
    memcpy(f.fpr, fx->st, sizeof fx->st);
    memcpy(f.xmm, fx->xmm, sizeof fx->xmm);
    must(v, kvm_vcpu_iop(v, KVM_SET_FPU, &f), "KVM_SET_FPU");
}

static void get_xcr0(struct kvm_vcpu *v, struct cpu_state *s)
{
    struct kvm_xcrs x;
    if (v->vm->has_xcrs && kvm_vcpu_iop(v, KVM_GET_XCRS, &x) >= 0 && x.nr_xcrs)
        s->xcr0 = x.xcrs[0].value;
}

static void set_xcr0(struct kvm_vcpu *v, const struct cpu_state *s)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = s->xcr0};
    if (v->vm->has_xcrs)
        must(v, kvm_vcpu_iop(v, KVM_SET_XCRS, &x), "KVM_SET_XCRS");
}

/* ---- debug registers, events, activity ---- */

static void get_debug(struct kvm_vcpu *v, struct cpu_state *s)
{
    struct kvm_debugregs d;
    if (kvm_vcpu_iop(v, KVM_GET_DEBUGREGS, &d) < 0)
        return;
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = d.db[i];
    s->dr[4] = s->dr[5] = 0;
    s->dr[6] = d.dr6;
    s->dr[7] = d.dr7;
}

static void set_debug(struct kvm_vcpu *v, const struct cpu_state *s)
{
    struct kvm_debugregs d = {.db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]}, .dr6 = s->dr[6], .dr7 = s->dr[7]};
    must(v, kvm_vcpu_iop(v, KVM_SET_DEBUGREGS, &d), "KVM_SET_DEBUGREGS");
}

/* KVM: 1 MOV SS, 2 STI. */
static void get_events(struct kvm_vcpu *v, struct cpu_state *s)
{
    struct kvm_vcpu_events e;
    if (kvm_vcpu_iop(v, KVM_GET_VCPU_EVENTS, &e) < 0)
        return;
    s->nmi_blocked = e.nmi.masked != 0;
    s->int_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2
                    : e.interrupt.shadow & KVM_X86_SHADOW_INT_STI  ? 1
                                                                   : 0;
}

/* Setting a vCPU's state drops what was pending at it, as power-on does; struct cpu_apic brings its own. */
static void set_events(struct kvm_vcpu *v, const struct cpu_state *s)
{
    struct kvm_vcpu_events e = {.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW};
    e.nmi.masked = s->nmi_blocked;
    e.interrupt.shadow = s->int_shadow == 2   ? KVM_X86_SHADOW_INT_MOV_SS
                         : s->int_shadow == 1 ? KVM_X86_SHADOW_INT_STI
                                              : 0;
    must(v, kvm_vcpu_iop(v, KVM_SET_VCPU_EVENTS, &e), "KVM_SET_VCPU_EVENTS");
}

/* Reading it also has KVM take a pending INIT or start-up IPI, so it comes before the registers. */
static uint8_t get_activity(struct kvm_vcpu *v)
{
    struct kvm_mp_state m;
    if (v->shutdown)
        return CPU_SHUTDOWN;
    if (kvm_vcpu_iop(v, KVM_GET_MP_STATE, &m) < 0)
        return v->kept.activity;
    switch (m.mp_state) {
    case KVM_MP_STATE_HALTED:
        return CPU_HALTED;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        return CPU_WAIT_SIPI;
    default:
        return CPU_ACTIVE;
    }
}

/* INIT_RECEIVED and not UNINITIALIZED: the next thing a waiting CPU takes is a start-up IPI. */
static void set_activity(struct kvm_vcpu *v, uint8_t activity)
{
    struct kvm_mp_state m = {.mp_state = activity == CPU_HALTED      ? KVM_MP_STATE_HALTED
                                         : activity == CPU_WAIT_SIPI ? KVM_MP_STATE_INIT_RECEIVED
                                                                     : KVM_MP_STATE_RUNNABLE};
    v->shutdown = activity == CPU_SHUTDOWN;
    must(v, kvm_vcpu_iop(v, KVM_SET_MP_STATE, &m), "KVM_SET_MP_STATE");
}

/* ---- engine_ops ---- */

void kvm_get_state(struct engine_vcpu *ev, struct cpu_state *out)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    struct kvm_regs r;
    struct kvm_sregs k;
    *out = v->kept;
    out->activity = get_activity(v);
    if (kvm_vcpu_iop(v, KVM_GET_REGS, &r) >= 0)
        regs_out(&r, out);
    if (kvm_vcpu_iop(v, KVM_GET_SREGS, &k) >= 0)
        sregs_out(&k, out);
    if (v->vm->xsave_size)
        get_xsave(v, &out->fx);
    else
        get_fpu(v, &out->fx);
    get_xcr0(v, out);
    get_debug(v, out);
    get_events(v, out);
    get_msrs(v, out);
    out->tsc_offset = get_tsc_offset(v);
}

void kvm_set_state(struct engine_vcpu *ev, const struct cpu_state *in)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    struct kvm_regs r;
    struct kvm_sregs k;
    v->kept = *in;
    v->incomplete = false;
    v->refused_rc = 0;
    int rc = kvm_vcpu_iop(v, KVM_GET_SREGS, &k);
    must(v, rc, "KVM_GET_SREGS");
    sregs_in(in, &k);
    if (rc >= 0)
        must(v, kvm_vcpu_iop(v, KVM_SET_SREGS, &k), "KVM_SET_SREGS");
    regs_in(in, &r);
    must(v, kvm_vcpu_iop(v, KVM_SET_REGS, &r), "KVM_SET_REGS");
    if (v->vm->xsave_size)
        set_xsave(v, &in->fx);
    else
        set_fpu(v, &in->fx);
    set_xcr0(v, in);
    set_debug(v, in);
    set_tsc(v);
    set_msrs(v);
    set_events(v, in);
    set_activity(v, in->activity);
}
