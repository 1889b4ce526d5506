#include "pci/host.h"

#include "base/bits.h"

#include <errno.h>

/* Header offsets. PCI Local Bus 3.0, 6.1 "Configuration Space Organization". */
enum {
    CFG_VENDOR = 0x00,
    CFG_DEVICE = 0x02,
    CFG_COMMAND = 0x04,
    CFG_REVISION = 0x08,
    CFG_HEADER = 0x0e,
    CFG_INTLINE = 0x3c
};

#define HEADER_MULTIFUNCTION 0x80
#define COMMAND_WRITABLE     0x0507 /* I/O, memory, master, SERR#, INTx disable */
#define ADDRESS_ENABLE       0x80000000u
#define ADDRESS_WRITABLE     0x80fffffcu

#define ID_INTEL    0x8086
#define ID_Q35_MCH  0x29c0
#define ID_ICH9_LPC 0x2918
#define CLASS_HOST  0x060000
#define CLASS_ISA   0x060100

/* ---- functions ---- */

uint32_t pci_config_read(struct pci_func *f, unsigned off, unsigned size)
{
    uint32_t v = 0;
    memcpy(&v, f->config + off, size);
    return v;
}

void pci_config_write(struct pci_func *f, unsigned off, unsigned size, uint32_t val)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t m = f->wmask[off + i], b = (uint8_t)(val >> (8 * i));
        f->config[off + i] = (uint8_t)((f->config[off + i] & ~m) | (b & m));
    }
}

void pci_func_setup(struct pci_func *f, uint8_t devfn, uint16_t vendor, uint16_t device, uint32_t class_code,
                    uint8_t revision)
{
    *f = (struct pci_func){.devfn = devfn};
    st16(f->config + CFG_VENDOR, vendor);
    st16(f->config + CFG_DEVICE, device);
    st32(f->config + CFG_REVISION, class_code << 8 | revision);
    st16(f->wmask + CFG_COMMAND, COMMAND_WRITABLE);
    f->wmask[CFG_INTLINE] = 0xff;
}

int pci_host_add(struct pci_host *h, struct pci_func *f, struct err *e)
{
    unsigned devfn = f->devfn, first = devfn & ~7u;
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    if (h->funcs[devfn])
        rc = err_set(e, -EEXIST, "PCI address %02x.%x is taken", devfn >> 3, devfn & 7);
    else if (devfn != first && !h->funcs[first])
        rc = err_set(e, -EINVAL, "PCI address %02x.%x needs a function 0 beside it", devfn >> 3, devfn & 7);
    else
        h->funcs[devfn] = f;
    if (rc == 0 && devfn != first)
        h->funcs[first]->config[CFG_HEADER] |= HEADER_MULTIFUNCTION;
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* ---- configuration mechanism #1 (lock held) ---- */

/* The function CF8h names; NULL if it names none. There is one bus. */
static struct pci_func *addressed(const struct pci_host *h)
{
    uint32_t a = h->address;
    if (!(a & ADDRESS_ENABLE) || bits(a, 23, 16) != 0)
        return NULL;
    return h->funcs[bits(a, 15, 8)];
}

static uint32_t config_read(struct pci_host *h, unsigned byte, unsigned size)
{
    struct pci_func *f = addressed(h);
    unsigned off = (h->address & 0xfc) | byte;
    if (!f)
        return (uint32_t)size_mask(size);
    return f->ops ? f->ops->config_read(f, off, size) : pci_config_read(f, off, size);
}

static void config_write(struct pci_host *h, unsigned byte, unsigned size, uint32_t val)
{
    struct pci_func *f = addressed(h);
    unsigned off = (h->address & 0xfc) | byte;
    if (!f)
        return;
    if (f->ops)
        f->ops->config_write(f, off, size, val);
    else
        pci_config_write(f, off, size, val);
}

/* ---- the bus: CF8h-CFFh ---- */

/* CF8h is a dword register; narrower accesses pass it by. */
static uint64_t address_read(struct pci_host *h, unsigned off, unsigned size)
{
    if (off == 0 && size == 4)
        return h->address;
    if (off == 1 && size == 1 && h->reset.read)
        return h->reset.read(h->reset.opaque);
    return size_mask(size);
}

/* An access must lie within one dword, as mechanism #1 carries it; what straddles is taken apart. */
static uint64_t port_read_locked(struct pci_host *h, unsigned off, unsigned size)
{
    uint64_t v = 0;
    if ((off & 3) + size > 4) {
        for (unsigned i = 0; i < size; i++)
            v |= (port_read_locked(h, off + i, 1) & 0xff) << (8 * i);
        return v;
    }
    if (off < 4)
        return address_read(h, off, size);
    if (size == 2 && off & 1)
        return config_read(h, off & 3, 1) | config_read(h, (off & 3) + 1, 1) << 8;
    return config_read(h, off & 3, size);
}

static void port_write_locked(struct pci_host *h, unsigned off, unsigned size, uint32_t val)
{
    if (off == 0 && size == 4) {
        h->address = val & ADDRESS_WRITABLE;
    } else if (off >= 4 && size == 2 && off & 1) {
        config_write(h, off & 3, 1, val & 0xff);
        config_write(h, (off & 3) + 1, 1, val >> 8);
    } else if (off >= 4) {
        config_write(h, off & 3, size, val);
    }
}

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    struct pci_host *h = dev;
    pthread_mutex_lock(&h->lock);
    uint64_t v = port_read_locked(h, (unsigned)off, size);
    pthread_mutex_unlock(&h->lock);
    return v;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pci_host *h = dev;
    if ((off & 3) + size > 4) {
        for (unsigned i = 0; i < size; i++)
            port_write(dev, off + i, 1, val >> (8 * i) & 0xff);
        return;
    }
    /* Outside the lock: a reset may go anywhere. */
    if (off == 1 && size == 1 && h->reset.write) {
        h->reset.write(h->reset.opaque, (uint8_t)val);
        return;
    }
    pthread_mutex_lock(&h->lock);
    port_write_locked(h, (unsigned)off, size, (uint32_t)val);
    pthread_mutex_unlock(&h->lock);
}

static const struct bus_ops port_ops = {port_read, port_write};

/* ---- lifecycle ---- */

/* The multifunction bit that pci_host_add() may have set outlives a reset. */
static void reset_bridges(struct pci_host *h)
{
    uint8_t host_header = h->host_bridge.config[CFG_HEADER], isa_header = h->isa_bridge.config[CFG_HEADER];
    pci_func_setup(&h->host_bridge, PCI_DEVFN(0, 0), ID_INTEL, ID_Q35_MCH, CLASS_HOST, 0);
    pci_func_setup(&h->isa_bridge, PCI_DEVFN(0x1f, 0), ID_INTEL, ID_ICH9_LPC, CLASS_ISA, 2);
    h->host_bridge.config[CFG_HEADER] = host_header;
    h->isa_bridge.config[CFG_HEADER] = isa_header;
    st16(h->host_bridge.config + CFG_COMMAND, 0x0006);
    st16(h->isa_bridge.config + CFG_COMMAND, 0x0007);
}

void pci_host_reset(struct pci_host *h)
{
    pthread_mutex_lock(&h->lock);
    h->address = 0;
    reset_bridges(h);
    pthread_mutex_unlock(&h->lock);
}

int pci_host_init(struct pci_host *h, struct bus *ports, const struct pci_reset_hook *reset, struct err *e)
{
    *h = (struct pci_host){.ports = ports};
    if (reset)
        h->reset = *reset;
    pthread_mutex_init(&h->lock, NULL);
    reset_bridges(h);
    h->funcs[h->host_bridge.devfn] = &h->host_bridge;
    h->funcs[h->isa_bridge.devfn] = &h->isa_bridge;
    const struct bus_region r = {PCI_CONFIG_PORT, 8, &port_ops, h, "pci configuration"};
    int rc = bus_map(ports, &r, e);
    if (rc < 0)
        pci_host_fini(h);
    return rc;
}

void pci_host_fini(struct pci_host *h)
{
    bus_unmap(h->ports, PCI_CONFIG_PORT);
    pthread_mutex_destroy(&h->lock);
}
