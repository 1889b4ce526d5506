/* The host CPU as oracle for FPU instructions: one instruction runs natively and through the executor, from the same
 * registers, memory and FXSAVE image, and everything is compared. For test_cpu_sse.c and test_cpu_x87.c.
 *
 * Register roles: RSI points to the memory operand, RDI to the MASKMOV destination; R15 and RSP are the harness's.
 */
#ifndef HEC_TESTS_FPU_ORACLE_H
#define HEC_TESTS_FPU_ORACLE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cmocka.h>

#include "cpu/soft/flags.h"
#include "cpu/soft/fpu.h"
#include "cpu/soft/mmu.h"

enum { OPERAND_BYTES = 128 };

struct native_ctx {
    struct cpu_fx in, out; /* 0, 512 */
    uint64_t gpr[16];      /* 1024: in and out, by enum cpu_reg */
    uint64_t flags;        /* 1152 */
    const void *code;      /* 1160 */
} __attribute__((aligned(16)));

void oracle_call(struct native_ctx *c);
__asm__(".text\n"
        ".globl oracle_call\n"
        "oracle_call:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $8, %rsp\n"
        "    mov %rdi, %r15\n"
        "    fxrstor64 (%r15)\n"
        "    push 1152(%r15); popfq\n"
        "    mov 1024(%r15), %rax; mov 1032(%r15), %rcx; mov 1040(%r15), %rdx; mov 1048(%r15), %rbx\n"
        "    mov 1064(%r15), %rbp; mov 1072(%r15), %rsi; mov 1080(%r15), %rdi; mov 1088(%r15), %r8\n"
        "    mov 1096(%r15), %r9; mov 1104(%r15), %r10; mov 1112(%r15), %r11; mov 1120(%r15), %r12\n"
        "    mov 1128(%r15), %r13; mov 1136(%r15), %r14\n"
        "    call *1160(%r15)\n"
        "    fxsave64 512(%r15)\n"
        "    mov %rax, 1024(%r15); mov %rcx, 1032(%r15); mov %rdx, 1040(%r15); mov %rbx, 1048(%r15)\n"
        "    mov %rbp, 1064(%r15); mov %rsi, 1072(%r15); mov %rdi, 1080(%r15); mov %r8, 1088(%r15)\n"
        "    mov %r9, 1096(%r15); mov %r10, 1104(%r15); mov %r11, 1112(%r15); mov %r12, 1120(%r15)\n"
        "    mov %r13, 1128(%r15); mov %r14, 1136(%r15)\n"
        "    pushfq; pop 1152(%r15)\n"
        "    cld; fninit\n"
        "    add $8, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n");

static sigjmp_buf oracle_jump;
static struct cpu_fx oracle_trap_fx; /* registers at the SIGFPE */

static void oracle_signal(int sig, siginfo_t *info, void *uc)
{
    memcpy(&oracle_trap_fx, ((ucontext_t *)uc)->uc_mcontext.fpregs, sizeof oracle_trap_fx);
    siglongjmp(oracle_jump, sig);
}

struct oracle {
    struct soft_vcpu *v;
    struct engine_vm *vm;
    struct fabric *fabric;
    struct cpuid_model model;
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    struct guest_clock clock;
    struct native_ctx nat;
    uint8_t *page, *code; /* two operand pages, guest RAM mapped at their own host address; an executable page */
    uint64_t rng;
};

enum { ORACLE_TABLES = 0x1000, ORACLE_PAGE_GPA = 0x8000 };

static uint64_t oracle_rand(struct oracle *o)
{
    uint64_t x = o->rng;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return o->rng = x;
}

/* Page tables for the operand pages: gva = hva, so that native code uses the same addresses. */
static uint8_t *oracle_pte(struct oracle *o, unsigned page)
{
    gva_t gva = (gva_t)(uintptr_t)o->page + page * 4096u;
    uint8_t *table = o->ram.low + ORACLE_TABLES;
    for (unsigned level = 3; level > 0; level--) {
        st64(table + (gva >> (12 + 9 * level) & 511) * 8, (uint64_t)(table + 4096 - o->ram.low) | PTE_P | PTE_W);
        table += 4096;
    }
    return table + (gva >> 12 & 511) * 8;
}

static void oracle_map(struct oracle *o, unsigned page, bool present)
{
    st64(oracle_pte(o, page), (uint64_t)(ORACLE_PAGE_GPA + page * 4096u) | (present ? PTE_P | PTE_W : 0));
    tlb_flush_all(o->v);
}

/* In the test itself: cmocka installs handlers of its own between setup and test. */
static void oracle_catch_signals(void)
{
    struct sigaction sa = {.sa_sigaction = oracle_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
}

static void oracle_kick(void *opaque, vcpu_idx_t cpu)
{
}

/* A machine of one vCPU in 64-bit mode, which the tests call into and never run. */
static int oracle_machine(struct oracle *o)
{
    const apic_id_t id = APIC_ID(0x123);
    const struct fabric_config f = {.vcpus = 1, .ids = &id, .x2apic = true, .kick = oracle_kick, .epoch = &o->epoch};
    struct engine_config c = {
        .vcpus = 1, .ids = &id, .workers = 1, .ram = &o->ram, .mmio = &o->mmio, .ports = &o->ports};
    if (ram_init(&o->ram, 0x10000, NULL))
        return -1;
    epoch_init(&o->epoch);
    bus_init(&o->mmio, "mmio", &o->epoch, NULL);
    bus_init(&o->ports, "port", &o->epoch, NULL);
    if (fabric_create(&f, &o->fabric, NULL))
        return -1;
    c.fabric = o->fabric;
    c.cpuid = &o->model;
    c.clock = &o->clock;
    if (engine_soft.vm_create(&c, &o->vm, NULL))
        return -1;
    o->v = (struct soft_vcpu *)engine_soft.vcpu(o->vm, VCPU_IDX(0));
    return tlb_alloc(o->v) ? 0 : -1;
}

static void oracle_long_mode(struct oracle *o)
{
    struct cpu_state *st = &o->v->st;
    st->cr0 = CR0_PE | CR0_PG | CR0_MP | CR0_NE | CR0_ET;
    st->cr3 = ORACLE_TABLES;
    st->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    st->efer = EFER_LMA | EFER_LME;
    st->seg[SEG_CS].attr = SEGA_P | SEGA_S | SEGA_CODE | SEGA_RW | SEGA_L;
    st->seg[SEG_SS].attr = st->seg[SEG_DS].attr = SEGA_P | SEGA_S | SEGA_RW | SEGA_DB;
    mode_update(o->v);
    oracle_map(o, 0, true);
    oracle_map(o, 1, true);
}

static int oracle_setup(void **state)
{
    static const struct cpu_topology topo = {1, 1, 1, 1};
    struct oracle *o = aligned_alloc(64, align_up(sizeof *o, 64));
    if (!o)
        return -1;
    memset(o, 0, sizeof *o);
    if (cpuid_model_init(&o->model, "max", &topo, 1, 0x123, NULL))
        return -1;
    o->rng = UINT64_C(0x9e3779b97f4a7c15);
    o->code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (o->code == MAP_FAILED || oracle_machine(o))
        return -1;
    o->page = o->ram.low + ORACLE_PAGE_GPA;
    oracle_long_mode(o);
    *state = o;
    return 0;
}

static int oracle_teardown(void **state)
{
    struct oracle *o = *state;
    engine_soft.vm_destroy(o->vm);
    fabric_destroy(o->fabric);
    bus_fini(&o->mmio);
    bus_fini(&o->ports);
    epoch_fini(&o->epoch);
    ram_fini(&o->ram);
    munmap(o->code, 4096);
    free(o);
    return 0;
}

/* ---- one instruction on both ---- */

struct outcome {
    struct cpu_fx fx;
    uint64_t gpr[16], flags;
    uint8_t mem[OPERAND_BYTES];
    int trap; /* 0, SIGFPE or SIGILL */
};

/* The operand lies in the middle of the page. */
static uint8_t *oracle_operand(struct oracle *o)
{
    return o->page + 1024;
}

static void oracle_native(struct oracle *o, const uint8_t *bytes, unsigned len, struct outcome *out)
{
    struct native_ctx *c = &o->nat;
    memcpy(o->code, bytes, len);
    o->code[len] = 0xc3;
    c->in = o->v->st.fx;
    memcpy(c->gpr, o->v->st.gpr, sizeof c->gpr);
    c->flags = (o->v->st.rflags & RF_ARITH) | 0x202;
    c->code = o->code;
    out->trap = sigsetjmp(oracle_jump, 1);
    if (out->trap) {
        const uint32_t host = 0x1f80;
        __asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(host));
        c->out = oracle_trap_fx;
    } else {
        const uint32_t host = 0x1f80;
        oracle_call(c);
        __asm__ volatile("ldmxcsr %0" : : "m"(host));
    }
    out->fx = c->out;
    memcpy(out->gpr, c->gpr, sizeof out->gpr);
    out->flags = c->flags & RF_ARITH;
    memcpy(out->mem, oracle_operand(o), OPERAND_BYTES);
}

static enum exec_result oracle_soft(struct oracle *o, const struct insn *in, struct outcome *out)
{
    struct soft_vcpu *v = o->v;
    v->st.rip = 0x1000;
    v->next_rip = v->st.rip + in->len;
    fpu_enter(v);
    enum exec_result r = in->op == OP_sse ? exec_sse(v, in) : exec_x87(v, in);
    fpu_leave(v);
    out->fx = v->st.fx;
    memcpy(out->gpr, v->st.gpr, sizeof out->gpr);
    out->flags = flags_get(v) & RF_ARITH;
    memcpy(out->mem, oracle_operand(o), OPERAND_BYTES);
    out->trap = 0;
    return r;
}

static void oracle_dump(const char *name, const void *p, unsigned n)
{
    fprintf(stderr, "  %-10s", name);
    for (unsigned i = 0; i < n; i++)
        fprintf(stderr, "%02x%s", ((const uint8_t *)p)[i], i % 16 == 15 ? " " : "");
    fprintf(stderr, "\n");
}

static void oracle_dump_outcome(const char *name, const struct outcome *x)
{
    fprintf(stderr, "%s: fcw %04x fsw %04x ftw %02x mxcsr %04x flags %04llx trap %d\n", name, x->fx.fcw, x->fx.fsw,
            x->fx.ftw_abridged, x->fx.mxcsr, (unsigned long long)x->flags, x->trap);
    oracle_dump("gpr", x->gpr, sizeof x->gpr);
    oracle_dump("st", x->fx.st, sizeof x->fx.st);
    oracle_dump("xmm", x->fx.xmm, 64);
    oracle_dump("mem", x->mem, 48);
}

/* Everything but the pointers, which the host may not report. RSP and R15 are the harness's. */
static bool outcome_equal(const struct outcome *a, const struct outcome *b, uint64_t flags_mask)
{
    for (unsigned i = 0; i < 15; i++)
        if (i != RSP && a->gpr[i] != b->gpr[i])
            return false;
    return a->fx.fcw == b->fx.fcw && a->fx.fsw == b->fx.fsw && a->fx.ftw_abridged == b->fx.ftw_abridged &&
           a->fx.mxcsr == b->fx.mxcsr && !memcmp(a->fx.st, b->fx.st, sizeof a->fx.st) &&
           !memcmp(a->fx.xmm, b->fx.xmm, sizeof a->fx.xmm) && !((a->flags ^ b->flags) & flags_mask) &&
           !memcmp(a->mem, b->mem, OPERAND_BYTES);
}

static void oracle_fail(const uint8_t *bytes, unsigned len, const struct outcome *before, const struct outcome *nat,
                        const struct outcome *soft)
{
    oracle_dump("code", bytes, len);
    oracle_dump_outcome("before", before);
    oracle_dump_outcome("native", nat);
    oracle_dump_outcome("soft", soft);
    fail_msg("native and soft differ");
}

/* ---- random operands ---- */

static uint32_t rand_single(struct oracle *o)
{
    static const uint32_t special[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                       0x7fc00000, 0x7f800001, 0xffc12345, 1,          0x007fffff, 0x00800000,
                                       0x7f7fffff, 0x4f000000, 0xcf000000, 0x5f000000, 0x33800000, 0x40490fdb};
    uint64_t r = oracle_rand(o);
    if (r & 3)
        return r & 4 ? (uint32_t)(r >> 32) : (uint32_t)(r >> 32 & 0x87ffffff) | 0x38000000;
    return special[(r >> 8) % ARRAY_SIZE(special)];
}

static uint64_t rand_double(struct oracle *o)
{
    static const uint64_t special[] = {0,
                                       UINT64_C(0x8000000000000000),
                                       UINT64_C(0x3ff0000000000000),
                                       UINT64_C(0x7ff0000000000000),
                                       UINT64_C(0xfff0000000000000),
                                       UINT64_C(0x7ff8000000000000),
                                       UINT64_C(0x7ff0000000000001),
                                       UINT64_C(0xfff8123456789abc),
                                       1,
                                       UINT64_C(0x000fffffffffffff),
                                       UINT64_C(0x0010000000000000),
                                       UINT64_C(0x7fefffffffffffff),
                                       UINT64_C(0x41e0000000000000),
                                       UINT64_C(0xc3e0000000000000),
                                       UINT64_C(0x47f0000000000000),
                                       UINT64_C(0x3810000000000000),
                                       UINT64_C(0x36a0000000000001)};
    uint64_t r = oracle_rand(o), x = oracle_rand(o);
    if (r & 3)
        return r & 4 ? x : (x & UINT64_C(0x80ffffffffffffff)) | UINT64_C(0x3f00000000000000);
    return special[(r >> 8) % ARRAY_SIZE(special)];
}

/* 16 bytes: singles, doubles, plain bits or short text. */
static void rand_vector(struct oracle *o, uint8_t *p)
{
    uint64_t kind = oracle_rand(o) & 7;
    for (unsigned i = 0; i < 4; i++)
        st32(p + 4 * i, kind < 3 ? rand_single(o) : (uint32_t)oracle_rand(o));
    if (kind >= 3 && kind < 6) {
        st64(p, rand_double(o));
        st64(p + 8, rand_double(o));
    } else if (kind == 6) {
        for (unsigned i = 0; i < 16; i++)
            p[i] = "\0abAB\x80\x7f\xff"[p[i] & 7];
    }
}

static void rand_st(struct oracle *o, uint8_t *p)
{
    static const uint16_t exps[] = {0, 1, 0x3fff, 0x7fff, 0x7ffe, 0x403e, 0x400e, 0x3fbf, 0x4000, 0x3ffe};
    uint64_t r = oracle_rand(o), man = oracle_rand(o);
    uint16_t exp = r & 1 ? (uint16_t)(0x3ff0 + (r >> 8 & 31)) : exps[(r >> 16) % ARRAY_SIZE(exps)];
    if ((r & 0xe) && exp)
        man |= UINT64_C(1) << 63;
    if (!(r & 0x70))
        man &= r & 0x80 ? UINT64_C(0xc000000000000000) : UINT64_C(0x8000000000000000);
    if ((r & 0xf00000000) == 0)
        exp = (uint16_t)oracle_rand(o) & 0x7fff;
    st64(p, man);
    st16(p + 8, exp | (uint16_t)((r >> 40 & 1) << 15));
    memset(p + 10, 0, 6);
}

/* A whole state: registers, operand memory and FXSAVE image, every exception masked. */
static void rand_state(struct oracle *o)
{
    struct cpu_state *st = &o->v->st;
    struct cpu_fx *fx = &st->fx;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t r = oracle_rand(o);
        st->gpr[i] = r & 3 ? oracle_rand(o) : (uint64_t)((int64_t)(r >> 8 & 63) - 32);
        rand_vector(o, fx->xmm[i]);
    }
    for (unsigned i = 0; i < OPERAND_BYTES; i += 16)
        rand_vector(o, oracle_operand(o) + i);
    for (unsigned i = 0; i < 8; i++)
        rand_st(o, fx->st[i]);
    st->gpr[RSI] = st->gpr[RDI] = (uint64_t)(uintptr_t)oracle_operand(o);
    st->gpr[RDI] += oracle_rand(o) & 15;
    uint64_t r = oracle_rand(o);
    fx->fcw = (uint16_t)(0x7f | (r & 0x1f00));
    fx->fsw = (uint16_t)(r >> 16 & (FSW_CC | FSW_TOP | (r & 0x2000 ? FSW_EXCEPTIONS | FSW_SF : 0)));
    fx->ftw_abridged = (uint8_t)(r & 0xc000 ? 0xff : r >> 32);
    fx->mxcsr = 0x1f80 | (r >> 40 & 0xe07f);
    fx->mxcsr_mask = 0xffff;
    fx->fip = fx->fdp = 0;
    fx->fop = 0;
    flags_load(o->v, oracle_rand(o) & RF_ARITH);
}

#endif
