/* The SYS group, from opcode bytes through the decoder to the executor. */
#include "soft_machine.h"

#include "cpu/soft/io.h"

static int set_up(void **state)
{
    soft_rig_init(&rig, 2 * MIB, NULL);
    /* 4-level identity map of the first 2 MiB */
    st64(rig.ram.low + 0x1000, 0x2007);
    st64(rig.ram.low + 0x2000, 0x3007);
    st64(rig.ram.low + 0x3000, 0x00e7);
    rig.v->st.cr3 = 0x1000;
    soft_rig_long(&rig, 0);
    return 0;
}

static exec_fn *const executors[OP_COUNT] = {
#define OP(id, group) EXEC_##group(id)
#define EXEC_UOP(id)
#define EXEC_STR(id) [OP_##id] = exec_##id,
#define EXEC_BCD(id) [OP_##id] = exec_##id,
#define EXEC_FAR(id) [OP_##id] = exec_##id,
#define EXEC_SYS(id) [OP_##id] = exec_##id,
#define EXEC_SSE(id)
#define EXEC_X87(id)
#include "cpu/soft/ops.def"
#undef OP
};

static enum exec_result run(const char *bytes, unsigned len)
{
    struct insn in;
    uint8_t buf[15] = {0};
    memcpy(buf, bytes, len);
    assert_int_equal(decode_insn(buf, 15, rig.v->mode & MODE_CODE, &in), DECODE_OK);
    assert_int_equal(in.len, len);
    assert_non_null(executors[in.op]);
    rig.v->fault = (struct fault){.vector = 0xff};
    rig.v->next_rip = rig.v->st.rip + len;
    return executors[in.op](rig.v, &in);
}

#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static void faults_with(const char *bytes, unsigned len, unsigned vector)
{
    assert_int_equal(run(bytes, len), EXEC_FAULT);
    assert_int_equal(rig.v->fault.vector, vector);
    assert_int_equal(rig.v->fault.has_error, vector == VEC_GP);
    assert_int_equal(rig.v->fault.error, 0);
}

#define FAULTS(bytes, vector) faults_with(bytes, sizeof(bytes) - 1, vector)

#define HLT          "\xf4"
#define RDMSR        "\x0f\x32"
#define WRMSR        "\x0f\x30"
#define CPUID        "\x0f\xa2"
#define RDTSC        "\x0f\x31"
#define RDTSCP       "\x0f\x01\xf9"
#define RDPMC        "\x0f\x33"
#define CLTS         "\x0f\x06"
#define INVLPG_RAX   "\x0f\x01\x38"
#define LGDT_RAX     "\x0f\x01\x10"
#define SGDT_RAX     "\x0f\x01\x00"
#define SMSW_EAX     "\x0f\x01\xe0"
#define LMSW_AX      "\x0f\x01\xf0"
#define MOV_CR0_RAX  "\x0f\x22\xc0"
#define MOV_RAX_CR0  "\x0f\x20\xc0"
#define MOV_CR3_RAX  "\x0f\x22\xd8"
#define MOV_CR8_RAX  "\x44\x0f\x22\xc0"
#define MOV_RAX_CR8  "\x44\x0f\x20\xc0"
#define MOV_DR4_RAX  "\x0f\x23\xe0"
#define MOV_DR7_RAX  "\x0f\x23\xf8"
#define MOV_RAX_DR7  "\x0f\x21\xf8"
#define MOV_RAX_DR6  "\x0f\x21\xf0"
#define TPAUSE_ECX   "\x66\x0f\xae\xf1"
#define UMWAIT_ECX   "\xf2\x0f\xae\xf1"
#define UMONITOR_RAX "\xf3\x0f\xae\xf0"
#define RDPID_RBX    "\xf3\x0f\xc7\xfb"
#define VMCALL       "\x0f\x01\xc1"
#define IN_AL_DX     "\xec"
#define IN_EAX_DX    "\xed"
#define OUT_80_AL    "\xe6\x80"

static void privileged_instructions_need_cpl_0(void **state)
{
    soft_rig_long(&rig, 3);
    FAULTS(HLT, VEC_GP);
    FAULTS(RDMSR, VEC_GP);
    FAULTS(WRMSR, VEC_GP);
    FAULTS(CLTS, VEC_GP);
    FAULTS(INVLPG_RAX, VEC_GP);
    FAULTS(LGDT_RAX, VEC_GP);
    FAULTS(LMSW_AX, VEC_GP);
    FAULTS(MOV_CR0_RAX, VEC_GP);
    FAULTS(MOV_RAX_CR0, VEC_GP);
    FAULTS(MOV_RAX_DR7, VEC_GP);
    FAULTS("\x0f\x08", VEC_GP);
    FAULTS("\x0f\x09", VEC_GP);
    FAULTS(RDPMC, VEC_GP);
    assert_int_equal(RUN(RDTSC), EXEC_OK);
    assert_int_equal(RUN(CPUID), EXEC_OK);
    assert_int_equal(RUN(SMSW_EAX), EXEC_OK);
    rig.v->st.cr4 |= CR4_TSD | CR4_UMIP;
    FAULTS(RDTSC, VEC_GP);
    FAULTS(RDTSCP, VEC_GP);
    FAULTS(SMSW_EAX, VEC_GP);
    FAULTS(SGDT_RAX, VEC_GP);
}

static void what_cpuid_hides_is_undefined(void **state)
{
    FAULTS("\x0f\x01\xc8", VEC_UD);                  /* MONITOR */
    FAULTS("\x0f\x01\xc9", VEC_UD);                  /* MWAIT */
    FAULTS("\x0f\x01\xca", VEC_UD);                  /* CLAC */
    FAULTS("\x0f\x01\xcb", VEC_UD);                  /* STAC */
    FAULTS("\x0f\x01\xd0", VEC_UD);                  /* XGETBV */
    FAULTS("\x0f\x01\xd1", VEC_UD);                  /* XSETBV */
    FAULTS("\x0f\xaa", VEC_UD);                      /* RSM */
    FAULTS("\x66\x0f\x38\x82\x00", VEC_UD);          /* INVPCID */
    FAULTS(VMCALL, VEC_UD);                          /* the rig has no PV device */
    assert_int_equal(RUN("\x0f\x01\xe8"), EXEC_END); /* SERIALIZE */
    soft_rig_fini(&rig);
    soft_rig_init(&rig, 2 * MIB, "max,serialize=off,waitpkg=off,rdpid=off,rdtscp=off");
    soft_rig_long(&rig, 0);
    FAULTS("\x0f\x01\xe8", VEC_UD);
    FAULTS(TPAUSE_ECX, VEC_UD);
    FAULTS(RDPID_RBX, VEC_UD);
    FAULTS(RDTSCP, VEC_UD);
}

static void time_is_guest_ns_plus_the_offset(void **state)
{
    struct soft_vcpu *v = rig.v;
    v->st.tsc_offset = UINT64_C(0x123456789a);
    v->st.tsc_aux = 0x777;
    v->st.gpr[RAX] = v->st.gpr[RDX] = ~UINT64_C(0);
    assert_int_equal(RUN(RDTSCP), EXEC_OK);
    assert_int_equal(v->st.gpr[RDX] << 32 | v->st.gpr[RAX], UINT64_C(0x123456789a) + 5000);
    assert_int_equal(v->st.gpr[RCX], 0x777);
    assert_int_equal(RUN(RDPID_RBX), EXEC_OK);
    assert_int_equal(v->st.gpr[RBX], 0x777);
}

static void hlt_and_tpause_leave(void **state)
{
    struct soft_vcpu *v = rig.v;
    assert_int_equal(RUN(HLT), EXEC_LEAVE);
    assert_int_equal(rig.run.exit, CPU_EXIT_HALT);
    assert_int_equal(v->st.activity, CPU_HALTED);
    v->st.gpr[RCX] = 1;
    v->st.tsc_offset = 100;
    v->st.gpr[RAX] = 5000 + 100 + 700;
    v->st.gpr[RDX] = 0;
    flags_load(v, RF_CF | RF_ZF);
    assert_int_equal(RUN(TPAUSE_ECX), EXEC_LEAVE);
    assert_int_equal(rig.run.exit, CPU_EXIT_TPAUSE);
    assert_int_equal(rig.run.until, 5700);
    assert_int_equal(v->tpause_until, 5700);
    assert_int_equal(flags_get(v) & RF_ARITH, 0);
    v->st.umwait_control = 300;
    assert_int_equal(RUN(TPAUSE_ECX), EXEC_LEAVE);
    assert_int_equal(rig.run.until, 5300);
    assert_int_equal(flags_get(v) & RF_ARITH, RF_CF);
    v->st.gpr[RAX] = 10;
    assert_int_equal(RUN(TPAUSE_ECX), EXEC_OK); /* already past */
    v->st.gpr[RCX] = 2;
    FAULTS(TPAUSE_ECX, VEC_GP);
    v->st.gpr[RCX] = 0;
    assert_int_equal(RUN(UMWAIT_ECX), EXEC_LEAVE); /* nothing is armed: only a hint */
    assert_int_equal(rig.run.exit, CPU_EXIT_SPIN);
    v->st.gpr[RAX] = 0x5000;
    assert_int_equal(RUN(UMONITOR_RAX), EXEC_OK);
    v->st.gpr[RAX] = UINT64_C(0x8000000000000000);
    FAULTS(UMONITOR_RAX, VEC_GP);
}

static void control_registers_move(void **state)
{
    struct soft_vcpu *v = rig.v;
    v->st.gpr[RAX] = v->st.cr0 | CR0_TS;
    assert_int_equal(RUN(MOV_CR0_RAX), EXEC_END);
    assert_true(v->st.cr0 & CR0_TS);
    assert_int_equal(RUN(CLTS), EXEC_END);
    assert_false(v->st.cr0 & CR0_TS);
    v->st.gpr[RAX] = 6;
    assert_int_equal(RUN(MOV_CR8_RAX), EXEC_END);
    assert_int_equal(RUN(MOV_RAX_CR8), EXEC_OK);
    assert_int_equal(v->st.gpr[RAX], 6);
    v->st.gpr[RAX] = 16;
    FAULTS(MOV_CR8_RAX, VEC_GP);
    v->st.gpr[RAX] = UINT64_C(1) << 60;
    FAULTS(MOV_CR3_RAX, VEC_GP);
    v->st.gpr[RAX] = 0; /* LMSW cannot clear PE */
    assert_int_equal(RUN(LMSW_AX), EXEC_END);
    assert_true(v->st.cr0 & CR0_PE);
}

static void debug_registers_move(void **state)
{
    struct soft_vcpu *v = rig.v;
    v->st.gpr[RAX] = 0;
    assert_int_equal(RUN(MOV_DR4_RAX), EXEC_END); /* an alias of DR6 */
    assert_int_equal(v->st.dr[6], DR6_FIXED);
    v->st.gpr[RAX] = 0xffffffff & ~DR7_GD;
    assert_int_equal(RUN(MOV_DR7_RAX), EXEC_END);
    assert_int_equal(v->st.dr[7], 0xffff07ff);
    v->st.gpr[RAX] = UINT64_C(1) << 32;
    FAULTS(MOV_DR7_RAX, VEC_GP);
    v->st.cr4 |= CR4_DE;
    FAULTS(MOV_DR4_RAX, VEC_UD);
    v->st.gpr[RAX] = DR7_GD;
    assert_int_equal(RUN(MOV_DR7_RAX), EXEC_END);
    assert_int_equal(RUN(MOV_RAX_DR6), EXEC_FAULT);
    assert_int_equal(v->fault.vector, VEC_DB);
    assert_true(v->st.dr[6] & DR6_BD);
}

static void descriptor_tables_load_and_store(void **state)
{
    struct soft_vcpu *v = rig.v;
    v->st.gpr[RAX] = 0x8000;
    st16(rig.ram.low + 0x8000, 0x1234);
    st64(rig.ram.low + 0x8002, UINT64_C(0xffff800000005000));
    assert_int_equal(RUN(LGDT_RAX), EXEC_OK);
    assert_int_equal(v->st.gdtr.limit, 0x1234);
    assert_int_equal(v->st.gdtr.base, UINT64_C(0xffff800000005000));
    v->st.gpr[RAX] = 0x9000;
    assert_int_equal(RUN(SGDT_RAX), EXEC_OK);
    assert_memory_equal(rig.ram.low + 0x9000, rig.ram.low + 0x8000, 10);
    st64(rig.ram.low + 0x9002, UINT64_C(0x800000000000));
    FAULTS(LGDT_RAX, VEC_GP);
    v->st.gpr[RAX] = 0x200000; /* not mapped */
    assert_int_equal(RUN(LGDT_RAX), EXEC_FAULT);
    assert_int_equal(v->fault.vector, VEC_PF);
    assert_int_equal(v->st.gdtr.limit, 0x1234);
    soft_rig_mode(&rig, CR0_PE, 0, 0, CODE32, 0);
    v->st.gpr[RAX] = 0x8000;
    st64(rig.ram.low + 0x8002, 0x11223344);
    assert_int_equal(RUN("\x66\x0f\x01\x10"), EXEC_OK); /* 16-bit operand: 24 bits of base */
    assert_int_equal(v->st.gdtr.base, 0x223344);
    assert_int_equal(RUN(LGDT_RAX), EXEC_OK);
    assert_int_equal(v->st.gdtr.base, 0x11223344);
}

static void msrs_through_registers(void **state)
{
    struct soft_vcpu *v = rig.v;
    v->st.gpr[RCX] = UINT64_C(0xabcd00000000) | MSR_KERNEL_GS_BASE;
    v->st.gpr[RAX] = UINT64_C(0xeeeeeeee00001000);
    v->st.gpr[RDX] = UINT64_C(0xffffffffffff8000);
    assert_int_equal(RUN(WRMSR), EXEC_END);
    assert_int_equal(v->st.kernel_gs_base, UINT64_C(0xffff800000001000));
    assert_int_equal(RUN(RDMSR), EXEC_OK);
    assert_int_equal(v->st.gpr[RAX], 0x1000);
    assert_int_equal(v->st.gpr[RDX], 0xffff8000);
    v->st.gpr[RCX] = 0x12345;
    FAULTS(RDMSR, VEC_GP);
    FAULTS(WRMSR, VEC_GP);
}

static void cpuid_knows_who_asks(void **state)
{
    struct soft_vcpu *v = rig.v = (struct soft_vcpu *)engine_soft.vcpu(rig.vm, VCPU_IDX(1));
    soft_rig_long(&rig, 0);
    v->st.gpr[RAX] = 0xb;
    v->st.gpr[RCX] = 1;
    assert_int_equal(RUN(CPUID), EXEC_OK);
    assert_int_equal(v->st.gpr[RDX], 300);
    v->st.gpr[RAX] = 1;
    assert_int_equal(RUN(CPUID), EXEC_OK);
    assert_int_equal(v->st.gpr[RBX] >> 24, 300 & 0xff);
    assert_true(v->st.gpr[RDX] & CPUID_1_EDX_APIC);
    assert_true(msr_write(v, MSR_APIC_BASE, 0xfee00000));
    v->st.gpr[RAX] = 1;
    assert_int_equal(RUN(CPUID), EXEC_OK);
    assert_false(v->st.gpr[RDX] & CPUID_1_EDX_APIC);
}

/* ---- ports ---- */

struct latch {
    uint64_t off, val;
    unsigned size;
};

static uint64_t latch_read(void *dev, uint64_t off, unsigned size)
{
    struct latch *l = dev;
    l->size = size;
    return UINT64_C(0xa5a5a5a5) + off;
}

static void latch_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    *(struct latch *)dev = (struct latch){.off = off, .val = val, .size = size};
}

static void ports_merge_into_rax(void **state)
{
    static const struct bus_ops ops = {latch_read, latch_write};
    struct latch l = {0};
    struct bus_region region = {.base = 0x80, .len = 8, .ops = &ops, .dev = &l, .name = "latch"};
    struct soft_vcpu *v = rig.v;
    assert_int_equal(bus_map(&rig.ports, &region, NULL), 0);
    v->st.gpr[RAX] = UINT64_C(0x1122334455667788);
    v->st.gpr[RDX] = 0xffff0082; /* only DX counts */
    assert_int_equal(RUN(IN_AL_DX), EXEC_END);
    assert_int_equal(v->st.gpr[RAX], UINT64_C(0x11223344556677a7));
    assert_int_equal(RUN("\x66\xed"), EXEC_END);
    assert_int_equal(v->st.gpr[RAX], UINT64_C(0x112233445566a5a7));
    assert_int_equal(RUN(IN_EAX_DX), EXEC_END);
    assert_int_equal(v->st.gpr[RAX], 0xa5a5a5a7);
    assert_int_equal(RUN("\x48\xed"), EXEC_END); /* REX.W changes nothing */
    assert_int_equal(l.size, 4);
    v->st.gpr[RAX] = 0x1ff;
    assert_int_equal(RUN(OUT_80_AL), EXEC_END);
    assert_int_equal(l.val, 0xff);
    assert_int_equal(l.off, 0);
    v->st.gpr[RDX] = 0x500; /* nobody's */
    assert_int_equal(RUN(IN_EAX_DX), EXEC_END);
    assert_int_equal(v->st.gpr[RAX], 0xffffffff);
    v->st.gpr[RDX] = 0xffff; /* runs past the last port */
    assert_int_equal(RUN(IN_EAX_DX), EXEC_END);
}

static void the_permission_bitmap_decides_past_iopl(void **state)
{
    struct soft_vcpu *v = rig.v;
    uint8_t *tss = rig.ram.low + 0x10000;
    soft_rig_long(&rig, 3);
    v->st.seg[SEG_TR] = (struct cpu_segment){.base = 0x10000, .limit = 0x67, .attr = SEGA_P | 11};
    st16(tss + 102, 0x68);
    assert_false(io_allowed(v, 0x80, 1)); /* the map is past the limit */
    v->st.seg[SEG_TR].limit = 0x68 + 0x20;
    assert_true(io_allowed(v, 0x80, 4));
    tss[0x68 + 0x10] = 1 << 3; /* port 83h */
    assert_true(io_allowed(v, 0x80, 2));
    assert_false(io_allowed(v, 0x80, 4));
    expect_fault(v, VEC_GP, 0);
    assert_false(io_allowed(v, 0x83, 1));
    assert_true(io_allowed(v, 0x84, 4));
    assert_false(io_allowed(v, 0x100, 1)); /* the terminating byte is missing */
    v->st.seg[SEG_TR].attr = SEGA_P | 3;   /* a 16-bit TSS has no map */
    assert_false(io_allowed(v, 0x84, 1));
    flags_load(v, RF_IOPL);
    assert_true(io_allowed(v, 0x83, 4));
    soft_rig_long(&rig, 0);
    flags_load(v, 0);
    assert_true(io_allowed(v, 0x83, 4));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(privileged_instructions_need_cpl_0),
        TEST(what_cpuid_hides_is_undefined),
        TEST(time_is_guest_ns_plus_the_offset),
        TEST(hlt_and_tpause_leave),
        TEST(control_registers_move),
        TEST(debug_registers_move),
        TEST(descriptor_tables_load_and_store),
        TEST(msrs_through_registers),
        TEST(cpuid_knows_who_asks),
        TEST(ports_merge_into_rax),
        TEST(the_permission_bitmap_decides_past_iopl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
