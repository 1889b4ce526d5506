/* Behind irq_port: resolved interrupts become KVM's messages, pins and device vectors its GSI routes.
 *
 * KVM's messages have dest[31:8] in address bits 63:40 (Linux, Documentation/virt/kvm/api.rst, "KVM_SET_GSI_ROUTING").
 * A resolved interrupt has no format left, so nothing a guest chose gets there but destination, vector and modes.
 *
 * Split irqchip: the kernel tells of the EOI of a level-triggered vector only if a route of the GSIs 0 .. 23 leads to
 * it. So a pin's route has to be there before its level-triggered interrupt is sent, and to stay until its EOI; the
 * kernel itself looks at what is in service when routes change. Edges need none. Hence pin() only notes, and the table
 * is handed over when a level-triggered interrupt goes out and finds it changed: a guest that programs all its pins
 * costs no call.
 */
#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_priv.h"
#include "irq/way.h"
#include "x86/apic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GSIS_MAX    4096u
#define MSI_ADDRESS 0xfee00000u
#define MSI_LOGICAL 4u
#define MSI_ASSERT  0x4000u
#define MSI_LEVEL   0x8000u

/* ---- messages ---- */

struct message {
    uint32_t lo, hi, data;
};

/* False: nothing that this machine's local APICs can be sent by a message. SMIs are dropped, there is no SMM; the
 * PIC's interrupts reach the boot CPU alone; start-up and REMRD are IPIs or nothing. */
static bool compose(const struct kvm_vm *vm, struct irq irq, struct message *m)
{
    static const bool sendable[8] = {[IRQ_FIXED] = true, [IRQ_LOWEST] = true, [IRQ_NMI] = true, [IRQ_INIT] = true};
    if (!sendable[irq.mode & 7] || (irq.mode == IRQ_INIT && !irq.assert_))
        return false;
    if (!vm->wide_ids && irq.dest > APIC_BROADCAST8) {
        if (irq.dest != APIC_BROADCAST32)
            return false;
        irq.dest = APIC_BROADCAST8;
    }
    m->lo = MSI_ADDRESS | (irq.dest & 0xff) << 12 | (irq.logical ? MSI_LOGICAL : 0);
    m->hi = vm->wide_ids ? irq.dest & ~0xffu : 0;
    m->data = irq.vector | (uint32_t)(irq.mode & 7) << 8 | (irq.level ? MSI_LEVEL : 0) | MSI_ASSERT;
    return true;
}

static void trace_refusal(const struct kvm_vm *vm, const char *what, struct irq irq, const char *why)
{
    trace(vm->cfg.trace, TRACE_IRQ, "irq: KVM refuses %s: %s %Xh mode %u vector %02Xh: %s", what,
          irq.logical ? "logical" : "physical", irq.dest, irq.mode, irq.vector, why);
}

/* ---- the table of routes; under the lock ---- */

/* Every byte is set, because tables are compared as bytes. */
static struct kvm_irq_routing_entry *new_entry(struct kvm_irq_routing *t, unsigned gsi, unsigned type)
{
    struct kvm_irq_routing_entry *r = &t->entries[t->nr++];
    memset(r, 0, sizeof *r);
    r->gsi = gsi;
    r->type = type;
    return r;
}

static void route_msi(struct kvm_vm *vm, unsigned gsi, struct irq irq)
{
    struct message m;
    if (!compose(vm, irq, &m))
        return;
    struct kvm_irq_routing_entry *r = new_entry(vm->irq.table, gsi, KVM_IRQ_ROUTING_MSI);
    r->u.msi.address_lo = m.lo;
    r->u.msi.address_hi = m.hi;
    r->u.msi.data = m.data;
}

static void route_chip(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin)
{
    struct kvm_irq_routing_entry *r = new_entry(t, gsi, KVM_IRQ_ROUTING_IRQCHIP);
    r->u.irqchip.irqchip = chip;
    r->u.irqchip.pin = pin;
}

/* The kernel's chips as on a PC: ISA interrupts go to both, IRQ 0 to pin 2, where IRQ 2 is the cascade. */
static void route_kernel_chips(struct kvm_irq_routing *t)
{
    for (unsigned gsi = 0; gsi < KVM_PINS; gsi++) {
        if (gsi < 16 && gsi != 2)
            route_chip(t, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi & 7);
        if (gsi != 2)
            route_chip(t, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
    }
}

static void compile(struct kvm_vm *vm)
{
    struct kvm_irq *q = &vm->irq;
    q->table->nr = 0;
    q->table->flags = 0;
    if (vm->cfg.irqchip == ENGINE_IRQCHIP_KERNEL)
        route_kernel_chips(q->table);
    for (unsigned pin = 0; pin < KVM_PINS; pin++)
        if (q->pin_routed >> pin & 1)
            route_msi(vm, pin, q->pin[pin]);
    for (unsigned gsi = KVM_PINS; gsi < q->gsis; gsi++)
        if (q->route[gsi].routed)
            route_msi(vm, gsi, q->route[gsi].irq);
}

static size_t table_size(const struct kvm_irq_routing *t)
{
    return sizeof *t + t->nr * sizeof t->entries[0];
}

static int hand_over(struct kvm_vm *vm, const struct kvm_irq_routing *t)
{
    int rc;
    do
        rc = kvm_vm_iop(vm, KVM_SET_GSI_ROUTING, (void *)t);
    while (rc == -EINTR);
    return rc;
}

static bool holds(const struct kvm_irq_routing *t, const struct kvm_irq_routing_entry *e)
{
    for (uint32_t i = 0; i < t->nr; i++)
        if (!memcmp(&t->entries[i], e, sizeof *e))
            return true;
    return false;
}

static void swap(struct kvm_irq_routing_entry *a, struct kvm_irq_routing_entry *b)
{
    struct kvm_irq_routing_entry t = *a;
    *a = *b;
    *b = t;
}

static void forget(struct kvm_vm *vm, unsigned gsi, int rc)
{
    struct kvm_irq *q = &vm->irq;
    if (gsi < KVM_PINS) {
        trace_refusal(vm, "a pin's route", q->pin[gsi], strerror(-rc));
        q->pin_routed &= ~(1u << gsi);
    } else {
        trace_refusal(vm, "a device's route", q->route[gsi].irq, strerror(-rc));
        q->route[gsi].routed = false;
    }
}

/* The kernel refused the table. What it has taken before is good, so the new entries are tried one by one, and those
 * that it still refuses are taken out. */
static int isolate(struct kvm_vm *vm)
{
    struct kvm_irq *q = &vm->irq;
    struct kvm_irq_routing *t = q->table;
    uint32_t all = t->nr;
    t->nr = 0;
    for (uint32_t i = 0; i < all; i++)
        if (holds(q->last, &t->entries[i]))
            swap(&t->entries[t->nr++], &t->entries[i]);
    int rc = hand_over(vm, t);
    for (uint32_t i = t->nr; i < all && rc >= 0; i++) {
        t->entries[t->nr++] = t->entries[i];
        int one = hand_over(vm, t);
        if (one < 0)
            forget(vm, t->entries[--t->nr].gsi, one);
    }
    return rc;
}

/* Bring the kernel up to date. Under the lock. */
static int flush(struct kvm_vm *vm)
{
    struct kvm_irq *q = &vm->irq;
    compile(vm);
    atomic_store(&q->stale, false);
    if (q->table->nr == q->last->nr && !memcmp(q->table, q->last, table_size(q->table)))
        return 0;
    int rc = hand_over(vm, q->table);
    if (rc == -EINVAL)
        rc = isolate(vm);
    if (rc < 0) {
        trace(vm->cfg.trace, TRACE_IRQ, "irq: KVM takes no routes: %s", strerror(-rc));
        return rc;
    }
    memcpy(q->last, q->table, table_size(q->table));
    return 0;
}

/* ---- irq_port ---- */

static void flush_if_stale(struct kvm_vm *vm)
{
    if (likely(!atomic_load_explicit(&vm->irq.stale, memory_order_acquire)))
        return;
    pthread_mutex_lock(&vm->irq.lock);
    if (atomic_load(&vm->irq.stale))
        flush(vm);
    pthread_mutex_unlock(&vm->irq.lock);
}

/* KVM_SIGNAL_MSI answers how many took it; EPERM is its way to say that it looked at all and found nobody. */
static int signal_msi(struct kvm_vm *vm, struct irq irq)
{
    struct message m;
    if (!compose(vm, irq, &m)) {
        trace_refusal(vm, "a message", irq, "no local APIC of this machine can be sent that");
        return 0;
    }
    struct kvm_msi msi = {.address_lo = m.lo, .address_hi = m.hi, .data = m.data};
    int rc = kvm_vm_iop(vm, KVM_SIGNAL_MSI, &msi);
    if (rc < 0 && rc != -EPERM)
        trace_refusal(vm, "a message", irq, strerror(-rc));
    return rc > 0 ? rc : 0;
}

static int deliver_traced(struct kvm_vm *vm, struct irq irq)
{
    const struct trace *t = vm->cfg.trace;
    trace_span_t own = irq.way ? 0 : way_begin(t);
    irq.way |= own;
    way_irq(t, irq, false);
    int taken = signal_msi(vm, irq);
    if (irq.way && taken)
        trace_span_add(t, irq.way, " > KVM: %d took it", taken);
    way_end(t, own, taken);
    return taken;
}

static int deliver(void *opaque, struct irq irq)
{
    struct kvm_vm *vm = opaque;
    if (irq.level)
        flush_if_stale(vm);
    return trace_wants(vm->cfg.trace, TRACE_IRQ) ? deliver_traced(vm, irq) : signal_msi(vm, irq);
}

static bool same_way(struct irq a, struct irq b)
{
    return a.dest == b.dest && a.vector == b.vector && a.mode == b.mode && a.logical == b.logical && a.level == b.level;
}

static void note_pin(void *opaque, unsigned pin, const struct irq *irq)
{
    struct kvm_vm *vm = opaque;
    struct kvm_irq *q = &vm->irq;
    if (pin >= KVM_PINS)
        return;
    pthread_mutex_lock(&q->lock);
    bool routed = irq && irq->level, was = q->pin_routed >> pin & 1;
    if (routed != was || (routed && !same_way(q->pin[pin], *irq))) {
        q->pin_routed = (q->pin_routed & ~(1u << pin)) | (uint32_t)routed << pin;
        if (routed)
            q->pin[pin] = *irq;
        atomic_store(&q->stale, true);
    }
    pthread_mutex_unlock(&q->lock);
}

struct irq_port kvm_port(struct engine_vm *evm)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    return (struct irq_port){
        .deliver = deliver, .opaque = vm, .pin = vm->cfg.irqchip == ENGINE_IRQCHIP_SPLIT ? note_pin : NULL};
}

/* ---- the PIC's INTR, and the kernel's own chips ---- */

void kvm_intr(struct engine_vm *evm, bool level)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    if (!atomic_exchange(&vm->irq.intr, level) && level)
        kvm_kick((struct engine_vcpu *)&vm->vcpu[0], ATTN_IRQ);
}

void kvm_gsi(struct engine_vm *evm, unsigned gsi, bool level)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    struct kvm_irq_level l = {.irq = gsi, .level = level};
    int rc = gsi < KVM_PINS ? kvm_vm_iop(vm, KVM_IRQ_LINE, &l) : 0;
    if (rc < 0)
        trace(vm->cfg.trace, TRACE_IRQ, "irq: KVM refuses level %d of GSI %u: %s", level, gsi, strerror(-rc));
}

/* ---- GSIs of devices ---- */

/* Under the lock: what the route's message means now. */
static void look_up(struct kvm_vm *vm, struct kvm_route *r)
{
    struct remap_result res = remap_msi(r->remap, r->msg, r->from, REMAP_LOOKUP);
    struct message m;
    r->cookie = res.cookie;
    r->irq = res.irq;
    r->routed = res.fault == REMAP_OK && compose(vm, res.irq, &m);
    atomic_store(&vm->irq.stale, true);
}

int kvm_gsi_alloc(struct engine_vm *evm)
{
    struct kvm_irq *q = &kvm_vm_of(evm)->irq;
    int gsi = -ENOSPC;
    pthread_mutex_lock(&q->lock);
    for (unsigned i = KVM_PINS; i < q->gsis && gsi < 0; i++)
        if (!q->route[i].used) {
            q->route[i] = (struct kvm_route){.used = true};
            gsi = (int)i;
        }
    pthread_mutex_unlock(&q->lock);
    return gsi;
}

static struct kvm_route *route_of(struct kvm_irq *q, unsigned gsi)
{
    return gsi >= KVM_PINS && gsi < q->gsis && q->route[gsi].used ? &q->route[gsi] : NULL;
}

void kvm_gsi_unroute(struct engine_vm *evm, unsigned gsi)
{
    struct kvm_irq *q = &kvm_vm_of(evm)->irq;
    pthread_mutex_lock(&q->lock);
    struct kvm_route *r = route_of(q, gsi);
    if (r) {
        *r = (struct kvm_route){.used = true};
        atomic_store(&q->stale, true);
    }
    pthread_mutex_unlock(&q->lock);
}

void kvm_gsi_free(struct engine_vm *vm, unsigned gsi)
{
    struct kvm_irq *q = &kvm_vm_of(vm)->irq;
    kvm_gsi_unroute(vm, gsi);
    pthread_mutex_lock(&q->lock);
    struct kvm_route *r = route_of(q, gsi);
    if (r)
        r->used = false;
    pthread_mutex_unlock(&q->lock);
}

bool kvm_gsi_route(struct engine_vm *evm, unsigned gsi, const struct remap *remap, struct msi_msg msg,
                   requester_id_t from)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    pthread_mutex_lock(&vm->irq.lock);
    struct kvm_route *r = route_of(&vm->irq, gsi);
    bool routed = false;
    if (r) {
        *r = (struct kvm_route){.used = true, .from = from, .remap = remap, .msg = msg};
        look_up(vm, r);
        routed = r->routed;
    }
    pthread_mutex_unlock(&vm->irq.lock);
    return routed;
}

int kvm_gsi_commit(struct engine_vm *evm)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    pthread_mutex_lock(&vm->irq.lock);
    int rc = flush(vm);
    pthread_mutex_unlock(&vm->irq.lock);
    return rc;
}

/* A route that was a fault has no cookie, and may be none any more. */
void kvm_gsi_stale(void *opaque, uint32_t first, uint32_t last)
{
    struct kvm_vm *vm = opaque;
    struct kvm_irq *q = &vm->irq;
    bool any = false;
    pthread_mutex_lock(&q->lock);
    for (unsigned gsi = KVM_PINS; gsi < q->gsis; gsi++) {
        struct kvm_route *r = &q->route[gsi];
        bool named = r->cookie >= first && r->cookie <= last;
        if (r->remap && (named || !r->routed)) {
            look_up(vm, r);
            any = true;
        }
    }
    if (any)
        flush(vm);
    pthread_mutex_unlock(&q->lock);
}

int kvm_irqfd_assign(struct engine_vm *evm, unsigned gsi, int event_fd, int resample_fd, struct err *e)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    struct kvm_irqfd f = {.fd = (uint32_t)event_fd, .gsi = gsi};
    if (resample_fd >= 0) {
        f.flags = KVM_IRQFD_FLAG_RESAMPLE;
        f.resamplefd = (uint32_t)resample_fd;
    }
    if (resample_fd >= 0 && vm->cfg.irqchip != ENGINE_IRQCHIP_KERNEL)
        return err_set(e, -EINVAL, "GSI %u: a level by eventfd needs the kernel's I/O APIC: kernel-irqchip=on", gsi);
    int rc = kvm_vm_iop(vm, KVM_IRQFD, &f);
    return rc < 0 ? err_set(e, rc, "GSI %u: KVM takes no eventfd for it: %s", gsi, strerror(-rc)) : 0;
}

void kvm_irqfd_deassign(struct engine_vm *evm, unsigned gsi, int event_fd)
{
    struct kvm_irqfd f = {.fd = (uint32_t)event_fd, .gsi = gsi, .flags = KVM_IRQFD_FLAG_DEASSIGN};
    kvm_vm_iop(kvm_vm_of(evm), KVM_IRQFD, &f);
}

/* ---- lifecycle ---- */

/* Each GSI has one entry, but the kernel's chips' two. */
static struct kvm_irq_routing *new_table(unsigned gsis)
{
    return calloc(1, sizeof(struct kvm_irq_routing) + (gsis + KVM_PINS) * sizeof(struct kvm_irq_routing_entry));
}

int kvm_irq_init(struct kvm_vm *vm, struct err *e)
{
    struct kvm_irq *q = &vm->irq;
    unsigned gsis = (unsigned)kvm_cap(vm->sys, vm->dev, KVM_CAP_IRQ_ROUTING);
    pthread_mutex_init(&q->lock, NULL);
    q->gsis = gsis > GSIS_MAX ? GSIS_MAX : gsis < KVM_PINS ? KVM_PINS : gsis;
    q->route = calloc(q->gsis, sizeof *q->route);
    q->table = new_table(q->gsis);
    q->last = new_table(q->gsis);
    if (!q->route || !q->table || !q->last)
        return err_set(e, -ENOMEM, "out of memory for %u interrupt routes", q->gsis);
    return 0;
}

void kvm_irq_fini(struct kvm_vm *vm)
{
    if (!vm->irq.gsis)
        return;
    free(vm->irq.route);
    free(vm->irq.table);
    free(vm->irq.last);
    pthread_mutex_destroy(&vm->irq.lock);
}

int kvm_irq_start(struct kvm_vm *vm, struct err *e)
{
    int rc = vm->cfg.irqchip == ENGINE_IRQCHIP_KERNEL ? kvm_gsi_commit((struct engine_vm *)vm) : 0;
    return rc < 0 ? err_set(e, rc, "KVM takes no routes for its I/O APIC: %s", strerror(-rc)) : 0;
}
