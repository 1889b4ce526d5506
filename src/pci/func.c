#include "pci/pci_priv.h"

#include <assert.h>
#include <stdlib.h>

#define COMMAND_WRITABLE 0x0507 /* I/O, memory, master, SERR#, INTx disable */
#define FIRST_CAP        0x40
#define FIRST_EXT_CAP    0x100

/* PCI Express Base 5.0, 7.5.3 "PCI Express Capability Structure". */
enum {
    EXP_FLAGS = 0x02,
    EXP_DEVCAP = 0x04,
    EXP_DEVCTL = 0x08,
    EXP_DEVSTA = 0x0a,
    EXP_LNKCAP = 0x0c,
    EXP_LNKCTL = 0x10,
    EXP_LNKSTA = 0x12,
    EXP_DEVCAP2 = 0x24,
    EXP_DEVCTL2 = 0x28,
    EXP_LNKCAP2 = 0x2c,
    EXP_LNKCTL2 = 0x30,
    EXP_LEN = 0x3c
};
#define DEVCAP_ROLE_ERRORS 0x00008000u
#define DEVCAP_FLR         0x10000000u
#define DEVCTL_WRITABLE    0x7fff /* all but FLR */
#define LNK_SPEED_2_5      1u
#define LNK_WIDTH_1        (1u << 4)
#define LNKCTL_WRITABLE    0x01cb /* ASPM, RCB, common clock, extended synch, clock power management */

/* ---- describing ---- */

void pci_func_setup(struct pci_func *f, uint8_t devfn, uint16_t vendor, uint16_t device, uint32_t class_code,
                    uint8_t revision)
{
    *f = (struct pci_func){.devfn = devfn, .next_cap = FIRST_CAP, .next_ext_cap = FIRST_EXT_CAP};
    st16(f->config + PCI_VENDOR, vendor);
    st16(f->config + PCI_DEVICE, device);
    st32(f->config + PCI_REVISION, class_code << 8 | revision);
    st16(f->wmask + PCI_COMMAND, COMMAND_WRITABLE);
    f->wmask[0x0c] = 0xff; /* cache line size */
    f->wmask[PCI_INTLINE] = 0xff;
    atomic_init(&f->requester, devfn);
}

void pci_func_subsystem(struct pci_func *f, uint16_t vendor, uint16_t id)
{
    st16(f->config + PCI_SUBSYSTEM, vendor);
    st16(f->config + PCI_SUBSYSTEM + 2, id);
}

void pci_func_intx(struct pci_func *f, uint8_t pin)
{
    assert(pin >= 1 && pin <= 4);
    f->config[PCI_INTPIN] = pin;
}

/* PCI Local Bus 3.0, 6.2.5.1 "Address Maps": the type in the low bits; address bits below the size are zero. */
void pci_func_bar(struct pci_func *f, unsigned index, const struct pci_bar *bar)
{
    bool io = bar->kind == PCI_BAR_IO, wide = bar->kind == PCI_BAR_MEM64;
    uint8_t *reg = f->config + PCI_BAR0 + 4 * index, *wmask = f->wmask + PCI_BAR0 + 4 * index;
    assert(bar->size && !(bar->size & (bar->size - 1)) && bar->size >= (io ? 4 : 4096));
    assert(index + wide < PCI_BARS && bar->kind != PCI_BAR_NONE);
    f->bar[index] = *bar;
    f->bar[index].mapped = f->bar[index].refused = false;
    st32(reg, io ? 1 : (wide ? 4u : 0u) | (bar->prefetch ? 8u : 0u));
    st32(wmask, (uint32_t) ~(bar->size - 1));
    if (wide)
        st32(wmask + 4, (uint32_t)(~(bar->size - 1) >> 32));
}

/* Links are written as capabilities are added, so a list always ends in 0. */
unsigned pci_func_add_cap(struct pci_func *f, uint8_t id, unsigned len)
{
    unsigned at = f->next_cap;
    assert(at + len <= FIRST_EXT_CAP);
    f->config[at] = id;
    f->config[at + 1] = 0;
    if (f->last_cap)
        f->config[f->last_cap + 1] = (uint8_t)at;
    else
        f->config[PCI_CAPABILITIES] = (uint8_t)at;
    st16(f->config + PCI_STATUS, ld16(f->config + PCI_STATUS) | PCI_STS_CAPABILITIES);
    f->last_cap = (uint8_t)at;
    f->next_cap = (uint16_t)align_up(at + len, 4);
    return at;
}

/* PCI Express Base 5.0, 7.6.3 "PCI Express Extended Capability Header". */
unsigned pci_func_add_ext_cap(struct pci_func *f, uint16_t id, uint8_t version, unsigned len)
{
    unsigned at = f->next_ext_cap;
    assert(at + len <= PCI_CONFIG_SIZE);
    st32(f->config + at, id | (uint32_t)version << 16);
    if (f->last_ext_cap)
        st16(f->config + f->last_ext_cap + 2, (uint16_t)(ld16(f->config + f->last_ext_cap + 2) | at << 4));
    f->last_ext_cap = (uint16_t)at;
    f->next_ext_cap = (uint16_t)align_up(at + len, 4);
    return at;
}

/* A link of one lane at 2.5 GT/s, trained. An endpoint of the root complex has none. */
static void express_link(struct pci_func *f, unsigned at)
{
    st32(f->config + at + EXP_LNKCAP, LNK_SPEED_2_5 | LNK_WIDTH_1 | 1u << 22 /* ASPM optionality compliance */);
    st16(f->config + at + EXP_LNKSTA, LNK_SPEED_2_5 | LNK_WIDTH_1);
    st16(f->wmask + at + EXP_LNKCTL, LNKCTL_WRITABLE);
    st32(f->config + at + EXP_LNKCAP2, 1u << 1); /* 2.5 GT/s is supported */
    st16(f->config + at + EXP_LNKCTL2, LNK_SPEED_2_5);
    st16(f->wmask + at + EXP_LNKCTL2, 0x0f);
}

unsigned pci_func_add_express(struct pci_func *f, enum pci_express_type type)
{
    unsigned at = pci_func_add_cap(f, PCI_CAP_EXPRESS, EXP_LEN);
    bool flr = type != PCI_EXP_ROOT_PORT && f->ops && f->ops->reset;
    f->express = (uint8_t)at;
    st16(f->config + at + EXP_FLAGS, (uint16_t)(2 | type << 4));
    st32(f->config + at + EXP_DEVCAP, DEVCAP_ROLE_ERRORS | (flr ? DEVCAP_FLR : 0));
    st16(f->wmask + at + EXP_DEVCTL, DEVCTL_WRITABLE);
    f->w1cmask[at + EXP_DEVSTA] = 0x0f;
    st16(f->wmask + at + EXP_DEVCTL2, 0x001f); /* completion time-out */
    if (type != PCI_EXP_ROOT_ENDPOINT)
        express_link(f, at);
    return at;
}

void pci_func_fini(struct pci_func *f)
{
    free(f->msi);
    free(f->msix);
    f->msi = NULL;
    f->msix = NULL;
}

/* ---- state beside configuration space ---- */

void pci_func_publish(struct pci_func *f)
{
    uint16_t command = ld16(f->config + PCI_COMMAND);
    const struct pci_func *bridge = f->bus ? f->bus->bridge : NULL;
    bool passes = !bridge || ld16(bridge->config + PCI_COMMAND) & PCI_CMD_MASTER;
    atomic_store_explicit(&f->command, command, memory_order_release);
    atomic_store_explicit(&f->masters, command & PCI_CMD_MASTER && passes, memory_order_release);
    atomic_store_explicit(&f->requester, (uint16_t)((f->bus ? f->bus->number : 0) << 8 | f->devfn),
                          memory_order_release);
    if (f->host)
        pci_intx_update(f);
}

void pci_func_reset_config(struct pci_func *f)
{
    memcpy(f->config, f->reset, sizeof f->config);
    pci_msi_reset(f);
    pci_msix_reset(f);
    atomic_store_explicit(&f->intx, false, memory_order_release);
    pci_func_publish(f);
    if (is_bridge(f))
        pci_port_publish(f);
}

void pci_func_reset_all(struct pci_func *f)
{
    pci_func_reset_config(f);
    if (f->ops && f->ops->reset)
        f->ops->reset(f);
}
