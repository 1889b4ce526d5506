/* Small guest programs through engine_soft: the dispatcher, time slices, self-modifying code, single steps, many vCPUs.
 */
#include "cpu_rig.h"
#include "guest_code.h"

#include <pthread.h>
#include <stdlib.h>

/* Placed at RIG_CODE unless said otherwise. */
#define LOAD_AT_GPA(r, name, gpa) load(r, gpa, guest_##name, GUEST_LEN(name))
#define LOAD(r, name)             LOAD_AT_GPA(r, name, RIG_CODE)

static void load(struct rig *r, uint64_t gpa, const char *from, size_t len)
{
    memcpy(rig_at(r, gpa), from, len);
    block_dma_write((struct soft_vm *)r->vm, gpa, len);
}

static struct cpu_run run(struct soft_vcpu *v, uint64_t now, uint64_t budget, unsigned worker)
{
    struct cpu_run c = {.now = now, .budget = budget, .worker = worker};
    engine_soft.vcpu_run((struct engine_vcpu *)v, &c);
    return c;
}

static struct cpu_run to_halt(struct rig *r)
{
    struct cpu_run c = run(r->v, 0, 1000000, 0);
    assert_int_equal(c.exit, CPU_EXIT_HALT);
    return c;
}

/* Handlers count their vector's deliveries at COUNTS + vector * 8 and return. */
enum { COUNTS = 0x7000 };

static void counting_handler(struct rig *r, unsigned vector)
{
    uint64_t at = rig_handler(vector);
    uint8_t *p = rig_at(r, at);
    memcpy(p, "\x48\xff\x04\x25", 4); /* incq disp32 */
    st32(p + 4, COUNTS + vector * 8);
    memcpy(p + 8, "\x48\xcf", 2); /* iretq */
    st64(rig_at(r, COUNTS + vector * 8), 0);
}

/* A machine of `n` vCPUs with sparse IDs instead of the rig's two. */
static void remake(struct rig *r, uint32_t n, unsigned workers, bool deterministic)
{
    struct err e;
    apic_id_t ids[64];
    assert_true(n <= ARRAY_SIZE(ids));
    engine_soft.vm_destroy(r->vm);
    pv_destroy(r->pv);
    fabric_destroy(r->fabric);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = APIC_ID(3 + i * 37);
    struct fabric_config fc = {.vcpus = n, .ids = ids, .firmware_x2apic = true, .x2apic = true, .ext_dest_id = true};
    fc.kick = rig_kick;
    fc.kick_opaque = r;
    fc.epoch = &r->epoch;
    assert_int_equal(fabric_create(&fc, &r->fabric, &e), 0);
    struct pv_config pc = {.vcpus = n, .features = PV_UNHALT, .ram = &r->ram, .fabric = r->fabric};
    assert_int_equal(pv_create(&pc, &r->pv, &e), 0);
    struct engine_config c = {.vcpus = n, .ids = ids, .workers = workers, .ram = &r->ram, .mmio = &r->mmio};
    c.ports = &r->ports;
    c.fabric = r->fabric;
    c.cpuid = &r->cpuid;
    c.pv = r->pv;
    c.clock = &r->clock;
    c.deterministic = deterministic;
    jit_env(&c);
    assert_int_equal(engine_soft.vm_create(&c, &r->vm, &e), 0);
    r->v = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(0));
    r->other = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(1));
}

static struct soft_vcpu *long_vcpu(struct rig *r, uint32_t i)
{
    struct soft_vcpu *keep = r->v, *v = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(i));
    r->v = v;
    rig_long(r, 0);
    v->st.gpr[RSP] = 0x100000 + (i + 1) * 0x1000;
    r->v = keep;
    return v;
}

/* ---- budgets ---- */

GUEST(forever, ".code64", "1: inc %rax; add $2, %rbx; jmp 1b");

static void a_budget_is_met_to_the_instruction_it_overruns_by_at_most_a_block(void **state)
{
    struct rig *r = *state;
    uint64_t total = 0;
    rig_long(r, 0);
    LOAD(r, forever);
    r->v->st.gpr[RAX] = r->v->st.gpr[RBX] = 0;
    for (uint64_t budget = 1; budget < 400; budget++) {
        struct cpu_run c = run(r->v, total, budget, 0);
        assert_int_equal(c.exit, CPU_EXIT_BUDGET);
        assert_true(c.used >= budget && c.used < budget + 64);
        total += c.used;
        assert_int_equal(r->v->st.gpr[RAX], total / 3);
        assert_int_equal(r->v->st.gpr[RBX], total / 3 * 2);
        assert_int_equal(r->v->st.rip, RIG_CODE);
    }
}

GUEST(sum, ".code64",
      "mov $100, %ecx; xor %eax, %eax; 1: add %rcx, %rax; push %rax; call 2f; pop %rdx; dec %ecx; jnz 1b; hlt;"
      "2: xor %rdx, %rbx; test $1, %bl; jz 3f; add $3, %rbx; 3: ret");

static void stopping_points_do_not_depend_on_what_is_cached(void **state)
{
    struct rig *r = *state;
    struct cpu_run first[64], c;
    for (unsigned warm = 0; warm < 2; warm++) {
        rig_long(r, 0);
        if (!warm)
            LOAD(r, sum);
        memset(r->v->st.gpr, 0, sizeof r->v->st.gpr);
        r->v->st.gpr[RSP] = RIG_STACK;
        for (unsigned i = 0; i < 64; i++) {
            c = run(r->v, 0, 7 + i % 5, 0);
            if (!warm)
                first[i] = c;
            assert_int_equal(c.used, first[i].used);
            assert_int_equal(c.exit, first[i].exit);
        }
    }
    to_halt(r);
    assert_int_equal(r->v->st.gpr[RAX], 5050);
}

static void time_is_exact_in_the_middle_of_a_block(void **state)
{
    struct rig *r = *state;
    /* nop; nop; rdtsc; nop; hlt */
    static const char code[] = "\x90\x90\x0f\x31\x90\xf4";
    rig_long(r, 0);
    load(r, RIG_CODE, code, sizeof code - 1);
    r->v->st.tsc_offset = 0;
    struct cpu_run c = run(r->v, 1000, 100, 0);
    assert_int_equal(c.exit, CPU_EXIT_HALT);
    assert_int_equal(c.used, 5);
    assert_int_equal(r->v->st.gpr[RAX] | r->v->st.gpr[RDX] << 32, 1002);
}

static void the_apic_timer_ends_a_slice(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, forever);
    counting_handler(r, 0x31);
    fabric_msr_write(r->fabric, VCPU_IDX(0), 0, 0x80f, 0x1ff);   /* software enable */
    fabric_msr_write(r->fabric, VCPU_IDX(0), 0, 0x832, 0x40031); /* TSC deadline, vector 31h */
    fabric_deadline_set(r->fabric, VCPU_IDX(0), 0, 500);
    struct cpu_run c = run(r->v, 0, 490, 0);
    assert_int_equal(rig_u64(r, COUNTS + 0x31 * 8), 0);
    run(r->v, c.used, 40, 0);
    assert_int_equal(rig_u64(r, COUNTS + 0x31 * 8), 1);
}

/* ---- memory ---- */

GUEST(straddle, ".code64",
      "mov $0x1122334455667788, %rax; mov %rax, 0xffd(%rdi); mov 0xffd(%rdi), %rbx; addl $1, 0xffe(%rdi);"
      "mov 0xffd(%rdi), %rcx; lock addq $1, 0xffc(%rdi); mov 0xffc(%rdi), %rdx; hlt");

static void operands_cross_pages(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, straddle);
    r->v->st.gpr[RDI] = 0x20000;
    st32(rig_at(r, 0x20ff8), 0);
    to_halt(r);
    assert_int_equal(r->v->st.gpr[RBX], 0x1122334455667788);
    assert_int_equal(r->v->st.gpr[RCX], 0x1122334455667888);
    assert_int_equal(r->v->st.gpr[RDX], 0x2233445566788801);
}

GUEST(fault, ".code64", "mov $7, %eax; add $1, %eax; add %rax, (%rsi); mov $9, %eax; hlt");

static void a_fault_is_precise(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, fault);
    r->v->st.gpr[RSI] = RIG_UNMAPPED;
    *rig_at(r, rig_handler(14)) = 0xf4;
    struct cpu_run c = to_halt(r);
    assert_int_equal(r->v->st.gpr[RAX], 8);
    assert_int_equal(r->v->st.cr2, RIG_UNMAPPED);
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP]), PF_W);
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP] + 8), RIG_CODE + 8);
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP] + 24) & RF_ARITH, 0); /* of the ADD before */
    assert_int_equal(c.used, 4);                                        /* mov, add, the faulting one, hlt */
}

GUEST(jumps, ".code64", "mov $0x800000000000, %rax; jmp *%rax");

static void fetch_faults(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    *rig_at(r, rig_handler(14)) = *rig_at(r, rig_handler(13)) = 0xf4;
    r->v->st.rip = RIG_UNMAPPED + 0x123;
    to_halt(r);
    assert_int_equal(r->v->st.rip, rig_handler(14) + 1);
    assert_int_equal(r->v->st.cr2, RIG_UNMAPPED + 0x123);
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP]), 0); /* I only with NX or SMEP */
    rig_long(r, 0);
    LOAD(r, jumps);
    to_halt(r);
    assert_int_equal(r->v->st.rip, rig_handler(13) + 1);
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP] + 8), RIG_CODE + 10); /* the jump itself */
    rig_long(r, 0);
    r->v->st.rip = UINT64_C(0x800000000000);
    to_halt(r);
    assert_int_equal(r->v->st.rip, rig_handler(13) + 1);
}

GUEST(pages, ".code64", "mov $1000, %ecx; 1: add $0x11223344, %eax; dec %ecx; jnz 1b; hlt");

static void instructions_cross_pages(void **state)
{
    struct rig *r = *state;
    size_t len = (size_t)(guest_pages_end - guest_pages);
    for (uint64_t at = 0x21000 - len; at <= 0x21000; at++) {
        rig_long(r, 0);
        load(r, at, guest_pages, len);
        r->v->st.gpr[RAX] = 0;
        r->v->st.rip = at;
        to_halt(r);
        assert_int_equal(r->v->st.gpr[RAX], (uint32_t)(0x11223344u * 1000u));
    }
}

/* The second half of a straddling instruction follows its page's mapping and contents. */
static void a_straddler_follows_both_its_pages(void **state)
{
    struct rig *r = *state;
    enum { PT = 0x15000, AT = 0x21ffe };
    static const char one[] = "\xb8\x01\x00\x00\x00\xf4", two[] = "\xb8\x01\x02\x00\x00\xf4";
    rig_long(r, 0);
    for (uint64_t i = 0; i < 512; i++)
        st64(rig_at(r, PT + i * 8), i << 12 | PTE_P | PTE_W);
    st64(rig_at(r, RIG_PML4 + 0x2000), PT | PTE_P | PTE_W);
    load(r, AT, one, 6);
    load(r, 0x23000, two + 2, 4);
    static const struct {
        uint64_t page;
        uint32_t eax;
    } steps[] = {{0x22000, 1}, {0x22000, 1}, {0x23000, 0x201}, {0x22000, 1}, {0x23000, 0x201}};
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        st64(rig_at(r, PT + 0x22 * 8), steps[i].page | PTE_P | PTE_W);
        tlb_flush_page(r->v, 0x22000);
        r->v->st.rip = AT;
        r->v->st.activity = CPU_ACTIVE;
        to_halt(r);
        assert_int_equal(r->v->st.gpr[RAX], steps[i].eax);
    }
    st64(rig_at(r, PT + 0x22 * 8), 0x22000 | PTE_P | PTE_W);
    tlb_flush_page(r->v, 0x22000);
    for (unsigned i = 0; i < 3; i++) {
        *rig_at(r, 0x22000) = (uint8_t)(0x10 + i);
        block_dma_write((struct soft_vm *)r->vm, 0x22000, 1);
        r->v->st.rip = AT;
        r->v->st.activity = CPU_ACTIVE;
        to_halt(r);
        assert_int_equal(r->v->st.gpr[RAX], 1 + (0x10 + i) * 0x100);
    }
}

/* All of RAM, as a reset clears it: none of the old code runs, wherever it is. */
static void code_that_goes_with_all_of_ram(void **state)
{
    static const uint64_t from[] = {0, 0x22010, 0x22ff0};
    struct rig *r = *state;
    rig_long(r, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(from); i++) {
        load(r, 0x22ff8, "\xb8\x01\x00\x00\x00\xf4", 6); /* mov $1, %eax; hlt */
        for (unsigned run = 1; run <= 2; run++) {
            r->v->st.rip = 0x22ff8;
            r->v->st.activity = CPU_ACTIVE;
            to_halt(r);
            assert_int_equal(r->v->st.gpr[RAX], run);
            *rig_at(r, 0x22ff9) = 2;
            block_dma_write((struct soft_vm *)r->vm, from[i], UINT64_C(1) << 40);
        }
    }
}

/* ---- other modes ---- */

GUEST(prog32, ".code32",
      "mov $10, %ecx; xor %eax, %eax; 1: add %ecx, %eax; push %eax; call 2f; pop %edx; loop 1b; mov %eax, 0x20000;"
      "mov $0xffff0000, %ebx; mov %edx, 0x30004(%ebx,%ebx); mov $0x12345678, %esi; movw %si, %ax; pushw %ax; hlt;"
      "2: xor %edx, %ebp; ret");

static void protected_mode_runs(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    LOAD(r, prog32);
    uint64_t sp = r->v->st.gpr[RSP];
    to_halt(r);
    assert_int_equal(rig_u32(r, 0x20000), 55);
    assert_int_equal(rig_u32(r, 0x10004), 55); /* the address wrapped at 4 GiB */
    assert_int_equal(r->v->st.gpr[RAX], 0x5678);
    assert_int_equal(r->v->st.gpr[RSP], sp - 2);
}

GUEST(prog16, ".code16",
      "mov $0x2000, %ax; mov %ax, %ds; mov $0xfffe, %bx; mov $4, %si; movw $0x1234, (%bx,%si); mov (2), %dx;"
      "push %dx; call 1f; pop %cx; movb %ch, %al; cwtl; hlt; 1: add $1, %dx; ret");

static void real_mode_runs(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    LOAD(r, prog16);
    to_halt(r);
    assert_int_equal(rig_u32(r, 0x20002) & 0xffff, 0x1234);
    assert_int_equal(r->v->st.gpr[RDX] & 0xffff, 0x1235);
    assert_int_equal(r->v->st.gpr[RCX] & 0xffff, 0x1234);
    assert_int_equal(r->v->st.gpr[RAX] & 0xffff, 0x2012);
}

static void code_ends_at_the_segment_limit(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    *rig_at(r, rig_handler(13)) = 0xf4;
    r->v->st.seg[SEG_CS].limit = RIG_CODE + 2; /* three bytes; handlers load their own CS */
    load(r, RIG_CODE, "\x90\x90\xb8\x01\x02\x03\x04\xf4", 8);
    mode_update(r->v);
    to_halt(r);
    assert_int_equal(r->v->st.rip, rig_handler(13) + 1);
    assert_int_equal(rig_u32(r, r->v->st.gpr[RSP] + 4), RIG_CODE + 2);
}

/* ---- self-modifying code ---- */

GUEST(smc, ".code64",
      "mov $3, %ecx; 1: movl %ecx, 2f+1(%rip); nop; 2: mov $0, %eax; add %eax, %ebx; dec %ecx; jnz 1b; hlt");

static void a_store_changes_the_next_instructions_of_its_own_block(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, smc);
    r->v->st.gpr[RBX] = 0;
    to_halt(r);
    assert_int_equal(r->v->st.gpr[RBX], 6);
}

GUEST(patched, ".code64", "1: mov $1, %eax; mov %eax, 0x20000; jmp 1b");
GUEST(patcher, ".code64",
      "mov $2, %ecx; 1: mov %ecx, 0x5001; 2: pause; cmp %ecx, 0x20000; jne 2b; inc %ecx; cmp $200, %ecx; jne 1b;"
      "movl $-1, 0x20008; hlt");

struct job {
    struct rig *r;
    unsigned worker;
    uint32_t first, step, n; /* vCPUs */
    uint32_t done_gpa;       /* stop once this is -1 */
};

static void *worker(void *arg)
{
    struct job *j = arg;
    uint64_t now = 0;
    while (__atomic_load_n((uint32_t *)rig_at(j->r, j->done_gpa), __ATOMIC_ACQUIRE) != UINT32_MAX)
        for (uint32_t i = j->first; i < j->n; i += j->step)
            now += run((struct soft_vcpu *)engine_soft.vcpu(j->r->vm, VCPU_IDX(i)), now, 300 + i, j->worker).used;
    return NULL;
}

static void two_workers(struct rig *r, uint32_t vcpus, uint32_t done_gpa)
{
    struct job j[2];
    pthread_t t[2];
    for (unsigned w = 0; w < 2; w++) {
        j[w] = (struct job){r, w, w, 2, vcpus, done_gpa};
        assert_int_equal(pthread_create(&t[w], NULL, worker, &j[w]), 0);
    }
    for (unsigned w = 0; w < 2; w++)
        pthread_join(t[w], NULL);
}

static void another_vcpus_store_reaches_a_running_loop(void **state)
{
    struct rig *r = *state;
    remake(r, 2, 2, false);
    long_vcpu(r, 0);
    long_vcpu(r, 1)->st.rip = 0x30000;
    LOAD(r, patched);
    LOAD_AT_GPA(r, patcher, 0x30000);
    st64(rig_at(r, 0x20000), 0);
    st64(rig_at(r, 0x20008), 0);
    two_workers(r, 2, 0x20008);
    assert_int_equal(rig_u32(r, 0x5001), 199);
}

/* ---- many vCPUs ---- */

GUEST(hammer, ".code64",
      "mov $500, %ecx; 1: mov $1, %eax; lock xadd %eax, 0x20000; lock incl 0x2003e; lock addq $3, 0x20ffc;"
      "2: xor %eax, %eax; mov $1, %edx; lock cmpxchg %edx, 0x20100; pause; jne 2b; incl 0x20104; movl $0, 0x20100;"
      "dec %ecx; jnz 1b; mov $1, %eax; lock xadd %eax, 0x20200; cmp $15, %eax; jne 3f; movl $-1, 0x20008;"
      "3: hlt; jmp 3b");

static void atomics_add_up(void **state)
{
    struct rig *r = *state;
    enum { N = 16 };
    remake(r, N, 2, false);
    for (uint32_t i = 0; i < N; i++)
        long_vcpu(r, i)->st.rip = 0x30000;
    LOAD_AT_GPA(r, hammer, 0x30000);
    memset(rig_at(r, 0x20000), 0, 0x2000);
    two_workers(r, N, 0x20008);
    assert_int_equal(rig_u32(r, 0x20000), N * 500);
    assert_int_equal(rig_u32(r, 0x2003e), N * 500);     /* across a cache line */
    assert_int_equal(rig_u64(r, 0x20ffc), N * 500 * 3); /* across a page */
    assert_int_equal(rig_u32(r, 0x20104), N * 500);
}

/* Each vCPU writes its own routine over and over on a page they all run on. */
GUEST(
    flusher, ".code64",
    "mov $300, %r9d; mov $0x40000, %edi; add %r8d, %edi; 1: mov %edi, %esi; mov $40, %ecx;"
    "2: movl $0x90909090, (%rsi); movb $0xc3, 4(%rsi); call *%rsi; add $4096, %rsi; dec %ecx; jnz 2b; dec %r9d; jnz 1b;"
    "mov $1, %eax; lock xadd %eax, 0x20200; cmp $3, %eax; jne 3f; movl $-1, 0x20008; 3: hlt; jmp 3b");

static void code_pages_come_and_go_under_everyone(void **state)
{
    struct rig *r = *state;
    remake(r, 4, 2, false);
    for (uint32_t i = 0; i < 4; i++) {
        struct soft_vcpu *v = long_vcpu(r, i);
        v->st.rip = 0x30000;
        v->st.gpr[R8] = 0x100 * i + 0x3d;
    }
    LOAD_AT_GPA(r, flusher, 0x30000);
    memset(rig_at(r, 0x20000), 0, 0x1000);
    two_workers(r, 4, 0x20008);
    assert_int_equal(rig_u32(r, 0x20200), 4);
}

/* ---- interrupts, single steps, breakpoints ---- */

GUEST(shadow, ".code64", "sti; inc %eax; inc %eax; hlt");

static void an_interrupt_waits_for_the_instruction_after_sti(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, shadow);
    r->v->st.rflags &= ~RF_IF;
    r->v->st.gpr[RAX] = 0;
    fabric_msr_write(r->fabric, VCPU_IDX(0), 0, 0x80f, 0x1ff);
    assert_int_equal(fabric_deliver(r->fabric, (struct irq){.dest = 5, .vector = 0x35}), 1);
    *rig_at(r, rig_handler(0x35)) = 0xf4;
    to_halt(r);
    assert_int_equal(r->v->st.rip, rig_handler(0x35) + 1);
    assert_int_equal(r->v->st.gpr[RAX], 1);
}

GUEST(idle, ".code64", "1: sti; hlt; inc %eax; cmp $3, %eax; jne 1b; cli; hlt");

static void halt_ends_with_an_interrupt(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, idle);
    r->v->st.rflags &= ~RF_IF;
    r->v->st.gpr[RAX] = 0;
    counting_handler(r, 0x35);
    fabric_msr_write(r->fabric, VCPU_IDX(0), 0, 0x80f, 0x1ff);
    for (unsigned i = 0; i < 3; i++) {
        to_halt(r);
        assert_int_equal(r->v->st.gpr[RAX], i);
        fabric_deliver(r->fabric, (struct irq){.dest = 5, .vector = 0x35});
        fabric_msr_write(r->fabric, VCPU_IDX(0), 0, 0x80b, 0);
    }
    to_halt(r);
    assert_int_equal(r->v->st.gpr[RAX], 3);
}

GUEST(step, ".code64",
      "pushf; orl $0x100, (%rsp); popf; nop; add $1, %eax; cmp $5, %eax; jne 1f; 1: pushf;"
      "andl $~0x100, (%rsp); popf; nop; nop; hlt");

static void tf_traps_after_every_instruction(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, step);
    counting_handler(r, 1);
    to_halt(r);
    assert_int_equal(rig_u64(r, COUNTS + 8), 7); /* nop add cmp jne pushf andl popf */
    assert_true(r->v->st.dr[6] & DR6_BS);
}

GUEST(breaks, ".code64", "mov $3, %ecx; 1: nop; inc %eax; dec %ecx; jnz 1b; mov %eax, 0x20000; mov %eax, 0x20008; hlt");

static void breakpoints_hit(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, breaks);
    counting_handler(r, 1);
    /* A handler for faults must set RF itself; ours counts and sets it. */
    static const char handler[] = "\x48\xff\x04\x25\x08\x70\x00\x00\x81\x4c\x24\x10\x00\x00\x01\x00\x48\xcf";
    load(r, rig_handler(1), handler, sizeof handler - 1);
    r->v->st.dr[0] = RIG_CODE + 6; /* the INC */
    r->v->st.dr[1] = 0x20008;
    r->v->st.dr[7] = 0x400 | 1 | 4 | 1u << 20 | 3u << 22; /* DR0: execute; DR1: write of 4 bytes */
    mode_update(r->v);
    to_halt(r);
    assert_int_equal(rig_u64(r, COUNTS + 8), 4);
}

GUEST(spin, ".code64", "1: pause; jmp 1b");

static void spinning_gives_the_worker_up(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    LOAD(r, spin);
    struct cpu_run c = run(r->v, 0, 100000, 0);
    assert_int_equal(c.exit, CPU_EXIT_SPIN);
    assert_int_equal(c.used, 63); /* 32 PAUSEs, 31 jumps */
    engine_soft.kick((struct engine_vcpu *)r->v, ATTN_EXIT);
    c = run(r->v, 0, 100000, 0);
    assert_int_equal(c.exit, CPU_EXIT_KICKED);
    assert_int_equal(engine_soft.attn((struct engine_vcpu *)r->v), 0);
}

static void a_triple_fault_shuts_down(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.idtr.limit = 0;
    load(r, RIG_CODE, "\x0f\x0b", 2);
    struct cpu_run c = run(r->v, 0, 100, 0);
    assert_int_equal(c.exit, CPU_EXIT_SHUTDOWN);
    c = run(r->v, 0, 100, 0);
    assert_int_equal(c.exit, CPU_EXIT_SHUTDOWN);
}

/* A handler that can't be fetched must not hold the worker. */
static void endless_faults_use_up_the_budget(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    rig_idt64(r, 14, A_INT32, 1);
    st32(rig_at(r, RIG_IDT + 14 * 16 + 8), 0x7fff); /* a canonical address nobody maps */
    r->v->st.rip = RIG_UNMAPPED;
    struct cpu_run c = run(r->v, 0, 1000, 0);
    assert_int_equal(c.exit, CPU_EXIT_BUDGET);
}

/* Blocks enough to fill any arena of the hostile build, and a trim in between. */
static void the_cache_empties_when_it_is_full(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    memset(rig_at(r, 0x40000), 0x90, 0x80000);
    *rig_at(r, 0xc0000) = 0xf4;
    block_dma_write((struct soft_vm *)r->vm, 0x40000, 0x80001);
    for (unsigned i = 0; i < 64; i++) {
        r->v->st.rip = 0x40000 + i;
        r->v->st.activity = CPU_ACTIVE;
        struct cpu_run c = to_halt(r);
        assert_int_equal(c.used, 0x80000 - i + 1);
        if (i % 16 == 7)
            engine_soft.vcpu_trim((struct engine_vcpu *)r->v);
    }
}

static void state_goes_out_and_in(void **state)
{
    struct rig *r = *state;
    struct cpu_state s, t;
    rig_long(r, 0);
    LOAD(r, sum);
    run(r->v, 0, 50, 0);
    uint8_t stack[64];
    memcpy(stack, rig_at(r, RIG_STACK - 64), 64);
    engine_soft.get_state((struct engine_vcpu *)r->v, &s);
    to_halt(r);
    uint64_t rax = r->v->st.gpr[RAX], rbx = r->v->st.gpr[RBX];
    memcpy(rig_at(r, RIG_STACK - 64), stack, 64);
    engine_soft.set_state((struct engine_vcpu *)r->v, &s);
    engine_soft.get_state((struct engine_vcpu *)r->v, &t);
    assert_same_state(&s, &t);
    to_halt(r);
    assert_int_equal(r->v->st.gpr[RAX], rax);
    assert_int_equal(r->v->st.gpr[RBX], rbx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_budget_is_met_to_the_instruction_it_overruns_by_at_most_a_block),
        RIG_TEST(stopping_points_do_not_depend_on_what_is_cached),
        RIG_TEST(time_is_exact_in_the_middle_of_a_block),
        RIG_TEST(the_apic_timer_ends_a_slice),
        RIG_TEST(operands_cross_pages),
        RIG_TEST(a_fault_is_precise),
        RIG_TEST(fetch_faults),
        RIG_TEST(code_that_goes_with_all_of_ram),
        RIG_TEST(instructions_cross_pages),
        RIG_TEST(a_straddler_follows_both_its_pages),
        RIG_TEST(protected_mode_runs),
        RIG_TEST(real_mode_runs),
        RIG_TEST(code_ends_at_the_segment_limit),
        RIG_TEST(a_store_changes_the_next_instructions_of_its_own_block),
        RIG_TEST(another_vcpus_store_reaches_a_running_loop),
        RIG_TEST(atomics_add_up),
        RIG_TEST(code_pages_come_and_go_under_everyone),
        RIG_TEST(an_interrupt_waits_for_the_instruction_after_sti),
        RIG_TEST(halt_ends_with_an_interrupt),
        RIG_TEST(tf_traps_after_every_instruction),
        RIG_TEST(breakpoints_hit),
        RIG_TEST(spinning_gives_the_worker_up),
        RIG_TEST(a_triple_fault_shuts_down),
        RIG_TEST(endless_faults_use_up_the_budget),
        RIG_TEST(the_cache_empties_when_it_is_full),
        RIG_TEST(state_goes_out_and_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
