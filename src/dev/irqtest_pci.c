#include "dev/irqtest_pci.h"

#include "base/bits.h"
#include "pci/dma.h"
#include "pci/msi.h"

#include <errno.h>
#include <stdlib.h>

#define CLASS_OTHER   0xff0000
#define BAR_REGISTERS 0
#define BAR_MSIX      1
#define COUNT_MOST    2048u
#define REGISTERS     (IRQTEST_PCI_DMA_GO / 4 + 1)

struct irqtest_pci {
    struct pci_func func;
    struct irqtest_pci_config cfg; /* (c) */
    pthread_mutex_t lock;
    uint32_t reg[REGISTERS];                /* (l) as written; FIRED and DMA_GO: as read */
    uint8_t buffer[IRQTEST_PCI_BUFFER_LEN]; /* (l) */
};

/* ---- commands ---- */

static uint32_t *reg(struct irqtest_pci *t, enum irqtest_pci_reg r)
{
    return &t->reg[r / 4];
}

static void fire_one(struct irqtest_pci *t, uint32_t kind, uint32_t vector)
{
    if (kind == IRQTEST_PCI_MSIX)
        msix_fire(&t->func, vector);
    else if (kind == IRQTEST_PCI_MSI)
        msi_fire(&t->func, vector);
    else if (kind == IRQTEST_PCI_INTX)
        pci_intx_set(&t->func, vector & 1);
}

/* Without the lock: what fires is the PCI room's business. */
static void fire(struct irqtest_pci *t, uint32_t vector)
{
    pthread_mutex_lock(&t->lock);
    uint32_t kind = *reg(t, IRQTEST_PCI_KIND), n = *reg(t, IRQTEST_PCI_COUNT), stride = *reg(t, IRQTEST_PCI_STRIDE);
    n = n && n <= COUNT_MOST ? n : 1;
    *reg(t, IRQTEST_PCI_FIRED) += n;
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < n; i++)
        fire_one(t, kind, vector + i * stride);
}

/* Lock held. */
static bool move(struct irqtest_pci *t, uint32_t direction)
{
    uint64_t at = *reg(t, IRQTEST_PCI_DMA_LOW) | (uint64_t)*reg(t, IRQTEST_PCI_DMA_HIGH) << 32;
    uint64_t len = min_u64(*reg(t, IRQTEST_PCI_DMA_LEN), sizeof t->buffer);
    if (direction == 1)
        return pci_dma_read(&t->func, at, t->buffer, len);
    return direction == 2 && pci_dma_write(&t->func, at, t->buffer, len);
}

/* ---- registers ---- */

static uint64_t buffer_read(struct irqtest_pci *t, uint64_t off, unsigned size)
{
    uint64_t v = 0;
    pthread_mutex_lock(&t->lock);
    memcpy(&v, t->buffer + off, size);
    pthread_mutex_unlock(&t->lock);
    return v;
}

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    struct irqtest_pci *t = dev;
    if (off >= IRQTEST_PCI_BUFFER)
        return buffer_read(t, off - IRQTEST_PCI_BUFFER, size);
    if (size != 4 || off & 3 || off > IRQTEST_PCI_DMA_GO)
        return 0;
    if (off == IRQTEST_PCI_IDENTITY)
        return IRQTEST_PCI_ID;
    if (off == IRQTEST_PCI_VECTORS)
        return t->cfg.msix | t->cfg.msi << 16;
    pthread_mutex_lock(&t->lock);
    uint32_t v = *reg(t, (enum irqtest_pci_reg)off);
    pthread_mutex_unlock(&t->lock);
    return v;
}

static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct irqtest_pci *t = dev;
    bool in_buffer = off >= IRQTEST_PCI_BUFFER;
    if (!in_buffer && (size != 4 || off & 3 || off > IRQTEST_PCI_DMA_GO || off == IRQTEST_PCI_FIRED))
        return;
    if (off == IRQTEST_PCI_COMMAND) {
        fire(t, (uint32_t)val);
        return;
    }
    pthread_mutex_lock(&t->lock);
    if (in_buffer)
        memcpy(t->buffer + (off - IRQTEST_PCI_BUFFER), &val, size);
    else if (off == IRQTEST_PCI_DMA_GO)
        *reg(t, IRQTEST_PCI_DMA_GO) = move(t, (uint32_t)val);
    else
        *reg(t, (enum irqtest_pci_reg)off) = (uint32_t)val;
    pthread_mutex_unlock(&t->lock);
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

/* ---- lifecycle ---- */

static void clear(struct irqtest_pci *t)
{
    pthread_mutex_lock(&t->lock);
    memset(t->reg, 0, sizeof t->reg);
    memset(t->buffer, 0, sizeof t->buffer);
    *reg(t, IRQTEST_PCI_COUNT) = 1;
    pthread_mutex_unlock(&t->lock);
}

/* Commands take the lock and the host's lock is held here: never the other way round, as nothing under the lock touches
 * configuration space. */
static void func_reset(struct pci_func *f)
{
    clear(f->dev);
}

static const struct pci_func_ops func_ops = {.reset = func_reset};

static int check(const struct irqtest_pci_config *c, struct err *e)
{
    if (c->msix > PCI_MSIX_MAX)
        return err_set(e, -EINVAL, "irq-test-pci has at most %u MSI-X vectors, not %u", PCI_MSIX_MAX, c->msix);
    if (c->msi > PCI_MSI_MAX || c->msi & (c->msi - 1))
        return err_set(e, -EINVAL, "irq-test-pci has 0, 1, 2, 4, 8, 16 or 32 MSI vectors, not %u", c->msi);
    return 0;
}

static int describe(struct irqtest_pci *t, struct err *e)
{
    struct pci_func *f = &t->func;
    const struct pci_bar registers = {
        .kind = PCI_BAR_MEM32, .size = 4096, .ops = &bar_ops, .dev = t, .name = "irq-test-pci"};
    uint32_t pba = (uint32_t)align_up(t->cfg.msix * 16, 4096);
    int rc = 0;
    pci_func_setup(f, t->cfg.devfn, IRQTEST_PCI_VENDOR, IRQTEST_PCI_DEVICE, CLASS_OTHER, 1);
    f->name = "irq-test-pci";
    f->ops = &func_ops;
    f->dev = t;
    pci_func_intx(f, 1);
    pci_func_bar(f, BAR_REGISTERS, &registers);
    pci_func_add_express(f, PCI_EXP_ENDPOINT);
    if (t->cfg.msi)
        rc = pci_func_add_msi(f, t->cfg.msi, e);
    if (!rc && t->cfg.msix)
        rc = pci_func_add_msix(f, t->cfg.msix, BAR_MSIX, 0, pba, e);
    return rc ? rc : pci_host_add(t->cfg.host, t->cfg.bus, f, e);
}

int irqtest_pci_create(const struct irqtest_pci_config *c, struct irqtest_pci **out, struct err *e)
{
    int rc = check(c, e);
    if (rc)
        return rc;
    struct irqtest_pci *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, -ENOMEM, "out of memory for irq-test-pci");
    t->cfg = *c;
    pthread_mutex_init(&t->lock, NULL);
    clear(t);
    rc = describe(t, e);
    if (rc)
        irqtest_pci_destroy(t);
    else
        *out = t;
    return rc;
}

void irqtest_pci_reset(struct irqtest_pci *t)
{
    clear(t);
}

void irqtest_pci_destroy(struct irqtest_pci *t)
{
    if (!t)
        return;
    pci_func_fini(&t->func);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

struct pci_func *irqtest_pci_func(struct irqtest_pci *t)
{
    return &t->func;
}
