/* What event.c, seg.c, stack.c, task.c and exec_far*.c share: descriptors, segment checks, frames. Private to them.
 *
 * Every far transfer goes in two halves. The first reads and checks everything, writes its stack frame last, and may
 * fault at any point with the old state intact (accessed bits in descriptors and PTEs excepted, as on hardware). The
 * second commits registers and cannot fail. Task switches are the exception the SDM makes: past their commit point,
 * faults belong to the new task. Owning vCPU's thread only.
 */
#ifndef HEC_CPU_SOFT_FAR_H
#define HEC_CPU_SOFT_FAR_H

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"

/* ---- modes ---- */

static inline bool in_protected(const struct soft_vcpu *v)
{
    return v->st.cr0 & CR0_PE;
}

static inline bool in_v86(const struct soft_vcpu *v)
{
    return in_protected(v) && (v->st.rflags & RF_VM);
}

/* Selectors are paragraph numbers: real or virtual-8086 mode. */
static inline bool in_real_like(const struct soft_vcpu *v)
{
    return !in_protected(v) || (v->st.rflags & RF_VM);
}

static inline bool in_ia32e(const struct soft_vcpu *v)
{
    return v->st.efer & EFER_LMA;
}

static inline bool in_code64(const struct soft_vcpu *v)
{
    return in_ia32e(v) && (v->st.seg[SEG_CS].attr & SEGA_L);
}

static inline unsigned iopl(const struct soft_vcpu *v)
{
    return v->st.rflags >> 12 & 3;
}

static inline bool is_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* ---- raw descriptors (SDM 3A, "Segment Descriptors", "System Descriptor Types") ---- */

enum desc_sys_type {
    DT_TSS16 = 1,
    DT_LDT = 2,
    DT_TSS16_BUSY = 3,
    DT_CALL16 = 4,
    DT_TASK_GATE = 5,
    DT_INT16 = 6,
    DT_TRAP16 = 7,
    DT_TSS32 = 9,
    DT_TSS32_BUSY = 11,
    DT_CALL32 = 12,
    DT_INT32 = 14,
    DT_TRAP32 = 15
};

static inline unsigned desc_type(uint64_t d)
{
    return d >> 40 & 15;
}

static inline bool desc_is_segment(uint64_t d)
{
    return d >> 44 & 1;
}

static inline unsigned desc_dpl(uint64_t d)
{
    return d >> 45 & 3;
}

static inline bool desc_present(uint64_t d)
{
    return d >> 47 & 1;
}

static inline bool desc_long(uint64_t d)
{
    return d >> 53 & 1;
}

static inline bool desc_big(uint64_t d)
{
    return d >> 54 & 1;
}

static inline bool desc_is_code(uint64_t d)
{
    return desc_is_segment(d) && (desc_type(d) & SEGA_CODE);
}

static inline bool desc_conforming(uint64_t d)
{
    return desc_is_code(d) && (desc_type(d) & SEGA_DC);
}

static inline bool desc_writable_data(uint64_t d)
{
    return desc_is_segment(d) && (desc_type(d) & (SEGA_CODE | SEGA_RW)) == SEGA_RW;
}

static inline bool sel_is_null(uint16_t sel)
{
    return !(sel & ~3u);
}

/* Records the fault and is false, so that a check can `return raise(...)`. `sel` loses its RPL. */
static inline bool raise_sel(struct soft_vcpu *v, unsigned vec, uint16_t sel)
{
    fault_set(v, vec, true, sel & 0xfffcu);
    return false;
}

/* ---- seg.c ---- */

enum desc_status { DESC_OK, DESC_LIMIT, DESC_FAULT };

/* As desc_read(), but a selector past its table (or in no LDT) is told apart instead of raised. */
enum desc_status desc_try(struct soft_vcpu *v, uint16_t sel, uint64_t *lo, gva_t *at);
/* The upper eight bytes of the 16-byte system descriptor `sel` (IA-32e mode); #GP(sel) past the table's limit. */
bool desc_read_high(struct soft_vcpu *v, uint16_t sel, uint64_t *hi);
/* Locked read-modify-writes of the type field of the descriptor at linear address `at`. */
bool desc_set_accessed(struct soft_vcpu *v, gva_t at, uint64_t *desc);
bool desc_set_busy(struct soft_vcpu *v, gva_t at, bool busy);
/* Selector loads of real and virtual-8086 mode. SDM 3B, "Real-Address Mode Operation". */
void seg_set_real(const struct soft_vcpu *v, struct cpu_segment *s, uint16_t sel);
void seg_set_v86(struct cpu_segment *s, uint16_t sel);
/* The null selector; `dpl` matters for SS alone (it is the CPL). */
void seg_set_null(struct cpu_segment *s, uint16_t sel, unsigned dpl);
/* Flat segment with fixed attributes, as SYSCALL and its kin load. */
void seg_set_flat(struct cpu_segment *s, uint16_t sel, uint32_t attr);
/* SS for privilege level `level`: `sel` must name a writable data segment with RPL = DPL = level. Errors as `vec`(sel),
 * #SS(sel) if not present. Null is the caller's business. */
bool seg_check_ss(struct soft_vcpu *v, uint16_t sel, unsigned level, unsigned vec, struct cpu_segment *out);
/* Data segment register `sel` (not null) at privilege level `level`, errors as `vec`(sel), #NP(sel) if not present. */
bool seg_check_data(struct soft_vcpu *v, uint16_t sel, unsigned level, unsigned vec, struct cpu_segment *out);
/* After a change to the outer level CPL: data segments it may not see become null. SDM 2, "RET", "IRET". */
void seg_hide_inner(struct soft_vcpu *v);
/* Whether `off` is a legal instruction pointer in `cs`; else #GP(0). */
bool seg_check_ip(struct soft_vcpu *v, const struct cpu_segment *cs, uint64_t off);

/* ---- stack.c ---- */

/* A stack pointer with everything needed to use it, before it becomes SS:RSP. */
struct far_stack {
    struct cpu_segment ss;
    uint64_t sp;
    bool code64;  /* the code that will use it is 64-bit: no limit, 64-bit RSP */
    unsigned acc; /* 0 or ACC_SUPER */
    uint32_t err; /* error code of the #SS when there is no room */
};

#define FRAME_MAX 40

struct far_frame {
    uint64_t word[FRAME_MAX]; /* in push order */
    unsigned n, size;         /* size: bytes a word, 2, 4 or 8 */
};

static inline void frame_add(struct far_frame *f, uint64_t val)
{
    f->word[f->n++] = val;
}

/* The current stack, for code of the current CPL. */
void stack_current(const struct soft_vcpu *v, struct far_stack *s);
/* Push the frame, all of it or nothing; s->sp moves on success. */
bool stack_push_frame(struct soft_vcpu *v, struct far_stack *s, const struct far_frame *f);
/* SS:RSP become `s`. mode_update() is the caller's. */
void stack_commit(struct soft_vcpu *v, const struct far_stack *s);
/* Word at RSP + off of the current stack; nothing moves. */
bool stack_peek(struct soft_vcpu *v, uint64_t off, unsigned size, uint64_t *val);
/* RSP += delta in the current stack's size. */
void stack_move(struct soft_vcpu *v, int64_t delta);
/* The TSS's stack for privilege level `level`, SS checked (null in IA-32e mode). SDM 3A, "Stack Switching". */
bool stack_from_tss(struct soft_vcpu *v, unsigned level, struct far_stack *s);
/* IST entry 1..7 of a 64-bit TSS. */
bool stack_from_ist(struct soft_vcpu *v, unsigned ist, uint64_t *rsp);

/* ---- task.c ---- */

enum task_source { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };

struct task_args {
    uint16_t sel; /* of the TSS */
    enum task_source why;
    uint64_t next_rip; /* what the old task resumes at */
    uint64_t flags;    /* its EFLAGS image */
    bool has_error;    /* push `error` on the new stack */
    uint32_t error;
    bool committed; /* out: a fault is the new task's */
};

/* SDM 3A, "Task Switching". False: v->fault, the old task's or, if `committed`, the new one's. */
bool task_switch_to(struct soft_vcpu *v, struct task_args *a);
/* For executors: st.rip after a fault of the new task is not the instruction's, so such a fault is delivered here. */
enum exec_result task_transfer(struct soft_vcpu *v, struct task_args *a);

/* ---- exec_far.c ---- */

/* RFLAGS become `rflags`; a pending interrupt is looked at if IF rose. mode_update() is the caller's. */
void far_load_flags(struct soft_vcpu *v, uint64_t rflags);
/* Commit CS:RIP and recompute the mode. */
enum exec_result far_jump(struct soft_vcpu *v, const struct cpu_segment *cs, uint64_t rip);

#endif
