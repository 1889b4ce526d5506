#include "mem/bus.h"

#include <errno.h>
#include <stdlib.h>

struct bus_table {
    struct epoch_node retired;
    size_t n;
    struct bus_region r[]; /* sorted by base, disjoint */
};

void bus_init(struct bus *b, const char *name, struct epoch *epoch, const struct trace *trace)
{
    atomic_init(&b->table, NULL);
    b->epoch = epoch;
    b->trace = trace;
    b->name = name;
    pthread_mutex_init(&b->lock, NULL);
}

void bus_fini(struct bus *b)
{
    free(atomic_load(&b->table));
    pthread_mutex_destroy(&b->lock);
}

/* The last region whose base is <= addr, if it also covers addr. */
static const struct bus_region *bus_find(const struct bus_table *t, uint64_t addr)
{
    if (!t)
        return NULL;
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->r[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    const struct bus_region *r = &t->r[lo - 1];
    return addr - r->base < r->len ? r : NULL;
}

static bool bus_overlaps(const struct bus_region *a, const struct bus_region *b)
{
    return a->base < b->base ? b->base - a->base < a->len : a->base - b->base < b->len;
}

static void bus_publish(struct bus *b, struct bus_table *old, struct bus_table *new)
{
    atomic_store_explicit(&b->table, new, memory_order_release);
    if (old)
        epoch_retire(b->epoch, &old->retired, old, free);
}

static int bus_map_locked(struct bus *b, const struct bus_region *region, struct err *e)
{
    struct bus_table *old = atomic_load(&b->table);
    size_t n = old ? old->n : 0, at = 0;
    for (size_t i = 0; i < n; i++) {
        if (bus_overlaps(&old->r[i], region))
            return err_set(e, -EEXIST, "%s %s at 0x%llx overlaps %s at 0x%llx", b->name, region->name,
                           (unsigned long long)region->base, old->r[i].name, (unsigned long long)old->r[i].base);
        if (old->r[i].base < region->base)
            at = i + 1;
    }
    struct bus_table *new = malloc(sizeof *new + (n + 1) * sizeof new->r[0]);
    if (!new)
        return err_set(e, -ENOMEM, "out of memory for the %s table", b->name);
    new->n = n + 1;
    for (size_t i = 0; i < at; i++)
        new->r[i] = old->r[i];
    new->r[at] = *region;
    for (size_t i = at; i < n; i++)
        new->r[i + 1] = old->r[i];
    bus_publish(b, old, new);
    return 0;
}

int bus_map(struct bus *b, const struct bus_region *region, struct err *e)
{
    pthread_mutex_lock(&b->lock);
    int rc = bus_map_locked(b, region, e);
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static int bus_unmap_locked(struct bus *b, uint64_t base)
{
    struct bus_table *old = atomic_load(&b->table);
    const struct bus_region *r = bus_find(old, base);
    if (!r || r->base != base)
        return -ENOENT;
    struct bus_table *new = malloc(sizeof *new + old->n * sizeof new->r[0]);
    if (!new)
        return -ENOMEM;
    new->n = 0;
    for (size_t i = 0; i < old->n; i++)
        if (&old->r[i] != r)
            new->r[new->n++] = old->r[i];
    bus_publish(b, old, new);
    return 0;
}

int bus_unmap(struct bus *b, uint64_t base)
{
    pthread_mutex_lock(&b->lock);
    int rc = bus_unmap_locked(b, base);
    pthread_mutex_unlock(&b->lock);
    return rc;
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size)
{
    const struct bus_region *r = bus_find(atomic_load_explicit(&b->table, memory_order_acquire), addr);
    if (likely(r && size <= r->len - (addr - r->base)))
        return r->ops->read(r->dev, addr - r->base, size) & size_mask(size);
    if (r && size > 1) {
        uint64_t v = 0;
        for (unsigned i = 0; i < size; i++)
            v |= bus_read(b, addr + i, 1) << (8 * i);
        return v;
    }
    trace(b->trace, TRACE_BUS, "%s read of %u at 0x%llx: nobody", b->name, size, (unsigned long long)addr);
    return size_mask(size);
}

void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t val)
{
    const struct bus_region *r = bus_find(atomic_load_explicit(&b->table, memory_order_acquire), addr);
    if (likely(r && size <= r->len - (addr - r->base))) {
        r->ops->write(r->dev, addr - r->base, size, val & size_mask(size));
        return;
    }
    if (r && size > 1) {
        for (unsigned i = 0; i < size; i++)
            bus_write(b, addr + i, 1, val >> (8 * i) & 0xff);
        return;
    }
    trace(b->trace, TRACE_BUS, "%s write of %u at 0x%llx: nobody", b->name, size, (unsigned long long)addr);
}
