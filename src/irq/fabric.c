#include "irq/fabric_priv.h"
#include "irq/way.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the destination map ---- */

static struct dest_map *map_new(struct fabric *f)
{
    struct dest_map *m = f->map_alloc(dest_map_size(f->max_id));
    if (m)
        dest_map_build(m, f->max_id, f->words, f->cfg.vcpus);
    return m;
}

/* Reasons 4, 5 and 11 follow from what APICs answer to, and from nothing older. */
static void recompute_inhibits(struct fabric *f, const struct dest_map *m)
{
    bool modified = m && m->id_modified;
    for (uint32_t i = 0; !m && i < f->cfg.vcpus && !modified; i++)
        modified = dest_word_id_modified(atomic_load(&f->words[i]));
    bool mixed = m && m->xlogical != DEST_XL_NONE && (m->xlogical == DEST_XL_SCAN || m->n_x2apic);
    inhibit_set(&f->inhibit, INHIBIT_PHYSICAL_ID_ALIASED, !m || m->aliased);
    inhibit_set(&f->inhibit, INHIBIT_APIC_ID_MODIFIED, modified);
    inhibit_set(&f->inhibit, INHIBIT_LOGICAL_ID_ALIASED, !m || mixed);
}

/* Replace the map unless somebody's rebuild has already seen the change numbered `change`. */
static void map_rebuild(struct fabric *f, uint64_t change)
{
    pthread_mutex_lock(&f->map_lock);
    if (f->map_built < change) {
        f->map_built = atomic_load(&f->map_wanted);
        f->map_builds++;
        struct dest_map *new = map_new(f);
        struct dest_map *old = atomic_exchange(&f->map, new);
        recompute_inhibits(f, new);
        if (old)
            epoch_retire(f->cfg.epoch, &old->retired, old, free);
    }
    pthread_mutex_unlock(&f->map_lock);
}

void fabric_word_changed(struct fabric *f, uint32_t idx)
{
    dest_word_t w = dest_word_of(&f->lapic[idx]);
    if (atomic_load_explicit(&f->words[idx], memory_order_relaxed) == w)
        return;
    atomic_store(&f->words[idx], w);
    map_rebuild(f, atomic_fetch_add(&f->map_wanted, 1) + 1);
}

/* ---- lifecycle ---- */

static int check_config(const struct fabric_config *c, uint32_t *max_id, struct err *e)
{
    if (!c->vcpus || !c->ids || !c->epoch || !c->kick)
        return err_set(e, -EINVAL, "interrupt fabric: no vCPUs, IDs, epoch or kick hook");
    if (c->firmware_x2apic && !c->x2apic)
        return err_set(e, -EINVAL,
                       "APICs cannot start in x2APIC mode without x2APIC: drop x2apic=off or firmware-x2apic");
    for (uint32_t i = 0; i < c->vcpus; i++) {
        if (c->ids[i].id > HEC_APIC_ID_MAX)
            return err_set(e, -EINVAL, "APIC ID %u: the largest possible one is %u", c->ids[i].id, HEC_APIC_ID_MAX);
        if (c->ids[i].id > *max_id)
            *max_id = c->ids[i].id;
    }
    return 0;
}

static int index_ids(struct fabric *f, struct err *e)
{
    memset(f->index, 0xff, (f->max_id + 1) * sizeof *f->index);
    for (uint32_t i = 0; i < f->cfg.vcpus; i++) {
        uint32_t id = f->cfg.ids[i].id;
        if (f->index[id] != DEST_NOBODY)
            return err_set(e, -EEXIST, "APIC ID %u is given to two CPUs, %u and %u", id, f->index[id], i);
        f->index[id] = i;
    }
    return 0;
}

static int allocate(struct fabric *f, const struct fabric_config *c, struct err *e)
{
    apic_id_t *ids = malloc(c->vcpus * sizeof *ids);
    f->cfg = *c;
    f->cfg.ids = ids;
    f->lapic = aligned_alloc(64, c->vcpus * sizeof *f->lapic);
    f->words = calloc(c->vcpus, sizeof *f->words);
    f->index = malloc((f->max_id + 1) * sizeof *f->index);
    if (trace_wants(c->trace, TRACE_IRQ) && c->trace->json)
        f->flows = calloc(c->vcpus * 4, sizeof *f->flows);
    if (!ids || !f->lapic || !f->words || !f->index)
        return err_set(e, -ENOMEM, "no memory for %u local APICs", c->vcpus);
    memcpy(ids, c->ids, c->vcpus * sizeof *ids);
    return index_ids(f, e);
}

int fabric_create(const struct fabric_config *c, struct fabric **out, struct err *e)
{
    uint32_t max_id = 0;
    int r = check_config(c, &max_id, e);
    if (r)
        return r;
    struct fabric *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for the interrupt fabric");
    f->max_id = max_id;
    f->map_alloc = malloc;
    pthread_mutex_init(&f->map_lock, NULL);
    inhibit_init(&f->inhibit, c->inhibits, c->trace);
    r = allocate(f, c, e);
    if (r) {
        fabric_destroy(f);
        return r;
    }
    for (uint32_t i = 0; i < c->vcpus; i++) {
        lapic_init(&f->lapic[i], c->ids[i], i == 0, c->x2apic, c->firmware_x2apic);
        f->lapic[i].id8 = c->id8;
    }
    way_tracks(c->trace, c->ids, c->vcpus);
    fabric_reset(f);
    *out = f;
    return 0;
}

void fabric_destroy(struct fabric *f)
{
    if (!f)
        return;
    free(atomic_load(&f->map));
    free((void *)f->cfg.ids);
    free(f->lapic);
    free((void *)f->words);
    free((void *)f->flows);
    free(f->index);
    pthread_mutex_destroy(&f->map_lock);
    inhibit_fini(&f->inhibit);
    free(f);
}

void fabric_reset(struct fabric *f)
{
    for (uint32_t i = 0; i < f->cfg.vcpus; i++) {
        way_forgotten(f->cfg.trace, VCPU_IDX(i), f->lapic[i].isr);
        lapic_reset(&f->lapic[i]);
        atomic_store(&f->words[i], dest_word_of(&f->lapic[i]));
    }
    inhibit_reset(&f->inhibit);
    map_rebuild(f, atomic_fetch_add(&f->map_wanted, 1) + 1);
}

uint32_t fabric_inhibits(const struct fabric *f)
{
    return inhibit_word(&f->inhibit);
}

void fabric_block_irqs(struct fabric *f, bool on)
{
    if (on)
        inhibit_hold(&f->inhibit, INHIBIT_BLOCKIRQ);
    else
        inhibit_release(&f->inhibit, INHIBIT_BLOCKIRQ);
}

void fabric_set_eoi(struct fabric *f, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    f->eoi = eoi;
    f->eoi_opaque = opaque;
}

static int port_deliver(void *opaque, struct irq irq)
{
    return fabric_deliver(opaque, irq);
}

struct irq_port fabric_port(struct fabric *f)
{
    return (struct irq_port){.deliver = port_deliver, .opaque = f};
}

/* ---- delivery: any thread ---- */

void fabric_kick(struct fabric *f, vcpu_idx_t cpu)
{
    f->cfg.kick(f->cfg.kick_opaque, cpu);
}

/* A pending vector has an arrow in a JSON trace from whoever made it pending to where it is taken. Marked before the
 * vector shows, so that whoever takes it finds the mark. */
static __attribute__((noinline, cold)) int offer_traced(struct fabric *f, uint32_t idx, struct irq irq)
{
    const struct trace *t = f->cfg.trace;
    uint64_t ns = trace_now(t);
    bool flow = irq.mode <= IRQ_LOWEST && f->flows && fabric_flow_mark(f, idx, irq.vector);
    enum lapic_taken taken = lapic_accept(&f->lapic[idx], irq);
    if (flow && taken != LAPIC_TAKEN)
        fabric_flow_unmark(f, idx, irq.vector);
    way_target(t, irq, VCPU_IDX(idx), f->cfg.ids[idx], taken, flow && taken == LAPIC_TAKEN, ns);
    if (taken == LAPIC_TAKEN)
        f->cfg.kick(f->cfg.kick_opaque, VCPU_IDX(idx));
    return taken != LAPIC_REFUSED;
}

int fabric_offer(struct fabric *f, uint32_t idx, struct irq irq)
{
    if (unlikely(irq.way))
        return offer_traced(f, idx, irq);
    enum lapic_taken taken = lapic_accept(&f->lapic[idx], irq);
    if (taken == LAPIC_TAKEN)
        f->cfg.kick(f->cfg.kick_opaque, VCPU_IDX(idx));
    return taken != LAPIC_REFUSED;
}

/* Who of a set may receive: one pass over a list, or over all words. `next` starts at 0; DEST_NOBODY ends. A
 * broadcast's targets are many and cold, so the next ones are fetched ahead. */
struct target_walk {
    const struct fabric *f;
    const struct dest_set *set;
    struct irq irq;
    uint32_t self;
    uint32_t next;
};

static bool walk_matches(const struct target_walk *w, uint32_t i)
{
    dest_word_t word = atomic_load_explicit(&w->f->words[i], memory_order_acquire);
    switch (w->irq.shorthand) {
    case IRQ_DEST:
        return dest_match(word, w->irq);
    case IRQ_SELF:
        return i == w->self;
    default:
        return dest_word_mode(word) != LAPIC_DISABLED && (w->irq.shorthand == IRQ_ALL || i != w->self);
    }
}

static uint32_t walk_next(struct target_walk *w)
{
    if (!w->set->scan)
        return w->next < w->set->n ? w->set->idx[w->next++] : DEST_NOBODY;
    while (w->next < w->f->cfg.vcpus) {
        uint32_t i = w->next++;
        __builtin_prefetch(&w->f->lapic[i + 16 < w->f->cfg.vcpus ? i + 16 : i], 1);
        if (walk_matches(w, i))
            return i;
    }
    return DEST_NOBODY;
}

/* Lowest priority among n candidates goes to the (vector mod n)-th of those that accept fixed interrupts, by vCPU
 * index. An APIC that is being switched off meanwhile may make the count stale: then the last one found is it. */
static int deliver_lowest(struct fabric *f, struct target_walk w)
{
    struct target_walk again = w;
    uint32_t n = 0, chosen = DEST_NOBODY;
    for (uint32_t i; (i = walk_next(&w)) != DEST_NOBODY;)
        n += lapic_enabled(&f->lapic[i]);
    if (!n)
        return 0;
    uint32_t left = w.irq.vector % n;
    for (uint32_t i; (i = walk_next(&again)) != DEST_NOBODY;) {
        if (!lapic_enabled(&f->lapic[i]))
            continue;
        chosen = i;
        if (!left--)
            break;
    }
    return chosen == DEST_NOBODY ? 0 : fabric_offer(f, chosen, w.irq);
}

static int deliver_walk(struct fabric *f, struct target_walk w)
{
    int taken = 0;
    if (w.irq.mode == IRQ_LOWEST)
        return deliver_lowest(f, w);
    for (uint32_t i; (i = walk_next(&w)) != DEST_NOBODY;)
        taken += fabric_offer(f, i, w.irq);
    return taken;
}

static __attribute__((noinline)) int deliver_set(struct fabric *f, const struct dest_map *m, struct irq irq)
{
    struct dest_set set;
    irq.shorthand = IRQ_DEST;
    dest_find(m, f->words, f->cfg.vcpus, irq, &set);
    return deliver_walk(f, (struct target_walk){.f = f, .set = &set, .irq = irq});
}

/* The accelerated path: into the IRR of the APIC that was built with this ID. False: that APIC is off, or has
 * level-triggered vectors to sort out, or the vector is no vector; the slow path knows. */
static inline bool fabric_post(struct fabric *f, struct irq irq)
{
    uint32_t i = irq.dest <= f->max_id ? f->index[irq.dest] : DEST_NOBODY;
    if (unlikely(i == DEST_NOBODY))
        return false;
    struct lapic *l = &f->lapic[i];
    uint32_t flags = atomic_load_explicit(&l->flags, memory_order_acquire);
    if (unlikely(flags != (LAPIC_F_HW | LAPIC_F_SW) || irq.vector < 16))
        return false;
    uint64_t bit = BIT(irq.vector & 63);
    if (!(atomic_fetch_or(&l->irr[irq.vector >> 6], bit) & bit))
        f->cfg.kick(f->cfg.kick_opaque, VCPU_IDX(i));
    return true;
}

/* Destination modes the accelerated path has hardware for. */
static inline bool may_post(const struct fabric *f, struct irq irq)
{
    return !inhibit_word(&f->inhibit) && irq.mode == IRQ_FIXED && !irq.level && dest_is_single(irq);
}

static int deliver_mapped(struct fabric *f, struct irq irq)
{
    const struct dest_map *m = atomic_load_explicit(&f->map, memory_order_acquire);
    if (unlikely(!m || !dest_is_single(irq)))
        return deliver_set(f, m, irq);
    uint32_t i = dest_map_physical(m, irq.dest);
    if (unlikely(i == DEST_SEVERAL))
        return deliver_set(f, m, irq);
    return i == DEST_NOBODY ? 0 : fabric_offer(f, i, irq);
}

/* One way for all interrupts, through lapic_accept(): what is posted otherwise is taken the same. */
static __attribute__((noinline, cold)) int deliver_traced(struct fabric *f, struct irq irq)
{
    trace_span_t own = irq.way ? 0 : way_begin(f->cfg.trace);
    irq.way |= own;
    way_irq(f->cfg.trace, irq, may_post(f, irq));
    int taken = deliver_mapped(f, irq);
    way_end(f->cfg.trace, own, taken);
    return taken;
}

int fabric_deliver(struct fabric *f, struct irq irq)
{
    if (trace_wants(f->cfg.trace, TRACE_IRQ))
        return deliver_traced(f, irq);
    if (likely(may_post(f, irq)) && likely(fabric_post(f, irq)))
        return 1;
    return deliver_mapped(f, irq);
}

int fabric_deliver_from(struct fabric *f, vcpu_idx_t from, struct irq irq)
{
    irq.way = way_from_cpu(f->cfg.trace, from, f->cfg.ids[from.i], "hypercall");
    int taken = fabric_deliver(f, irq);
    way_end(f->cfg.trace, irq.way, taken);
    return taken;
}

static int send_shorthand(struct fabric *f, uint32_t self, struct irq irq)
{
    static const struct dest_set everyone = {.scan = true};
    if (irq.way)
        way_irq(f->cfg.trace, irq, false);
    if (irq.shorthand == IRQ_SELF)
        return fabric_offer(f, self, irq);
    return deliver_walk(f, (struct target_walk){.f = f, .set = &everyone, .irq = irq, .self = self});
}

int fabric_send(struct fabric *f, uint32_t self, struct irq irq)
{
    irq.way = way_from_cpu(f->cfg.trace, VCPU_IDX(self), f->cfg.ids[self], "ICR");
    int taken = irq.shorthand == IRQ_DEST ? fabric_deliver(f, irq) : send_shorthand(f, self, irq);
    way_end(f->cfg.trace, irq.way, taken);
    return taken;
}

void fabric_lint(struct fabric *f, vcpu_idx_t cpu, unsigned lint, bool level)
{
    if (cpu.i < f->cfg.vcpus && lint < 2 && lapic_lint(&f->lapic[cpu.i], lint, level))
        fabric_kick(f, cpu);
}

bool fabric_find(struct fabric *f, apic_id_t id, vcpu_idx_t *out)
{
    if (id.id > f->max_id || f->index[id.id] == DEST_NOBODY)
        return false;
    *out = VCPU_IDX(f->index[id.id]);
    return true;
}

apic_id_t fabric_id(const struct fabric *f, vcpu_idx_t cpu)
{
    return f->cfg.ids[cpu.i];
}
