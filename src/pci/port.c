#include "pci/port.h"

#include "pci/pci_priv.h"

#define ID_VENDOR   0x1b36 /* as QEMU's pcie-root-port, whose place this takes in a guest */
#define ID_DEVICE   0x000c
#define CLASS_PORT  0x060400
#define CONTROL_W   0x005f /* parity, SERR#, ISA, VGA, VGA16, secondary bus reset */
#define CONTROL_SBR 0x40

/* PCI Express Base 5.0, 7.5.3 "PCI Express Capability Structure": what a root port has more. */
enum { EXP_FLAGS = 0x02, EXP_SLTCAP = 0x14, EXP_SLTSTA = 0x1a, EXP_RTCTL = 0x1c, EXP_RTSTA = 0x20 };
#define FLAGS_SLOT      0x0100u
#define SLTSTA_PRESENCE 0x0040u
#define EXT_ACS         0x0d
#define ACS_ALL         0x001f /* source validation, translation blocking, redirection, upstream forwarding */

static struct pci_port *port_of(struct pci_func *f)
{
    return container_of(f, struct pci_port, func);
}

/* ---- lock held ---- */

void pci_port_publish(struct pci_func *bridge)
{
    struct pci_bus *bus = &port_of(bridge)->bus;
    uint8_t first = bridge->config[BRIDGE_SECONDARY], last = bridge->config[BRIDGE_SUBORDINATE];
    bus->number = first <= last ? first : 0;
    for (unsigned i = 0; i < 8; i++)
        if (bus->funcs[i])
            pci_func_publish(bus->funcs[i]);
}

static void secondary_reset(struct pci_port *p)
{
    for (unsigned i = 0; i < 8; i++)
        if (p->bus.funcs[i])
            pci_func_reset_all(p->bus.funcs[i]);
    pci_bars_refresh(p->func.host);
}

static void port_written(struct pci_func *f, unsigned off, unsigned size)
{
    struct pci_port *p = port_of(f);
    if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, BRIDGE_PRIMARY, 0x34 - BRIDGE_PRIMARY)) {
        pci_port_publish(f);
        pci_bars_refresh(f->host);
    }
    bool reset = f->config[BRIDGE_CONTROL] & CONTROL_SBR;
    if (reset && !p->in_reset)
        secondary_reset(p);
    p->in_reset = reset;
}

static void port_read(struct pci_func *f, unsigned off, unsigned size)
{
    uint8_t *status = f->config + f->express + EXP_SLTSTA;
    st16(status, (uint16_t)((ld16(status) & ~SLTSTA_PRESENCE) | (port_of(f)->bus.funcs[0] ? SLTSTA_PRESENCE : 0)));
}

static const struct pci_func_ops port_ops = {.config_written = port_written, .config_read = port_read};

/* ---- lifecycle ---- */

static void describe_bridge(struct pci_func *f)
{
    f->config[PCI_HEADER] = HEADER_BRIDGE;
    memset(f->wmask + BRIDGE_PRIMARY, 0xff, 3);
    f->wmask[BRIDGE_IO_BASE] = f->wmask[BRIDGE_IO_LIMIT] = 0xf0;
    st16(f->wmask + BRIDGE_MEM_BASE, 0xfff0);
    st16(f->wmask + BRIDGE_MEM_LIMIT, 0xfff0);
    st16(f->config + BRIDGE_PREF_BASE, 1); /* 64-bit addresses */
    st16(f->config + BRIDGE_PREF_LIMIT, 1);
    st16(f->wmask + BRIDGE_PREF_BASE, 0xfff0);
    st16(f->wmask + BRIDGE_PREF_LIMIT, 0xfff0);
    st64(f->wmask + BRIDGE_PREF_BASE_HIGH, UINT64_MAX);
    st16(f->wmask + BRIDGE_CONTROL, CONTROL_W);
}

static void describe_slot(struct pci_func *f, uint8_t slot)
{
    unsigned at = pci_func_add_express(f, PCI_EXP_ROOT_PORT);
    st16(f->config + at + EXP_FLAGS, ld16(f->config + at + EXP_FLAGS) | FLAGS_SLOT);
    st32(f->config + at + EXP_SLTCAP, (uint32_t)slot << 19 | 1u << 18 /* no command completed interrupt */);
    st16(f->wmask + at + EXP_RTCTL, 0x000f);
    f->w1cmask[at + EXP_RTSTA + 2] = 1;
}

/* PCI Express Base 5.0, 7.7.8 "ACS Extended Capability": nothing here goes from one function to another, so all that
 * keeps functions apart is true whatever is switched on, and a guest may put each in a group of its own. */
static void describe_acs(struct pci_func *f)
{
    unsigned at = pci_func_add_ext_cap(f, EXT_ACS, 1, 8);
    st16(f->config + at + 4, ACS_ALL);
    st16(f->wmask + at + 6, ACS_ALL);
}

int pci_port_init(struct pci_port *p, struct pci_host *h, uint8_t devfn, const char *id, uint8_t slot, struct err *e)
{
    struct pci_func *f = &p->func;
    *p = (struct pci_port){.bus = {.parent = &h->root, .bridge = f, .id = id}};
    pci_func_setup(f, devfn, ID_VENDOR, ID_DEVICE, CLASS_PORT, 0);
    f->name = "root port";
    f->ops = &port_ops;
    describe_bridge(f);
    describe_slot(f, slot);
    describe_acs(f);
    pci_func_intx(f, 1);
    int rc = pci_func_add_msi(f, 1, e);
    if (!rc)
        rc = pci_host_add(h, NULL, f, e);
    if (rc)
        pci_func_fini(f);
    else
        pci_host_add_bus(h, &p->bus);
    return rc;
}

void pci_port_fini(struct pci_port *p)
{
    pci_func_fini(&p->func);
}
