#include "pci/host.h"

#include "irq/ioapic.h"
#include "pci/pci_priv.h"

#include <errno.h>

#define ID_INTEL    0x8086
#define ID_Q35_MCH  0x29c0
#define ID_ICH9_LPC 0x2918
#define CLASS_HOST  0x060000
#define CLASS_ISA   0x060100

#define MCH_PCIEXBAR 0x60 /* where ECAM is; read-only here. Bit 0: enabled; bits 2:1 = 0: 256 MiB */
#define EXP_FLAGS    0x02
#define EXP_LNKCAP   0x0c
#define EXP_LNKCTL2  0x30

/* ---- adding ---- */

static int check_place(const struct pci_bus *bus, const struct pci_func *f, struct err *e)
{
    unsigned devfn = f->devfn, dev = devfn >> 3, fn = devfn & 7;
    if (bus->bridge && dev)
        return err_set(e, -ENOSPC, "PCI address %02x.%x: a root port has one device behind it, 0", dev, fn);
    if (bus->funcs[devfn])
        return err_set(e, -EEXIST, "PCI address %02x.%x is taken", dev, fn);
    if (!bus->bridge && dev == IOAPIC_REQUESTER >> 3)
        return err_set(e, -EEXIST, "PCI address %02x.%x is where the I/O APIC sends from", dev, fn);
    if (fn && !bus->funcs[devfn & ~7u])
        return err_set(e, -EINVAL, "PCI address %02x.%x needs a function 0 beside it", dev, fn);
    return 0;
}

/* A pin behind a bridge is the bridge's pin, turned by its device number. PCI-to-PCI Bridge 1.2, 9.1 "Interrupt
 * Routing". */
static uint8_t gsi_of(const struct pci_func *f)
{
    unsigned pin = f->config[PCI_INTPIN], dev = f->devfn >> 3;
    if (!pin)
        return 0;
    if (f->bus->bridge) {
        pin = (pin - 1 + dev) % 4 + 1;
        dev = f->bus->bridge->devfn >> 3;
    }
    return (uint8_t)pci_intx_gsi(dev, pin);
}

/* What is on the root bus is no endpoint of a link. PCI Express Base 5.0, 1.3.2.3 "Root Complex Integrated Endpoint
 * Rules". */
static void express_place(struct pci_func *f)
{
    uint8_t *c = f->config + f->express;
    if (!f->express || f->bus->bridge || ld16(c + EXP_FLAGS) >> 4 != PCI_EXP_ENDPOINT)
        return;
    st16(c + EXP_FLAGS, 2 | PCI_EXP_ROOT_ENDPOINT << 4);
    memset(c + EXP_LNKCAP, 0, 8);
    memset(c + EXP_LNKCTL2 - 4, 0, 8);
    memset(f->wmask + f->express + EXP_LNKCAP, 0, 8);
    memset(f->wmask + f->express + EXP_LNKCTL2 - 4, 0, 8);
}

static void place(struct pci_host *h, struct pci_bus *bus, struct pci_func *f)
{
    struct pci_func **last = &h->funcs, *first = bus->funcs[f->devfn & ~7u];
    f->host = h;
    f->bus = bus;
    f->gsi = gsi_of(f);
    express_place(f);
    memcpy(f->reset, f->config, sizeof f->reset);
    while (*last)
        last = &(*last)->next;
    *last = f;
    bus->funcs[f->devfn] = f;
    if (f->devfn & 7) {
        first->config[PCI_HEADER] |= HEADER_MULTIFUNCTION;
        first->reset[PCI_HEADER] |= HEADER_MULTIFUNCTION;
    }
    pci_func_publish(f);
}

int pci_host_add(struct pci_host *h, struct pci_bus *bus, struct pci_func *f, struct err *e)
{
    bus = bus ? bus : &h->root;
    pthread_mutex_lock(&h->lock);
    int rc = check_place(bus, f, e);
    if (!rc)
        place(h, bus, f);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

void pci_host_add_bus(struct pci_host *h, struct pci_bus *bus)
{
    struct pci_bus **last = &h->root.next;
    pthread_mutex_lock(&h->lock);
    while (*last)
        last = &(*last)->next;
    *last = bus;
    pthread_mutex_unlock(&h->lock);
}

struct pci_bus *pci_host_bus(struct pci_host *h, const char *id)
{
    struct pci_bus *b = &h->root;
    while (b && (!b->id || strcmp(b->id, id)))
        b = b->next;
    return b;
}

/* ---- lifecycle ---- */

static void setup_bridges(struct pci_host *h)
{
    struct pci_func *host = &h->host_bridge, *isa = &h->isa_bridge;
    pci_func_setup(host, PCI_DEVFN(0, 0), ID_INTEL, ID_Q35_MCH, CLASS_HOST, 0);
    pci_func_setup(isa, PCI_DEVFN(0x1f, 0), ID_INTEL, ID_ICH9_LPC, CLASS_ISA, 2);
    host->name = "host bridge";
    isa->name = "ISA bridge";
    st64(host->config + MCH_PCIEXBAR, PCI_ECAM_GPA | 1);
    st16(host->config + PCI_COMMAND, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    st16(isa->config + PCI_COMMAND, PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER);
    place(h, &h->root, host);
    place(h, &h->root, isa);
}

void pci_host_reset(struct pci_host *h)
{
    pthread_mutex_lock(&h->lock);
    h->address = 0;
    for (struct pci_func *f = h->funcs; f; f = f->next)
        pci_func_reset_config(f);
    pci_bars_refresh(h);
    pthread_mutex_unlock(&h->lock);
}

int pci_host_init(struct pci_host *h, const struct pci_host_config *c, struct err *e)
{
    *h = (struct pci_host){.cfg = *c, .root.id = "pcie.0"};
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->intx_lock, NULL);
    setup_bridges(h);
    const struct bus_region ports = {PCI_CONFIG_PORT, 8, &pci_port_ops, h, "pci configuration"};
    const struct bus_region ecam = {PCI_ECAM_GPA, PCI_ECAM_SIZE, &pci_ecam_ops, h, "pci configuration"};
    int rc = bus_map(c->ports, &ports, e);
    if (!rc)
        rc = bus_map(c->mmio, &ecam, e);
    if (rc)
        pci_host_fini(h);
    return rc;
}

void pci_host_fini(struct pci_host *h)
{
    bus_unmap(h->cfg.ports, PCI_CONFIG_PORT);
    bus_unmap(h->cfg.mmio, PCI_ECAM_GPA);
    pthread_mutex_destroy(&h->intx_lock);
    pthread_mutex_destroy(&h->lock);
}
