#include "cpu/soft/event.h"

#include "cpu/soft/far.h"

/* One event on its way through the IDT. */
struct event {
    uint8_t vector;
    bool soft;     /* INT n, INT3, INTO: the gate's DPL counts, and nested errors have EXT = 0 */
    bool external; /* interrupt or NMI */
    bool has_error;
    uint32_t error;
    uint64_t ret;   /* RIP to push */
    uint64_t flags; /* RFLAGS to push */
};

struct gate {
    uint64_t lo, hi;
    bool wide; /* 32-bit */
    bool trap;
    uint16_t sel;
    uint64_t off;
};

#define IDT_ERR(vector) ((uint32_t)(vector) << 3 | 2)

/* ---- common ends ---- */

/* The handler's flags: SDM 3A, "Flag Usage By Exception- or Interrupt-Handler Procedure". */
static void commit_flags(struct soft_vcpu *v, uint64_t clear)
{
    flags_load(v, flags_get(v) & ~clear);
}

static bool idt_fault(struct soft_vcpu *v, unsigned vec, const struct event *e)
{
    fault_set(v, vec, true, IDT_ERR(e->vector));
    return false;
}

/* ---- real mode: SDM 3B, "Interrupt and Exception Handling" of "Real-Address Mode Operation" ---- */

static bool deliver_real(struct soft_vcpu *v, const struct event *e)
{
    uint8_t ivt[4];
    struct far_stack s;
    struct far_frame f = {.size = 2};
    if (e->vector * 4u + 3 > v->st.idtr.limit)
        return idt_fault(v, VEC_GP, e);
    if (!lin_read(v, (uint32_t)(v->st.idtr.base + e->vector * 4u), ivt, 4, ACC_READ | ACC_SUPER))
        return false;
    stack_current(v, &s);
    frame_add(&f, e->flags);
    frame_add(&f, v->st.seg[SEG_CS].sel);
    frame_add(&f, e->ret);
    struct cpu_segment cs = v->st.seg[SEG_CS];
    seg_set_real(v, &cs, ld16(ivt + 2));
    if (!seg_check_ip(v, &cs, ld16(ivt)) || !stack_push_frame(v, &s, &f))
        return false;
    stack_commit(v, &s);
    commit_flags(v, RF_IF | RF_TF | RF_AC | RF_RF);
    v->st.seg[SEG_CS] = cs;
    v->st.rip = ld16(ivt);
    return true;
}

/* ---- protected mode and IA-32e mode: SDM 3A, "Exception and Interrupt Handling" ---- */

static bool gate_type_ok(const struct soft_vcpu *v, uint64_t lo)
{
    unsigned type = desc_is_segment(lo) ? 0 : desc_type(lo);
    if (type == DT_INT32 || type == DT_TRAP32)
        return true;
    return !in_ia32e(v) && (type == DT_INT16 || type == DT_TRAP16 || type == DT_TASK_GATE);
}

static bool gate_read(struct soft_vcpu *v, const struct event *e, struct gate *g)
{
    unsigned size = in_ia32e(v) ? 16 : 8;
    uint64_t d[2] = {0, 0};
    if (e->vector * size + size - 1 > v->st.idtr.limit)
        return idt_fault(v, VEC_GP, e);
    gva_t at = v->st.idtr.base + e->vector * size;
    if (!lin_read(v, size == 16 ? at : (uint32_t)at, d, size, ACC_READ | ACC_SUPER))
        return false;
    if (!gate_type_ok(v, d[0]) || (e->soft && desc_dpl(d[0]) < cpl(v)))
        return idt_fault(v, VEC_GP, e);
    if (!desc_present(d[0]))
        return idt_fault(v, VEC_NP, e);
    *g = (struct gate){.lo = d[0], .hi = d[1], .wide = desc_type(d[0]) & 8, .trap = desc_type(d[0]) & 1};
    g->sel = (uint16_t)bits(d[0], 31, 16);
    g->off = bits(d[0], 15, 0) | (g->wide ? bits(d[0], 63, 48) << 16 : 0) | bits(d[1], 31, 0) << 32;
    return true;
}

/* The handler's code segment, and whether reaching it means a more privileged level. */
static bool gate_cs(struct soft_vcpu *v, const struct gate *g, struct cpu_segment *cs, bool *inner)
{
    uint64_t d;
    gva_t at;
    if (sel_is_null(g->sel))
        return raise_sel(v, VEC_GP, 0);
    if (!desc_read(v, g->sel, VEC_GP, &d, &at))
        return false;
    unsigned level = desc_dpl(d);
    bool wrong_size = in_ia32e(v) && (!desc_long(d) || desc_big(d));
    if (!desc_is_code(d) || level > cpl(v) || wrong_size)
        return raise_sel(v, VEC_GP, g->sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, g->sel);
    *inner = !desc_conforming(d) && level < cpl(v);
    if (in_v86(v) && (!*inner || level != 0))
        return raise_sel(v, VEC_GP, g->sel);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(cs, (uint16_t)((g->sel & ~3u) | (*inner ? level : cpl(v))), d);
    return seg_check_ip(v, cs, g->off);
}

static void push_v86_segments(const struct soft_vcpu *v, struct far_frame *f)
{
    frame_add(f, v->st.seg[SEG_GS].sel);
    frame_add(f, v->st.seg[SEG_FS].sel);
    frame_add(f, v->st.seg[SEG_DS].sel);
    frame_add(f, v->st.seg[SEG_ES].sel);
}

static void push_return(const struct soft_vcpu *v, const struct event *e, struct far_frame *f)
{
    frame_add(f, e->flags);
    frame_add(f, v->st.seg[SEG_CS].sel);
    frame_add(f, e->ret);
    if (e->has_error)
        frame_add(f, e->error);
}

static void push_stack(const struct soft_vcpu *v, struct far_frame *f)
{
    frame_add(f, v->st.seg[SEG_SS].sel);
    frame_add(f, v->st.gpr[RSP]);
}

static void enter_handler(struct soft_vcpu *v, const struct gate *g, const struct cpu_segment *cs,
                          const struct far_stack *s)
{
    stack_commit(v, s);
    commit_flags(v, RF_TF | RF_NT | RF_RF | RF_VM | (g->trap ? 0 : RF_IF));
    v->st.seg[SEG_CS] = *cs;
    v->st.rip = g->off;
}

static void null_v86_segments(struct soft_vcpu *v)
{
    seg_set_null(&v->st.seg[SEG_GS], 0, 0);
    seg_set_null(&v->st.seg[SEG_FS], 0, 0);
    seg_set_null(&v->st.seg[SEG_DS], 0, 0);
    seg_set_null(&v->st.seg[SEG_ES], 0, 0);
}

static bool deliver_task(struct soft_vcpu *v, const struct event *e, const struct gate *g)
{
    struct task_args a = {g->sel, TASK_GATE, e->ret, e->flags, e->has_error, e->error, false};
    return task_switch_to(v, &a);
}

static bool deliver_protected(struct soft_vcpu *v, const struct event *e)
{
    struct gate g;
    struct cpu_segment cs;
    struct far_stack s;
    bool inner, v86 = in_v86(v);
    if (!gate_read(v, e, &g))
        return false;
    if (desc_type(g.lo) == DT_TASK_GATE)
        return deliver_task(v, e, &g);
    if (!gate_cs(v, &g, &cs, &inner))
        return false;
    struct far_frame f = {.size = g.wide ? 4 : 2};
    if (!inner)
        stack_current(v, &s);
    else if (!stack_from_tss(v, cs.sel & 3, &s))
        return false;
    if (v86)
        push_v86_segments(v, &f);
    if (inner)
        push_stack(v, &f);
    push_return(v, e, &f);
    if (!stack_push_frame(v, &s, &f))
        return false;
    enter_handler(v, &g, &cs, &s);
    if (v86)
        null_v86_segments(v);
    return true;
}

/* SDM 3A, "64-Bit Mode Stack Frame", "Stack Switching in IA-32e Mode" and "Interrupt Stack Table". */
static bool deliver_long(struct soft_vcpu *v, const struct event *e)
{
    struct gate g;
    struct cpu_segment cs;
    struct far_stack s;
    struct far_frame f = {.size = 8};
    bool inner;
    if (!gate_read(v, e, &g) || !gate_cs(v, &g, &cs, &inner))
        return false;
    unsigned ist = bits(g.lo, 34, 32);
    stack_current(v, &s);
    s.code64 = true;
    if (ist) {
        if (!stack_from_ist(v, ist, &s.sp))
            return false;
        if (inner)
            seg_set_null(&s.ss, cs.sel & 3, cs.sel & 3);
    } else if (inner && !stack_from_tss(v, cs.sel & 3, &s)) {
        return false;
    }
    s.acc = (cs.sel & 3) < 3 ? ACC_SUPER : 0;
    s.sp &= ~UINT64_C(15);
    push_stack(v, &f);
    push_return(v, e, &f);
    if (!stack_push_frame(v, &s, &f))
        return false;
    enter_handler(v, &g, &cs, &s);
    return true;
}

static bool deliver(struct soft_vcpu *v, const struct event *e)
{
    bool ok = !in_protected(v) ? deliver_real(v, e) : in_ia32e(v) ? deliver_long(v, e) : deliver_protected(v, e);
    mode_update(v);
    return ok;
}

/* ---- promotion: SDM 3A, "Interrupt 8 - Double Fault Exception (#DF)" ---- */

enum event_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE, CLASS_DOUBLE };

static enum event_class vector_class(unsigned vector)
{
    switch (vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        return CLASS_CONTRIBUTORY;
    case VEC_PF:
        return CLASS_PAGE;
    case VEC_DF:
        return CLASS_DOUBLE;
    default:
        return CLASS_BENIGN;
    }
}

/* Fault-class exceptions return to the instruction, which must not hit its breakpoint again: the image has RF. SDM 3B,
 * "Instruction-Breakpoint Exception Condition". */
static uint64_t flags_image(struct soft_vcpu *v, bool fault)
{
    uint64_t f = flags_get(v);
    return fault ? f | RF_RF : f;
}

static void event_from_fault(struct soft_vcpu *v, struct event *e)
{
    const struct fault *f = &v->fault;
    bool retried = f->kind == FAULT_EXCEPTION && f->vector != VEC_DF && f->vector != VEC_MC;
    *e = (struct event){.vector = f->vector, .has_error = f->has_error, .error = f->error, .ret = v->st.rip};
    e->soft = f->kind == FAULT_SOFT_INT;
    e->flags = flags_image(v, retried);
    if (f->kind == FAULT_SOFT_INT || f->kind == FAULT_ICEBP) {
        e->ret = v->next_rip;
        e->flags &= ~RF_RF;
    }
}

/* SDM 3A, "Error Code": EXT says that the event being delivered was not the program's own INT. */
static void mark_external(struct fault *f)
{
    if (f->kind == FAULT_EXCEPTION && f->has_error && f->vector >= VEC_TS && f->vector <= VEC_GP)
        f->error |= 1;
}

/* Delivering `e` raised v->fault: what comes next? False: shutdown. */
static bool promote(struct soft_vcpu *v, struct event *e)
{
    bool was_event = e->external || e->soft;
    enum event_class first = was_event ? CLASS_BENIGN : vector_class(e->vector);
    if (v->fault.kind == FAULT_SHUTDOWN)
        return false;
    if (!e->soft)
        mark_external(&v->fault);
    enum event_class second = v->fault.kind == FAULT_EXCEPTION ? vector_class(v->fault.vector) : CLASS_BENIGN;
    if (first == CLASS_DOUBLE && second != CLASS_BENIGN)
        return false;
    if ((first == CLASS_CONTRIBUTORY && second == CLASS_CONTRIBUTORY) ||
        (first == CLASS_PAGE && second != CLASS_BENIGN))
        fault_set(v, VEC_DF, true, 0);
    event_from_fault(v, e);
    return true;
}

static void trace_event(struct soft_vcpu *v, const struct event *e)
{
    trace(v->vm->cfg.trace, TRACE_INT, "cpu%u: %s %02x error %x at %04x:%llx cpl %u flags %llx cr2 %llx", v->idx.i,
          e->external ? "interrupt"
          : e->soft   ? "int"
                      : "exception",
          e->vector, e->has_error ? e->error : 0, v->st.seg[SEG_CS].sel, (unsigned long long)v->st.rip, cpl(v),
          (unsigned long long)e->flags, (unsigned long long)v->st.cr2);
}

static bool shut_down(struct soft_vcpu *v, const struct event *e)
{
    trace(v->vm->cfg.trace, TRACE_CPU,
          "cpu%u: shutdown: fault %02x while delivering %02x at %04x:%llx, rsp %llx, cr2 %llx", v->idx.i,
          v->fault.vector, e->vector, v->st.seg[SEG_CS].sel, (unsigned long long)v->st.rip,
          (unsigned long long)v->st.gpr[RSP], (unsigned long long)v->st.cr2);
    v->st.activity = CPU_SHUTDOWN;
    if (v->run)
        v->run->exit = CPU_EXIT_SHUTDOWN;
    return false;
}

static bool deliver_or_promote(struct soft_vcpu *v, struct event *e)
{
    v->st.int_shadow = 0;
    v->st.activity = CPU_ACTIVE;
    for (;;) {
        trace_event(v, e);
        if (deliver(v, e))
            break;
        if (!promote(v, e))
            return shut_down(v, e);
    }
    if (e->vector == VEC_DB && !e->soft && !e->external)
        v->st.dr[7] &= ~DR7_GD;
    return true;
}

bool event_deliver_fault(struct soft_vcpu *v)
{
    struct event e;
    event_from_fault(v, &e);
    if (v->fault.kind == FAULT_SHUTDOWN)
        return shut_down(v, &e);
    return deliver_or_promote(v, &e);
}

bool event_deliver_interrupt(struct soft_vcpu *v, uint8_t vector)
{
    struct event e = {.vector = vector, .external = true, .ret = v->st.rip, .flags = flags_get(v)};
    if (vector == VEC_NMI)
        v->st.nmi_blocked = 1;
    return deliver_or_promote(v, &e);
}

/* A trap: the pushed image has no RF of its own. General detect alone is a fault. SDM 3B, "Debug Exception (#DB)". */
void event_raise_db(struct soft_vcpu *v, uint64_t dr6)
{
    v->st.dr[6] = (v->st.dr[6] & ~UINT64_C(15)) | dr6 | DR6_FIXED;
    fault_set(v, VEC_DB, false, 0);
    if (!(dr6 & DR6_BD))
        v->fault.kind = FAULT_DEBUG;
}

/* ---- events at an instruction boundary ---- */

static struct fabric *v_fabric(const struct soft_vcpu *v)
{
    return v->vm->cfg.fabric;
}

static void take_init(struct soft_vcpu *v)
{
    trace(v->vm->cfg.trace, TRACE_CPU, "cpu%u: INIT", v->idx.i);
    cpu_state_init(&v->st);
    v->cc_op = CC_RFLAGS;
    v->tpause_until = 0;
    v->irq_waiting = false;
    tlb_flush_all(v);
    mode_update(v);
}

static void take_sipi(struct soft_vcpu *v, uint8_t page)
{
    if (v->st.activity != CPU_WAIT_SIPI)
        return;
    trace(v->vm->cfg.trace, TRACE_CPU, "cpu%u: SIPI page %02x", v->idx.i, page);
    cpu_state_sipi(&v->st, page);
    mode_update(v);
}

/* HLT is over after the instruction itself, so a shadow it ran in is over too. */
static void settle_halt(struct soft_vcpu *v)
{
    if (v->st.activity != CPU_HALTED && !v->tpause_until)
        return;
    if (v->st.int_shadow) {
        v->st.int_shadow = 0;
        mode_update(v);
    }
}

static bool take_nmi(struct soft_vcpu *v)
{
    bool asleep = v->st.activity == CPU_WAIT_SIPI;
    if (asleep || v->st.nmi_blocked || v->st.int_shadow) {
        fabric_events_put(v_fabric(v), v->idx, FABRIC_EV_NMI);
        v->irq_waiting |= v->st.int_shadow != 0;
        return true;
    }
    v->tpause_until = 0;
    return event_deliver_interrupt(v, VEC_NMI);
}

static bool take_events(struct soft_vcpu *v)
{
    uint8_t page = 0;
    if (!fabric_events_pending(v_fabric(v), v->idx))
        return true;
    unsigned ev = fabric_events_take(v_fabric(v), v->idx, &page);
    if (ev & FABRIC_EV_INIT)
        take_init(v);
    if (ev & FABRIC_EV_SIPI)
        take_sipi(v, page);
    if (ev & FABRIC_EV_SMI)
        trace(v->vm->cfg.trace, TRACE_CPU, "cpu%u: SMI dropped: this machine has no SMM", v->idx.i);
    return ev & FABRIC_EV_NMI ? take_nmi(v) : true;
}

/* A pending interrupt ends TPAUSE even while IF = 0 (SDM 2, "TPAUSE": whether or not maskable interrupts are
 * inhibited); HLT only if it can be taken. */
static bool take_interrupt(struct soft_vcpu *v)
{
    if (v->st.activity == CPU_WAIT_SIPI || fabric_irq_pending(v_fabric(v), v->idx) < 0)
        return true;
    v->tpause_until = 0;
    if (!(v->st.rflags & RF_IF) || v->st.int_shadow) {
        v->irq_waiting = true;
        return true;
    }
    int vector = fabric_irq_take(v_fabric(v), v->idx);
    if (vector < 0)
        return true;
    if (!event_deliver_interrupt(v, (uint8_t)vector))
        return false;
    if (fabric_irq_pending(v_fabric(v), v->idx) < 0)
        return true;
    v->irq_waiting = true;
    if (v->st.rflags & RF_IF)
        attn_self(v);
    return true;
}

static bool leave(struct soft_vcpu *v, enum cpu_exit_kind kind)
{
    if (v->run) {
        v->run->exit = kind;
        v->run->until = v->tpause_until;
    }
    return false;
}

/* Whether the vCPU has something to execute. */
static bool may_run(struct soft_vcpu *v, uint64_t now)
{
    struct pv *pv = v->vm->cfg.pv;
    if (v->tpause_until && now >= v->tpause_until)
        v->tpause_until = 0;
    if (v->st.activity == CPU_HALTED && pv && pv_unhalt_take(pv, v->idx))
        v->st.activity = CPU_ACTIVE;
    if (v->st.activity == CPU_SHUTDOWN)
        return leave(v, CPU_EXIT_SHUTDOWN);
    if (v->st.activity != CPU_ACTIVE)
        return leave(v, CPU_EXIT_HALT);
    return v->tpause_until ? leave(v, CPU_EXIT_TPAUSE) : true;
}

bool event_service(struct soft_vcpu *v)
{
    uint64_t now = soft_now(v);
    v->irq_waiting = false;
    settle_halt(v);
    if (!take_events(v))
        return false;
    if (v->st.activity != CPU_SHUTDOWN) {
        fabric_timer_expire(v_fabric(v), v->idx, now);
        if (!take_interrupt(v))
            return false;
    }
    return may_run(v, now);
}
