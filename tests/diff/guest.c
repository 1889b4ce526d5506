/* Running tests in the engine: a machine of one vCPU with nothing but RAM, driven through engine_ops. */
#include "oracle.h"

#include "cpu/cpuid.h"
#include "cpu/engine.h"
#include "cpu/pv.h"
#include "x86/cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const uint8_t guest_blob[], guest_blob_end[], guest_vectors[];

struct guest {
    const struct engine_ops *ops;
    struct engine_vm *vm;
    struct epoch epoch;
    int slot;
    struct ram ram;
    struct bus mmio, ports;
    struct fabric *fabric;
    struct cpuid_model cpuid;
    struct guest_clock clock;
    struct pv *pv;
};

static void no_kick(void *opaque, vcpu_idx_t target)
{
}

/* ---- tables ---- */

static void put64(struct guest *g, gpa_t at, uint64_t val)
{
    st64(ram_hva(&g->ram, at, 8), val);
}

static void page_tables(struct guest *g)
{
    const uint64_t user = PTE_P | PTE_W | PTE_U, super = PTE_P | PTE_W;
    put64(g, 0x1000, 0x2000 | user);
    put64(g, 0x2000, 0x3000 | user); /* 0 .. 1 GiB: the tests' */
    put64(g, 0x1000 + 8 * 511, 0x5000 | super);
    put64(g, 0x5000 + 8 * 510, 0x6000 | super); /* KERNEL_VA */
    put64(g, 0x3000 + 8 * (DATA_VA >> 21), 0x4000 | user);
    for (unsigned i = 0; i < CODE_LEN >> 21; i++)
        put64(g, 0x3000 + 8 * ((CODE_VA >> 21) + i), (G_CODE + ((uint64_t)i << 21)) | user | PTE_PS);
    for (unsigned i = 0; i < DATA_PAGES; i++) /* not in order, so that a page crossing is one in RAM, too */
        put64(g, 0x4000 + 8 * i, (0x30000 + 0x1000 * (i ^ 3)) | user);
    for (unsigned i = 0; i < G_RAM >> 21; i++)
        put64(g, 0x6000 + 8 * i, ((uint64_t)i << 21) | super | PTE_PS);
}

static void descriptor_tables(struct guest *g)
{
    uint64_t tss = KERNEL_VA + G_TSS;
    put64(g, G_GDT + SEL_KCODE, UINT64_C(0x00af9b000000ffff));
    put64(g, G_GDT + SEL_KDATA, UINT64_C(0x00cf93000000ffff));
    put64(g, G_GDT + (SEL_UDATA & ~7), UINT64_C(0x00cff3000000ffff));
    put64(g, G_GDT + (SEL_UCODE & ~7), UINT64_C(0x00affb000000ffff));
    put64(g, G_GDT + (SEL_UCODE32 & ~7), UINT64_C(0x00cffb000000ffff));
    put64(g, G_GDT + SEL_TSS, 0x67 | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (tss >> 24 & 0xff) << 56);
    put64(g, G_GDT + SEL_TSS + 8, tss >> 32);
    memcpy(ram_hva(&g->ram, G_TSS + 4, 8), &(uint64_t){KERNEL_VA + G_STACK}, 8); /* RSP0 */
    st16(ram_hva(&g->ram, G_TSS + 0x66, 2), 0x68);                               /* no I/O bitmap */
    for (unsigned i = 0; i < 32; i++) {
        uint64_t at = KERNEL_VA + G_KERNEL + (uint64_t)(guest_vectors - guest_blob) + i * 16;
        uint64_t dpl = i == 3 || i == 4 ? 3 : 0;
        put64(g, G_IDT + i * 16,
              (at & 0xffff) | SEL_KCODE << 16 | (0x8e00 | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48);
        put64(g, G_IDT + i * 16 + 8, at >> 32);
    }
}

static void start_state(struct cpu_state *s)
{
    cpu_state_reset(s, true);
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = 0x1000;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->seg[SEG_CS] = (struct cpu_segment){.sel = SEL_KCODE, .limit = ~0u, .attr = 0xa09b};
    s->seg[SEG_SS] = (struct cpu_segment){.sel = SEL_KDATA, .limit = ~0u, .attr = 0xc093};
    s->seg[SEG_DS] = s->seg[SEG_ES] = s->seg[SEG_FS] = s->seg[SEG_GS] = (struct cpu_segment){.attr = SEGA_UNUSABLE};
    s->seg[SEG_GS].base = GS_BASE;
    s->seg[SEG_TR] = (struct cpu_segment){.sel = SEL_TSS, .base = KERNEL_VA + G_TSS, .limit = 0x67, .attr = 0x8b};
    s->seg[SEG_LDTR] = (struct cpu_segment){.attr = SEGA_UNUSABLE};
    s->gdtr = (struct cpu_dtable){KERNEL_VA + G_GDT, SEL_TSS + 15};
    s->idtr = (struct cpu_dtable){KERNEL_VA + G_IDT, 32 * 16 - 1};
    s->rip = KERNEL_VA + G_KERNEL;
    s->rflags = 2;
    s->activity = CPU_ACTIVE;
}

/* ---- lifecycle ---- */

static int engine_open(struct guest *g, uint32_t heat)
{
    static const apic_id_t id = {7};
    struct err e = {.msg = ""};
    struct engine_config c = {.vcpus = 1,
                              .ids = &id,
                              .workers = 1,
                              .ram = &g->ram,
                              .mmio = &g->mmio,
                              .ports = &g->ports,
                              .fabric = g->fabric,
                              .cpuid = &g->cpuid,
                              .pv = g->pv,
                              .clock = &g->clock,
                              .deterministic = true,
                              .seed = 1,
                              .jit = heat != 0,
                              .jit_heat = heat};
    int rc = g->ops->vm_create(&c, &g->vm, &e);
    if (rc)
        fprintf(stderr, "oracle: %s\n", e.msg);
    return rc;
}

int guest_open(struct guest **out, uint32_t heat)
{
    static const apic_id_t id = {7};
    struct err e = {.msg = ""};
    struct guest *g = calloc(1, sizeof *g);
    if (!g)
        return -ENOMEM;
    struct cpu_topology topo = {1, 1, 1, 1};
    g->ops = &engine_soft;
    epoch_init(&g->epoch);
    g->slot = epoch_slot(&g->epoch);
    bus_init(&g->mmio, "mmio", &g->epoch, NULL);
    bus_init(&g->ports, "port", &g->epoch, NULL);
    struct fabric_config f = {.vcpus = 1, .ids = &id, .x2apic = true, .kick = no_kick, .epoch = &g->epoch};
    struct pv_config p = {.vcpus = 1, .ram = &g->ram};
    int rc = ram_init(&g->ram, G_RAM, &e);
    rc = rc ? rc : fabric_create(&f, &g->fabric, &e);
    rc = rc ? rc : cpuid_model_init(&g->cpuid, NULL, &topo, 1, 7, &e);
    p.fabric = g->fabric;
    rc = rc ? rc : pv_create(&p, &g->pv, &e);
    if (rc) {
        fprintf(stderr, "oracle: %s\n", e.msg);
        return rc;
    }
    page_tables(g);
    descriptor_tables(g);
    memcpy(ram_hva(&g->ram, G_KERNEL, 4096), guest_blob, (size_t)(guest_blob_end - guest_blob));
    *out = g;
    return engine_open(g, heat);
}

void guest_close(struct guest *g)
{
    g->ops->vm_destroy(g->vm);
    pv_destroy(g->pv);
    fabric_destroy(g->fabric);
    bus_fini(&g->mmio);
    bus_fini(&g->ports);
    ram_fini(&g->ram);
    epoch_fini(&g->epoch);
    free(g);
}

/* ---- running ---- */

static void put_code(struct guest *g, const struct test *t, unsigned count)
{
    uint64_t page = (t[0].rip - CODE_VA) & ~UINT64_C(0xfff);
    uint64_t len = min_u64(count * SLOT + 4096, CODE_LEN - page);
    memset(ram_hva(&g->ram, G_CODE + page, len), 0xcc, len);
    for (unsigned i = 0; i < count; i++)
        memcpy(ram_hva(&g->ram, G_CODE + (t[i].rip - CODE_VA), CODE_MAX), t[i].code, t[i].code_len);
    g->ops->ram_written(g->vm, G_CODE + page, len);
}

static struct test *guest_tests(struct guest *g)
{
    return (struct test *)ram_hva(&g->ram, G_TESTS, BATCH * sizeof(struct test));
}

/* From test `at` on. Returns the index of the test it stopped in (count: all done). */
static unsigned run_from(struct guest *g, unsigned at, unsigned count)
{
    struct cpu_state s;
    struct cpu_run run = {.budget = 2000000};
    struct engine_vcpu *v = g->ops->vcpu(g->vm, VCPU_IDX(0));
    start_state(&s);
    put64(g, G_VARS, KERNEL_VA + G_TESTS + at * sizeof(struct test));
    put64(g, G_VARS + 8, KERNEL_VA + G_TESTS + count * sizeof(struct test));
    g->ops->set_state(v, &s);
    epoch_enter(&g->epoch, g->slot);
    do
        g->ops->vcpu_run(v, &run);
    while (run.exit == CPU_EXIT_SPIN); /* PAUSE */
    epoch_leave(&g->epoch, g->slot);
    return (unsigned)((ld64(ram_hva(&g->ram, G_VARS, 8)) - KERNEL_VA - G_TESTS) / sizeof(struct test));
}

static void take(const struct test *t, struct result *out)
{
    out->r = t->r;
    memcpy(out->data, t->r_data, DATA_LEN);
    if (t->kind & KIND_FP)
        memcpy(out->fx, t->r_fx, 512);
}

void guest_run(struct guest *g, const struct test *tests, unsigned count, struct result *out)
{
    struct test *t = guest_tests(g);
    for (unsigned i = 0; i < count; i++)
        memcpy(&t[i], &tests[i], tests[i].kind & KIND_FP ? T_R_FX : T_FX);
    put_code(g, tests, count);
    for (unsigned at = 0; at < count; at++) {
        at = run_from(g, at, count);
        if (at < count)
            t[at].r.vec = VEC_HANG;
    }
    for (unsigned i = 0; i < count; i++)
        take(&t[i], &out[i]);
}
