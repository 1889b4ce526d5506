#include "cpu/kvm/kvm_cpuid.h"

#include "base/bits.h"
#include "cpu/kvm/kvm.h"
#include "cpu/pv.h"
#include "x86/cpu.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { LEAF_KVM_FEATURES = 0x40000001, LEAF_VIRT = 0x40000000, LEAF_VIRT_END = 0x40010000, LEAF_EXT = 0x80000000 };

#define MSR_INDEX_ARCH_CAPS MSR_ARCH_CAPS
#define ECX1_VMX            (1u << 5)
#define ECX1_NEEDS_XSAVE    (1u << 12 | 1u << 26 | 1u << 28 | 1u << 29) /* FMA, XSAVE itself, AVX, F16C */
#define EBX7_NEEDS_XSAVE                                                                                               \
    (1u << 5 | 1u << 14 | 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31)
#define ECXE1_SVM         (1u << 2)
#define ECXE1_NEEDS_XSAVE (1u << 11 | 1u << 15 | 1u << 16) /* XOP, LWP, FMA4 */
#define ECXE1_TOPOEXT     (1u << 22)
/* KVM's paravirtual features that need nothing of the VMM. Bits 4, 12 and 14: asynchronous page faults, haltpoll. */
#define PV_GIVEN                                                                                                       \
    (PV_CLOCKSOURCE | PV_NOP_IO_DELAY | PV_CLOCKSOURCE2 | 1u << 4 | PV_STEAL_TIME | PV_EOI | PV_UNHALT |               \
     PV_TLB_FLUSH | PV_SEND_IPI | 1u << 12 | PV_SCHED_YIELD | 1u << 14 | PV_CLOCKSOURCE_STABLE)

/* ---- what KVM supports ---- */

int kvm_cpuid_supported(const struct kvm_sys *s, int dev, struct kvm_cpuid_table *out)
{
    out->head = (struct kvm_cpuid2){.nent = KVM_CPUID_MAX};
    int rc = kvm_iop(s, dev, KVM_GET_SUPPORTED_CPUID, out);
    return rc < 0 ? rc : 0;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid_table *t, uint32_t leaf, uint32_t sub)
{
    static const struct kvm_cpuid_entry2 none;
    for (uint32_t i = 0; i < t->head.nent; i++)
        if (t->e[i].function == leaf && t->e[i].index == sub)
            return &t->e[i];
    return &none;
}

/* IA32_ARCH_CAPABILITIES as KVM would give it, 0 if it would not. */
static uint64_t arch_capabilities(const struct kvm_sys *s, int dev)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e;
    } m = {.head.nmsrs = 1, .e.index = MSR_INDEX_ARCH_CAPS};
    return kvm_iop(s, dev, KVM_GET_MSRS, &m) == 1 ? m.e.data : 0;
}

/* KVM leaves the name out; the host's own CPUID has it. */
static void host_brand(char brand[49])
{
    unsigned r[12];
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(LEAF_EXT + 2 + i, &r[i * 4], &r[i * 4 + 1], &r[i * 4 + 2], &r[i * 4 + 3]))
            return;
    memcpy(brand, r, 48);
    brand[48] = 0;
}

static void names(const struct kvm_cpuid_table *t, struct cpuid_model *m)
{
    const struct kvm_cpuid_entry2 *leaf0 = find(t, 0, 0);
    st32(m->vendor, leaf0->ebx);
    st32(m->vendor + 4, leaf0->edx);
    st32(m->vendor + 8, leaf0->ecx);
    memcpy(m->brand, "Hecaton Virtual CPU", 20);
    host_brand(m->brand);
    uint32_t bits = find(t, LEAF_EXT + 8, 0)->eax & 0xff;
    m->phys_bits = (uint8_t)(bits ? bits : 36);
    m->signature = find(t, 1, 0)->eax;
}

static void features(const struct kvm_cpuid_table *t, struct cpuid_model *m)
{
    m->std1_ecx = find(t, 1, 0)->ecx | CPUID_1_ECX_X2APIC | CPUID_1_ECX_HV;
    m->std1_edx = find(t, 1, 0)->edx;
    m->std6_eax = find(t, 6, 0)->eax;
    m->std7_ebx = find(t, 7, 0)->ebx;
    m->std7_ecx = find(t, 7, 0)->ecx;
    m->std7_edx = find(t, 7, 0)->edx;
    m->std7_1_eax = find(t, 7, 1)->eax;
    m->std7_2_edx = find(t, 7, 2)->edx;
    m->ext1_ecx = find(t, LEAF_EXT + 1, 0)->ecx;
    m->ext1_edx = find(t, LEAF_EXT + 1, 0)->edx;
    m->ext7_edx = find(t, LEAF_EXT + 7, 0)->edx;
    m->kvm_features = find(t, LEAF_KVM_FEATURES, 0)->eax | KVM_FEATURE_EXT_DEST_ID;
    m->hypervisor = true;
}

/* Other hypervisors' leaves are for those who ask, and so is running hypervisors inside: their state is not in struct
 * cpu_state. */
static void reticent(struct cpuid_model *gives)
{
    gives->hv_recommend = gives->hv_stack = gives->xen_features = 0;
    gives->std1_ecx &= ~ECX1_VMX;
    gives->ext1_ecx &= ~ECXE1_SVM;
    gives->kvm_features &= PV_GIVEN | KVM_FEATURE_EXT_DEST_ID;
}

static int read_offer(const struct kvm_sys *s, int dev, struct cpuid_offer *o)
{
    struct kvm_cpuid_table *t = malloc(sizeof *t);
    int rc = t ? kvm_cpuid_supported(s, dev, t) : -ENOMEM;
    if (!rc) {
        features(t, &o->can);
        names(t, &o->can);
        if (kvm_cap(s, dev, KVM_CAP_TSC_DEADLINE_TIMER))
            o->can.std1_ecx |= CPUID_1_ECX_TSCDL;
        o->can.arch_capabilities = o->can.std7_edx & CPUID_7_EDX_ARCH_CAPS ? arch_capabilities(s, dev) : 0;
        o->can.hv_recommend = HV_RECOMMEND_RELAXED;
        o->can.hv_stack = HV_STACK_EXT_DEST_ID;
        o->can.xen_features = XEN_FEATURE_EXT_DEST_ID;
        o->gives = o->can;
        reticent(&o->gives);
    }
    free(t);
    return rc;
}

/* What cannot be without XSAVE goes with it. */
static void consequences(struct cpuid_model *m)
{
    if (m->std1_ecx & CPUID_1_ECX_XSAVE)
        return;
    m->std1_ecx &= ~ECX1_NEEDS_XSAVE;
    m->std7_ebx &= ~EBX7_NEEDS_XSAVE;
    m->ext1_ecx &= ~ECXE1_NEEDS_XSAVE;
}

int kvm_cpuid_model(struct cpuid_model *m, const char *spec, const struct cpu_topology *topo, uint32_t vcpus,
                    uint32_t max_apic_id, struct err *e)
{
    struct cpuid_offer o = {.who = "this host's KVM"};
    const struct kvm_sys *s = &kvm_sys_host;
    int dev = s->open(s->opaque);
    if (dev < 0)
        return err_set(e, dev, "/dev/kvm: %s: -accel soft needs no KVM", strerror(-dev));
    int rc = read_offer(s, dev, &o);
    close(dev);
    if (rc)
        return err_set(e, rc, "KVM does not say what it supports (KVM_GET_SUPPORTED_CPUID): %s", strerror(-rc));
    rc = cpuid_model_init_from(m, &o, spec, topo, vcpus, max_apic_id, e);
    consequences(m);
    return rc;
}

/* ---- the table of one vCPU ---- */

struct build {
    const struct cpuid_model *m;
    struct cpuid_cpu cpu;
    struct kvm_cpuid_table *out;
};

static void put(struct build *b, const struct kvm_cpuid_entry2 *e)
{
    if (b->out->head.nent < KVM_CPUID_MAX && (e->eax | e->ebx | e->ecx | e->edx))
        b->out->e[b->out->head.nent++] = *e;
}

/* A leaf of the model's. */
static void put_model(struct build *b, uint32_t leaf, uint32_t sub, bool indexed)
{
    struct cpuid_regs r;
    cpuid_query(b->m, &b->cpu, leaf, sub, &r);
    struct kvm_cpuid_entry2 e = {.function = leaf,
                                 .index = sub,
                                 .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                 .eax = r.eax,
                                 .ebx = r.ebx,
                                 .ecx = r.ecx,
                                 .edx = r.edx};
    put(b, &e);
}

static bool is_intel(const struct cpuid_model *m)
{
    return ld32(m->vendor) == ld32("Genu");
}

/* Threads of a package, as a power of two: how many IDs it has. */
static uint32_t package_ids(struct build *b, uint32_t *thread_ids)
{
    struct cpuid_regs smt, last = {0}, r;
    cpuid_query(b->m, &b->cpu, 0x1f, 0, &smt);
    for (uint32_t sub = 0; sub < 4; sub++) {
        cpuid_query(b->m, &b->cpu, 0x1f, sub, &r);
        if (r.ecx >> 8 & 0xff)
            last = r;
    }
    *thread_ids = 1u << smt.eax;
    return 1u << last.eax;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Leaves 4 and 8000001Dh: who shares a cache. The host's numbers are the host's topology. SDM 2, "INPUT EAX = 04H". */
static void share_cache(struct build *b, struct kvm_cpuid_entry2 *e, bool amd)
{
    uint32_t threads, ids = package_ids(b, &threads), level = e->eax >> 5 & 7;
    if (!(e->eax & 0x1f))
        return;
    uint32_t sharers = level >= 3 ? min_u32(ids, 64) : threads;
    e->eax = (e->eax & 0x3fff) | (min_u32(sharers, 4096) - 1) << 14;
    if (!amd)
        e->eax |= (min_u32(ids / threads, 64) - 1) << 26;
}

/* 40000000h and up are ours; KVM implements what they promise. Interfaces take blocks of 100h leaves. */
static void put_virtual(struct build *b)
{
    for (uint32_t base = LEAF_VIRT; base <= LEAF_VIRT + 0x200; base += 0x100) {
        struct cpuid_regs r;
        cpuid_query(b->m, &b->cpu, base, 0, &r);
        for (uint32_t leaf = base; r.eax >= base && leaf <= r.eax && leaf < base + 0x100; leaf++)
            put_model(b, leaf, 0, false);
    }
}

static void put_topology(struct build *b)
{
    for (uint32_t sub = 0; sub < 3; sub++)
        put_model(b, 0xb, sub, true);
    if (!is_intel(b->m))
        return;
    for (uint32_t sub = 0; sub < 4; sub++)
        put_model(b, 0x1f, sub, true);
    put_model(b, 0x15, 0, false);
    put_model(b, 0x16, 0, false);
}

static void basic(struct build *b, struct kvm_cpuid_entry2 *e)
{
    const struct cpuid_model *m = b->m;
    switch (e->function) {
    case 0:
        e->ebx = ld32(m->vendor);
        e->edx = ld32(m->vendor + 4);
        e->ecx = ld32(m->vendor + 8);
        if (e->eax < (is_intel(m) ? 0x1f : 0xb))
            e->eax = is_intel(m) ? 0x1f : 0xb;
        break;
    case 1:
        put_model(b, 1, 0, false);
        return;
    case 4:
        share_cache(b, e, false);
        break;
    case 6:
        e->eax = m->std6_eax;
        break;
    case 7:
        if (e->index == 0)
            *e = (struct kvm_cpuid_entry2){.function = 7,
                                           .flags = e->flags,
                                           .eax = e->eax,
                                           .ebx = m->std7_ebx,
                                           .ecx = m->std7_ecx,
                                           .edx = m->std7_edx};
        else if (e->index == 1)
            e->eax = m->std7_1_eax;
        else if (e->index == 2)
            e->edx = m->std7_2_edx;
        break;
    case 0xb: /* put_topology() */
    case 0x15:
    case 0x16:
    case 0x1f:
        return;
    case 0xd:
        if (!(m->std1_ecx & CPUID_1_ECX_XSAVE))
            return;
        break;
    default:
        break;
    }
    put(b, e);
}

/* AMD's view of topology. APM 3, "Size Identifiers" (80000008h ECX) and "Extended APIC ID" (8000001Eh). */
static void extended(struct build *b, struct kvm_cpuid_entry2 *e)
{
    const struct cpuid_model *m = b->m;
    uint32_t threads, ids = package_ids(b, &threads), width = (uint32_t)__builtin_ctz(ids);
    switch (e->function - LEAF_EXT) {
    case 0:
        e->ebx = is_intel(m) ? 0 : ld32(m->vendor);
        e->edx = is_intel(m) ? 0 : ld32(m->vendor + 4);
        e->ecx = is_intel(m) ? 0 : ld32(m->vendor + 8);
        e->eax = e->eax < LEAF_EXT + 8 ? LEAF_EXT + 8 : e->eax;
        break;
    case 1:
        e->ecx = m->ext1_ecx;
        e->edx = m->ext1_edx;
        break;
    case 2:
    case 3:
    case 4:
        put_model(b, e->function, 0, false);
        return;
    case 7:
        e->edx = m->ext7_edx;
        break;
    case 8:
        e->eax = (e->eax & ~0xffu) | m->phys_bits;
        e->ecx = is_intel(m) ? 0 : (e->ecx & 0xffff0000u) | min_u32(width, 15) << 12 | (min_u32(ids, 256) - 1);
        break;
    case 0x1d:
        share_cache(b, e, true);
        break;
    case 0x1e:
        if (!(m->ext1_ecx & ECXE1_TOPOEXT))
            return;
        e->eax = b->cpu.id.id;
        e->ebx = (threads - 1) << 8 | (b->cpu.id.id / threads & 0xff);
        e->ecx = b->cpu.id.id / ids & 0xff;
        break;
    case 0x26: /* topology again, the host's */
        return;
    default:
        break;
    }
    put(b, e);
}

void kvm_cpuid_build(const struct kvm_cpuid_table *supported, const struct cpuid_model *m, apic_id_t id,
                     struct kvm_cpuid_table *out)
{
    struct build b = {.m = m, .cpu = {.id = id, .apic_enabled = true}, .out = out};
    out->head = (struct kvm_cpuid2){0};
    for (uint32_t i = 0; i < supported->head.nent; i++) {
        struct kvm_cpuid_entry2 e = supported->e[i];
        if (e.function >= LEAF_EXT)
            extended(&b, &e);
        else if (e.function < LEAF_VIRT)
            basic(&b, &e);
    }
    put_topology(&b);
    put_virtual(&b);
}
