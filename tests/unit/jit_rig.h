/* One guest program in several engines: interpreted, and translated after one, two, many executions. A test is a script
 * that sets a machine up, runs it in pieces and looks at it in between; everything seen, and all of RAM at the end,
 * must be the same in every engine.
 *
 * What the manuals leave undefined may differ (the host decides about a translation's flags): programs look at flags,
 * push them or let themselves be interrupted only behind instructions that define them all.
 */
#ifndef HEC_TESTS_JIT_RIG_H
#define HEC_TESTS_JIT_RIG_H

#include "cpu_rig.h"
#include "guest_code.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    J_PT = 0x15000,   /* the first 2 MiB, 4 KiB pages that lie where they are */
    J_DATA = 0x20000, /* 16 pages */
    J_CODE = 0x30000, /* 8 pages; RIP starts here */
    J_HANDLERS = 0x3c000,
    J_LOG = 0x60000, /* pointer to the end, then records of REC() */
    J_LOG_END = 0x100000,
    J_FREE = 0x100000, /* to RIG_RAM */
    J_MMIO = 0x500000  /* the gadget's page */
};

/* What a store to the gadget's page does besides being counted. */
enum {
    GADGET_WORD = 0,     /* 256 bytes that are kept */
    GADGET_EXIT = 0x100, /* ATTN_EXIT */
    GADGET_IRQ = 0x108,  /* an interrupt of that vector to vCPU 0 */
    GADGET_PATCH = 0x110 /* as a device does: a byte (bits 39..32) to RAM (bits 31..0) */
};

/* Log the interrupted instruction's RIP, RFLAGS, CR2 and all registers; `frame` is where RIP is on the stack: "8" if
 * there is an error code, else "0". */
#define REC(frame)                                                                                                     \
    "push %rax; push %rcx; mov 0x60000, %rcx; mov " frame "+16(%rsp), %rax; mov %rax, (%rcx);"                         \
    "mov " frame "+32(%rsp), %rax; mov %rax, 8(%rcx); mov %cr2, %rax; mov %rax, 16(%rcx);"                             \
    "mov %rbx, 24(%rcx); mov %rdx, 32(%rcx); mov %rsi, 40(%rcx); mov %rdi, 48(%rcx); mov %rbp, 56(%rcx);"              \
    "mov %r8, 64(%rcx); mov %r9, 72(%rcx); mov %r10, 80(%rcx); mov %r11, 88(%rcx); mov %r12, 96(%rcx);"                \
    "mov %r13, 104(%rcx); mov %r14, 112(%rcx); mov %r15, 120(%rcx); mov 8(%rsp), %rax; mov %rax, 128(%rcx);"           \
    "mov (%rsp), %rax; mov %rax, 136(%rcx); mov " frame "+40(%rsp), %rax; mov %rax, 144(%rcx);"                        \
    "add $152, %rcx; mov %rcx, 0x60000; pop %rcx; pop %rax;"
enum { REC_SIZE = 152 };

/* Maps the page of CR2 where it lies, writable. */
GUEST(fix_page, ".code64",
      REC("8") "push %rax; push %rcx; mov %cr2, %rax; mov %eax, %ecx; shr $12, %eax; and $0xfff000, %ecx; or $7, %ecx;"
               "mov %rcx, 0x15000(,%rax,8); mov %cr2, %rax; invlpg (%rax); pop %rcx; pop %rax; add $8, %rsp; iretq");

struct look {
    struct cpu_state st;
    uint64_t used, gadget;
    enum cpu_exit_kind exit;
};

struct jit_rig {
    struct rig rig;
    struct rig *r; /* &rig: what scripts use most */
    uint64_t now;
    struct look *looks;
    unsigned n, room;
    /* the gadget */
    uint8_t word[256];
    uint64_t sum; /* of all accesses */
    uint64_t last;
};

typedef void script_fn(struct jit_rig *j);

/* ---- the gadget ---- */

static inline void gadget_count(struct jit_rig *j, uint64_t off, unsigned size, uint64_t val)
{
    j->sum = (j->sum ^ off ^ (uint64_t)size << 32 ^ val) * UINT64_C(0x100000001b3) + 1;
}

static inline uint64_t gadget_read(void *dev, uint64_t off, unsigned size)
{
    struct jit_rig *j = dev;
    uint64_t val = 0;
    if (off + size <= sizeof j->word)
        memcpy(&val, j->word + off, size);
    else if (off >= 0x800)
        val = UINT64_C(0xc3c3c3c3c3c3c3c3); /* code: RET */
    gadget_count(j, off, size, 0);
    return val;
}

static inline void gadget_patch(struct jit_rig *j, uint64_t val)
{
    *rig_at(j->r, (uint32_t)val) = (uint8_t)(val >> 32);
    engine_soft.ram_written(j->r->vm, (uint32_t)val, 1);
}

static inline void gadget_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct jit_rig *j = dev;
    gadget_count(j, off, size, val);
    if (off + size <= sizeof j->word)
        memcpy(j->word + off, &val, size);
    else if (off == GADGET_EXIT)
        engine_soft.kick((struct engine_vcpu *)j->r->v, ATTN_EXIT);
    else if (off == GADGET_IRQ)
        fabric_deliver(j->r->fabric, (struct irq){.dest = 5, .vector = (uint8_t)val});
    else if (off == GADGET_PATCH)
        gadget_patch(j, val);
}

/* ---- a machine ---- */

static inline void jit_load_bytes(struct jit_rig *j, uint64_t gpa, const char *from, size_t len)
{
    memcpy(ram_hva(&j->r->ram, gpa, len), from, len);
    engine_soft.ram_written(j->r->vm, gpa, len);
}
#define JIT_LOAD(j, gpa, name) jit_load_bytes(j, gpa, guest_##name, GUEST_LEN(name))

static inline void jit_map(struct jit_rig *j, uint64_t gva, uint64_t pte)
{
    st64(rig_at(j->r, J_PT + (gva >> 12) * 8), pte);
}

/* 64-bit mode at CPL `level`; every exception and interrupt halts, until it gets a handler. */
static inline void jit_long(struct jit_rig *j, unsigned level)
{
    rig_long(j->r, level);
    for (uint64_t gva = 0; gva < 512 << 12; gva += 4096)
        jit_map(j, gva, gva | PTE_P | PTE_W | PTE_U);
    st64(rig_at(j->r, RIG_PML4 + 0x2000), J_PT | PTE_P | PTE_W | PTE_U);
    for (unsigned i = 0; i < 80; i++)
        jit_load_bytes(j, rig_handler(i), "\xf4", 1);
    st64(rig_at(j->r, J_LOG), J_LOG + 8);
    j->r->v->st.rip = J_CODE;
    tlb_flush_all(j->r->v);
}

/* From the vector's place in the rig to `gpa`, where the handler is loaded. */
static inline void jit_handler(struct jit_rig *j, unsigned vector, uint64_t gpa, const char *from, size_t len)
{
    char jump[5] = "\xe9";
    st32((uint8_t *)jump + 1, (uint32_t)(gpa - rig_handler(vector) - 5));
    jit_load_bytes(j, rig_handler(vector), jump, 5);
    jit_load_bytes(j, gpa, from, len);
}
#define JIT_HANDLER(j, vector, name) jit_handler(j, vector, J_HANDLERS + (vector)*0x200, guest_##name, GUEST_LEN(name))

/* The vector has a stack of its own. */
static inline void jit_own_stack(struct jit_rig *j, unsigned vector)
{
    rig_idt64(j->r, vector, A_INT32, 1);
}

static inline void look(struct jit_rig *j, const struct cpu_run *c)
{
    if (j->n == j->room) {
        j->room = j->room ? j->room * 2 : 64;
        j->looks = realloc(j->looks, j->room * sizeof j->looks[0]);
        assert_non_null(j->looks);
    }
    struct look *l = &j->looks[j->n++];
    memset(l, 0, sizeof *l);
    engine_soft.get_state((struct engine_vcpu *)j->r->v, &l->st);
    l->used = c->used;
    l->exit = c->exit;
    l->gadget = j->sum;
}

/* Run vCPU 0 and look. */
static inline struct cpu_run jit_go(struct jit_rig *j, uint64_t budget)
{
    struct cpu_run c = {.now = j->now, .budget = budget};
    engine_soft.vcpu_run((struct engine_vcpu *)j->r->v, &c);
    j->now += c.used;
    look(j, &c);
    return c;
}

/* Until HLT, in pieces of `budget` (looked at one by one). */
static inline void jit_to_halt(struct jit_rig *j, uint64_t budget)
{
    struct cpu_run c;
    unsigned pieces = 0;
    do {
        c = jit_go(j, budget);
        assert_true(++pieces < 200000);
        assert_int_not_equal(c.exit, CPU_EXIT_SHUTDOWN);
    } while (c.exit != CPU_EXIT_HALT);
}

/* Start again at `rip`. */
static inline void jit_restart(struct jit_rig *j, uint64_t rip)
{
    j->r->v->st.rip = rip;
    j->r->v->st.activity = CPU_ACTIVE;
}

/* How many records REC() has made. */
static inline unsigned jit_records(struct jit_rig *j)
{
    uint64_t end = rig_u64(j->r, J_LOG);
    assert_true(end < J_LOG_END - REC_SIZE);
    return (unsigned)(end - J_LOG - 8) / REC_SIZE;
}

/* ---- the comparison ---- */

struct engine_kind {
    const char *name;
    struct engine_config how;
};

static inline void same_word(const char *engine, unsigned at, const char *what, unsigned i, uint64_t a, uint64_t b)
{
    if (a != b)
        fail_msg("%s, look %u: %s%.0u is %llx, interpreted %llx", engine, at, what, i, (unsigned long long)b,
                 (unsigned long long)a);
}

static inline void same_registers(const char *engine, unsigned at, const struct cpu_state *a, const struct cpu_state *b)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    same_word(engine, at, "rip", 0, a->rip, b->rip);
    for (unsigned i = 0; i < 16; i++)
        same_word(engine, at, names[i], 0, a->gpr[i], b->gpr[i]);
    same_word(engine, at, "rflags", 0, a->rflags, b->rflags);
    same_word(engine, at, "cr2", 0, a->cr2, b->cr2);
    for (unsigned i = 0; i < 8; i++)
        same_word(engine, at, "dr", i, a->dr[i], b->dr[i]);
}

static inline void same_look(const char *engine, unsigned at, const struct look *a, const struct look *b)
{
    const uint64_t *p = &a->st.cr0, *q = &b->st.cr0; /* words without padding up to `activity` */
    same_word(engine, at, "used", 0, a->used, b->used);
    same_word(engine, at, "exit", 0, a->exit, b->exit);
    same_registers(engine, at, &a->st, &b->st);
    assert_same_state(&a->st, &b->st);
    for (unsigned i = 0; i < (offsetof(struct cpu_state, activity) - offsetof(struct cpu_state, cr0)) / 8; i++)
        same_word(engine, at, "word behind cr0: ", i, p[i], q[i]);
    same_word(engine, at, "activity", 0, a->st.activity, b->st.activity);
    same_word(engine, at, "int_shadow", 0, a->st.int_shadow, b->st.int_shadow);
    assert_memory_equal(&a->st.fx, &b->st.fx, 416);
    same_word(engine, at, "gadget", 0, a->gadget, b->gadget);
}

static inline void same_ram(const char *engine, struct rig *a, struct rig *b)
{
    if (!memcmp(a->ram.low, b->ram.low, RIG_RAM))
        return;
    for (uint64_t at = J_LOG + 8; at < J_LOG_END; at += 8) /* in the order of events, first */
        if (ld64(a->ram.low + at) != ld64(b->ram.low + at))
            fail_msg("%s: record %llu (RIP %llx), word %llu is %llx, interpreted %llx", engine,
                     (unsigned long long)(at - J_LOG - 8) / REC_SIZE,
                     (unsigned long long)ld64(a->ram.low + at - (at - J_LOG - 8) % REC_SIZE),
                     (unsigned long long)(at - J_LOG - 8) % REC_SIZE / 8, (unsigned long long)ld64(b->ram.low + at),
                     (unsigned long long)ld64(a->ram.low + at));
    for (uint64_t at = 0; at < RIG_RAM; at += 8)
        if (ld64(a->ram.low + at) != ld64(b->ram.low + at))
            fail_msg("%s: RAM at %llx is %llx, interpreted %llx", engine, (unsigned long long)at,
                     (unsigned long long)ld64(b->ram.low + at), (unsigned long long)ld64(a->ram.low + at));
}

static inline void same_trail(const char *engine, struct jit_rig *a, struct jit_rig *b)
{
    for (unsigned i = 0; i < a->n && i < b->n; i++)
        same_look(engine, i, &a->looks[i], &b->looks[i]);
    assert_int_equal(a->n, b->n);
    same_ram(engine, a->r, b->r);
}

static inline struct jit_rig *jit_play(script_fn *script, const struct engine_config *how)
{
    static const struct bus_ops ops = {gadget_read, gadget_write};
    struct jit_rig *j = calloc(1, sizeof *j);
    assert_non_null(j);
    const struct bus_region region = {J_MMIO, 0x1000, &ops, j, "gadget"};
    j->r = &j->rig;
    rig_init(j->r, how);
    assert_int_equal(bus_map(&j->r->mmio, &region, NULL), 0);
    script(j);
    return j;
}

static inline void jit_free(struct jit_rig *j)
{
    rig_fini(j->r);
    free(j->looks);
    free(j);
}

static inline void same_however_hot(script_fn *script)
{
    static const struct engine_kind kinds[] = {
        {"interpreted again", {.vcpus = 2}},
        {"heat 1", {.jit = true, .jit_heat = 1}},
        {"heat 2", {.jit = true, .jit_heat = 2}},
        {"heat 1000", {.jit = true, .jit_heat = 1000}},
        {"its own heat", {.jit = true, .deterministic = true}},
    };
    struct jit_rig *want = jit_play(script, &(struct engine_config){.vcpus = 2});
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct jit_rig *j = jit_play(script, &kinds[i].how);
        same_trail(kinds[i].name, want, j);
        jit_free(j);
    }
    jit_free(want);
}

/* A test whose script is `name`_script(). */
#define JIT_TEST(name)                                                                                                 \
    static void name(void **state)                                                                                     \
    {                                                                                                                  \
        same_however_hot(name##_script);                                                                               \
    }

#endif
