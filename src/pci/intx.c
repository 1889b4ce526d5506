/* INTx: virtual wires that functions share. PCI Express Base 5.0, 2.2.8.1 "INTx Interrupt Signaling". */
#include "pci/pci_priv.h"

unsigned pci_intx_gsi(unsigned dev, unsigned pin)
{
    return PCI_INTX_GSI + (dev + pin - 1) % PCI_INTX_GSIS;
}

static bool driven(const struct pci_func *f)
{
    return atomic_load_explicit(&f->intx, memory_order_acquire) &&
           !(atomic_load_explicit(&f->command, memory_order_acquire) & PCI_CMD_INTX_OFF) && !pci_msi_on(f) &&
           !pci_msix_on(f);
}

static void line_set(const struct irq_line *l, unsigned gsi, bool level)
{
    const struct irq_line line = {l->set, l->opaque, gsi};
    irq_line_set(&line, level);
}

/* Count one more or one less; true: the wire's level has changed. */
static bool count(unsigned *n, bool level)
{
    if (level)
        return (*n)++ == 0;
    return --*n == 0;
}

/* The line is told under the lock: levels arrive in the order they were made. */
void pci_intx_update(struct pci_func *f)
{
    struct pci_host *h = f->host;
    if (!f->gsi)
        return;
    pthread_mutex_lock(&h->intx_lock);
    bool level = driven(f);
    if (level != f->intx_told) {
        f->intx_told = level;
        if (count(&h->intx_count[f->gsi - PCI_INTX_GSI], level)) {
            line_set(&h->cfg.intx, f->gsi, level);
            unsigned irq = PCI_PIC_IRQ(f->gsi);
            if (count(&h->pic_count[irq & 1], level))
                line_set(&h->cfg.pic, irq, level);
        }
    }
    pthread_mutex_unlock(&h->intx_lock);
}

void pci_intx_set(struct pci_func *f, bool level)
{
    if (atomic_exchange_explicit(&f->intx, level, memory_order_acq_rel) != level)
        pci_intx_update(f);
}
