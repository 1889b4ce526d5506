/* vcpu_run(): the dispatcher around the uop handlers, time, attention, single steps, and the exclusive section.
 *
 * Time slices. The budget is split in the slice being run (v->budget) and what lies behind it (v->reserve): a slice
 * ends where the APIC timer is due. A block's instructions are taken off the budget on entry, so in the middle of a
 * block v->block_left says how many of them are still to come; handlers set it before they call anything that asks the
 * time.
 */
#include "cpu/soft/run.h"

#include "cpu/soft/apic_state.h"
#include "cpu/soft/block.h"
#include "cpu/soft/event.h"
#include "cpu/soft/fpu.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { REAL_SLICE_MIN = 2000 }; /* ns; real time only: a deadline this near costs more to hit than to miss */

/* ---- time ---- */

static uint64_t executed(const struct soft_vcpu *v)
{
    return (uint64_t)(v->entry_budget - v->reserve - v->budget - (int64_t)v->block_left);
}

uint64_t soft_now(struct soft_vcpu *v)
{
    const struct guest_clock *c = v->vm->cfg.clock;
    return c->real ? guest_clock_now(c) : v->entry_now + executed(v);
}

uint64_t soft_now_shared(struct soft_vcpu *v)
{
    struct guest_clock *c = v->vm->cfg.clock;
    return c->real ? guest_clock_now(c) : guest_clock_reach(c, v->entry_now + executed(v));
}

static void slice_begin(struct soft_vcpu *v)
{
    int64_t total = v->budget + v->reserve, slice = total;
    uint64_t now = soft_now(v), due = fabric_timer_deadline(v->vm->cfg.fabric, v->idx);
    if (total > 0 && due > now && due - now < (uint64_t)total) {
        slice = (int64_t)(due - now);
        if (v->vm->cfg.clock->real && slice < REAL_SLICE_MIN)
            slice = total < REAL_SLICE_MIN ? total : REAL_SLICE_MIN;
    }
    v->budget = slice;
    v->reserve = total - slice;
}

/* ---- mode ---- */

static bool flat_data(const struct cpu_segment *s)
{
    const uint32_t want = SEGA_P | SEGA_RW, mask = want | SEGA_CODE | SEGA_DC | SEGA_UNUSABLE;
    return s->base == 0 && s->limit == 0xffffffff && (s->attr & mask) == want;
}

static bool flat(const struct soft_vcpu *v)
{
    const struct cpu_segment *s = v->st.seg;
    return s[SEG_CS].base == 0 && s[SEG_CS].limit == 0xffffffff && flat_data(&s[SEG_SS]) && flat_data(&s[SEG_DS]) &&
           flat_data(&s[SEG_ES]);
}

static unsigned code_mode(const struct soft_vcpu *v)
{
    uint32_t attr = v->st.seg[SEG_CS].attr;
    if (v->st.efer & EFER_LMA && attr & SEGA_L)
        return CODE64 | MODE_FLAT;
    unsigned mode = attr & SEGA_DB ? CODE32 : CODE16;
    return flat(v) ? mode | MODE_FLAT : mode;
}

void mode_update(struct soft_vcpu *v)
{
    unsigned mode = code_mode(v);
    if ((mode & MODE_CODE) != CODE64 && v->st.seg[SEG_SS].attr & SEGA_DB)
        mode |= MODE_SS32;
    if (cpl(v) == 3)
        mode |= MODE_USER;
    if (v->st.cr0 & CR0_PE)
        mode |= MODE_PE;
    if (v->st.rflags & RF_VM && v->st.cr0 & CR0_PE)
        mode |= MODE_V86;
    v->mode = mode;
    v->tlb = tlb_select(v);
    v->jump = jump_select(v);
}

/* ---- the exclusive section ----
 *
 * `running` counts workers that may be touching guest memory: those inside vcpu_run(), less those that wait here. An
 * owner has the machine when it is 0. Whoever waits for its own turn is not counted, so two owners can't wait for one
 * another; one that does so in the middle of a block is counted in `middle`, because it comes back to that block.
 */
struct excl {
    pthread_mutex_t lock;
    pthread_cond_t turn, stopped;
    bool busy;              /* (l) */
    unsigned running;       /* (l) */
    unsigned middle;        /* (l) */
    struct soft_vcpu *on[]; /* (l) by worker: the vCPU it runs, or NULL */
};

static struct excl *excl_create(unsigned workers)
{
    struct excl *x = calloc(1, sizeof *x + workers * sizeof x->on[0]);
    if (!x)
        return NULL;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->turn, NULL);
    pthread_cond_init(&x->stopped, NULL);
    return x;
}

static void excl_destroy(struct excl *x)
{
    if (!x)
        return;
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->turn);
    pthread_cond_destroy(&x->stopped);
    free(x);
}

/* Under `lock`. */
static void step_aside(struct excl *x)
{
    x->running--;
    if (x->busy && !x->running)
        pthread_cond_broadcast(&x->stopped);
}

static void await_turn(struct excl *x)
{
    while (x->busy)
        pthread_cond_wait(&x->turn, &x->lock);
}

static void excl_enter(struct soft_vcpu *v, unsigned worker)
{
    struct excl *x = v->vm->excl;
    pthread_mutex_lock(&x->lock);
    await_turn(x);
    x->running++;
    x->on[worker] = v;
    pthread_mutex_unlock(&x->lock);
    block_catch_up(v);
}

static void excl_leave(struct soft_vcpu *v, unsigned worker)
{
    struct excl *x = v->vm->excl;
    pthread_mutex_lock(&x->lock);
    x->on[worker] = NULL;
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_EXCL);
    step_aside(x);
    pthread_mutex_unlock(&x->lock);
}

/* ATTN_EXCL was seen, at a block boundary. */
static void excl_stop(struct soft_vcpu *v)
{
    struct excl *x = v->vm->excl;
    pthread_mutex_lock(&x->lock);
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_EXCL);
    if (x->busy) {
        step_aside(x);
        await_turn(x);
        x->running++;
    }
    pthread_mutex_unlock(&x->lock);
    block_catch_up(v);
}

static bool excl_take(struct soft_vcpu *v, bool boundary)
{
    struct excl *x = v->vm->excl;
    pthread_mutex_lock(&x->lock);
    step_aside(x);
    x->middle += !boundary;
    await_turn(x);
    x->middle -= !boundary;
    x->busy = true;
    for (unsigned i = 0; i < v->vm->cfg.workers; i++)
        if (x->on[i] && x->on[i] != v)
            atomic_fetch_or(&x->on[i]->attn, ATTN_EXCL);
    while (x->running)
        pthread_cond_wait(&x->stopped, &x->lock);
    bool quiet = !x->middle;
    pthread_mutex_unlock(&x->lock);
    block_catch_up(v);
    return quiet;
}

bool excl_begin_boundary(struct soft_vcpu *v)
{
    return !v->run || excl_take(v, true);
}

void excl_begin(struct soft_vcpu *v)
{
    if (v->run)
        excl_take(v, false);
}

void excl_end(struct soft_vcpu *v)
{
    struct excl *x = v->vm->excl;
    if (!v->run)
        return;
    pthread_mutex_lock(&x->lock);
    x->busy = false;
    x->running++;
    pthread_cond_broadcast(&x->turn);
    pthread_mutex_unlock(&x->lock);
}

/* ---- leaving, faults, events ---- */

static bool leave(struct soft_vcpu *v, enum cpu_exit_kind kind)
{
    v->run->exit = kind;
    return false;
}

/* Below, bool results say whether to go on executing. */

static bool service(struct soft_vcpu *v)
{
    bool ok = event_service(v);
    if (!ok && v->st.activity == CPU_SHUTDOWN)
        v->run->exit = CPU_EXIT_SHUTDOWN;
    slice_begin(v);
    return ok;
}

static bool deliver(struct soft_vcpu *v)
{
    v->smc = false;
    return event_deliver_fault(v) || leave(v, CPU_EXIT_SHUTDOWN);
}

static bool attend(struct soft_vcpu *v)
{
    unsigned attn = atomic_load_explicit(&v->attn, memory_order_acquire);
    if (attn & ATTN_EXCL)
        excl_stop(v);
    if (attn & ATTN_EXIT) {
        atomic_fetch_and(&v->attn, ~(unsigned)ATTN_EXIT);
        return leave(v, CPU_EXIT_KICKED);
    }
    if (!(attn & ATTN_IRQ))
        return true;
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_IRQ); /* first: a kick during the service must not be lost */
    return service(v);
}

/* The slice is used up. */
static bool slice_end(struct soft_vcpu *v)
{
    if (v->budget + v->reserve <= 0)
        return leave(v, CPU_EXIT_BUDGET);
    return service(v);
}

/* ---- executing ---- */

static enum uop_stop execute(struct soft_vcpu *v, struct block *b)
{
    const struct uop *u = b->uops;
    v->cur = b;
    v->smc = false;
    v->budget -= b->n;
    do
        u = __atomic_load_n(&u->fn, __ATOMIC_ACQUIRE)(v, u);
    while (u);
    v->block_left = 0;
    return v->stop;
}

/* Fetch faults count as an instruction, or a guest whose handler can't be fetched would hold its worker for ever. */
static bool fetch_fault(struct soft_vcpu *v)
{
    v->budget--;
    return deliver(v);
}

/* Link the jump that led here to `b`, if both lie in one page under one mapping. `cur` is the jump's block, `bias` its
 * rip_bias. */
static void link(struct soft_vcpu *v, const struct uop *jump, const struct block *cur, uint64_t bias, struct block *b)
{
    bool same = cur->page && cur->page == b->page && !b->page2 && cur->key >> 52 == b->key >> 52;
    if (same && bias == v->rip_bias && v->mode & MODE_FLAT && !(v->mode & MODE_SINGLE))
        atomic_store_explicit((_Atomic(struct block *) *)&jump->link, b, memory_order_release);
}

static bool execute_next(struct soft_vcpu *v)
{
    const struct uop *jump = v->patch;
    const struct block *cur = v->cur;
    uint64_t bias = v->rip_bias;
    uint32_t gen = v->cache_gen;
    v->patch = NULL;
    struct block *b = block_find(v);
    if (!b)
        return fetch_fault(v);
    if (jump && gen == v->cache_gen)
        link(v, jump, cur, bias, b);
    enum uop_stop stop = execute(v, b);
    return stop == STOP_LOOKUP || (stop == STOP_FAULT && deliver(v));
}

/* ---- single steps: TF, breakpoints, interrupt shadows ---- */

/* SDM 3B, "Breakpoint Field Recognition": R/W = 0 breaks on fetch of the instruction at exactly DRn. */
static uint64_t fetch_breakpoints(const struct soft_vcpu *v)
{
    uint64_t hits = 0, dr7 = v->st.dr[7], lin = v->st.rip;
    if ((v->mode & MODE_CODE) != CODE64)
        lin = (uint32_t)(lin + v->st.seg[SEG_CS].base);
    for (unsigned i = 0; i < 4; i++)
        if (dr7 >> (i * 2) & 3 && !(dr7 >> (16 + i * 4) & 3) && v->st.dr[i] == lin)
            hits |= BIT(i);
    return hits;
}

/* SYSCALL takes its own TF away before the trap would be recognised. */
static bool eats_trap(const struct soft_vcpu *v, const struct block *b)
{
    return b->uops[0].fn == op_cold && b->uops[0].in->op == OP_syscall && !(v->st.rflags & RF_TF);
}

static void set_single(struct soft_vcpu *v, bool on)
{
    v->mode = on ? v->mode | MODE_SINGLE : v->mode & ~(uint32_t)MODE_SINGLE;
}

/* After the instruction: what it owes. A trap ends HLT. */
static bool traps(struct soft_vcpu *v, enum uop_stop stop, uint64_t dr6)
{
    if (dr6) {
        v->tpause_until = 0;
        if (v->st.activity == CPU_HALTED) {
            v->st.activity = CPU_ACTIVE;
            stop = STOP_LOOKUP;
        }
        event_raise_db(v, dr6);
        if (!deliver(v))
            return false;
    }
    return stop != STOP_LEAVE;
}

static bool step(struct soft_vcpu *v)
{
    bool tf = v->st.rflags & RF_TF, rf = v->st.rflags & RF_RF, shadow = v->st.int_shadow;
    uint64_t hits = v->st.dr[7] & 0xff && !rf && v->st.int_shadow != 2 ? fetch_breakpoints(v) : 0;
    v->patch = NULL;
    if (hits) {
        event_raise_db(v, hits);
        v->budget--;
        return deliver(v);
    }
    v->st.rflags &= ~RF_RF;
    v->st.int_shadow = 0;
    v->db_hits = 0;
    set_single(v, true);
    struct block *b = block_find(v);
    enum uop_stop stop = b ? execute(v, b) : STOP_FAULT;
    v->patch = NULL;
    set_single(v, false);
    if (shadow && v->irq_waiting)
        attn_self(v);
    if (stop == STOP_FAULT)
        return b ? deliver(v) : fetch_fault(v);
    uint64_t dr6 = v->db_hits;
    v->db_hits = 0;
    if (tf && v->st.int_shadow != 2 && !eats_trap(v, b))
        dr6 |= DR6_BS;
    return traps(v, stop, dr6);
}

/* Whether the next instruction must be alone in its block. RF matters to breakpoints only. */
static bool wants_single(struct soft_vcpu *v)
{
    if (likely(!(v->st.int_shadow | (v->st.dr[7] & 0xff) | (v->st.rflags & (RF_TF | RF_RF)))))
        return false;
    if (v->st.int_shadow || v->st.dr[7] & 0xff || v->st.rflags & RF_TF)
        return true;
    v->st.rflags &= ~RF_RF;
    return false;
}

static void run_loop(struct soft_vcpu *v)
{
    for (bool go = true; go;) {
        if (unlikely(atomic_load_explicit(&v->attn, memory_order_relaxed))) {
            v->patch = NULL;
            go = attend(v);
        } else if (unlikely(v->budget <= 0)) {
            v->patch = NULL;
            go = slice_end(v);
        } else {
            go = unlikely(wants_single(v)) ? step(v) : execute_next(v);
        }
    }
}

/* ---- vcpu_run() ---- */

static void enter(struct soft_vcpu *v, struct cpu_run *run)
{
    v->run = run;
    v->entry_now = run->now;
    v->entry_budget = v->budget = (int64_t)min_u64(run->budget, INT64_MAX / 4);
    v->reserve = 0;
    v->block_left = 0;
    v->pauses = 0;
    v->patch = NULL;
    run->has_yield_to = false;
    run->until = 0;
    run->err = NULL;
    excl_enter(v, run->worker);
    if (v->vm->cfg.pv && pv_enter(v->vm->cfg.pv, v->idx, run->now))
        tlb_flush_all(v);
    fpu_enter(v);
}

static void finish(struct soft_vcpu *v, struct cpu_run *run)
{
    bool runnable = run->exit == CPU_EXIT_BUDGET || run->exit == CPU_EXIT_SPIN || run->exit == CPU_EXIT_KICKED;
    fpu_leave(v);
    if (v->vm->cfg.pv)
        pv_leave(v->vm->cfg.pv, v->idx, soft_now(v), runnable);
    run->used = executed(v);
    excl_leave(v, run->worker);
    v->run = NULL;
}

static void soft_vcpu_run(struct engine_vcpu *ev, struct cpu_run *run)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    if (!tlb_alloc(v) || !block_jumps_alloc(v)) {
        run->exit = CPU_EXIT_ERROR;
        run->err = "out of memory for a vCPU's caches";
        run->used = 0;
        return;
    }
    enter(v, run);
    atomic_fetch_and(&v->attn, ~(unsigned)ATTN_IRQ);
    bool go = likely(!(v->handed.exception | v->handed.injected)) || handed_take(v);
    if (go && service(v))
        run_loop(v);
    finish(v, run);
}

/* ---- engine_soft ---- */

static void vcpu_init(struct soft_vm *vm, uint32_t i)
{
    struct soft_vcpu *v = &vm->vcpu[i];
    v->vm = vm;
    v->idx = VCPU_IDX(i);
    v->id = vm->cfg.ids[i];
    v->rng = vm->cfg.seed + i * UINT64_C(0x9e3779b97f4a7c15);
    cpu_state_reset(&v->st, i == 0);
    mode_update(v);
}

static void soft_vm_destroy(struct engine_vm *evm)
{
    struct soft_vm *vm = (struct soft_vm *)evm;
    if (!vm)
        return;
    for (uint32_t i = 0; vm->vcpu && i < vm->cfg.vcpus; i++) {
        tlb_free(&vm->vcpu[i]);
        block_jumps_free(&vm->vcpu[i]);
    }
    free(vm->vcpu);
    free((void *)vm->cfg.ids);
    block_cache_destroy(vm->blocks);
    excl_destroy(vm->excl);
    free(vm);
}

/* The parts that may fail. */
static int vm_alloc(struct soft_vm *vm, const struct engine_config *c, struct err *e)
{
    apic_id_t *ids = malloc(c->vcpus * sizeof *ids);
    vm->cfg.ids = ids;
    vm->vcpu = aligned_alloc(64, align_up(c->vcpus * sizeof vm->vcpu[0], 64));
    vm->excl = excl_create(c->workers);
    if (!ids || !vm->vcpu || !vm->excl)
        return err_set(e, -ENOMEM, "out of memory for %u vCPUs", c->vcpus);
    memcpy(ids, c->ids, c->vcpus * sizeof *ids);
    memset(vm->vcpu, 0, c->vcpus * sizeof vm->vcpu[0]);
    int rc = block_cache_create(c->ram, c->jit, c->jit_heat, &vm->blocks, e);
    if (!rc)
        vm->jit = block_jit(vm->blocks);
    return rc;
}

static int soft_vm_create(const struct engine_config *c, struct engine_vm **out, struct err *e)
{
    struct soft_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return err_set(e, -ENOMEM, "out of memory for the engine");
    vm->cfg = *c;
    int rc = vm_alloc(vm, c, e);
    if (rc) {
        if (!vm->blocks && vm->vcpu)
            memset(vm->vcpu, 0, c->vcpus * sizeof vm->vcpu[0]);
        soft_vm_destroy((struct engine_vm *)vm);
        return rc;
    }
    for (uint32_t i = 0; i < c->vcpus; i++)
        vcpu_init(vm, i);
    *out = (struct engine_vm *)vm;
    return 0;
}

static struct engine_vcpu *soft_vcpu(struct engine_vm *evm, vcpu_idx_t idx)
{
    struct soft_vm *vm = (struct soft_vm *)evm;
    assert(idx.i < vm->cfg.vcpus);
    return (struct engine_vcpu *)&vm->vcpu[idx.i];
}

static void soft_kick(struct engine_vcpu *ev, unsigned attn)
{
    atomic_fetch_or(&((struct soft_vcpu *)ev)->attn, attn);
}

static unsigned soft_attn(const struct engine_vcpu *ev)
{
    return atomic_load(&((const struct soft_vcpu *)ev)->attn);
}

static void soft_get_state(struct engine_vcpu *ev, struct cpu_state *out)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    flags_get(v);
    *out = v->st;
    soft_get_pv(v, out);
}

static void soft_set_state(struct engine_vcpu *ev, const struct cpu_state *in)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    v->st = *in;
    flags_load(v, in->rflags);
    v->tpause_until = 0;
    v->irq_waiting = false;
    v->handed = (struct handed){0};
    soft_set_pv(v, in);
    tlb_flush_all(v);
    mode_update(v);
    attn_self(v);
}

static void soft_vcpu_trim(struct engine_vcpu *ev)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    tlb_free(v);
    block_jumps_free(v);
}

static void soft_ram_written(struct engine_vm *vm, gpa_t gpa, uint64_t len)
{
    block_dma_write((struct soft_vm *)vm, gpa, len);
}

const struct engine_ops engine_soft = {
    .name = "soft",
    .vm_create = soft_vm_create,
    .vm_destroy = soft_vm_destroy,
    .vcpu = soft_vcpu,
    .kick = soft_kick,
    .attn = soft_attn,
    .ram_written = soft_ram_written,
    .vcpu_run = soft_vcpu_run,
    .get_state = soft_get_state,
    .set_state = soft_set_state,
    .get_apic = soft_get_apic,
    .set_apic = soft_set_apic,
    .vcpu_trim = soft_vcpu_trim,
};
