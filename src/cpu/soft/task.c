/* Task switches. SDM 3A, "Task Switching", with the checks in the order of its table "Exception Conditions Checked
 * During a Task Switch". Until commit() everything that can fault has been tried, so a fault belongs to the old task
 * and the instruction can be restarted; from there on faults belong to the new task, whose segment registers are
 * unusable until each has passed its checks.
 */
#include "cpu/soft/far.h"
#include "cpu/soft/msr.h"

#define TSS32_LEN 104u
#define TSS16_LEN 44u

/* Offsets of the state that a switch saves and loads: SDM 3A, "32-Bit Task-State Segment (TSS)" and "16-Bit TSS". */
enum {
    T32_CR3 = 0x1c,
    T32_EIP = 0x20,
    T32_FLAGS = 0x24,
    T32_REGS = 0x28,
    T32_SEGS = 0x48,
    T32_LDT = 0x60,
    T32_TRAP = 0x64
};
enum { T16_IP = 0x0e, T16_FLAGS = 0x10, T16_REGS = 0x12, T16_SEGS = 0x22, T16_LDT = 0x2a };

struct new_task {
    uint16_t sel;
    uint64_t desc;
    gva_t desc_at;
    struct cpu_segment tr;
    bool tss32;
    uint8_t image[TSS32_LEN];
};

static bool nested(enum task_source why)
{
    return why == TASK_CALL || why == TASK_GATE;
}

/* The TSS descriptor. An IRET's back link is part of a TSS, so its errors are #TS. */
static bool find_task(struct soft_vcpu *v, const struct task_args *a, struct new_task *t)
{
    bool back = a->why == TASK_IRET;
    unsigned vec = back ? VEC_TS : VEC_GP;
    t->sel = a->sel;
    if ((a->sel & 4) || sel_is_null(a->sel))
        return raise_sel(v, vec, a->sel);
    if (!desc_read(v, a->sel, vec, &t->desc, &t->desc_at))
        return false;
    unsigned type = desc_is_segment(t->desc) ? 0 : desc_type(t->desc);
    t->tss32 = type & 8;
    if ((type & 7) != (back ? DT_TSS16_BUSY : DT_TSS16))
        return raise_sel(v, vec, a->sel);
    if (!desc_present(t->desc))
        return raise_sel(v, VEC_NP, a->sel);
    seg_from_desc(&t->tr, a->sel, t->desc);
    if (t->tr.limit < (t->tss32 ? TSS32_LEN : TSS16_LEN) - 1)
        return raise_sel(v, VEC_TS, a->sel);
    return true;
}

static bool old_is_32(const struct soft_vcpu *v)
{
    return v->st.seg[SEG_TR].attr & 8;
}

/* First byte and length of what is saved in the old TSS: EIP .. GS, or IP .. DS. */
static void save_area(const struct soft_vcpu *v, gva_t *at, unsigned *len)
{
    bool wide = old_is_32(v);
    *at = (uint32_t)(v->st.seg[SEG_TR].base + (wide ? T32_EIP : T16_IP));
    *len = wide ? T32_LDT - T32_EIP : T16_LDT - T16_IP;
}

/* Touch all that commit() will touch: both TSSs and the two descriptors' busy bits. */
static bool probe(struct soft_vcpu *v, const struct task_args *a, struct new_task *t, gva_t *old_desc)
{
    gva_t at;
    unsigned len;
    uint64_t d;
    save_area(v, &at, &len);
    if (!lin_probe_write(v, at, len, ACC_WRITE | ACC_SUPER))
        return false;
    if (!lin_read(v, t->tr.base, t->image, t->tss32 ? TSS32_LEN : TSS16_LEN, ACC_READ | ACC_SUPER))
        return false;
    if (nested(a->why) && !lin_probe_write(v, t->tr.base, 2, ACC_WRITE | ACC_SUPER))
        return false;
    if (a->why != TASK_IRET && !lin_probe_write(v, t->desc_at + 5, 1, ACC_WRITE | ACC_SUPER))
        return false;
    if (nested(a->why))
        return true;
    return desc_read(v, v->st.seg[SEG_TR].sel, VEC_TS, &d, old_desc) &&
           lin_probe_write(v, *old_desc + 5, 1, ACC_WRITE | ACC_SUPER);
}

static bool save_old(struct soft_vcpu *v, const struct task_args *a)
{
    bool wide = old_is_32(v);
    uint64_t flags = a->why == TASK_IRET ? a->flags & ~RF_NT : a->flags;
    uint8_t b[T32_LDT - T32_EIP] = {0};
    unsigned len, word = wide ? 4 : 2, segs = wide ? 6 : 4;
    gva_t at;
    save_area(v, &at, &len);
    memcpy(b, &a->next_rip, word);
    memcpy(b + word, &flags, word);
    for (unsigned i = 0; i < 8; i++)
        memcpy(b + (2 + i) * word, &v->st.gpr[i], word);
    for (unsigned i = 0; i < segs; i++)
        st16(b + (10 + i) * word, v->st.seg[i].sel);
    return lin_write(v, at, b, len, ACC_WRITE | ACC_SUPER);
}

/* Order of the segment registers in a TSS is that of enum cpu_seg. */
static uint16_t image_sel(const struct new_task *t, unsigned seg)
{
    if (t->tss32)
        return ld16(t->image + T32_SEGS + seg * 4);
    return seg < SEG_FS ? ld16(t->image + T16_SEGS + seg * 2) : 0;
}

static void load_registers(struct soft_vcpu *v, const struct task_args *a, const struct new_task *t)
{
    const uint8_t *i = t->image;
    uint64_t keep = RF_ARITH | RF_TF | RF_IF | RF_DF | RF_IOPL | RF_NT;
    uint64_t flags = t->tss32 ? ld32(i + T32_FLAGS) & (keep | RF_RF | RF_VM | RF_AC | RF_VIF | RF_VIP | RF_ID)
                              : ld16(i + T16_FLAGS) & keep;
    v->st.rip = t->tss32 ? ld32(i + T32_EIP) : ld16(i + T16_IP);
    for (unsigned r = 0; r < 8; r++)
        v->st.gpr[r] = t->tss32 ? ld32(i + T32_REGS + r * 4) : ld16(i + T16_REGS + r * 2);
    far_load_flags(v, nested(a->why) ? flags | RF_NT : flags);
}

/* Selectors are visible at once, their descriptors only after their checks. CPL is CS's RPL already (3 in V86). */
static void park_segments(struct soft_vcpu *v, const struct new_task *t)
{
    bool v86 = v->st.rflags & RF_VM;
    unsigned level = image_sel(t, SEG_CS) & 3;
    for (unsigned s = SEG_ES; s <= SEG_GS; s++) {
        if (v86)
            seg_set_v86(&v->st.seg[s], image_sel(t, s));
        else
            seg_set_null(&v->st.seg[s], image_sel(t, s), s == SEG_SS ? level : 0);
    }
    uint16_t ldt = ld16(t->image + (t->tss32 ? T32_LDT : T16_LDT));
    seg_set_null(&v->st.seg[SEG_LDTR], ldt, 0);
}

/* The point of no return. Everything written was probed; a failure here means that the guest unmapped it from another
 * vCPU meanwhile, and is the new task's page fault. */
static bool commit(struct soft_vcpu *v, const struct task_args *a, struct new_task *t, gva_t old_desc)
{
    uint16_t old_sel = v->st.seg[SEG_TR].sel;
    if (!save_old(v, a))
        return false;
    if (!nested(a->why) && !desc_set_busy(v, old_desc, false))
        return false;
    if (nested(a->why) && !lin_write(v, t->tr.base, &old_sel, 2, ACC_WRITE | ACC_SUPER))
        return false;
    if (a->why != TASK_IRET && !desc_set_busy(v, t->desc_at, true))
        return false;
    t->tr.attr |= 2;
    v->st.seg[SEG_TR] = t->tr;
    v->st.cr0 |= CR0_TS;
    v->st.dr[7] &= ~UINT64_C(0x155); /* local breakpoints are the old task's */
    if (t->tss32 && (v->st.cr0 & CR0_PG) && !cr_write(v, 3, ld32(t->image + T32_CR3)))
        return raise_sel(v, VEC_TS, t->sel);
    load_registers(v, a, t);
    park_segments(v, t);
    mode_update(v);
    return true;
}

static bool load_ldt(struct soft_vcpu *v)
{
    uint16_t sel = v->st.seg[SEG_LDTR].sel;
    uint64_t d;
    gva_t at;
    if (sel_is_null(sel))
        return true;
    if (sel & 4)
        return raise_sel(v, VEC_TS, sel);
    if (!desc_read(v, sel, VEC_TS, &d, &at))
        return false;
    if (desc_is_segment(d) || desc_type(d) != DT_LDT || !desc_present(d))
        return raise_sel(v, VEC_TS, sel);
    seg_from_desc(&v->st.seg[SEG_LDTR], sel, d);
    return true;
}

static bool load_cs(struct soft_vcpu *v)
{
    uint16_t sel = v->st.seg[SEG_CS].sel;
    unsigned rpl = sel & 3;
    uint64_t d;
    gva_t at;
    if (sel_is_null(sel))
        return raise_sel(v, VEC_TS, sel);
    if (!desc_read(v, sel, VEC_TS, &d, &at))
        return false;
    if (!desc_is_code(d) || (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl))
        return raise_sel(v, VEC_TS, sel);
    if (!desc_present(d))
        return raise_sel(v, VEC_NP, sel);
    if (!desc_set_accessed(v, at, &d))
        return false;
    seg_from_desc(&v->st.seg[SEG_CS], sel, d);
    return true;
}

static bool load_data(struct soft_vcpu *v)
{
    static const uint8_t data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct cpu_segment *s = &v->st.seg[data[i]];
        if (!sel_is_null(s->sel) && !seg_check_data(v, s->sel, cpl(v), VEC_TS, s))
            return false;
    }
    return true;
}

static bool load_segments(struct soft_vcpu *v)
{
    if (!load_ldt(v))
        return false;
    if (v->st.rflags & RF_VM)
        return true;
    uint16_t ss = v->st.seg[SEG_SS].sel;
    unsigned level = v->st.seg[SEG_CS].sel & 3;
    if (!load_cs(v))
        return false;
    if (sel_is_null(ss))
        return raise_sel(v, VEC_TS, ss);
    return seg_check_ss(v, ss, level, VEC_TS, &v->st.seg[SEG_SS]) && load_data(v);
}

static bool push_error(struct soft_vcpu *v, const struct task_args *a, bool wide)
{
    struct far_stack s;
    struct far_frame f = {.size = wide ? 4 : 2};
    if (!a->has_error)
        return true;
    stack_current(v, &s);
    frame_add(&f, a->error);
    if (!stack_push_frame(v, &s, &f))
        return false;
    stack_commit(v, &s);
    return true;
}

bool task_switch_to(struct soft_vcpu *v, struct task_args *a)
{
    struct new_task t = {0};
    gva_t old_desc = 0;
    if (!find_task(v, a, &t) || !probe(v, a, &t, &old_desc))
        return false;
    trace(v->vm->cfg.trace, TRACE_CPU, "cpu%u: task switch %04x -> %04x", v->idx.i, v->st.seg[SEG_TR].sel, a->sel);
    a->committed = true;
    if (!commit(v, a, &t, old_desc))
        return false;
    bool ok = load_segments(v);
    mode_update(v);
    if (!ok || !push_error(v, a, t.tss32) || !seg_check_ip(v, &v->st.seg[SEG_CS], v->st.rip))
        return false;
    if (t.tss32 && (t.image[T32_TRAP] & 1)) {
        event_raise_db(v, DR6_BT);
        return false;
    }
    return true;
}

enum exec_result task_transfer(struct soft_vcpu *v, struct task_args *a)
{
    if (task_switch_to(v, a))
        return EXEC_JUMP;
    if (!a->committed)
        return EXEC_FAULT;
    if (event_deliver_fault(v))
        return EXEC_JUMP;
    v->next_rip = v->st.rip;
    return EXEC_LEAVE;
}
