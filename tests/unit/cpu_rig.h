/* A two-vCPU machine for tests that call the engine's far-transfer and event code directly: guest RAM with hand-made
 * GDT, IDT, TSSs and page tables, the real fabric, no translated code.
 */
#ifndef HEC_TESTS_CPU_RIG_H
#define HEC_TESTS_CPU_RIG_H

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "jit_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum {
    RIG_GDT = 0x1000,
    RIG_IDT = 0x2000,
    RIG_LDT = 0x3000,
    RIG_TSS = 0x4000,  /* the current one */
    RIG_TSS2 = 0x4200, /* another 32-bit one */
    RIG_TSS16 = 0x4400,
    RIG_STACK0 = 0x8000, /* CPL 0 stack from the TSS */
    RIG_STACK = 0x9000,  /* where RSP starts */
    RIG_IST1 = 0xa000,
    RIG_CODE = 0x5000,    /* where RIP starts */
    RIG_HANDLER = 0x6000, /* + vector * 16 */
    RIG_PML4 = 0x10000,
    RIG_RAM = 0x400000,
    RIG_UNMAPPED = 0x40000000 /* first address past the identity map of the 64-bit rig */
};

/* GDT selectors. */
enum {
    K_CODE32 = 0x08,
    K_DATA = 0x10,
    U_CODE32 = 0x18 | 3,
    U_DATA = 0x20 | 3,
    K_CODE64 = 0x28,
    U_CODE64 = 0x30 | 3,
    C_CODE32 = 0x38, /* conforming, DPL 0 */
    S_TSS = 0x40,    /* 16 bytes in the 64-bit rig */
    S_TSS2 = 0x50,
    S_TASKGATE = 0x58,
    S_CALLGATE = 0x60, /* 16 bytes in the 64-bit rig */
    S_LDT = 0x70,      /* 16 bytes in the 64-bit rig */
    K_CODE16 = 0x80,
    S_TSS16 = 0x88,
    S_ABSENT = 0x90,    /* data, not present */
    K_RODATA = 0x98,    /* read-only data, accessed bit clear */
    K_XCODE = 0xa0,     /* execute-only code */
    K_STACK16 = 0xa8,   /* data, B = 0 */
    U_DATA0 = 0xb0 | 3, /* spare, DPL 3, accessed bit clear */
    RIG_GDT_LIMIT = 0xff
};

/* Attribute words in the layout of enum seg_attr. */
enum {
    A_KCODE32 = 0xc09b,
    A_KDATA = 0xc093,
    A_UCODE32 = 0xc0fb,
    A_UDATA = 0xc0f3,
    A_KCODE64 = 0xa09b,
    A_UCODE64 = 0xa0fb,
    A_KCONF32 = 0xc09f,
    A_TSS32 = 0x0089,
    A_TSS16 = 0x0081,
    A_LDT = 0x0082,
    A_INT32 = 0x008e,
    A_TRAP32 = 0x008f,
    A_INT16 = 0x0086,
    A_CALL32 = 0x008c,
    A_TASK = 0x0085
};

struct rig {
    struct ram ram;
    struct bus mmio, ports;
    struct epoch epoch;
    int slot;
    struct fabric *fabric;
    struct pv *pv;
    struct guest_clock clock;
    struct cpuid_model cpuid;
    struct engine_vm *vm;
    struct soft_vcpu *v, *other; /* APIC IDs 5 and 300 */
    struct cpu_run run;          /* for tests that look at the exit: rig_watch_exit() */
    unsigned kicks;
};

static inline void rig_kick(void *opaque, vcpu_idx_t cpu)
{
    struct rig *r = opaque;
    r->kicks++;
    if (r->v)
        engine_soft.kick(engine_soft.vcpu(r->vm, cpu), ATTN_IRQ);
}

/* ---- guest memory ---- */

static inline uint8_t *rig_at(struct rig *r, uint64_t gpa)
{
    return ram_hva(&r->ram, gpa, 8);
}

static inline uint64_t rig_desc(uint32_t base, uint32_t limit, uint32_t attr)
{
    if (attr & SEGA_G)
        limit >>= 12;
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attr << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static inline uint64_t rig_gate(uint16_t sel, uint32_t off, uint32_t attr)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)(attr & 0xff) << 40 | (uint64_t)(off >> 16) << 48;
}

static inline void rig_gdt(struct rig *r, uint16_t sel, uint64_t desc)
{
    st64(rig_at(r, RIG_GDT + (sel & 0xfff8u)), desc);
}

static inline uint64_t rig_gdt_get(struct rig *r, uint16_t sel)
{
    return ld64(rig_at(r, RIG_GDT + (sel & 0xfff8u)));
}

static inline uint32_t rig_handler(unsigned vector)
{
    return RIG_HANDLER + vector * 16;
}

static inline void rig_idt32(struct rig *r, unsigned vector, uint16_t sel, uint32_t attr)
{
    st64(rig_at(r, RIG_IDT + vector * 8), rig_gate(sel, rig_handler(vector), attr));
}

static inline void rig_idt64(struct rig *r, unsigned vector, uint32_t attr, unsigned ist)
{
    st64(rig_at(r, RIG_IDT + vector * 16), rig_gate(K_CODE64, rig_handler(vector), attr) | (uint64_t)ist << 32);
    st64(rig_at(r, RIG_IDT + vector * 16 + 8), 0);
}

static inline uint32_t rig_u32(struct rig *r, uint64_t gpa)
{
    return ld32(rig_at(r, gpa));
}

static inline uint64_t rig_u64(struct rig *r, uint64_t gpa)
{
    return ld64(rig_at(r, gpa));
}

/* ---- set-up ---- */

static inline void rig_tables(struct rig *r)
{
    rig_gdt(r, K_CODE32, rig_desc(0, 0xffffffff, A_KCODE32));
    rig_gdt(r, K_DATA, rig_desc(0, 0xffffffff, A_KDATA));
    rig_gdt(r, U_CODE32, rig_desc(0, 0xffffffff, A_UCODE32));
    rig_gdt(r, U_DATA, rig_desc(0, 0xffffffff, A_UDATA));
    rig_gdt(r, K_CODE64, rig_desc(0, 0xffffffff, A_KCODE64));
    rig_gdt(r, U_CODE64, rig_desc(0, 0xffffffff, A_UCODE64));
    rig_gdt(r, C_CODE32, rig_desc(0, 0xffffffff, A_KCONF32));
    rig_gdt(r, S_TSS, rig_desc(RIG_TSS, 0x67, A_TSS32 | 2));
    rig_gdt(r, S_TSS2, rig_desc(RIG_TSS2, 0x67, A_TSS32));
    rig_gdt(r, S_TASKGATE, rig_gate(S_TSS2, 0, A_TASK | 0x60));
    rig_gdt(r, S_LDT, rig_desc(RIG_LDT, 0x1f, A_LDT));
    rig_gdt(r, K_CODE16, rig_desc(0, 0xffff, 0x009b));
    rig_gdt(r, S_TSS16, rig_desc(RIG_TSS16, 0x2b, A_TSS16));
    rig_gdt(r, S_ABSENT, rig_desc(0, 0xffffffff, A_UDATA & ~0x80));
    rig_gdt(r, K_RODATA, rig_desc(0, 0xffffffff, 0xc090));
    rig_gdt(r, K_XCODE, rig_desc(0, 0xffffffff, 0xc099));
    rig_gdt(r, K_STACK16, rig_desc(0, 0xffff, 0x0093));
    rig_gdt(r, U_DATA0, rig_desc(0, 0xffffffff, 0xc0f2));
}

static inline void rig_segment(struct soft_vcpu *v, unsigned seg, uint16_t sel, uint64_t desc)
{
    seg_from_desc(&v->st.seg[seg], sel, desc);
}

static inline void rig_user_or_kernel(struct rig *r, uint16_t code, uint16_t data)
{
    static const uint8_t segs[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    rig_segment(r->v, SEG_CS, code, rig_gdt_get(r, code));
    for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
        rig_segment(r->v, segs[i], data, rig_gdt_get(r, data));
}

static inline void rig_common(struct rig *r)
{
    struct cpu_state *s = &r->v->st;
    s->gdtr = (struct cpu_dtable){RIG_GDT, RIG_GDT_LIMIT};
    s->idtr = (struct cpu_dtable){RIG_IDT, 0xfff};
    s->gpr[RSP] = RIG_STACK;
    s->rip = RIG_CODE;
    s->rflags = RF_FIXED | RF_IF;
    s->activity = CPU_ACTIVE;
    r->v->cc_op = CC_RFLAGS;
    rig_tables(r);
}

/* 32-bit protected mode, no paging; 32-bit interrupt gates for vectors 0..63 (DPL 3 for 40h..4fh). */
static inline void rig_protected(struct rig *r, unsigned level)
{
    struct cpu_state *s = &r->v->st;
    rig_common(r);
    s->cr0 = CR0_PE | CR0_ET | CR0_NE;
    for (unsigned i = 0; i < 64; i++)
        rig_idt32(r, i, K_CODE32, A_INT32);
    for (unsigned i = 64; i < 80; i++)
        rig_idt32(r, i, K_CODE32, A_INT32 | 0x60);
    rig_user_or_kernel(r, level ? U_CODE32 : K_CODE32, level ? U_DATA : K_DATA);
    rig_segment(r->v, SEG_TR, S_TSS, rig_gdt_get(r, S_TSS));
    seg_from_desc(&s->seg[SEG_LDTR], S_LDT, rig_gdt_get(r, S_LDT));
    st32(rig_at(r, RIG_TSS + 4), RIG_STACK0);
    st32(rig_at(r, RIG_TSS + 8), K_DATA);
    tlb_flush_all(r->v);
    mode_update(r->v);
}

/* 64-bit mode, 1 GiB identity-mapped for everyone; gates as above. */
static inline void rig_long(struct rig *r, unsigned level)
{
    struct cpu_state *s = &r->v->st;
    rig_common(r);
    st64(rig_at(r, RIG_PML4), (RIG_PML4 + 0x1000) | PTE_P | PTE_W | PTE_U);
    st64(rig_at(r, RIG_PML4 + 0x1000), (RIG_PML4 + 0x2000) | PTE_P | PTE_W | PTE_U);
    for (uint64_t i = 0; i < 512; i++)
        st64(rig_at(r, RIG_PML4 + 0x2000 + i * 8), i << 21 | PTE_P | PTE_W | PTE_U | PTE_PS);
    s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
    s->cr3 = RIG_PML4;
    s->cr4 = CR4_PAE | CR4_FSGSBASE;
    s->efer = EFER_LME | EFER_LMA | EFER_SCE;
    for (unsigned i = 0; i < 64; i++)
        rig_idt64(r, i, A_INT32, 0);
    for (unsigned i = 64; i < 80; i++)
        rig_idt64(r, i, A_INT32 | 0x60, 0);
    rig_gdt(r, S_TSS, rig_desc(RIG_TSS, 0x67, A_TSS32 | 2));
    st64(rig_at(r, RIG_GDT + S_TSS + 8), 0);
    st64(rig_at(r, RIG_GDT + S_LDT + 8), 0);
    rig_user_or_kernel(r, level ? U_CODE64 : K_CODE64, level ? U_DATA : K_DATA);
    rig_segment(r->v, SEG_TR, S_TSS, rig_gdt_get(r, S_TSS));
    st64(rig_at(r, RIG_TSS + 4), RIG_STACK0);
    st64(rig_at(r, RIG_TSS + 36), RIG_IST1);
    tlb_flush_all(r->v);
    mode_update(r->v);
}

static inline void rig_real(struct rig *r)
{
    struct cpu_state *s = &r->v->st;
    cpu_state_reset(s, true);
    s->seg[SEG_CS] = (struct cpu_segment){.limit = 0xffff, .attr = 0x93};
    s->rip = RIG_CODE;
    s->gpr[RSP] = RIG_STACK;
    r->v->cc_op = CC_RFLAGS;
    tlb_flush_all(r->v);
    mode_update(r->v);
}

/* Virtual-8086 mode under the 32-bit tables: CS 0500h:0000h, SS 0800h. */
static inline void rig_v86(struct rig *r, unsigned iopl)
{
    rig_protected(r, 3);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        r->v->st.seg[i] = (struct cpu_segment){.sel = 0x800, .base = 0x8000, .limit = 0xffff, .attr = 0xf3};
    r->v->st.seg[SEG_CS].sel = RIG_CODE >> 4;
    r->v->st.seg[SEG_CS].base = RIG_CODE;
    r->v->st.rip = 0;
    r->v->st.gpr[RSP] = 0x1000;
    r->v->st.rflags = RF_FIXED | RF_IF | RF_VM | (uint64_t)iopl << 12;
    mode_update(r->v);
}

/* `how` says whether the engine translates and is deterministic. */
static inline void rig_init(struct rig *r, const struct engine_config *how)
{
    static const apic_id_t ids[] = {{5}, {300}};
    struct err e;
    struct cpu_topology topo = {1, 1, 2, 1};
    assert_int_equal(ram_init(&r->ram, RIG_RAM, &e), 0);
    epoch_init(&r->epoch);
    r->slot = epoch_slot(&r->epoch);
    epoch_enter(&r->epoch, r->slot);
    bus_init(&r->mmio, "mmio", &r->epoch, NULL);
    bus_init(&r->ports, "port", &r->epoch, NULL);
    struct fabric_config fc = {.vcpus = 2, .ids = ids, .firmware_x2apic = true, .x2apic = true, .ext_dest_id = true};
    fc.kick = rig_kick;
    fc.kick_opaque = r;
    fc.epoch = &r->epoch;
    assert_int_equal(fabric_create(&fc, &r->fabric, &e), 0);
    assert_int_equal(cpuid_model_init(&r->cpuid, NULL, &topo, 2, 300, &e), 0);
    struct pv_config pc = {.vcpus = 2, .features = PV_UNHALT, .ram = &r->ram, .fabric = r->fabric};
    assert_int_equal(pv_create(&pc, &r->pv, &e), 0);
    struct engine_config c = {.vcpus = 2, .ids = ids, .workers = 1, .ram = &r->ram, .mmio = &r->mmio};
    c.ports = &r->ports;
    c.fabric = r->fabric;
    c.cpuid = &r->cpuid;
    c.pv = r->pv;
    c.clock = &r->clock;
    c.jit = how->jit;
    c.jit_heat = how->jit_heat;
    c.deterministic = how->deterministic;
    assert_int_equal(engine_soft.vm_create(&c, &r->vm, &e), 0);
    r->v = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(0));
    r->other = (struct soft_vcpu *)engine_soft.vcpu(r->vm, VCPU_IDX(1));
    assert_true(tlb_alloc(r->v) && tlb_alloc(r->other));
}

static inline void rig_fini(struct rig *r)
{
    r->v->run = r->other->run = NULL;
    engine_soft.vm_destroy(r->vm);
    pv_destroy(r->pv);
    fabric_destroy(r->fabric);
    epoch_leave(&r->epoch, r->slot);
    bus_fini(&r->mmio);
    bus_fini(&r->ports);
    epoch_fini(&r->epoch);
    ram_fini(&r->ram);
}

static inline int rig_setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof *r);
    struct engine_config how = {.vcpus = 2};
    jit_env(&how);
    rig_init(r, &how);
    *state = r;
    return 0;
}

static inline int rig_teardown(void **state)
{
    rig_fini(*state);
    test_free(*state);
    return 0;
}

/* Outside vcpu_run() a vCPU has no cpu_run; such a one must not need the machine to itself. */
static inline void rig_watch_exit(struct rig *r)
{
    r->v->run = r->other->run = &r->run;
}

/* ---- running one instruction ---- */

/* Decode `bytes` at RIP in the current mode, run `fn`, move RIP as the dispatcher would. */
static inline enum exec_result rig_exec(struct rig *r, exec_fn *fn, const char *bytes, unsigned len)
{
    struct insn in;
    struct soft_vcpu *v = r->v;
    assert_int_equal(decode_insn((const uint8_t *)bytes, len, v->mode & MODE_CODE, &in), DECODE_OK);
    assert_int_equal(in.len, len);
    v->next_rip = v->st.rip + len;
    memset(&v->fault, 0, sizeof v->fault);
    enum exec_result res = fn(v, &in);
    if (res == EXEC_OK || res == EXEC_END)
        v->st.rip = v->next_rip;
    return res;
}

#define RIG_EXEC(r, op, bytes) rig_exec((r), exec_##op, (bytes), sizeof(bytes) - 1)

#define assert_fault(r, vec, err)                                                                                      \
    do {                                                                                                               \
        assert_int_equal((r)->v->fault.vector, (vec));                                                                 \
        assert_true((r)->v->fault.has_error);                                                                          \
        assert_int_equal((r)->v->fault.error, (err));                                                                  \
    } while (0)

/* Member by member: padding is nobody's business. The activity is compared by those who expect it to stay. */
static inline void assert_same_state(const struct cpu_state *a, const struct cpu_state *b)
{
    assert_memory_equal(a->gpr, b->gpr, sizeof a->gpr);
    assert_memory_equal(a->dr, b->dr, sizeof a->dr);
    assert_true(a->rip == b->rip && a->rflags == b->rflags && a->efer == b->efer);
    assert_true(a->cr0 == b->cr0 && a->cr2 == b->cr2 && a->cr3 == b->cr3 && a->cr4 == b->cr4);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(a->seg[i].sel, b->seg[i].sel);
        assert_int_equal(a->seg[i].base, b->seg[i].base);
        assert_int_equal(a->seg[i].limit, b->seg[i].limit);
        assert_int_equal(a->seg[i].attr, b->seg[i].attr);
    }
}

static inline bool rig_raise(struct rig *r, unsigned vec, bool has_error, uint32_t error)
{
    fault_set(r->v, vec, has_error, error);
    return event_deliver_fault(r->v);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

#endif
