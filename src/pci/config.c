/* Configuration accesses: CF8h/CFCh, ECAM, and what a write does to a function. */
#include "pci/pci_priv.h"

#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

#define EXP_DEVCTL 0x08
#define DEVCTL_FLR 0x8000u

/* ---- one function (lock held) ---- */

static void refresh_volatile(struct pci_func *f, unsigned off, unsigned size)
{
    uint8_t intx = atomic_load_explicit(&f->intx, memory_order_acquire) ? PCI_STS_INTX : 0;
    f->config[PCI_STATUS] = (uint8_t)((f->config[PCI_STATUS] & ~PCI_STS_INTX) | intx);
    pci_msi_read(f);
    if (f->ops && f->ops->config_read)
        f->ops->config_read(f, off, size);
}

uint32_t pci_func_read(struct pci_func *f, unsigned off, unsigned size)
{
    uint32_t v = 0;
    refresh_volatile(f, off, size);
    memcpy(&v, f->config + off, size);
    return v;
}

static void store(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t m = f->wmask[off + i], b = (uint8_t)(val >> (8 * i));
        uint8_t v = (uint8_t)((f->config[off + i] & ~m) | (b & m));
        f->config[off + i] = v & (uint8_t) ~(b & f->w1cmask[off + i]);
    }
}

/* A written byte `at` of an access that may not touch it: 0 then. */
static uint8_t byte_written(unsigned off, unsigned size, uint32_t val, unsigned at)
{
    return touches(off, size, at, 1) ? (uint8_t)(val >> (8 * (at - off))) : 0;
}

static bool starts_flr(const struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    return f->express && f->ops && f->ops->reset &&
           byte_written(off, size, val, f->express + EXP_DEVCTL + 1u) & DEVCTL_FLR >> 8;
}

static void header_written(struct pci_func *f, unsigned off, unsigned size)
{
    bool command = touches(off, size, PCI_COMMAND, 2);
    if (command)
        pci_func_publish(f);
    if (command || (touches(off, size, PCI_BAR0, PCI_BARS_END - PCI_BAR0) && !is_bridge(f)))
        pci_bars_refresh(f->host);
}

bool pci_func_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    if (starts_flr(f, off, size, val)) {
        pci_func_reset_all(f);
        pci_bars_refresh(f->host);
        return false;
    }
    store(f, off, size, val);
    header_written(f, off, size);
    bool flush = pci_msi_written(f, off, size);
    flush |= pci_msix_written(f, off, size);
    if (f->ops && f->ops->config_written)
        f->ops->config_written(f, off, size);
    return flush;
}

void pci_func_flush(struct pci_func *f)
{
    pci_msi_flush(f);
    pci_msix_flush(f);
}

/* ---- routing (lock held) ---- */

static struct pci_func *find(const struct pci_host *h, unsigned number, unsigned devfn)
{
    if (number == 0)
        return h->root.funcs[devfn];
    for (const struct pci_bus *b = h->root.next; b; b = b->next)
        if (b->number == number)
            return b->funcs[devfn];
    return NULL;
}

/* `where`: bus 27:20, devfn 19:12, offset 11:0; the access lies in one dword. */
static uint32_t config_read(struct pci_host *h, uint32_t where, unsigned size)
{
    pthread_mutex_lock(&h->lock);
    struct pci_func *f = find(h, (unsigned)bits(where, 27, 20), (unsigned)bits(where, 19, 12));
    uint32_t v = f ? pci_func_read(f, where & 0xfff, size) : (uint32_t)size_mask(size);
    pthread_mutex_unlock(&h->lock);
    return v;
}

static void config_write(struct pci_host *h, uint32_t where, unsigned size, uint32_t val)
{
    pthread_mutex_lock(&h->lock);
    struct pci_func *f = find(h, (unsigned)bits(where, 27, 20), (unsigned)bits(where, 19, 12));
    bool flush = f && pci_func_write(f, where & 0xfff, size, val);
    pthread_mutex_unlock(&h->lock);
    if (flush)
        pci_func_flush(f);
}

/* ---- CF8h-CFFh ---- */

static uint32_t address(struct pci_host *h)
{
    pthread_mutex_lock(&h->lock);
    uint32_t a = h->address;
    pthread_mutex_unlock(&h->lock);
    return a;
}

/* Mechanism #1's address as config_read() wants it. */
static uint32_t where_of(uint32_t a, unsigned byte)
{
    return (uint32_t)(bits(a, 23, 8) << 12 | (a & 0xfc) | byte);
}

/* CF8h is a dword register; narrower accesses pass it by. */
static uint64_t address_read(struct pci_host *h, unsigned off, unsigned size)
{
    if (off == 0 && size == 4)
        return address(h);
    if (off == 1 && size == 1 && h->cfg.reset.read)
        return h->cfg.reset.read(h->cfg.reset.opaque);
    return size_mask(size);
}

static void address_write(struct pci_host *h, unsigned off, unsigned size, uint32_t val)
{
    if (off == 0 && size == 4) {
        pthread_mutex_lock(&h->lock);
        h->address = val & ADDRESS_WRITABLE;
        pthread_mutex_unlock(&h->lock);
    } else if (off == 1 && size == 1 && h->cfg.reset.write) {
        h->cfg.reset.write(h->cfg.reset.opaque, (uint8_t)val);
    }
}

/* An access must lie within one dword, as mechanism #1 carries it; what straddles is taken apart. */
static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    struct pci_host *h = dev;
    uint64_t v = 0;
    if ((off & 3) + size > 4) {
        for (unsigned i = 0; i < size; i++)
            v |= (port_read(dev, off + i, 1) & 0xff) << (8 * i);
        return v;
    }
    if (off < 4)
        return address_read(h, (unsigned)off, size);
    uint32_t a = address(h);
    return a & ADDRESS_ENABLE ? config_read(h, where_of(a, off & 3), size) : size_mask(size);
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pci_host *h = dev;
    if ((off & 3) + size > 4) {
        for (unsigned i = 0; i < size; i++)
            port_write(dev, off + i, 1, val >> (8 * i) & 0xff);
        return;
    }
    if (off < 4) {
        address_write(h, (unsigned)off, size, (uint32_t)val);
        return;
    }
    uint32_t a = address(h);
    if (a & ADDRESS_ENABLE)
        config_write(h, where_of(a, off & 3), size, (uint32_t)val);
}

const struct bus_ops pci_port_ops = {port_read, port_write};

/* ---- ECAM ---- */

static uint64_t ecam_read(void *dev, uint64_t off, unsigned size)
{
    uint64_t v = 0;
    unsigned part = (off & 3) + size <= 4 ? size : off & 3 ? 1 : 4;
    for (unsigned i = 0; i < size; i += part)
        v |= (config_read(dev, (uint32_t)off + i, part) & size_mask(part)) << (8 * i);
    return v;
}

static void ecam_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    unsigned part = (off & 3) + size <= 4 ? size : off & 3 ? 1 : 4;
    for (unsigned i = 0; i < size; i += part)
        config_write(dev, (uint32_t)off + i, part, (uint32_t)(val >> (8 * i) & size_mask(part)));
}

const struct bus_ops pci_ecam_ops = {ecam_read, ecam_write};
