/* Hot code that something happens to: budgets, time, interrupts, faults, traps, devices. Each script runs interpreted
 * and translated (jit_rig.h), and must leave the same trail. */
#include "jit_rig.h"

/* ---- budgets and time ---- */

GUEST(mixed, ".code64",
      "mov $0x20000, %edi; mov $7, %r8d\n"
      "1: mov (%rdi,%rcx,8), %rdx; add %rdx, %rax; adc $3, %rbx; mov %rax, 0x100(%rdi,%rcx,8); call 2f; add %r8, %r9;"
      "inc %ecx; cmp $13, %ecx; jne 1b; sub %ecx, %ecx; mov $1, %r10d; lock xadd %r10, 0x800(%rdi); movzbl %al, %r11d;"
      "setc %dh; sbb %ah, %bl; cmp $100, %r10; pushf; pop %r12; cmova %rbx, %r13; jmp 1b\n"
      "2: push %rax; push %rbx; cmp $5, %ecx; jb 3f; add $7, %r8; pop %rbx; pop %rax; ret\n"
      "3: sub $2, %r8; add $16, %rsp; ret");

static void load_mixed(struct jit_rig *j, uint64_t at)
{
    jit_long(j, 0);
    JIT_LOAD(j, at, mixed);
    for (unsigned i = 0; i < 16; i++)
        st64(rig_at(j->r, J_DATA + i * 8), i * UINT64_C(0x9e3779b97f4a7c15));
    jit_restart(j, at);
}

static void every_budget_ends_where_the_interpreter_ends_it_script(struct jit_rig *j)
{
    struct cpu_state start;
    load_mixed(j, J_CODE);
    engine_soft.get_state((struct engine_vcpu *)j->r->v, &start);
    jit_go(j, 20000);
    for (uint64_t budget = 1; budget <= 200; budget++) {
        engine_soft.set_state((struct engine_vcpu *)j->r->v, &start);
        jit_go(j, budget);
    }
    for (uint64_t budget = 1; budget <= 200; budget++)
        jit_go(j, budget);
}
JIT_TEST(every_budget_ends_where_the_interpreter_ends_it)

static void code_across_pages_ends_likewise_script(struct jit_rig *j)
{
    for (unsigned back = 0; back < GUEST_LEN(mixed); back += 3) {
        load_mixed(j, J_CODE + 0x1000 - back);
        memset(j->r->v->st.gpr, 0, sizeof j->r->v->st.gpr);
        j->r->v->st.gpr[RSP] = RIG_STACK;
        jit_go(j, 9000);
        for (uint64_t budget = 1; budget < 80; budget += 7)
            jit_go(j, budget);
    }
}
JIT_TEST(code_across_pages_ends_likewise)

GUEST(clock, ".code64",
      "mov $0x110000, %edi; mov $2000, %ecx; 1: nop; rdtsc; mov %eax, (%rdi); add $8, %rdi; test %ecx, %ecx; rdtsc;"
      "mov %eax, -4(%rdi); dec %ecx; jnz 1b; hlt");

static void time_is_exact_inside_a_hot_block_script(struct jit_rig *j)
{
    for (uint64_t budget = 1000000; budget; budget /= 40) {
        jit_long(j, 0);
        JIT_LOAD(j, J_CODE, clock);
        jit_to_halt(j, budget < 40 ? 7 : budget);
    }
}
JIT_TEST(time_is_exact_inside_a_hot_block)

/* ---- interrupts and exits ---- */

GUEST(
    tick, ".code64",
    REC("0") "push %rax; push %rcx; push %rdx; incl 0x2f000; mov 0x2f000, %eax; and $31, %eax; lea 90(%rax), %ecx;"
             "rdtsc; add %ecx, %eax; mov $0x6e0, %ecx; wrmsr; mov $0x80b, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr;"
             "pop %rdx; pop %rcx; pop %rax; iretq");

static void enable_apic(struct jit_rig *j)
{
    fabric_msr_write(j->r->fabric, VCPU_IDX(0), j->now, 0x80f, 0x1ff);
    fabric_msr_write(j->r->fabric, VCPU_IDX(0), j->now, 0x832, 0x40031);
}

static void the_timer_interrupts_a_hot_loop_script(struct jit_rig *j)
{
    load_mixed(j, J_CODE);
    JIT_HANDLER(j, 0x31, tick);
    enable_apic(j);
    jit_go(j, 20000);
    fabric_deadline_set(j->r->fabric, VCPU_IDX(0), j->now, j->now + 77);
    for (unsigned i = 0; i < 20; i++)
        jit_go(j, 10000);
    assert_true(jit_records(j) > 800);
}
JIT_TEST(the_timer_interrupts_a_hot_loop)

GUEST(exits, ".code64",
      "mov $0x500000, %edi; mov $3000, %ecx; 1: add %rcx, %rax; mov %ecx, %edx; and $127, %edx; cmp $5, %edx; jne 2f;"
      "movl $1, 0x100(%rdi); add $1, %rbx; cmp %rax, %rbx; 2: cmp $77, %edx; jne 3f; movl $0x35, 0x108(%rdi);"
      "add $3, %rbx; cmp %rax, %rbx; adc $0, %r8; 3: dec %ecx; jnz 1b; hlt");
GUEST(count_eoi, ".code64",
      REC("0") "push %rax; push %rcx; push %rdx; mov $0x80b, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr;"
               "pop %rdx; pop %rcx; pop %rax; iretq");

static void attention_is_seen_at_the_next_block_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, exits);
    JIT_HANDLER(j, 0x35, count_eoi);
    enable_apic(j);
    jit_to_halt(j, 100000);
    assert_int_equal(jit_records(j), 3000 / 128);
    load_mixed(j, J_CODE);
    jit_go(j, 30000);
    for (unsigned i = 0; i < 10; i++) {
        engine_soft.kick((struct engine_vcpu *)j->r->v, ATTN_EXIT);
        jit_go(j, 1000);
        jit_go(j, 11 * i + 1);
    }
}
JIT_TEST(attention_is_seen_at_the_next_block)

GUEST(shadows, ".code64",
      "mov $0x500000, %edi; mov $3000, %ecx; mov %ss, %eax; 1: cli; mov %ecx, %edx; and $63, %edx; jnz 2f;"
      "movl $0x35, 0x108(%rdi); add $1, %rbx; 2: sti; add $1, %r8; add $1, %r9; cli; mov %eax, %ss; add $1, %r10; sti;"
      "mov %eax, %ss; add $1, %r11; add $1, %r12; dec %ecx; jnz 1b; cli; hlt");

static void shadows_hold_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, shadows);
    JIT_HANDLER(j, 0x35, count_eoi);
    enable_apic(j);
    jit_to_halt(j, 100000);
    jit_restart(j, J_CODE);
    jit_to_halt(j, 13);
    assert_true(jit_records(j) > 80);
}
JIT_TEST(shadows_hold_in_hot_code)

GUEST(naps, ".code64", "1: add $1, %rax; pause; add %rax, %rbx; test $15, %al; jnz 1b; sti; hlt; add $1, %rcx; jmp 1b");

static void halts_and_pauses_leave_as_ever_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, naps);
    JIT_HANDLER(j, 0x35, count_eoi);
    enable_apic(j);
    for (unsigned i = 0; i < 2500; i++)
        if (jit_go(j, 1000 - i % 997).exit == CPU_EXIT_HALT)
            fabric_deliver(j->r->fabric, (struct irq){.dest = 5, .vector = 0x35});
    assert_true(jit_records(j) > 500);
}
JIT_TEST(halts_and_pauses_leave_as_ever)

/* ---- faults ---- */

GUEST(walk, ".code64",
      "mov $3000, %ecx; xor %eax, %eax\n"
      "1: mov %ecx, %edx; imul $0x208, %rdx, %rdx; and $0x7ff8, %edx; add $1, %r9; mov 0x20000(%rdx), %r8;"
      "add %r8, %rax; adc %rcx, %rbx; mov %rbx, 0x20000(%rdx); lea 3(%rbx), %rsi; cmp %rax, %rbx; seta %dil;"
      "add %rsi, 0x20000(%rdx); adc $0, %r10; addb $3, 0x20007(%rdx); sbb %r11, %r11; dec %ecx; jnz 1b; hlt");
static void pages_go_away_under_a_hot_loop_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, walk);
    JIT_HANDLER(j, VEC_PF, fix_page);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t page = J_DATA + (i * 5 % 8) * 0x1000;
        jit_go(j, 1500 + i);
        jit_map(j, page, i % 4 ? page | (i % 2 ? PTE_P : 0) : 0);
        tlb_flush_page(j->r->v, page);
        if (i % 8 == 7)
            tlb_flush_all(j->r->v);
    }
    jit_to_halt(j, 100000);
    assert_true(jit_records(j) >= 30);
}
JIT_TEST(pages_go_away_under_a_hot_loop)

GUEST(dirty, ".code64",
      "mov $3000, %ecx; 1: mov %ecx, (%rdi); test $0x3f, %cl; jnz 2f; andl $~0x40, 0x15108; invlpg (%rdi);"
      "2: add $4, 8(%rdi); mov 0x15108, %eax; and $0x60, %eax; add %rax, %rbx; dec %ecx; jnz 1b; hlt");

static void accessed_and_dirty_bits_are_set_again_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, dirty);
    j->r->v->st.gpr[RDI] = 0x21ff4;
    jit_to_halt(j, 100000);
}
JIT_TEST(accessed_and_dirty_bits_are_set_again)

GUEST(pointers, ".code64",
      "mov $2500, %ecx; 1: mov 0x28000(,%rcx,8), %rsi; add $5, %rax; sbb %rdx, %rdx; mov (%rsi), %r8; add %r8, %rax;"
      "adc %rsi, %rbx; mov %rax, %r9; add %rcx, 4(%rsi); lea 8(%rsp), %r10; dec %ecx; jnz 1b; hlt");
GUEST(to_data, ".code64", REC("8") "mov $0x20000, %esi; add $8, %rsp; iretq");

static void wild_pointers_in_hot_code_script(struct jit_rig *j)
{
    static const uint64_t wild[] = {RIG_UNMAPPED, UINT64_C(0x800000000000), UINT64_C(0x7ffffffffffc),
                                    UINT64_C(0xffff7fffffffffff), UINT64_MAX - 3};
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, pointers);
    JIT_HANDLER(j, VEC_PF, to_data);
    JIT_HANDLER(j, VEC_GP, to_data);
    for (unsigned i = 0; i <= 2500; i++)
        st64(rig_at(j->r, 0x28000 + i * 8), i % 97 ? J_DATA + i % 64 * 8 : wild[i / 97 % ARRAY_SIZE(wild)]);
    jit_to_halt(j, 5000);
    assert_true(jit_records(j) >= 25);
}
JIT_TEST(wild_pointers_in_hot_code)

GUEST(crossing, ".code64",
      "mov $3000, %ecx; 1: mov %ecx, %edx; and $31, %edx; mov %rcx, 0x20fec(%rdx); mov 0x20ff0(%rdx), %rax;"
      "add %rax, %rbx; add %ebx, 0x20fee(%rdx); adc $3, %r8; movups 0x20fe0(%rdx), %xmm0; paddq %xmm0, %xmm1;"
      "movups %xmm1, 0x20ff1(%rdx); mov %bx, 0x20fef(%rdx); movzwl 0x20fdf(%rdx), %esi; add %rsi, %r9;"
      "lock add %r9d, 0x20fe3(%rdx); push 0x20fe9(%rdx); pop 0x20fe1(%rdx); xchg %r9, 0x20fdd(%rdx); dec %ecx; jnz 1b; "
      "hlt");

static void accesses_cross_pages_that_are_no_neighbours_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, crossing);
    JIT_HANDLER(j, VEC_PF, fix_page);
    j->r->v->st.cr4 |= CR4_OSFXSR;
    jit_map(j, 0x21000, 0x28000 | PTE_P | PTE_W);
    jit_go(j, 30000);
    for (unsigned i = 0; i < 20; i++) { /* the handler gives it its own page back; half of each store must wait */
        jit_map(j, 0x21000, i % 2 ? 0x28000 | PTE_P : 0x28000);
        tlb_flush_page(j->r->v, 0x21000);
        jit_go(j, 901);
    }
    jit_to_halt(j, 100000);
    assert_true(jit_records(j) >= 20);
}
JIT_TEST(accesses_cross_pages_that_are_no_neighbours)

GUEST(divide, ".code64",
      "mov $2500, %ecx; 1: mov %ecx, %esi; and $63, %esi; mov %rcx, %rax; neg %rax; cqo; idivq 0x20000(,%rsi,8);"
      "add %rax, %rbx; add %rdx, %r8; mov %ecx, %eax; sub %edx, %edx; divl 0x20000(,%rsi,8); add %rax, %rbx; mov %ecx, "
      "%eax;"
      "divb 0x20000(,%rsi,8); add %rax, %r9; cmp %rax, %rbx; dec %ecx; jnz 1b; hlt");
GUEST(to_one, ".code64", REC("0") "movq $127, 0x20000(,%rsi,8); iretq");

static void divisions_fault_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, divide);
    JIT_HANDLER(j, VEC_DE, to_one);
    for (unsigned i = 0; i < 64; i++)
        st64(rig_at(j->r, J_DATA + i * 8), 100 + i);
    jit_go(j, 1900);
    for (unsigned i = 0; i < 10; i++) {
        st64(rig_at(j->r, J_DATA + i * 48), 0);
        jit_go(j, 1900);
    }
    assert_true(jit_records(j) >= 10);
}
JIT_TEST(divisions_fault_in_hot_code)

/* ---- traps ---- */

GUEST(trapped, ".code64",
      "mov $3000, %ecx; 1: mov %ecx, (%rdi); add $7, %rax; cmp $1500, %ecx; jne 2f; pushf; orl $0x100, (%rsp); popf;"
      "2: adc %rax, %rbx; call 3f; mov 0x10(%rdi), %rdx; sub %rdx, %rbx; push %rcx; pop %r9; dec %ecx; jnz 1b; hlt;"
      "3: add $1, %r8; ret");
/* After 60 traps: no more. */
GUEST(steps, ".code64", REC("0") "incl 0x2f000; cmpl $60, 0x2f000; jb 1f; andl $~0x100, 16(%rsp); 1: iretq");

static void single_steps_begin_and_end_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, trapped);
    JIT_HANDLER(j, VEC_DB, steps);
    j->r->v->st.gpr[RDI] = J_DATA;
    jit_to_halt(j, 3000);
    assert_int_equal(jit_records(j), 60);
    jit_restart(j, J_CODE);
    jit_go(j, 9000);
    j->r->v->st.rflags |= RF_TF; /* set from outside */
    mode_update(j->r->v);
    st32(rig_at(j->r, 0x2f000), 0);
    jit_to_halt(j, 1000);
}
JIT_TEST(single_steps_begin_and_end_in_hot_code)

GUEST(broken, ".code64",
      "mov $3000, %ecx; 1: mov %ecx, (%rdi); add $7, %rax; cmp $1500, %ecx; jne 2f; mov %rsi, %dr7;"
      "2: cmp $1490, %ecx; jne 3f; mov %r15, %dr7; 3: add %rax, 8(%rdi); mov 8(%rdi), %rdx; add %rdx, %rbx; dec %ecx;"
      "jnz 1b; hlt");
GUEST(resume, ".code64",
      REC("0") "push %rax; mov %dr6, %rax; mov %rax, 0x2f000; pop %rax; orl $0x10000, 16(%rsp); iretq");

static void breakpoints_are_set_while_hot_script(struct jit_rig *j)
{
    struct cpu_state *s = &j->r->v->st;
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, broken);
    JIT_HANDLER(j, VEC_DB, resume);
    s->gpr[RDI] = J_DATA + 0x10;
    s->dr[0] = J_CODE + 7; /* an instruction of the loop */
    s->dr[1] = J_DATA + 0x18;
    s->gpr[RSI] =
        DR7_FIXED | 1 | 4 | UINT64_C(3) << 20 | UINT64_C(2) << 22; /* execution; reads and writes of 8 bytes */
    s->gpr[R15] = DR7_FIXED;
    jit_to_halt(j, 3000);
    assert_int_equal(jit_records(j), 30);
    jit_restart(j, J_CODE);
    jit_go(j, 6000);
    struct cpu_state from_outside;
    engine_soft.get_state((struct engine_vcpu *)j->r->v, &from_outside);
    from_outside.dr[7] = s->gpr[RSI];
    engine_soft.set_state((struct engine_vcpu *)j->r->v, &from_outside);
    jit_to_halt(j, 3000);
}
JIT_TEST(breakpoints_are_set_while_hot)

GUEST(unaligned, ".code64",
      "mov $3000, %ecx; 1: mov %rcx, 1(%rdi); add $7, %rax; cmp $1500, %ecx; jne 2f; pushf; orl $0x40000, (%rsp); popf;"
      "2: adc 3(%rdi), %rbx; mov 8(%rdi), %rdx; add %rdx, %rbx; add %ecx, 6(%rdi); dec %ecx; jnz 1b; mov $1, %esi; int "
      "$0x40;"
      "jmp .");
GUEST(no_more_ac, ".code64",
      REC("8") "incl 0x2f000; cmpl $5, 0x2f000; jb 1f; andl $~0x40000, 24(%rsp); 1: addq $1, %rdi;"
               "add $8, %rsp; iretq");

static void alignment_checks_begin_while_hot_script(struct jit_rig *j)
{
    jit_long(j, 3);
    JIT_LOAD(j, J_CODE, unaligned);
    JIT_HANDLER(j, VEC_AC, no_more_ac);
    j->r->v->st.cr0 |= CR0_AM;
    j->r->v->st.gpr[RDI] = J_DATA + 0x40;
    j->r->v->st.rflags &= ~RF_IF;
    mode_update(j->r->v);
    jit_to_halt(j, 3000);
    assert_true(jit_records(j) >= 5);
}
JIT_TEST(alignment_checks_begin_while_hot)

/* ---- devices ---- */

GUEST(device, ".code64",
      "mov $2000, %ecx; 1: mov %ecx, %edx; and $1, %edx; mov 0x28000(,%rdx,8), %rsi; mov (%rsi), %rax; add %rax, %rbx;"
      "movb %cl, 3(%rsi); adcw $5, 6(%rsi); mov 4(%rsi), %ax; mov 5(%rsi), %ah; addl %ecx, 8(%rsi); sbb %r8, %r8;"
      "movzbl 9(%rsi), %r9d; movswq 0x10(%rsi), %r10; xchg %r10, 0x18(%rsi); push 0x18(%rsi); pop 0x20(%rsi);"
      "movups 0x10(%rsi), %xmm0; movups %xmm0, 0x30(%rsi); cmp %rcx, 8(%rsi); setb 0x40(%rsi); lock incl 0x44(%rsi);"
      "btsl $7, 0x48(%rsi); cmp %rax, %rbx; call *0x28010(,%rdx,8); dec %ecx; jnz 1b; hlt");

/* Every other round the pointer is one to RAM; the calls, too, lead to the device and to RAM. */
static void devices_are_reached_from_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, device);
    jit_load_bytes(j, 0x32000, "\xc3", 1);
    j->r->v->st.cr4 |= CR4_OSFXSR;
    st64(rig_at(j->r, 0x28000), J_DATA);
    st64(rig_at(j->r, 0x28008), J_MMIO);
    st64(rig_at(j->r, 0x28010), 0x32000);
    st64(rig_at(j->r, 0x28018), J_MMIO + 0x800);
    jit_to_halt(j, 999);
}
JIT_TEST(devices_are_reached_from_hot_code)

/* ---- what translations may leave to others ---- */

GUEST(
    strings, ".code64",
    "mov $1200, %r8d; 1: mov $0x20000, %esi; mov $0x24000, %edi; mov %r8d, %ecx; and $63, %ecx; add $1, %ecx;"
    "lea (%rcx,%rax), %r9; rep movsb; mov $0x24000, %edi; mov $0x20000, %esi; mov $32, %ecx; repe cmpsb; setb %al;"
    "add %rcx, %rbx; std; mov $0x2103f, %edi; mov $9, %ecx; rep stosq; cld; mov $0x21000, %esi; lodsl; adc %eax, %ebx;"
    "mov $0x20000, %edi; mov $40, %ecx; repne scasb; add %rcx, %rbx; dec %r8d; jnz 1b; hlt");

static void strings_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, strings);
    JIT_HANDLER(j, VEC_PF, fix_page);
    for (unsigned i = 0; i < 256; i++)
        *rig_at(j->r, J_DATA + i) = (uint8_t)(i * 7);
    jit_go(j, 20000);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t page = i % 2 ? 0x20000 : 0x24000;
        jit_map(j, page, i % 3 ? page : page | PTE_P);
        tlb_flush_page(j->r->v, page);
        jit_go(j, 37 + i);
    }
    jit_to_halt(j, 1001);
    assert_true(jit_records(j) > 5);
}
JIT_TEST(strings_in_hot_code)

GUEST(
    atomics, ".code64",
    "mov $2500, %ecx; 1: mov %ecx, %esi; and $15, %esi; mov $3, %eax; lock xadd %eax, 0x20035(%rsi); add %rax, %r8;"
    "lock adc %rcx, 0x20ff8(%rsi); lock btsl $3, 0x2003e(%rsi); setc %dl; lock decw 0x2003f; mov 0x20100, %eax;"
    "mov 0x20104, %edx; lea 1(%rax), %ebx; mov %ecx, %edi; lock cmpxchg8b 0x20100; setz %r9b; xchg %r8, 0x20039(%rsi);"
    "mov %rcx, %rax; lock cmpxchg %r8, 0x20200; sete %r10b; and $~15, %esi; mov 0x20300(%rsi), %rax;"
    "mov 0x20308(%rsi), %rdx; push %rcx; lea (%rdx,%rcx), %rcx; lock cmpxchg16b 0x20300(%rsi); pop %rcx; setnz %r11b;"
    "lock cmpxchg16b 0x20318(,%rbp,8); adc $0, %r12; dec %ecx; jnz 1b; hlt");
GUEST(align, ".code64", REC("8") "xor $1, %ebp; add $8, %rsp; iretq");

static void atomics_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, atomics);
    JIT_HANDLER(j, VEC_GP, align);
    jit_go(j, 40000);
    j->r->v->st.gpr[RBP] = 2;
    jit_to_halt(j, 4000);
    assert_true(jit_records(j) >= 1);
}
JIT_TEST(atomics_in_hot_code)

GUEST(
    floats, ".code64",
    "mov $2500, %ecx; fninit; 1: cvtsi2sd %rcx, %xmm0; addsd %xmm0, %xmm1; ucomisd %xmm0, %xmm1; ja 2f; inc %eax;"
    "2: movsd %xmm1, (%rdi); fldl (%rdi); fildl 8(%rdi); faddp; fstpl 16(%rdi); cmp $1200, %ecx; jne 3f; mov %cr0, "
    "%rdx;"
    "or $8, %rdx; mov %rdx, %cr0; 3: movaps %xmm1, %xmm2; mulsd %xmm0, %xmm2; cvttsd2si %xmm2, %rbx; mov %ecx, 8(%rdi);"
    "movd %ecx, %mm0; paddd %mm0, %mm1; emms; cmp $600, %ecx; jne 4f; ldmxcsr 24(%rdi); 4: sqrtsd %xmm3, %xmm4; dec "
    "%ecx;"
    "jnz 1b; hlt");
GUEST(clear_ts, ".code64", REC("0") "clts; iretq");
GUEST(mask_all, ".code64", REC("0") "movl $0x1f80, 0x2f000; ldmxcsr 0x2f000; iretq");

static void floats_in_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, floats);
    JIT_HANDLER(j, VEC_NM, clear_ts);
    JIT_HANDLER(j, VEC_XM, mask_all);
    j->r->v->st.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    j->r->v->st.gpr[RDI] = J_DATA;
    j->r->v->st.fx.mxcsr = 0x1f80;
    st64(j->r->v->st.fx.xmm[3], UINT64_C(0xc000000000000000)); /* -2.0 */
    st32(rig_at(j->r, J_DATA + 24), 0x1f00);                   /* invalid operations are no longer masked */
    jit_to_halt(j, 777);
    assert_int_equal(jit_records(j), 2);
}
JIT_TEST(floats_in_hot_code)

GUEST(bases, ".code64",
      "mov $3000, %ecx; 1: mov %gs:0x10, %rax; add %rax, %rbx; incl %fs:8(,%rcx,1); mov %ecx, %edx; and $31, %edx; jnz "
      "2f;"
      "swapgs; 2: cmp $8, %edx; jne 3f; rdgsbase %rsi; xor $0x1000, %esi; wrgsbase %rsi; 3: cmp $24, %edx; jne 4f;"
      "push %rcx; mov $0xc0000100, %ecx; rdmsr; add $64, %eax; wrmsr; pop %rcx; 4: add %rbx, %gs:0x18; lock incl "
      "%gs:0x20;"
      "mov %gs:(%rdx), %r8b; add %r8, %r9; dec %ecx; jnz 1b; hlt");

static void segment_bases_change_under_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, bases);
    j->r->v->st.seg[SEG_GS].base = 0x20000;
    j->r->v->st.kernel_gs_base = 0x22000;
    j->r->v->st.seg[SEG_FS].base = 0x24000;
    for (unsigned i = 0; i < 0x400; i++)
        st64(rig_at(j->r, J_DATA + i * 64), i * UINT64_C(0x123456789abcdef));
    jit_to_halt(j, 997);
}
JIT_TEST(segment_bases_change_under_hot_code)

/* An instruction whose end is on another page than the next one in RAM; that page may be outside of RAM. */
static void straddlers_end_where_the_mapping_says_script(struct jit_rig *j)
{
    static const gpa_t at[] = {0x30ffe, RIG_RAM - 2};
    jit_long(j, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        gva_t gva = 0x40ffe + i * 0x2000;
        jit_map(j, gva & ~UINT64_C(0xfff), (at[i] & ~UINT64_C(0xfff)) | PTE_P | PTE_W | PTE_U);
        jit_map(j, gva + 2, 0x35000 | PTE_P | PTE_W | PTE_U);
        jit_load_bytes(j, at[i], "\xb8\x11", 2);
        jit_load_bytes(j, 0x35000, "\x22\x33\x44\xf4", 4); /* mov $0x44332211, %eax; hlt */
        jit_load_bytes(j, 0x31000, "\x99\x99\x99\xf4", 4);
        for (unsigned run = 0; run < 40; run++) {
            j->r->v->st.gpr[RAX] = 0;
            jit_restart(j, gva);
            jit_to_halt(j, 100);
            assert_int_equal(j->r->v->st.gpr[RAX], 0x44332211);
        }
    }
}
JIT_TEST(straddlers_end_where_the_mapping_says)

GUEST(dead_flags, ".code64",
      "mov $3000, %ecx; 1: xor %eax, %eax; add $0x7fffffff, %eax; add %eax, %eax; pause; test %ecx, %ecx; dec %ecx;"
      "jnz 1b; hlt");

/* Those that nobody reads, too: a snapshot or an interrupt shows them. */
static void flags_are_exact_where_pause_leaves_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, dead_flags);
    jit_to_halt(j, 1000);
}
JIT_TEST(flags_are_exact_where_pause_leaves)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_budget_ends_where_the_interpreter_ends_it),
        cmocka_unit_test(code_across_pages_ends_likewise),
        cmocka_unit_test(time_is_exact_inside_a_hot_block),
        cmocka_unit_test(the_timer_interrupts_a_hot_loop),
        cmocka_unit_test(attention_is_seen_at_the_next_block),
        cmocka_unit_test(shadows_hold_in_hot_code),
        cmocka_unit_test(halts_and_pauses_leave_as_ever),
        cmocka_unit_test(pages_go_away_under_a_hot_loop),
        cmocka_unit_test(accessed_and_dirty_bits_are_set_again),
        cmocka_unit_test(wild_pointers_in_hot_code),
        cmocka_unit_test(accesses_cross_pages_that_are_no_neighbours),
        cmocka_unit_test(divisions_fault_in_hot_code),
        cmocka_unit_test(single_steps_begin_and_end_in_hot_code),
        cmocka_unit_test(breakpoints_are_set_while_hot),
        cmocka_unit_test(alignment_checks_begin_while_hot),
        cmocka_unit_test(devices_are_reached_from_hot_code),
        cmocka_unit_test(strings_in_hot_code),
        cmocka_unit_test(atomics_in_hot_code),
        cmocka_unit_test(floats_in_hot_code),
        cmocka_unit_test(segment_bases_change_under_hot_code),
        cmocka_unit_test(straddlers_end_where_the_mapping_says),
        cmocka_unit_test(flags_are_exact_where_pause_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
