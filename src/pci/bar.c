/* Which accesses reach a BAR. PCI Local Bus 3.0, 6.2.5 "Base Addresses"; PCI Express Base 5.0, 7.5.1.3 "Type 1
 * Configuration Space Header". */
#include "pci/pci_priv.h"

#include <errno.h>

struct range {
    uint64_t first, last; /* empty: first > last */
};

uint64_t pci_bar_value(const struct pci_func *f, unsigned index)
{
    const uint8_t *reg = f->config + PCI_BAR0 + 4 * index;
    const struct pci_bar *b = &f->bar[index];
    uint64_t low = ld32(reg) & ~(uint64_t)(b->kind == PCI_BAR_IO ? 3 : 15);
    return b->kind == PCI_BAR_MEM64 ? low | (uint64_t)ld32(reg + 4) << 32 : low;
}

/* ---- what bridges let through ---- */

static struct range io_window(const struct pci_func *bridge)
{
    const uint8_t *c = bridge->config;
    return (struct range){(c[BRIDGE_IO_BASE] & 0xf0u) << 8, (c[BRIDGE_IO_LIMIT] & 0xf0u) << 8 | 0xfffu};
}

static struct range mem_window(const struct pci_func *bridge)
{
    const uint8_t *c = bridge->config;
    return (struct range){(ld16(c + BRIDGE_MEM_BASE) & 0xfff0ull) << 16,
                          (ld16(c + BRIDGE_MEM_LIMIT) & 0xfff0ull) << 16 | 0xfffff};
}

static struct range pref_window(const struct pci_func *bridge)
{
    const uint8_t *c = bridge->config;
    return (struct range){
        (ld16(c + BRIDGE_PREF_BASE) & 0xfff0ull) << 16 | (uint64_t)ld32(c + BRIDGE_PREF_BASE_HIGH) << 32,
        (ld16(c + BRIDGE_PREF_LIMIT) & 0xfff0ull) << 16 | 0xfffff | (uint64_t)ld32(c + BRIDGE_PREF_LIMIT_HIGH) << 32};
}

static bool holds(struct range window, struct range r)
{
    return window.first <= r.first && r.last <= window.last;
}

/* A BAR that is only partly in a window is not reached at all. */
static bool passes(const struct pci_func *bridge, enum pci_bar_kind kind, struct range r)
{
    uint16_t command = ld16(bridge->config + PCI_COMMAND);
    if (kind == PCI_BAR_IO)
        return command & PCI_CMD_IO && holds(io_window(bridge), r);
    return command & PCI_CMD_MEMORY && (holds(mem_window(bridge), r) || holds(pref_window(bridge), r));
}

/* ---- one BAR ---- */

/* What a guest reads back when it sizes a BAR ends at the last byte of 4 GiB or of all: no place to be. */
static bool possible(enum pci_bar_kind kind, struct range r)
{
    if (!r.first || r.last < r.first)
        return false;
    return kind == PCI_BAR_IO ? r.last <= 0xffff : r.last != UINT32_MAX && r.last != UINT64_MAX;
}

static bool wanted(const struct pci_func *f, unsigned index, uint64_t *at)
{
    const struct pci_bar *b = &f->bar[index];
    uint16_t decode = b->kind == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEMORY;
    if (b->kind == PCI_BAR_NONE || !(ld16(f->config + PCI_COMMAND) & decode))
        return false;
    uint64_t first = pci_bar_value(f, index);
    struct range r = {first, first + b->size - 1};
    *at = first;
    return possible(b->kind, r) && (!f->bus->bridge || passes(f->bus->bridge, b->kind, r));
}

static struct bus *bus_of(const struct pci_func *f, const struct pci_bar *b)
{
    return b->kind == PCI_BAR_IO ? f->host->cfg.ports : f->host->cfg.mmio;
}

static void unmap(struct pci_func *f, struct pci_bar *b)
{
    if (bus_unmap(bus_of(f, b), b->at) == -ENOMEM)
        return; /* it goes at the next occasion */
    b->mapped = false;
    trace(f->host->cfg.trace, TRACE_DEV, "pci: %s: %s leaves %llxh", f->name ? f->name : "?", b->name,
          (unsigned long long)b->at);
}

static void map(struct pci_func *f, struct pci_bar *b, uint64_t at)
{
    struct err e = {""};
    const struct bus_region r = {.base = at, .len = b->size, .ops = b->ops, .dev = b->dev, .name = b->name};
    bool again = b->refused && b->at == at;
    b->mapped = bus_map(bus_of(f, b), &r, &e) == 0;
    b->refused = !b->mapped;
    b->at = at;
    if (b->mapped)
        trace(f->host->cfg.trace, TRACE_DEV, "pci: %s: %s at %llxh", f->name ? f->name : "?", b->name,
              (unsigned long long)at);
    else if (!again)
        trace(f->host->cfg.trace, TRACE_DEV, "pci: %s: %s stays away until its place is free: %s",
              f->name ? f->name : "?", b->name, e.msg);
}

/* ---- all of them ---- */

void pci_bars_refresh(struct pci_host *h)
{
    uint64_t at;
    for (struct pci_func *f = h->funcs; f; f = f->next)
        for (unsigned i = 0; i < PCI_BARS; i++)
            if (f->bar[i].mapped && !(wanted(f, i, &at) && at == f->bar[i].at))
                unmap(f, &f->bar[i]);
    for (struct pci_func *f = h->funcs; f; f = f->next)
        for (unsigned i = 0; i < PCI_BARS; i++)
            if (!f->bar[i].mapped && wanted(f, i, &at))
                map(f, &f->bar[i], at);
}
