/* How many guest instructions a second the built-in engine does, interpreted and translated: a few loops of kernel-like
 * code, one vCPU, one thread.
 * Usage: bench_cpu_soft [seconds-per-loop [name]] */
#include "cpu/soft/soft.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Guest code, assembled with us. Each loop runs for ever; rdi = 16 MiB is its scratch memory, rsp = 15 MiB. */
#define GUEST(name, text)                                                                                              \
    __asm__(".pushsection .rodata\n.global guest_" #name "\nguest_" #name ":\n" text "\n.global guest_" #name          \
            "_end\nguest_" #name "_end: .popsection\n");                                                               \
    extern const char guest_##name[], guest_##name##_end[]

GUEST(alu, "1: add %rbx, %rax; xor %rax, %rdx; shl $3, %rdx; lea 7(%rdx,%rax,4), %rcx; sub $5, %rbx; and $0xffff, %ecx;"
           "or %ecx, %eax; inc %r8; cmp $100, %r8; jne 1b; xor %r8d, %r8d; jmp 1b");
GUEST(copy, "1: lea 65536(%rdi), %rsi; mov $1024, %ecx; mov %rdi, %r8\n"
            "2: mov (%rsi), %rax; mov 8(%rsi), %rdx; mov %rax, (%r8); mov %rdx, 8(%r8); add $16, %rsi; add $16, %r8;"
            "dec %ecx; jnz 2b; jmp 1b");
GUEST(chase, "mov %rdi, %rax; mov $1000, %ecx\n"
             "1: lea 4160(%rax), %rdx; mov %rdx, (%rax); mov %rdx, %rax; dec %ecx; jnz 1b; mov %rdi, (%rax)\n"
             "2: mov (%rdi), %rdi; test %rdi, %rdi; je 2b; mov (%rdi), %rdi; cmp %rdi, %rsp; jne 2b; jmp 2b");
GUEST(call,
      "1: call 3f; call 4f; jmp 1b\n.balign 16\n3: push %rbp; mov %rsp, %rbp; push %rbx; mov %rax, %rbx; add $1, %rbx;"
      "mov %rbx, %rax; pop %rbx; pop %rbp; ret\n.skip 4096\n4: sub $24, %rsp; mov %rax, 8(%rsp); test %rax, %rax;"
      "js 5f; mov 8(%rsp), %rdx\n5: add $24, %rsp; ret");
GUEST(branch,
      "1: mov %edi, %eax; mov $997, %ecx\n"
      "2: imul $1103515245, %eax, %eax; add $12345, %eax; test $0x10000, %eax; jz 3f; add $1, %edx;"
      "cmp $77, %dl; ja 4f; movzbl %al, %esi; jmp 5f\n3: shr $3, %edx\n4: xor %ecx, %esi\n5: bt $3, %esi; jc 6f;"
      "cmovs %esi, %edx; setne %bl\n6: sub $1, %ecx; jne 2b; jmp 1b");
GUEST(percpu,
      "1: mov %gs:0x20, %rax; mov 8(%rax), %rdx; incl %gs:0x40; mov 0x10(%rdi,%rdx,8), %rcx; add %rcx, 0x18(%rdi);"
      "cmpl $0, %gs:0x44; jne 2f; testb $4, 3(%rdi); jz 2f; nop\n2: decl %gs:0x40; mov %rdx, 0x28(%rdi);"
      "movzwl 0x30(%rdi), %eax; jmp 1b");
GUEST(lock, "1: lock incl (%rdi); lock decl (%rdi); mov %eax, %edx; lock cmpxchg %edx, 8(%rdi); mov $1, %eax;"
            "lock xadd %eax, 16(%rdi); xchg %rax, 24(%rdi); jmp 1b");
GUEST(string, "1: mov %rdi, %rsi; mov $200, %ecx; movb $0, 200(%rdi)\n3: movb $65, -1(%rdi,%rcx); dec %ecx; jnz 3b\n"
              "2: movzbl (%rsi), %eax; inc %rsi; test %al, %al; jnz 2b; jmp 1b");

static const struct loop {
    const char *name, *code, *end;
} loops[] = {
#define LOOP(n)                                                                                                        \
    {                                                                                                                  \
#n, guest_##n, guest_##n##_end                                                                                 \
    }
    LOOP(alu), LOOP(copy), LOOP(chase), LOOP(call), LOOP(branch), LOOP(percpu), LOOP(lock), LOOP(string),
};

struct bench {
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    struct fabric *fabric;
    struct cpuid_model cpuid;
    struct guest_clock clock;
    struct engine_vm *vm;
};

static void no_kick(void *opaque, vcpu_idx_t cpu)
{
}

static int setup(struct bench *b, bool jit, struct err *e)
{
    static const apic_id_t ids[] = {{300}};
    struct cpu_topology topo = {1, 1, 1, 1};
    struct fabric_config fc = {.vcpus = 1, .ids = ids, .kick = no_kick, .epoch = &b->epoch};
    struct engine_config c = {.vcpus = 1, .ids = ids, .workers = 1, .ram = &b->ram, .mmio = &b->mmio};
    epoch_init(&b->epoch);
    bus_init(&b->mmio, "mmio", &b->epoch, NULL);
    bus_init(&b->ports, "port", &b->epoch, NULL);
    if (ram_init(&b->ram, 64 << 20, e) || fabric_create(&fc, &b->fabric, e) ||
        cpuid_model_init(&b->cpuid, NULL, &topo, 1, 300, e))
        return -1;
    c.ports = &b->ports;
    c.fabric = b->fabric;
    c.cpuid = &b->cpuid;
    c.clock = &b->clock;
    c.jit = jit;
    return engine_soft.vm_create(&c, &b->vm, e);
}

/* 64-bit mode, 4 KiB pages, the first 64 MiB mapped to themselves. */
static void boot(struct bench *b, const struct loop *l)
{
    uint8_t *ram = b->ram.low;
    struct cpu_state s;
    cpu_state_reset(&s, true);
    st64(ram + 0x1000, 0x2000 | 7);
    st64(ram + 0x2000, 0x3000 | 7);
    for (unsigned i = 0; i < 32; i++) {
        st64(ram + 0x3000 + i * 8, (0x10000 + i * 0x1000) | 7);
        for (unsigned j = 0; j < 512; j++)
            st64(ram + 0x10000 + i * 0x1000 + j * 8, ((uint64_t)(i * 512 + j) << 12) | 7);
    }
    memcpy(ram + 0x100040, l->code, (size_t)(l->end - l->code));
    block_dma_write((struct soft_vm *)b->vm, 0x100000, 0x10000);
    memset(ram + (16 << 20), 0, 8 << 20);
    st64(ram + (16 << 20) + 0x20, 16 << 20);
    for (unsigned i = 0; i < SEG_LDTR; i++)
        s.seg[i] = (struct cpu_segment){.limit = 0xffffffff, .attr = 0xc093};
    s.seg[SEG_CS].attr = 0xa09b;
    s.seg[SEG_GS].base = 16 << 20;
    s.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
    s.cr3 = 0x1000;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME | EFER_LMA;
    s.rip = 0x100040;
    s.gpr[RDI] = 16 << 20;
    s.gpr[RSP] = 15 << 20;
    s.activity = CPU_ACTIVE;
    engine_soft.set_state(engine_soft.vcpu(b->vm, VCPU_IDX(0)), &s);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Instructions a nanosecond. */
static double measure(struct bench *b, const struct loop *l, double seconds)
{
    struct engine_vcpu *v = engine_soft.vcpu(b->vm, VCPU_IDX(0));
    struct cpu_run run = {.budget = 100000};
    uint64_t done = 0;
    boot(b, l);
    double start = cpu_seconds(), took;
    do {
        for (unsigned i = 0; i < 100; i++) {
            run.now = done;
            engine_soft.vcpu_run(v, &run);
            done += run.used;
        }
        took = cpu_seconds() - start;
    } while (took < seconds && run.exit == CPU_EXIT_BUDGET);
    return run.exit == CPU_EXIT_BUDGET ? (double)done / took / 1e9 : 0;
}

static void fini(struct bench *b)
{
    engine_soft.vm_destroy(b->vm);
    fabric_destroy(b->fabric);
    ram_fini(&b->ram);
}

int main(int argc, char **argv)
{
    static struct bench b[2];
    struct err e = {{0}};
    for (unsigned jit = 0; jit < 2; jit++)
        if (setup(&b[jit], jit, &e)) {
            fprintf(stderr, "bench_cpu_soft: %s\n", e.msg);
            return 1;
        }
    printf("%-8s %12s %12s %7s  G instructions/s of one thread\n", "loop", "interpreted", "translated", "ratio");
    for (unsigned i = 0; i < ARRAY_SIZE(loops); i++) {
        if (argc >= 3 && strcmp(argv[2], loops[i].name))
            continue;
        double seconds = argc > 1 ? atof(argv[1]) : 0.5;
        double slow = measure(&b[0], &loops[i], seconds), fast = measure(&b[1], &loops[i], seconds);
        printf("%-8s %12.3f %12.3f %7.2f\n", loops[i].name, slow, fast, fast / slow);
    }
    fini(&b[0]);
    fini(&b[1]);
    return 0;
}
