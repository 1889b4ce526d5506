/* kvm_lapic: the same random register accesses, messages and acknowledgements on our fabric and on Linux' KVM.
 *
 *     kvm_lapic [-n STEPS] [-s SEED]
 *
 * KVM's side has a split irqchip, 32-bit IDs and no broadcast quirk. x2APIC registers are accessed by KVM_SET_MSRS and
 * KVM_GET_MSRS, which take the guest's way through the local APIC; xAPIC registers, IA32_APIC_BASE and acknowledgements
 * by a few instructions of a guest; messages by KVM_SIGNAL_MSI, ours by the translator's address_hi form. After each
 * step return values and the stepping APIC's registers must be equal, after each one that sends those of all.
 *
 * A script keeps away from what docs/differences.md lists: there we differ on purpose. Exit code 0: equal; 1: a
 * difference; 2: usage; 77: no KVM here, or not one with these capabilities.
 */
#include "irq/fabric_priv.h"
#include "irq/remap.h"
#include "x86/cpu.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SKIP         77
#define SCRIPT_STEPS 500
#define LOG_STEPS    24

static const uint32_t ids[] = {0, 1, 0x23, 0xff, 0x100, 0x123, 0x12c, 0x1ff};
#define CPUS ARRAY_SIZE(ids)

/* ---- KVM's side ---- */

/* The guest: flat 32-bit code that does one thing and says by an OUT that it is done. */
enum { G_MEM = 0x10000, G_CODE = 0x1000, G_IDT = 0x2000, G_STUBS = 0x3000, G_GDT = 0x5000, G_STACK = 0x8000 };
enum { PORT_VECTOR = 0x11, PORT_DONE = 0x12 };
enum guest_op { OP_LOAD, OP_STORE, OP_WRMSR, OP_TAKE, OPS };

static const uint8_t guest_code[OPS][16] = {
    [OP_LOAD] = {0x8b, 0x03, 0xe7, PORT_DONE},      /* mov eax, [ebx]; out DONE, eax */
    [OP_STORE] = {0x89, 0x03, 0xe7, PORT_DONE},     /* mov [ebx], eax; out */
    [OP_WRMSR] = {0x0f, 0x30, 0xe7, PORT_DONE},     /* wrmsr; out */
    [OP_TAKE] = {0x90, 0x90, 0xfa, 0xe7, PORT_DONE} /* nop; nop; cli; out; entered with IF = 1 */
};

struct kvm {
    int dev, vm, vcpu[CPUS];
    struct kvm_run *run[CPUS];
    size_t run_size;
    uint8_t *mem;
};

static int skip(const char *why)
{
    printf("skipped: %s\n", why);
    return SKIP;
}

static bool enable_cap(int fd, uint32_t cap, uint64_t arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};
    return !ioctl(fd, KVM_ENABLE_CAP, &c);
}

static void gate(uint8_t *idt, unsigned v)
{
    uint32_t at = G_STUBS + v * 8;
    st32(idt + v * 8, 8u << 16 | (at & 0xffff));
    st32(idt + v * 8 + 4, (at & 0xffff0000u) | 0x8e00);
}

static void fill_memory(uint8_t *m)
{
    static const uint64_t gdt[] = {0, UINT64_C(0x00cf9b000000ffff), UINT64_C(0x00cf93000000ffff)};
    memcpy(m + G_CODE, guest_code, sizeof guest_code);
    memcpy(m + G_GDT, gdt, sizeof gdt);
    for (unsigned v = 0; v < 256; v++) {
        const uint8_t stub[] = {0xb0, (uint8_t)v, 0xe6, PORT_VECTOR}; /* mov al, v; out VECTOR, al */
        memcpy(m + G_STUBS + v * 8, stub, sizeof stub);
        gate(m + G_IDT, v);
    }
}

static bool set_sregs(int vcpu)
{
    struct kvm_sregs s;
    struct kvm_segment data = {.limit = UINT32_MAX, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    if (ioctl(vcpu, KVM_GET_SREGS, &s))
        return false;
    s.cr0 = 0x11;
    s.cs = data;
    s.cs.selector = 8;
    s.cs.type = 11;
    s.ds = s.es = s.ss = s.fs = s.gs = data;
    s.gdt = (struct kvm_dtable){.base = G_GDT, .limit = 23};
    s.idt = (struct kvm_dtable){.base = G_IDT, .limit = 0x7ff};
    return !ioctl(vcpu, KVM_SET_SREGS, &s);
}

static bool set_cpuid(int dev, int vcpu)
{
    struct kvm_cpuid2 *c = calloc(1, sizeof *c + 256 * sizeof c->entries[0]);
    c->nent = 256;
    bool ok = !ioctl(dev, KVM_GET_SUPPORTED_CPUID, c);
    for (uint32_t i = 0; ok && i < c->nent; i++)
        if (c->entries[i].function == 1)
            c->entries[i].ecx |= 1u << 21;
    ok = ok && !ioctl(vcpu, KVM_SET_CPUID2, c);
    free(c);
    return ok;
}

static bool make_vcpu(struct kvm *k, unsigned i)
{
    struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
    k->vcpu[i] = ioctl(k->vm, KVM_CREATE_VCPU, (unsigned long)ids[i]);
    if (k->vcpu[i] < 0)
        return false;
    k->run[i] = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->vcpu[i], 0);
    return k->run[i] != MAP_FAILED && set_cpuid(k->dev, k->vcpu[i]) && set_sregs(k->vcpu[i]) &&
           !ioctl(k->vcpu[i], KVM_SET_MP_STATE, &runnable);
}

static int kvm_open(struct kvm *k)
{
    k->dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (k->dev < 0)
        return skip("/dev/kvm does not open");
    k->vm = ioctl(k->dev, KVM_CREATE_VM, 0);
    if (k->vm < 0)
        return skip("no virtual machine can be made");
    if (!enable_cap(k->vm, KVM_CAP_SPLIT_IRQCHIP, 24) ||
        !enable_cap(k->vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK))
        return skip("no split irqchip with 32-bit IDs");
    k->run_size = (size_t)ioctl(k->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    k->mem = mmap(NULL, G_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region r = {.memory_size = G_MEM, .userspace_addr = (uintptr_t)k->mem};
    fill_memory(k->mem);
    if (ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &r))
        return skip("no guest memory");
    for (unsigned i = 0; i < CPUS; i++)
        if (!make_vcpu(k, i))
            return skip("a vCPU cannot be made");
    return 0;
}

static bool kvm_msr(struct kvm *k, unsigned cpu, bool write, uint32_t msr, uint64_t *val)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry e;
    } m = {.head.nmsrs = 1, .e = {.index = msr, .data = *val}};
    int n = ioctl(k->vcpu[cpu], write ? KVM_SET_MSRS : KVM_GET_MSRS, &m);
    *val = m.e.data;
    return n == 1;
}

/* Run one piece of guest code. The vector of the interrupt or exception it took, or -1 if it came through; -2: no such
 * exit was expected. EAX comes back in `eax`. */
static int guest_run(struct kvm *k, unsigned cpu, enum guest_op op, uint32_t addr, uint64_t val, uint32_t *eax)
{
    struct kvm_run *run = k->run[cpu];
    struct kvm_regs r = {.rip = G_CODE + (unsigned)op * 16, .rsp = G_STACK, .rflags = 2, .rbx = addr, .rcx = addr};
    r.rax = (uint32_t)val;
    r.rflags |= op == OP_TAKE ? RFLAGS_IF : 0;
    r.rdx = val >> 32;
    if (ioctl(k->vcpu[cpu], KVM_SET_REGS, &r) || ioctl(k->vcpu[cpu], KVM_RUN, 0))
        return -2;
    if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT)
        return -2;
    const uint8_t *data = (const uint8_t *)run + run->io.data_offset;
    if (run->io.port == PORT_VECTOR)
        return *data;
    if (eax)
        *eax = ld32(data);
    return -1;
}

/* KVM's choice of a vector to take now. A KVM without VMX and SVM (pvm) was seen to put none into service for guests it
 * emulates, so that every one would be as good as ended: there the bit is set for it. */
static int kvm_take(struct kvm *k, unsigned cpu)
{
    struct kvm_lapic_state s;
    int v = guest_run(k, cpu, OP_TAKE, 0, 0, NULL);
    if (v < 0 || ioctl(k->vcpu[cpu], KVM_GET_LAPIC, &s))
        return v;
    uint8_t *isr = (uint8_t *)s.regs + (APIC_ISR + v / 32) * 16;
    if (ld32(isr) >> v % 32 & 1)
        return v;
    st32(isr, ld32(isr) | 1u << v % 32);
    return ioctl(k->vcpu[cpu], KVM_SET_LAPIC, &s) ? -2 : v;
}

static int kvm_signal(struct kvm *k, struct msi_msg m)
{
    struct kvm_msi msi = {.address_lo = (uint32_t)m.addr, .address_hi = (uint32_t)(m.addr >> 32), .data = m.data};
    int n = ioctl(k->vm, KVM_SIGNAL_MSI, &msi);
    return n < 0 ? 0 : n;
}

/* ---- our side ---- */

static void no_kick(void *opaque, vcpu_idx_t target)
{
}

struct ours {
    struct epoch epoch;
    int slot;
    struct fabric *f;
    struct remap remap;
};

static bool ours_open(struct ours *o)
{
    apic_id_t list[CPUS];
    struct err e = {""};
    for (unsigned i = 0; i < CPUS; i++)
        list[i] = APIC_ID(ids[i]);
    epoch_init(&o->epoch);
    o->slot = epoch_slot(&o->epoch);
    remap_init(&o->remap, false);
    struct fabric_config c = {.vcpus = CPUS, .ids = list, .x2apic = true, .kick = no_kick, .epoch = &o->epoch};
    if (fabric_create(&c, &o->f, &e)) {
        fprintf(stderr, "kvm_lapic: %s\n", e.msg);
        return false;
    }
    epoch_enter(&o->epoch, o->slot);
    return true;
}

static void ours_close(struct ours *o)
{
    epoch_leave(&o->epoch, o->slot);
    fabric_destroy(o->f);
    epoch_fini(&o->epoch);
}

/* Our registers as KVM_GET_LAPIC shows them. */
static void page_of(const struct lapic *l, uint8_t page[KVM_APIC_REG_SIZE])
{
    bool x2 = l->mode == LAPIC_X2APIC;
    memset(page, 0, KVM_APIC_REG_SIZE);
    st32(page + APIC_ID_REG * 16, x2 ? l->id.id : (uint32_t)l->xid << 24);
    st32(page + APIC_VERSION * 16, APIC_VERSION_VALUE);
    st32(page + APIC_TPR * 16, l->tpr);
    st32(page + APIC_LDR * 16, x2 ? (l->id.id >> 4) << 16 | 1u << (l->id.id & 15) : l->ldr);
    st32(page + APIC_DFR * 16, l->dfr);
    st32(page + APIC_SVR * 16, l->svr);
    for (unsigned n = 0; n < 8; n++) {
        st32(page + (APIC_ISR + n) * 16, (uint32_t)(l->isr[n / 2] >> (n & 1) * 32));
        st32(page + (APIC_TMR + n) * 16, (uint32_t)(atomic_load(&l->tmr[n / 2]) >> (n & 1) * 32));
        st32(page + (APIC_IRR + n) * 16, (uint32_t)(atomic_load(&l->irr[n / 2]) >> (n & 1) * 32));
    }
    st32(page + APIC_ESR * 16, l->esr);
    st32(page + APIC_ICR * 16, (uint32_t)l->icr);
    st32(page + APIC_ICR2 * 16, (uint32_t)(l->icr >> 32));
    for (unsigned n = 0; n < LVT_COUNT; n++)
        st32(page + (APIC_LVT_TIMER + n) * 16, l->lvt[n]);
    st32(page + APIC_TMICT * 16, l->timer.initial);
    st32(page + APIC_TDCR * 16, l->timer.divide);
}

/* ---- both ---- */

struct step {
    uint8_t cpu, what;
    uint32_t reg;
    uint64_t val;
};

enum what { W_WRITE, W_READ, W_MSI, W_TAKE, W_BASE, W_COUNT };

struct pair {
    struct kvm k;
    struct ours o;
    uint64_t rng, step;
    struct step log[LOG_STEPS];
};

static uint64_t random64(struct pair *p)
{
    uint64_t *s = &p->rng;
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * UINT64_C(2685821657736338717);
}

static uint32_t below(struct pair *p, uint32_t n)
{
    return (uint32_t)((random64(p) >> 33) % n);
}

static struct lapic *lapic_at(struct pair *p, unsigned cpu)
{
    return &p->o.f->lapic[cpu];
}

static bool wide(struct pair *p, unsigned cpu)
{
    return lapic_at(p, cpu)->mode == LAPIC_X2APIC;
}

static bool differ(struct pair *p, const char *what, uint64_t ours, uint64_t kvm)
{
    static const char *const names[W_COUNT] = {"write", "read", "message", "take", "base"};
    printf("step %llu: %s: ours %llxh, KVM's %llxh. The last steps:\n", (unsigned long long)p->step, what,
           (unsigned long long)ours, (unsigned long long)kvm);
    for (uint64_t i = p->step < LOG_STEPS ? 0 : p->step - LOG_STEPS + 1; i <= p->step; i++) {
        const struct step *s = &p->log[i % LOG_STEPS];
        printf("  %llu: CPU %u (ID %xh) %s %02xh %llxh\n", (unsigned long long)i, s->cpu, ids[s->cpu], names[s->what],
               s->reg, (unsigned long long)s->val);
    }
    for (unsigned i = 0; i < CPUS; i++) {
        const struct lapic *l = lapic_at(p, i);
        printf("  CPU %u ID %xh: mode %u xAPIC ID %02xh LDR %08xh DFR %08xh SVR %03xh\n", i, ids[i], l->mode, l->xid,
               l->ldr, l->dfr, l->svr);
    }
    return false;
}

static bool same(struct pair *p, const char *what, uint64_t ours, uint64_t kvm)
{
    return ours == kvm || differ(p, what, ours, kvm);
}

/* PPR and the timer's count are computed when read; DFR does not exist in x2APIC mode. */
static bool is_compared(unsigned reg, bool x2)
{
    return reg != APIC_PPR && reg != APIC_TMCCT && !(x2 && reg == APIC_DFR);
}

static bool same_state(struct pair *p, unsigned cpu)
{
    struct kvm_lapic_state theirs;
    uint8_t mine[KVM_APIC_REG_SIZE];
    char what[64];
    if (ioctl(p->k.vcpu[cpu], KVM_GET_LAPIC, &theirs))
        return differ(p, "KVM_GET_LAPIC", 0, 1);
    page_of(lapic_at(p, cpu), mine);
    for (unsigned reg = 0; reg < 0x40; reg++) {
        uint32_t a = ld32(mine + reg * 16), b = ld32((uint8_t *)theirs.regs + reg * 16);
        if (a == b || !is_compared(reg, wide(p, cpu)))
            continue;
        snprintf(what, sizeof what, "CPU %u register %02xh", cpu, reg);
        return differ(p, what, a, b);
    }
    return true;
}

static bool same_nmi(struct pair *p, unsigned cpu)
{
    struct kvm_vcpu_events ev;
    uint8_t page;
    if (ioctl(p->k.vcpu[cpu], KVM_GET_VCPU_EVENTS, &ev))
        return differ(p, "KVM_GET_VCPU_EVENTS", 0, 1);
    bool nmi = ev.nmi.pending;
    if (nmi) {
        ev.nmi.pending = 0;
        ev.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
        if (ioctl(p->k.vcpu[cpu], KVM_SET_VCPU_EVENTS, &ev))
            return differ(p, "KVM_SET_VCPU_EVENTS", 0, 1);
    }
    return same(p, "NMI pending", (fabric_events_take(p->o.f, VCPU_IDX(cpu), &page) & FABRIC_EV_NMI) != 0, nmi);
}

static bool same_everywhere(struct pair *p)
{
    for (unsigned i = 0; i < CPUS; i++)
        if (!same_state(p, i) || !same_nmi(p, i))
            return false;
    return true;
}

static bool reset_both(struct pair *p)
{
    fabric_reset(p->o.f);
    for (unsigned i = 0; i < CPUS; i++) {
        uint64_t base = lapic_at(p, i)->base;
        struct kvm_lapic_state s;
        page_of(lapic_at(p, i), (uint8_t *)s.regs);
        if (!kvm_msr(&p->k, i, true, MSR_APIC_BASE, &base) || ioctl(p->k.vcpu[i], KVM_SET_LAPIC, &s))
            return differ(p, "reset", i, 0);
    }
    return true;
}

/* ---- steps ---- */

static bool write_base(struct pair *p, unsigned cpu, uint64_t val)
{
    bool kvm = guest_run(&p->k, cpu, OP_WRMSR, MSR_APIC_BASE, val, NULL) == -1;
    return same(p, "IA32_APIC_BASE accepted", fabric_msr_write(p->o.f, VCPU_IDX(cpu), 0, MSR_APIC_BASE, val), kvm);
}

static bool write_register(struct pair *p, unsigned cpu, uint32_t reg, uint64_t val)
{
    vcpu_idx_t c = VCPU_IDX(cpu);
    if (!wide(p, cpu)) {
        fabric_mmio_write(p->o.f, c, 0, reg << 4, (uint32_t)val);
        return same(p, "guest store", UINT32_MAX,
                    (uint32_t)guest_run(&p->k, cpu, OP_STORE, 0xfee00000u + (reg << 4), (uint32_t)val, NULL));
    }
    bool kvm = kvm_msr(&p->k, cpu, true, MSR_X2APIC_FIRST + reg, &(uint64_t){val});
    return same(p, "write accepted", fabric_msr_write(p->o.f, c, 0, MSR_X2APIC_FIRST + reg, val), kvm);
}

static bool read_register(struct pair *p, unsigned cpu, uint32_t reg)
{
    vcpu_idx_t c = VCPU_IDX(cpu);
    uint64_t mine = 0, theirs = 0;
    uint32_t eax = 0;
    if (!wide(p, cpu)) {
        mine = fabric_mmio_read(p->o.f, c, 0, reg << 4);
        if (guest_run(&p->k, cpu, OP_LOAD, 0xfee00000u + (reg << 4), 0, &eax) != -1)
            return differ(p, "guest load", 0, 0);
        return same(p, "register read", mine, eax);
    }
    bool kvm = kvm_msr(&p->k, cpu, false, MSR_X2APIC_FIRST + reg, &theirs);
    bool ok = fabric_msr_read(p->o.f, c, 0, MSR_X2APIC_FIRST + reg, &mine);
    return same(p, "read accepted", ok, kvm) && (!ok || same(p, "register read", mine, theirs));
}

static bool send_message(struct pair *p, struct msi_msg m)
{
    struct remap_result r = remap_msi(&p->o.remap, m, REQUESTER_ID(8), REMAP_ADDR_HI);
    int mine = r.fault == REMAP_OK ? fabric_deliver(p->o.f, r.irq) : 0;
    return same(p, "taken by", (uint64_t)mine, (uint64_t)kvm_signal(&p->k, m));
}

static bool take(struct pair *p, unsigned cpu)
{
    int mine = fabric_irq_pending(p->o.f, VCPU_IDX(cpu));
    if (mine >= 0)
        mine = fabric_irq_take(p->o.f, VCPU_IDX(cpu));
    return same(p, "vector taken", (uint32_t)mine, (uint32_t)kvm_take(&p->k, cpu));
}

/* ---- scripts: what both must agree on ---- */

static uint8_t vector(struct pair *p)
{
    return (uint8_t)(16 + below(p, 240));
}

static bool all_wide(struct pair *p)
{
    for (unsigned i = 0; i < CPUS; i++)
        if (!wide(p, i))
            return false;
    return true;
}

/* A destination of interest: an ID, a logical one, a broadcast, nobody. */
static uint32_t destination(struct pair *p, bool logical)
{
    uint32_t id = ids[below(p, CPUS)];
    if (logical && !all_wide(p)) /* KVM's APICs in xAPIC mode look at the low byte of any */
        return below(p, 256);
    switch (below(p, 8)) {
    case 0:
        return UINT32_MAX;
    case 1:
        return below(p, 0x220);
    case 2:
        return (uint32_t)random64(p);
    default:
        return !logical ? id : below(p, 4) ? (id >> 4) << 16 | 1u << (id & 15) | below(p, 0x10000) : below(p, 256);
    }
}

/* Lowest priority only where KVM's choice cannot fall on nobody, or on all: one physical ID of an enabled APIC. NMIs in
 * mixed modes only where KVM's answer does not depend on who is software-enabled. */
static unsigned mode_for(struct pair *p, bool logical, uint32_t dest)
{
    vcpu_idx_t at;
    bool calm = !logical && dest != APIC_BROADCAST8 && fabric_find(p->o.f, APIC_ID(dest), &at) &&
                lapic_enabled(lapic_at(p, at.i));
    unsigned m = below(p, 8);
    bool plain = all_wide(p) || !(logical || dest == APIC_BROADCAST8);
    return m == 0 && plain ? IRQ_NMI : m == 1 && calm ? IRQ_LOWEST : IRQ_FIXED;
}

static struct msi_msg random_message(struct pair *p)
{
    bool logical = below(p, 4) == 0, level = below(p, 4) == 0;
    uint32_t dest = destination(p, logical);
    unsigned mode = mode_for(p, logical, dest);
    return (struct msi_msg){.addr = 0xfee00000u | (uint64_t)(dest & 0xff) << 12 | (uint64_t)(dest >> 8) << 40 |
                                    (logical ? 4 : 0),
                            .data = vector(p) | mode << 8 | (level && mode != IRQ_NMI ? 0xc000u : 0)};
}

static uint64_t random_icr(struct pair *p, unsigned cpu)
{
    bool logical = below(p, 4) == 0;
    uint32_t dest = destination(p, logical) & (wide(p, cpu) ? UINT32_MAX : 0xff);
    uint32_t shorthand = below(p, 4) ? 0 : below(p, 4);
    if (wide(p, cpu) && dest == APIC_BROADCAST8 && !all_wide(p))
        dest = 1;
    uint32_t low = vector(p) | mode_for(p, logical || shorthand, dest) << 8 | (logical ? 0x800u : 0) |
                   (below(p, 2) ? 0x4000u : 0) | shorthand << 18;
    return (uint64_t)dest << 32 | low;
}

static uint64_t random_lvt(struct pair *p, uint32_t reg)
{
    uint64_t v = vector(p) | (below(p, 2) ? APIC_LVT_MASKED : 0);
    if (reg == APIC_LVT_TIMER)
        return v | below(p, 3) << 17;
    if (reg == APIC_LVT_LINT0 || reg == APIC_LVT_LINT1)
        v |= (uint64_t)below(p, 2) << 13 | (uint64_t)below(p, 2) << 15;
    return reg == APIC_LVT_ERROR ? v : v | (uint64_t)below(p, 8) << 8;
}

/* An xAPIC ID that nobody else has, or its own. */
static uint64_t random_xid(struct pair *p, unsigned cpu)
{
    return (below(p, 2) ? 0x80u + cpu : ids[cpu] & 0xff) << 24;
}

static const uint8_t writable[] = {
    APIC_TPR,       APIC_EOI,       APIC_EOI,   APIC_EOI,       APIC_SVR,         APIC_ESR,      APIC_ICR,
    APIC_ICR,       APIC_ICR,       APIC_ICR,   APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PERF, APIC_LVT_LINT0,
    APIC_LVT_LINT1, APIC_LVT_ERROR, APIC_TMICT, APIC_TDCR,      APIC_SELF_IPI,    APIC_LDR,      APIC_DFR,
    APIC_ID_REG,    APIC_ICR2,      APIC_PPR,   APIC_VERSION,   APIC_ISR,         APIC_IRR};

static uint64_t random_value(struct pair *p, unsigned cpu, uint32_t reg)
{
    if (reg >= APIC_LVT_TIMER && reg <= APIC_LVT_ERROR)
        return random_lvt(p, reg);
    switch (reg) {
    case APIC_TPR:
        return below(p, 3) ? 0 : below(p, 256);
    case APIC_SVR:
        return vector(p) | (below(p, 8) ? APIC_SVR_ENABLE : 0) | below(p, 2) << 9 | below(p, 2) << 12;
    case APIC_ICR:
        return random_icr(p, cpu);
    case APIC_SELF_IPI:
        return vector(p) | (below(p, 8) ? 0 : 0x100u << below(p, 24));
    case APIC_TDCR:
        return below(p, 4) | below(p, 2) << 3;
    case APIC_LDR:
        return (random64(p) & 0xff000000) | 1u << 24;
    case APIC_DFR:
        return below(p, 2) ? 0xffffffffu : 0x0fffffffu;
    case APIC_ICR2:
        return (random64(p) & 0xff) << 24;
    case APIC_ID_REG:
        return random_xid(p, cpu);
    case APIC_ESR:
        return wide(p, cpu) && !below(p, 4);
    default:
        return 0;
    }
}

static bool step_write(struct pair *p, unsigned cpu, struct step *s)
{
    bool x2 = wide(p, cpu);
    s->reg = writable[below(p, ARRAY_SIZE(writable))];
    s->val = random_value(p, cpu, s->reg);
    if (!x2 && s->reg == APIC_SELF_IPI)
        s->reg = APIC_EOI;
    if (!x2 && s->reg == APIC_ICR && !write_register(p, cpu, APIC_ICR2, s->val >> 32 << 24))
        return false;
    if (x2 && s->reg != APIC_ICR && below(p, 16) == 0)
        s->val |= UINT64_C(1) << (32 + below(p, 32)); /* #GP */
    else if (x2 && s->reg == APIC_ICR && below(p, 16) == 0)
        s->val |= (uint32_t[]){1u << 13, 1u << 16, 1u << 20, 1u << 31}[below(p, 4)];
    bool sends = s->reg == APIC_ICR || s->reg == APIC_SELF_IPI;
    return write_register(p, cpu, s->reg, s->val) && (sends ? same_everywhere(p) : same_state(p, cpu));
}

static bool step_read(struct pair *p, unsigned cpu, struct step *s)
{
    static const uint8_t readable[] = {APIC_ID_REG,   APIC_VERSION,   APIC_TPR,       APIC_PPR,       APIC_PPR,
                                       APIC_LDR,      APIC_SVR,       APIC_ISR + 3,   APIC_TMR + 4,   APIC_IRR + 5,
                                       APIC_ESR,      APIC_ICR,       APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_ERROR,
                                       APIC_LVT_PERF, APIC_LVT_LINT1, APIC_TMICT,     APIC_TDCR};
    s->reg = readable[below(p, sizeof readable)];
    if (wide(p, cpu) && below(p, 8) == 0)
        s->reg = below(p, 0x40); /* also those that are #GP */
    if (s->reg == APIC_TMCCT)
        s->reg = APIC_PPR;
    return read_register(p, cpu, s->reg);
}

static bool one_step(struct pair *p, unsigned kind)
{
    unsigned cpu = below(p, CPUS);
    struct step *s = &p->log[p->step % LOG_STEPS];
    *s = (struct step){.cpu = (uint8_t)cpu};
    unsigned r = below(p, 32);
    if (r < 10) {
        s->what = W_WRITE;
        return step_write(p, cpu, s);
    }
    if (r < 16) {
        s->what = W_READ;
        return step_read(p, cpu, s);
    }
    if (r < 25) {
        struct msi_msg m = random_message(p);
        s->what = W_MSI;
        s->reg = m.data;
        s->val = m.addr;
        return send_message(p, m) && same_everywhere(p);
    }
    if (r < 31 || kind != 1) {
        s->what = W_TAKE;
        return take(p, cpu) && same_state(p, cpu);
    }
    s->what = W_BASE;
    s->val = APIC_BASE_DEFAULT | (cpu ? 0 : APIC_BASE_BSP) |
             (below(p, 3)    ? APIC_BASE_EN | APIC_BASE_EXTD
              : wide(p, cpu) ? APIC_BASE_EN
                             : APIC_BASE_EXTD);
    return write_base(p, cpu, s->val) && same_everywhere(p);
}

/* Kinds: 0 all in xAPIC mode, 1 mixed and changing, 2 all in x2APIC mode. */
static bool script(struct pair *p, unsigned kind)
{
    if (!reset_both(p) || !same_everywhere(p))
        return false;
    for (unsigned i = 0; i < CPUS; i++) {
        uint64_t base = APIC_BASE_DEFAULT | APIC_BASE_EN | APIC_BASE_EXTD | (i ? 0 : APIC_BASE_BSP);
        if ((kind == 2 || (kind == 1 && below(p, 2))) && !write_base(p, i, base))
            return false;
        bool ldr = kind == 1 && !wide(p, i); /* without one KVM takes it for an x2APIC of that ID */
        if ((ldr && !write_register(p, i, APIC_LDR, 1u << (24 + i))) || !write_register(p, i, APIC_SVR, 0x1ff))
            return false;
    }
    for (unsigned i = 0; i < SCRIPT_STEPS; i++, p->step++)
        if (!one_step(p, kind))
            return false;
    return same_everywhere(p);
}

int main(int argc, char **argv)
{
    static struct pair p;
    uint64_t steps = 20000, seed = 1;
    for (int c; (c = getopt(argc, argv, "n:s:")) != -1;) {
        if (c == '?')
            return 2;
        *(c == 'n' ? &steps : &seed) = strtoull(optarg, NULL, 0);
    }
    int rc = kvm_open(&p.k);
    if (rc)
        return rc;
    if (!ours_open(&p.o))
        return 2;
    p.rng = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    bool ok = true;
    for (unsigned kind = 0; ok && p.step < steps; kind = (kind + 1) % 3)
        ok = script(&p, kind);
    ours_close(&p.o);
    printf("%llu steps, seed %llu: %s\n", (unsigned long long)p.step, (unsigned long long)seed,
           ok ? "equal" : "different");
    return !ok;
}
