/* Hot code that changes, moves, and leads elsewhere: self-modifying code, remapped pages, modes, jumps, an emptied
 * cache. Each script runs interpreted and translated (jit_rig.h), and must leave the same trail. */
#include "jit_rig.h"

/* ---- code that is written to ---- */

/* RDI and RSI: where its two immediates are, as the stores see them. */
GUEST(own, ".code64",
      "mov $3000, %ecx\n"
      "1: mov %ecx, (%rdi); add %ecx, %eax; adc $1, %ebx; mov $0x11111111, %edx; add %rdx, %rbx; cmp %rbx, %rax;"
      "mov %al, (%rsi); adc $0, %r9; mov $0x22222222, %r10d; add %r10, %r11; addb $3, 1(%rdi); lock incb 2(%rsi);"
      "cmp %r11, %r9; dec %ecx; jnz 1b; hlt");

static unsigned find_imm(const char *from, size_t len, uint32_t imm)
{
    for (unsigned i = 0; i + 4 <= len; i++)
        if (!memcmp(from + i, &imm, 4))
            return i;
    fail();
    return 0;
}
#define FIND_IMM(name, imm) find_imm(guest_##name, GUEST_LEN(name), imm)

enum { ALIAS = 0x1c0000 }; /* where the code's pages are seen a second time */

static void alias(struct jit_rig *j)
{
    for (uint64_t i = 0; i < 16; i++)
        jit_map(j, ALIAS + i * 4096, (J_CODE + i * 4096) | PTE_P | PTE_W | PTE_U);
}

static void stores_into_the_running_block_script(struct jit_rig *j)
{
    static const uint64_t pages[] = {J_CODE, ALIAS};
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        jit_long(j, 0);
        alias(j);
        JIT_LOAD(j, J_CODE, own);
        j->r->v->st.gpr[RDI] = pages[i] + FIND_IMM(own, 0x11111111);
        j->r->v->st.gpr[RSI] = pages[i] + FIND_IMM(own, 0x22222222);
        jit_to_halt(j, i ? 311 : 1000000);
    }
}
JIT_TEST(stores_into_the_running_block)

/* The code begins so that the immediates cross lines, and pages. */
static void stores_into_code_across_pages_script(struct jit_rig *j)
{
    for (unsigned back = 3; back < GUEST_LEN(own); back += 2) {
        uint64_t at = J_CODE + 0x1000 - back;
        jit_long(j, 0);
        JIT_LOAD(j, at, own);
        jit_restart(j, at);
        memset(j->r->v->st.gpr, 0, sizeof j->r->v->st.gpr);
        j->r->v->st.gpr[RDI] = at + FIND_IMM(own, 0x11111111);
        j->r->v->st.gpr[RSI] = at + FIND_IMM(own, 0x22222222);
        jit_to_halt(j, 100000);
    }
}
JIT_TEST(stores_into_code_across_pages)

GUEST(writer, ".code64",
      "mov $1500, %ecx; 1: call *%r12; mov %ecx, %eax; and $7, %eax; lea (%rax,%rax,2), %eax; jmp *0x28000(,%rax,8)");
/* One way of storing each; then back to `writer`. */
GUEST(w_rep_stos, ".code64", "mov %r8, %rdi; mov %cl, %al; push %rcx; mov $4, %ecx; rep stosb; pop %rcx; jmp *%r13");
GUEST(w_rep_movs, ".code64",
      "mov %ecx, 0x20000; mov $0x20000, %esi; mov %r8, %rdi; push %rcx; mov $3, %ecx; rep movsb; pop %rcx; jmp *%r13");
GUEST(w_push, ".code64",
      "mov (%r8), %rax; shr $32, %rax; shl $32, %rax; or %rcx, %rax; mov %rsp, %r14; lea 8(%r8), %rsp; push %rax;"
      "lea 3(%r8), %rsp; pushw %cx; mov %r14, %rsp; jmp *%r13");
GUEST(w_sse, ".code64", "movups (%r8), %xmm0; movd %ecx, %xmm1; movss %xmm1, %xmm0; movups %xmm0, (%r8); jmp *%r13");
GUEST(w_x87, ".code64", "mov %ecx, 0x20000; fildl 0x20000; fistpl (%r8); jmp *%r13");
GUEST(w_cmpxchg, ".code64", "mov (%r8), %eax; lock cmpxchg %ecx, (%r8); xadd %ax, 1(%r8); jmp *%r13");
GUEST(w_bits, ".code64", "mov %ecx, %eax; and $31, %eax; btc %eax, (%r8); setc 1(%r8); rorw $3, 2(%r8); jmp *%r13");
GUEST(w_xchg, ".code64", "mov %ecx, %eax; xchg %ax, 1(%r8); neg %eax; movnti %eax, (%r8); jmp *%r13");
/* Where each way of storing leads, by R13: the next round. */
GUEST(next_round, ".code64", "cmp %rax, %rbx; dec %ecx; jz 1f; jmp *%rbp; 1: hlt");
GUEST(victim, ".code64", "mov $0x33333333, %eax; add %rax, %rbx; adc $0, %rdx; ret");

static void every_kind_of_store_reaches_code_script(struct jit_rig *j)
{
    static const struct {
        const char *code, *end;
    } ways[] = {{guest_w_rep_stos, guest_w_rep_stos_end}, {guest_w_rep_movs, guest_w_rep_movs_end},
                {guest_w_push, guest_w_push_end},         {guest_w_sse, guest_w_sse_end},
                {guest_w_x87, guest_w_x87_end},           {guest_w_cmpxchg, guest_w_cmpxchg_end},
                {guest_w_bits, guest_w_bits_end},         {guest_w_xchg, guest_w_xchg_end}};
    static const uint64_t victims[] = {0x34000, 0x34ffb, 0x34ffd, ALIAS + 0x4000}; /* the immediate is 1 byte later */
    struct cpu_state *s = &j->r->v->st;
    for (unsigned i = 0; i < ARRAY_SIZE(victims); i++) {
        jit_long(j, 0);
        alias(j);
        s->cr4 |= CR4_OSFXSR;
        JIT_LOAD(j, J_CODE, writer);
        for (unsigned w = 0; w < ARRAY_SIZE(ways); w++) {
            jit_load_bytes(j, J_CODE + 0x200 + w * 0x80, ways[w].code, (size_t)(ways[w].end - ways[w].code));
            st64(rig_at(j->r, 0x28000 + w * 24), J_CODE + 0x200 + w * 0x80);
        }
        JIT_LOAD(j, J_CODE + 0x800, next_round);
        s->gpr[RBP] = J_CODE + 5;
        s->gpr[R13] = J_CODE + 0x800;
        s->gpr[R12] = victims[i] >= ALIAS ? victims[i] - ALIAS + J_CODE : victims[i];
        s->gpr[R8] = victims[i] + 1;
        s->rflags &= ~RF_IF;
        jit_load_bytes(j, s->gpr[R12], guest_victim, GUEST_LEN(victim));
        jit_to_halt(j, 100000);
    }
}
JIT_TEST(every_kind_of_store_reaches_code)

GUEST(patched, ".code64",
      "mov $0x500110, %r8d; mov $3000, %ecx; 1: add $0x11, %eax; add %rax, %rbx; test $63, %cl; jnz 2f; mov %rcx, %rdx;"
      "shl $32, %rdx; or %r12, %rdx; mov %rdx, (%r8); add $1, %r9; cmp %r9, %rbx; 2: add $0x22, %r10d; cmp %rbx, %r10;"
      "dec %ecx; jnz 1b; hlt");

static void devices_write_into_hot_code_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, patched);
    j->r->v->st.gpr[R12] = J_CODE + FIND_IMM(patched, 0x4811c083) + 2; /* ADD $0x11, %eax, and a REX */
    jit_to_halt(j, 100000);
}
JIT_TEST(devices_write_into_hot_code)

static void loaders_write_into_hot_code_script(struct jit_rig *j)
{
    unsigned at = FIND_IMM(own, 0x22222222);
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, own);
    j->r->v->st.gpr[RDI] = j->r->v->st.gpr[RSI] = J_DATA;
    for (unsigned i = 0; i < 60; i++) {
        jit_go(j, 501 + i);
        rig_at(j->r, J_CODE + at)[i % 4] = (uint8_t)(i * 37);
        engine_soft.ram_written(j->r->vm, J_CODE + (i % 3 ? at + i % 4 : 0), i % 3 ? 1 : 4096);
    }
    jit_to_halt(j, 100000);
}
JIT_TEST(loaders_write_into_hot_code)

/* ---- pages that move ---- */

GUEST(caller, ".code64",
      "mov $3000, %ecx; 1: call *%r12; mov %ecx, %eax; and $15, %eax; jnz 2f; mov 0x15280, %rdx; xor $0x3000, %rdx;"
      "mov %rdx, 0x15280; call *%r13; 2: cmp %rbx, %rcx; dec %ecx; jnz 1b; hlt");
GUEST(flush_page, ".code64", "invlpg (%r12); ret");
GUEST(flush_cr3, ".code64", "mov %cr3, %rax; mov %rax, %cr3; ret");
GUEST(flush_cr4, ".code64", "mov %cr4, %rax; btc $7, %rax; mov %rax, %cr4; ret");
GUEST(flush_cr0, ".code64", "mov %cr0, %rax; btc $16, %rax; mov %rax, %cr0; mov %cr3, %rdx; mov %rdx, %cr3; ret");
GUEST(page_a, ".code64", "mov $1, %r8d; add %r8, %rbx; adc $3, %rsi; ret");
GUEST(page_b, ".code64", "mov $2, %r8d; sub %r8, %rbx; adc $5, %rdi; ret");

/* The page 50h that is called is now physical page 51h, now 52h. */
static void the_page_of_hot_code_is_remapped_script(struct jit_rig *j)
{
    static const struct {
        const char *code, *end;
    } ways[] = {{guest_flush_page, guest_flush_page_end},
                {guest_flush_cr3, guest_flush_cr3_end},
                {guest_flush_cr4, guest_flush_cr4_end},
                {guest_flush_cr0, guest_flush_cr0_end}};
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++)
        for (unsigned global = 0; global < 2; global++) {
            jit_long(j, 0);
            JIT_LOAD(j, J_CODE, caller);
            JIT_LOAD(j, 0x51100, page_a);
            JIT_LOAD(j, 0x52100, page_b);
            jit_load_bytes(j, J_CODE + 0x1000, ways[i].code, (size_t)(ways[i].end - ways[i].code));
            jit_map(j, 0x50000, 0x51000 | PTE_P | PTE_W | (global ? PTE_G : 0));
            j->r->v->st.cr4 |= CR4_PGE;
            j->r->v->st.gpr[R12] = 0x50100;
            j->r->v->st.gpr[R13] = J_CODE + 0x1000;
            jit_to_halt(j, 100000);
        }
}
JIT_TEST(the_page_of_hot_code_is_remapped)

/* Each page's code maps the other one in its place, and goes on there. */
GUEST(self_a, ".code64",
      "1: add $1, %rbx; adc %rcx, %rdx; movq $0x52003, 0x15280; invlpg 1b(%rip); add $100, %rbx; cmp %rdx, %rbx; dec "
      "%ecx;"
      "jnz 1b; hlt");
GUEST(
    self_b, ".code64",
    "1: add $3, %rbx; adc %rcx, %rdx; movq $0x51003, 0x15280; invlpg 1b(%rip); add $70, %rbx; cmp %rdx, %rbx; dec %ecx;"
    "jnz 1b; hlt");

static void code_takes_its_own_page_away_script(struct jit_rig *j)
{
    assert_int_equal(GUEST_LEN(self_a), GUEST_LEN(self_b));
    jit_long(j, 0);
    JIT_LOAD(j, 0x51080, self_a);
    JIT_LOAD(j, 0x52080, self_b);
    jit_map(j, 0x50000, 0x51003);
    j->r->v->st.gpr[RCX] = 3000;
    jit_restart(j, 0x50080);
    jit_to_halt(j, 100000);
}
JIT_TEST(code_takes_its_own_page_away)

/* An instruction whose second half lies on a page that is no neighbour in RAM, first; then it moves. */
GUEST(straddler, ".code64", "mov $0x11223344, %eax; add %rax, %rbx; dec %ecx; jnz . - 10; hlt");

static void straddle(struct jit_rig *j, uint64_t at, uint64_t first, const uint64_t *second, unsigned n)
{
    unsigned back = 0x58000 - (unsigned)at;
    jit_map(j, 0x57000, first | PTE_P | PTE_W);
    jit_load_bytes(j, first + 0x1000 - back, guest_straddler, back);
    for (unsigned i = 0; i < n; i++) {
        jit_load_bytes(j, second[i], guest_straddler + back, GUEST_LEN(straddler) - back);
        if (back < 5) /* a byte of the immediate */
            *rig_at(j->r, second[i]) ^= (uint8_t)(second[i] >> 8);
    }
    for (unsigned i = 0; i < 2 * n; i++) {
        jit_map(j, 0x58000, second[i % n] | PTE_P | PTE_W);
        tlb_flush_all(j->r->v);
        j->r->v->st.gpr[RCX] = 1500;
        jit_restart(j, at);
        jit_to_halt(j, 100000);
    }
}

/* In the end the first page is RAM's last. */
static void straddlers_are_made_of_both_their_pages_script(struct jit_rig *j)
{
    static const uint64_t second[] = {0x5a000, 0x58000, 0x5b000};
    for (unsigned back = 1; back < 12; back++) {
        jit_long(j, 0);
        straddle(j, 0x58000 - back, 0x57000, second, ARRAY_SIZE(second));
    }
    for (unsigned back = 1; back < 5; back++) {
        jit_long(j, 0);
        straddle(j, 0x58000 - back, RIG_RAM - 0x1000, second, ARRAY_SIZE(second));
    }
}
JIT_TEST(straddlers_are_made_of_both_their_pages)

/* ---- modes ---- */

GUEST(shared, ".code64", "mov 0x28000, %rax; add %rax, %rbx; adc $0, %rdx; cmp %rbx, %rax; ret");
GUEST(kernel_side, ".code64",
      "mov $1000, %r9d; 1: call *%r12; dec %r9d; jz 2f; push $0x23; push $0x9000; pushf; push $0x33; push %r13; iretq; "
      "2: hlt");
GUEST(user_side, ".code64", "call *%r12; int $0x40");
/* The shared page's data belong to the kernel: grant it until the next INT. */
GUEST(grant, ".code64", REC("8") "orl $4, 0x15140; mov %cr2, %rax; invlpg (%rax); add $8, %rsp; iretq");
GUEST(revoke, ".code64", "andl $~4, 0x15140; invlpg 0x28000; add $40, %rsp; jmp *%r14");

static void one_page_of_code_serves_two_levels_script(struct jit_rig *j)
{
    struct cpu_state *s = &j->r->v->st;
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, kernel_side);
    JIT_LOAD(j, J_CODE + 0x100, user_side);
    JIT_LOAD(j, J_CODE + 0x140, shared);
    JIT_HANDLER(j, VEC_PF, grant);
    jit_handler(j, 0x40, J_HANDLERS, guest_revoke, GUEST_LEN(revoke));
    jit_map(j, 0x28000, 0x28000 | PTE_P | PTE_W);
    st64(rig_at(j->r, 0x28000), UINT64_C(0xfedcba9876543210));
    s->gpr[R12] = J_CODE + 0x140;
    s->gpr[R13] = J_CODE + 0x100;
    s->gpr[R14] = J_CODE + 6;
    s->rflags &= ~RF_IF;
    jit_to_halt(j, 5000);
    assert_int_equal(jit_records(j), 999);
}
JIT_TEST(one_page_of_code_serves_two_levels)

/* 40h is INC EAX in 32-bit code and a REX prefix in 64-bit code. */
GUEST(both_sizes, ".code64", "1: .byte 0x40, 0x40, 0x40, 0xff, 0xc3, 0x48, 0x01, 0xc2; cmp %ebx, %eax; jmp *%rsi");
GUEST(to_32, ".code64",
      "mov $2000, %ecx; 1: lea 2f(%rip), %rsi; jmp *%r12; 2: mov %r13, %rsi; push $8; push %r12; lretq; 3: hlt");
GUEST(back_to_64, ".code32", "add $5, %edi; ljmp $0x28, $0x30300");
GUEST(round_64, ".code64", "dec %ecx; jz 1f; jmp *%r15; 1: hlt");

static void code_of_two_sizes_shares_a_page_script(struct jit_rig *j)
{
    struct cpu_state *s = &j->r->v->st;
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, to_32);
    JIT_LOAD(j, J_CODE + 0x100, both_sizes);
    JIT_LOAD(j, J_CODE + 0x200, back_to_64);
    JIT_LOAD(j, J_CODE + 0x300, round_64);
    s->gpr[R12] = J_CODE + 0x100;
    s->gpr[R13] = J_CODE + 0x200;
    s->gpr[R15] = J_CODE + 5;
    jit_to_halt(j, 100000);
}
JIT_TEST(code_of_two_sizes_shares_a_page)

GUEST(rights, ".code64",
      "mov $3000, %ecx; 1: mov %cr0, %rax; btc $16, %rax; test $31, %cl; jnz 2f; mov %rax, %cr0; 2: add $1, %rbx;"
      "movl %ecx, (%rdi); adc $0, %r8; cmp %r8, %rbx; dec %ecx; jnz 1b; hlt");
GUEST(skip_store, ".code64", REC("8") "addq $2, 8(%rsp); add $8, %rsp; iretq");

/* CR0.WP comes and goes over a store to a read-only page. */
static void write_protection_comes_and_goes_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, rights);
    JIT_HANDLER(j, VEC_PF, skip_store);
    jit_map(j, 0x28000, 0x28000 | PTE_P);
    j->r->v->st.gpr[RDI] = 0x28010;
    j->r->v->st.cr0 &= ~(uint64_t)CR0_WP;
    jit_to_halt(j, 3000);
    assert_true(jit_records(j) > 1000);
}
JIT_TEST(write_protection_comes_and_goes)

/* ---- jumps ---- */

enum { TARGETS = 0x180000, TARGET_COUNT = 1400, TARGET_SIZE = 24 };

GUEST(many, ".code64",
      "mov $12000, %ecx; mov $1, %edx; 1: imul $1103515245, %edx, %edx; add $12345, %edx; mov %edx, %esi; shr $9, %esi;"
      "mov %esi, %eax; imul $1400, %rax, %rax; shr $23, %rax; mov 0x100000(,%rax,8), %rsi; test $1, %cl; jz 2f; jmp "
      "*%rsi;"
      "2: call *0x100000(,%rax,8); 3: cmp %rbx, %rdx; dec %ecx; jnz 1b; hlt");

/* Each target adds its number; then, as it was called or jumped to, goes back. */
GUEST(one_of_many, ".code64", "add $0x44444444, %rbx; test $1, %cl; jz 1f; jmp *%rbp; 1: ret");

static void many_targets_of_few_jumps_script(struct jit_rig *j)
{
    struct cpu_state *s = &j->r->v->st;
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, many);
    for (unsigned i = 0; i < TARGET_COUNT; i++) {
        uint64_t at = TARGETS + i * TARGET_SIZE;
        JIT_LOAD(j, at, one_of_many);
        st32(rig_at(j->r, at + FIND_IMM(one_of_many, 0x44444444)), i);
        st64(rig_at(j->r, 0x100000 + i * 8), at);
    }
    s->gpr[RBP] = J_CODE + FIND_IMM(many, 0xffda3948); /* the CMP behind the call */
    jit_to_halt(j, 1000000);
}
JIT_TEST(many_targets_of_few_jumps)

GUEST(wrong_ways, ".code64",
      "mov $2500, %ecx; 1: mov 0x28000(,%rcx,8), %rax; mov %rax, 0x20000; add $1, %rbx; adc $0, %rdx; mov %ecx, %esi;"
      "and $3, %esi; jz 2f; dec %esi; jz 3f; dec %esi; jz 4f; jmp *%rax; 2: push %rax; ret; 3: call *%rax; jmp 5f;"
      "4: jmp *0x20000; 5: dec %ecx; jnz 1b; hlt");
/* RSP and RIP of the loop are in memory. */
GUEST(recover, ".code64", REC("8") "mov $0x9000, %esp; jmp *0x2f008");
GUEST(recover_ud, ".code64", REC("0") "mov $0x9000, %esp; jmp *0x2f008");
GUEST(fine, ".code64", "add $7, %r8; mov $0x9000, %esp; jmp *0x2f008");

static void jumps_to_nowhere_script(struct jit_rig *j)
{
    static const uint64_t wild[] = {RIG_UNMAPPED,
                                    UINT64_C(0x800000000000),
                                    UINT64_C(0xffff7fffffffffff),
                                    0x5c000,
                                    UINT64_C(0x7fffffffffff),
                                    UINT64_C(0x8000000000000000),
                                    J_MMIO + 0x900,
                                    0x5d000};
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, wrong_ways);
    JIT_LOAD(j, J_CODE + 0x1000, fine);
    JIT_HANDLER(j, VEC_PF, recover);
    JIT_HANDLER(j, VEC_GP, recover);
    JIT_HANDLER(j, VEC_SS, recover);
    JIT_HANDLER(j, VEC_UD, recover_ud);
    jit_load_bytes(j, 0x5d000, "\x0f\x0b", 2);
    jit_map(j, 0x5c000, 0x5c000 | PTE_P | PTE_W | PTE_NX);
    j->r->v->st.efer |= EFER_NXE;
    for (unsigned i = 0; i <= 2500; i++)
        st64(rig_at(j->r, 0x28000 + i * 8), i % 5 ? J_CODE + 0x1000 : wild[i / 5 % ARRAY_SIZE(wild)]);
    st64(rig_at(j->r, 0x2f008), J_CODE + (uint64_t)GUEST_LEN(wrong_ways) - 5); /* dec ecx */
    st64(rig_at(j->r, RIG_STACK), J_CODE + 0x1000);                            /* where the device's RET leads */
    j->r->v->st.rflags &= ~RF_IF;
    jit_to_halt(j, 5000);
    assert_true(jit_records(j) > 300);
}
JIT_TEST(jumps_to_nowhere)

/* Recursion over two pages; who returns does so by RET, by RET $8, or by a jump. */
GUEST(depth, ".code64",
      "mov $60, %r9d; 1: mov $90, %ecx; call 2f; lea (%rax,%rbx), %rdx; cmp %rdx, %rax; dec %r9d; jnz 1b; hlt\n"
      "2: dec %ecx; jz 4f; push %rcx; call 3f; pop %rcx; add %rcx, %rax; test $7, %cl; jz 5f; test $3, %cl; jz 6f; ret;"
      "5: pop %rsi; jmp *%rsi; 6: pop %rsi; push $0; push %rsi; ret $8\n"
      ".skip 4000\n"
      "3: add $1, %rbx; call 2b; adc $3, %rbx; 4: ret");

static void calls_and_returns_far_and_deep_script(struct jit_rig *j)
{
    jit_long(j, 0);
    for (unsigned back = 0; back < 64; back += 9) {
        JIT_LOAD(j, J_CODE + 0x1000 - back, depth);
        memset(j->r->v->st.gpr, 0, sizeof j->r->v->st.gpr);
        j->r->v->st.gpr[RSP] = 0x140000;
        jit_restart(j, J_CODE + 0x1000 - back);
        jit_to_halt(j, 4001);
    }
}
JIT_TEST(calls_and_returns_far_and_deep)

GUEST(stacks, ".code64",
      "mov $2500, %ecx; 1: mov 0x28000(,%rcx,8), %rsp; add $1, %rax; adc $0, %rdx; call 2f; add %rax, %rbx; push %rbx;"
      "pushq 0x20000; pop %r8; popq 0x20008; push $77; pushf; pop %r9; pop %r10; enter $16, $0; leave; xchg %rsp, %r11;"
      "mov %r11, %rsp; cmp %r10, %rbx; dec %ecx; jnz 1b; mov $0x9000, %esp; hlt; 2: push %rbp; mov %rsp, %rbp; cmp "
      "%rax, %rbp;"
      "pop %rbp; ret");

static void stacks_on_pages_that_come_and_go_script(struct jit_rig *j)
{
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, stacks);
    JIT_HANDLER(j, VEC_PF, fix_page);
    jit_own_stack(j, VEC_PF);
    for (unsigned i = 0; i <= 2500; i++)
        st64(rig_at(j->r, 0x28000 + i * 8), 0x171000 + i % 5 * 8 - i % 3);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t page = i % 2 ? 0x170000 : 0x171000;
        jit_go(j, 801 + i);
        jit_map(j, page, i % 3 ? 0 : page | PTE_P);
        tlb_flush_page(j->r->v, page);
    }
    jit_to_halt(j, 100000);
    assert_true(jit_records(j) > 30);
}
JIT_TEST(stacks_on_pages_that_come_and_go)

/* ---- the cache ---- */

GUEST(sled_caller, ".code64",
      "mov $2, %r9d; 1: mov $1500, %ecx; 2: add %rcx, %rax; adc %rax, %rbx; dec %ecx; jnz 2b; lea 0x100000(%r9), %rdx;"
      "call *%rdx; cmp %rax, %rbx; dec %r9d; jnz 1b; hlt");

/* Blocks enough to fill caches and code memories several times over. */
static void the_cache_is_emptied_while_hot_script(struct jit_rig *j)
{
    enum { SLED = 0x100000, SLED_LEN = 0x2f0000 };
    /* add rdx, rax; nopl; bswap eax; inc esi; nops */
    static const uint8_t unit[16] = {0x48, 0x01, 0xd0, 0x0f, 0x1f, 0x40, 0x00, 0x0f,
                                     0xc8, 0xff, 0xc6, 0x90, 0x90, 0x90, 0x90, 0x90};
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, sled_caller);
    uint8_t *sled = ram_hva(&j->r->ram, SLED, SLED_LEN);
    for (unsigned i = 0; i < SLED_LEN; i++)
        sled[i] = unit[i % 16];
    sled[SLED_LEN - 1] = 0xc3;
    engine_soft.ram_written(j->r->vm, SLED, SLED_LEN);
    for (unsigned i = 0; i < 4; i++)
        jit_go(j, 100000);
    engine_soft.vcpu_trim((struct engine_vcpu *)j->r->v);
    jit_to_halt(j, 5000000);
}
JIT_TEST(the_cache_is_emptied_while_hot)

/* Each piece runs on the other vCPU, which has caches of its own and shares the code. */
static void a_hot_loop_moves_from_vcpu_to_vcpu_script(struct jit_rig *j)
{
    struct cpu_state s;
    jit_long(j, 0);
    JIT_LOAD(j, J_CODE, own);
    j->r->v->st.gpr[RDI] = j->r->v->st.gpr[RSI] = J_DATA;
    for (unsigned i = 0; i < 150; i++) {
        jit_go(j, 1 + i);
        engine_soft.get_state((struct engine_vcpu *)j->r->v, &s);
        engine_soft.set_state((struct engine_vcpu *)j->r->other, &s);
        struct cpu_run c = {.now = j->now, .budget = 1 + i / 2};
        engine_soft.vcpu_run((struct engine_vcpu *)j->r->other, &c);
        engine_soft.get_state((struct engine_vcpu *)j->r->other, &s);
        engine_soft.set_state((struct engine_vcpu *)j->r->v, &s);
        j->now += c.used;
        look(j, &c);
    }
}
JIT_TEST(a_hot_loop_moves_from_vcpu_to_vcpu)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores_into_the_running_block),
        cmocka_unit_test(stores_into_code_across_pages),
        cmocka_unit_test(every_kind_of_store_reaches_code),
        cmocka_unit_test(devices_write_into_hot_code),
        cmocka_unit_test(loaders_write_into_hot_code),
        cmocka_unit_test(the_page_of_hot_code_is_remapped),
        cmocka_unit_test(code_takes_its_own_page_away),
        cmocka_unit_test(straddlers_are_made_of_both_their_pages),
        cmocka_unit_test(one_page_of_code_serves_two_levels),
        cmocka_unit_test(code_of_two_sizes_shares_a_page),
        cmocka_unit_test(write_protection_comes_and_goes),
        cmocka_unit_test(many_targets_of_few_jumps),
        cmocka_unit_test(jumps_to_nowhere),
        cmocka_unit_test(calls_and_returns_far_and_deep),
        cmocka_unit_test(stacks_on_pages_that_come_and_go),
        cmocka_unit_test(the_cache_is_emptied_while_hot),
        cmocka_unit_test(a_hot_loop_moves_from_vcpu_to_vcpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
