/* MSI. PCI Express Base 5.0, 7.7.1 "MSI Capability Structures".
 *
 * What a sender needs is beside configuration space, in atomics. Against masking: a sender counts itself as busy, then
 * looks whether it may send; the guest's write masks, then waits until nobody is busy. So once a mask, or the enable
 * bit, is written, no message of before is still on its way, and the guest may move the vector. Against unmasking: a
 * sender that may not send sets the pending bit, then looks again; the guest's write unmasks, then looks at the pending
 * bits. One of them sees the other, and who takes the bit sends.
 */
#include "pci/pci_priv.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define CTL_MME      0x0070u
#define CTL_MASKABLE 0x0100u

enum { MSI_MASK = 16, MSI_PENDING = 20, MSI_LEN = 24 };

struct pci_msi {
    uint8_t cap;                    /* (c) */
    uint8_t log2;                   /* (c) of the vectors it has */
    _Atomic uint16_t ctl;           /* (a) */
    _Atomic uint64_t addr;          /* (a) */
    _Atomic uint32_t data, mask;    /* (a) */
    _Atomic uint32_t pending, busy; /* (a) */
};

int pci_func_add_msi(struct pci_func *f, unsigned vectors, struct err *e)
{
    assert(vectors && vectors <= PCI_MSI_MAX && !(vectors & (vectors - 1)));
    struct pci_msi *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, -ENOMEM, "out of memory for the interrupts of %s", f->name ? f->name : "a PCI function");
    unsigned at = pci_func_add_cap(f, PCI_CAP_MSI, MSI_LEN);
    uint32_t all = (uint32_t)(BIT(vectors) - 1);
    m->cap = (uint8_t)at;
    m->log2 = (uint8_t)__builtin_ctz(vectors);
    st16(f->config + at + PCI_MSI_CTL, (uint16_t)(PCI_MSI_64BIT | CTL_MASKABLE | m->log2 << 1));
    st16(f->wmask + at + PCI_MSI_CTL, PCI_MSI_ENABLE | CTL_MME);
    st64(f->wmask + at + PCI_MSI_ADDR, ~UINT64_C(3));
    st16(f->wmask + at + PCI_MSI_DATA, 0xffff);
    st32(f->wmask + at + MSI_MASK, all);
    f->msi = m;
    return 0;
}

/* ---- sending ---- */

static unsigned enabled_log2(const struct pci_msi *m, uint16_t ctl)
{
    unsigned mme = (ctl & CTL_MME) >> 4;
    return mme < m->log2 ? mme : m->log2;
}

bool pci_msi_on(const struct pci_func *f)
{
    return f->msi && atomic_load_explicit(&f->msi->ctl, memory_order_acquire) & PCI_MSI_ENABLE;
}

unsigned pci_msi_vectors(const struct pci_func *f)
{
    return f->msi ? 1u << enabled_log2(f->msi, atomic_load_explicit(&f->msi->ctl, memory_order_acquire)) : 0;
}

static bool open(struct pci_msi *m, unsigned v)
{
    return atomic_load(&m->ctl) & PCI_MSI_ENABLE && !(atomic_load(&m->mask) & 1u << v);
}

static void send(struct pci_func *f, unsigned v)
{
    struct pci_msi *m = f->msi;
    uint32_t low = (1u << enabled_log2(m, atomic_load_explicit(&m->ctl, memory_order_relaxed))) - 1;
    uint32_t data = (atomic_load_explicit(&m->data, memory_order_relaxed) & ~low) | (v & low);
    pci_send(f, (struct msi_msg){atomic_load_explicit(&m->addr, memory_order_relaxed), data});
}

static void send_pending(struct pci_func *f, unsigned v)
{
    struct pci_msi *m = f->msi;
    uint32_t bit = 1u << v;
    if (!(atomic_load(&m->pending) & bit))
        return;
    atomic_fetch_add(&m->busy, 1);
    if (open(m, v) && atomic_fetch_and(&m->pending, ~bit) & bit)
        send(f, v);
    atomic_fetch_sub(&m->busy, 1);
}

void msi_fire(struct pci_func *f, unsigned v)
{
    struct pci_msi *m = f->msi;
    if (!pci_msi_on(f) || v >= pci_msi_vectors(f))
        return;
    atomic_fetch_add(&m->busy, 1);
    bool may = open(m, v);
    if (may)
        send(f, v);
    atomic_fetch_sub(&m->busy, 1);
    if (may || !pci_msi_on(f))
        return;
    atomic_fetch_or(&m->pending, 1u << v);
    send_pending(f, v);
}

void pci_msi_flush(struct pci_func *f)
{
    for (unsigned v = 0; f->msi && v < 1u << f->msi->log2; v++)
        send_pending(f, v);
}

/* ---- configuration space ---- */

/* A mask bit or the enable bit counts before anything else that the same write, or a reset, changes. */
static void publish(struct pci_func *f)
{
    struct pci_msi *m = f->msi;
    const uint8_t *c = f->config + m->cap;
    bool closes = (atomic_load(&m->ctl) & PCI_MSI_ENABLE && !(ld16(c + PCI_MSI_CTL) & PCI_MSI_ENABLE)) ||
                  ld32(c + MSI_MASK) & ~atomic_load(&m->mask);
    atomic_store(&m->ctl, ld16(c + PCI_MSI_CTL));
    atomic_store(&m->mask, ld32(c + MSI_MASK));
    while (closes && atomic_load(&m->busy))
        sched_yield();
    atomic_store(&m->addr, ld64(c + PCI_MSI_ADDR));
    atomic_store(&m->data, ld16(c + PCI_MSI_DATA));
}

bool pci_msi_written(struct pci_func *f, unsigned off, unsigned size)
{
    if (!f->msi || !touches(off, size, f->msi->cap, MSI_LEN))
        return false;
    publish(f);
    pci_intx_update(f);
    return true;
}

void pci_msi_read(struct pci_func *f)
{
    if (f->msi)
        st32(f->config + f->msi->cap + MSI_PENDING, atomic_load(&f->msi->pending));
}

void pci_msi_reset(struct pci_func *f)
{
    if (!f->msi)
        return;
    publish(f);
    atomic_store(&f->msi->pending, 0);
}
