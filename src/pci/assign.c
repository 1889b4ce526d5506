/* What firmware does: bus numbers, places for BARs, bridge windows, decoding, interrupt lines. PCI Firmware 3.3, 3.5
 * "Device State at Firmware/Operating System Handoff".
 *
 * Places are given out from the largest alignment to the smallest, so that powers of two leave no gaps. BARs below
 * SMALL go below 4 GiB even if they are 64-bit ones: a payload without paging can reach them. Only if they don't fit
 * there, everything that can goes above RAM.
 */
#include "pci/pci_priv.h"

#include <errno.h>

#define SMALL         (UINT64_C(64) << 20)
#define IO_GRANULE    UINT64_C(0x1000)
#define MEM_GRANULE   UINT64_C(0x100000)
#define LARGEST_BITS  46
#define SMALLEST_BITS 2

enum space { SPACE_IO, SPACE_LOW, SPACE_HIGH, SPACES };

static const char *const space_name[SPACES] = {"I/O port", "32-bit memory", "64-bit memory"};

struct pool {
    uint64_t next, end; /* 0, 0: none is given out of it in this round */
};

struct assign {
    struct pci_host *h;
    uint64_t small; /* 64-bit BARs below that go below 4 GiB */
    struct pool pool[SPACES];
    struct err *e;
};

/* What a bus needs of a space. */
struct need {
    uint64_t size, align;
};

static bool take(struct pool *p, struct need n, uint64_t *at)
{
    *at = align_up(p->next, n.align);
    if (*at < p->next || *at > p->end || n.size > p->end - *at)
        return false;
    p->next = *at + n.size;
    return true;
}

/* Behind a bridge, what is not prefetchable has only the 32-bit window. */
static enum space space_of(const struct assign *a, const struct pci_func *f, const struct pci_bar *b)
{
    bool high =
        b->kind == PCI_BAR_MEM64 && a->h->cfg.mem64_len && b->size >= a->small && (!f->bus->bridge || b->prefetch);
    return b->kind == PCI_BAR_IO ? SPACE_IO : high ? SPACE_HIGH : SPACE_LOW;
}

static int no_room(const struct assign *a, const struct pci_func *f, enum space s, uint64_t size)
{
    return err_set(a->e, -ENOSPC, "no room for %llu bytes of %s (%02x.%x) in the %s window: use fewer devices",
                   (unsigned long long)size, f->name ? f->name : "a PCI function", f->devfn >> 3, f->devfn & 7,
                   space_name[s]);
}

/* ---- BARs ---- */

static void set_bar(struct pci_func *f, unsigned index, uint64_t at)
{
    uint8_t *reg = f->config + PCI_BAR0 + 4 * index;
    bool io = f->bar[index].kind == PCI_BAR_IO;
    st32(reg, (uint32_t)at | (ld32(reg) & (io ? 3 : 15)));
    if (f->bar[index].kind == PCI_BAR_MEM64)
        st32(reg + 4, (uint32_t)(at >> 32));
    st16(f->config + PCI_COMMAND, ld16(f->config + PCI_COMMAND) | (io ? PCI_CMD_IO : PCI_CMD_MEMORY));
}

/* The BARs of `f` that are `size` bytes large. */
static int place_bars(const struct assign *a, struct pci_func *f, struct pool *pool, uint64_t size)
{
    uint64_t at;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *b = &f->bar[i];
        if (b->kind == PCI_BAR_NONE || b->size != size)
            continue;
        enum space s = space_of(a, f, b);
        if (!pool[s].end)
            continue;
        if (!take(&pool[s], (struct need){size, size}, &at))
            return no_room(a, f, s, size);
        set_bar(f, i, at);
    }
    return 0;
}

/* ---- bridges ---- */

static struct pci_bus *bus_behind(const struct assign *a, const struct pci_func *bridge)
{
    struct pci_bus *b = a->h->root.next;
    while (b && b->bridge != bridge)
        b = b->next;
    return b;
}

static struct need need_of(const struct assign *a, const struct pci_bus *bus, enum space s)
{
    uint64_t granule = s == SPACE_IO ? IO_GRANULE : MEM_GRANULE;
    struct need n = {.align = granule};
    for (unsigned fn = 0; fn < 8; fn++)
        for (unsigned i = 0; bus->funcs[fn] && i < PCI_BARS; i++) {
            const struct pci_bar *b = &bus->funcs[fn]->bar[i];
            if (b->kind == PCI_BAR_NONE || space_of(a, bus->funcs[fn], b) != s)
                continue;
            n.size += b->size;
            n.align = max_u64(n.align, b->size);
        }
    n.size = align_up(n.size, granule);
    return n;
}

/* From `base` to `limit`, the last granule's start; base above limit: closed. */
static void set_window(struct pci_func *bridge, enum space s, uint64_t base, uint64_t limit)
{
    uint8_t *c = bridge->config;
    if (s == SPACE_IO) {
        c[BRIDGE_IO_BASE] = (uint8_t)(base >> 8 & 0xf0);
        c[BRIDGE_IO_LIMIT] = (uint8_t)(limit >> 8 & 0xf0);
    } else if (s == SPACE_LOW) {
        st16(c + BRIDGE_MEM_BASE, (uint16_t)(base >> 16 & 0xfff0));
        st16(c + BRIDGE_MEM_LIMIT, (uint16_t)(limit >> 16 & 0xfff0));
    } else {
        st16(c + BRIDGE_PREF_BASE, (uint16_t)((base >> 16 & 0xfff0) | 1));
        st16(c + BRIDGE_PREF_LIMIT, (uint16_t)((limit >> 16 & 0xfff0) | 1));
        st32(c + BRIDGE_PREF_BASE_HIGH, (uint32_t)(base >> 32));
        st32(c + BRIDGE_PREF_LIMIT_HIGH, (uint32_t)(limit >> 32));
    }
}

/* The windows of `bridge` whose alignment is `align`; `inner` gets what is in them. */
static int place_windows(struct assign *a, struct pci_func *bridge, uint64_t align, struct pool *inner)
{
    const struct pci_bus *bus = bus_behind(a, bridge);
    for (unsigned s = 0; bus && s < SPACES; s++) {
        struct need n = need_of(a, bus, s);
        uint64_t at, granule = s == SPACE_IO ? IO_GRANULE : MEM_GRANULE;
        if (!n.size || n.align != align)
            continue;
        if (!take(&a->pool[s], n, &at))
            return no_room(a, bridge, s, n.size);
        set_window(bridge, s, at, at + n.size - granule);
        inner[s] = (struct pool){at, at + n.size};
    }
    return 0;
}

static int place_behind(struct assign *a, struct pci_func *bridge, uint64_t align)
{
    struct pool inner[SPACES] = {{0, 0}};
    const struct pci_bus *bus = bus_behind(a, bridge);
    int rc = place_windows(a, bridge, align, inner);
    for (unsigned size = LARGEST_BITS; !rc && bus && size >= SMALLEST_BITS; size--)
        for (unsigned fn = 0; !rc && fn < 8; fn++)
            if (bus->funcs[fn])
                rc = place_bars(a, bus->funcs[fn], inner, BIT(size));
    return rc;
}

/* ---- all ---- */

static void open_bridge(struct pci_func *bridge, uint8_t number)
{
    bridge->config[BRIDGE_PRIMARY] = 0;
    bridge->config[BRIDGE_SECONDARY] = bridge->config[BRIDGE_SUBORDINATE] = number;
    st16(bridge->config + PCI_COMMAND, PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER);
    set_window(bridge, SPACE_IO, 0xf000, 0);
    set_window(bridge, SPACE_LOW, 0xfff00000, 0);
    set_window(bridge, SPACE_HIGH, 0xfff00000, 0);
}

static int place_all(struct assign *a)
{
    const struct pci_host_config *c = &a->h->cfg;
    int rc = 0;
    a->pool[SPACE_IO] = (struct pool){PCI_IO_BASE, 0x10000};
    a->pool[SPACE_LOW] = (struct pool){PCI_MEM32_BASE, PCI_MEM32_END};
    a->pool[SPACE_HIGH] = (struct pool){c->mem64_base, c->mem64_base + c->mem64_len};
    for (unsigned size = LARGEST_BITS; !rc && size >= SMALLEST_BITS; size--)
        for (unsigned devfn = 0; !rc && devfn < 256; devfn++) {
            struct pci_func *f = a->h->root.funcs[devfn];
            if (f && is_bridge(f))
                rc = place_behind(a, f, BIT(size));
            else if (f)
                rc = place_bars(a, f, a->pool, BIT(size));
        }
    return rc;
}

static void number_buses(struct assign *a)
{
    uint8_t number = 0;
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct pci_func *f = a->h->root.funcs[devfn];
        if (f && is_bridge(f))
            open_bridge(f, ++number);
    }
}

static void publish(struct pci_host *h)
{
    for (struct pci_func *f = h->funcs; f; f = f->next) {
        f->config[PCI_INTLINE] = f->gsi;
        pci_func_publish(f);
        if (is_bridge(f))
            pci_port_publish(f);
    }
    pci_bars_refresh(h);
}

int pci_host_assign(struct pci_host *h, struct err *e)
{
    struct assign a = {.h = h, .small = SMALL, .e = NULL};
    pthread_mutex_lock(&h->lock);
    number_buses(&a);
    int rc = place_all(&a);
    if (rc) {
        a.small = 0;
        a.e = e;
        number_buses(&a);
        rc = place_all(&a);
    }
    publish(h);
    pthread_mutex_unlock(&h->lock);
    return rc;
}
