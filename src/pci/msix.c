/* MSI-X. PCI Express Base 5.0, 7.7.2 "MSI-X Capability and Table Structure". The protocol between senders and the guest
 * is msi.c's, with a busy count a vector. */
#include "pci/pci_priv.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define CTL_ENABLE 0x8000u
#define CTL_MASK   0x4000u
#define VEC_MASK   1u

enum { MSIX_CTL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_LEN = 12 };
enum { VEC_SIZE = 16 }; /* address, data, control */

struct msix_vector {
    _Atomic uint32_t word[4]; /* (a) as in the table: address low, high, data, control */
    _Atomic uint32_t busy;    /* (a) senders between looking at the masks and having sent */
};

struct pci_msix {
    uint8_t cap, bar;     /* (c) */
    unsigned n;           /* (c) */
    uint32_t table, pba;  /* (c) */
    _Atomic uint16_t ctl; /* (a) */
    _Atomic uint64_t pending[PCI_MSIX_MAX / 64];
    struct msix_vector v[];
};

/* ---- describing ---- */

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    uint64_t val = 0;
    pci_msix_bar_read(dev, off, size, &val);
    return val;
}

static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    pci_msix_bar_write(dev, off, size, val);
}

static const struct bus_ops msix_bar_ops = {bar_read, bar_write};

static uint32_t pba_len(unsigned vectors)
{
    return (vectors + 63) / 64 * 8;
}

static void give_bar(struct pci_func *f, unsigned index, uint64_t len)
{
    struct pci_bar bar = {.kind = PCI_BAR_MEM32, .size = 4096, .ops = &msix_bar_ops, .dev = f, .name = "MSI-X table"};
    while (bar.size < len)
        bar.size *= 2;
    pci_func_bar(f, index, &bar);
}

static void describe(struct pci_func *f, const struct pci_msix *m)
{
    unsigned at = m->cap;
    st16(f->config + at + MSIX_CTL, (uint16_t)(m->n - 1));
    st16(f->wmask + at + MSIX_CTL, CTL_ENABLE | CTL_MASK);
    st32(f->config + at + MSIX_TABLE, m->table | m->bar);
    st32(f->config + at + MSIX_PBA, m->pba | m->bar);
}

static void clear(struct pci_msix *m)
{
    for (unsigned v = 0; v < m->n; v++)
        for (unsigned i = 0; i < 4; i++)
            atomic_store(&m->v[v].word[i], i == 3 ? VEC_MASK : 0);
    for (unsigned i = 0; i < ARRAY_SIZE(m->pending); i++)
        atomic_store(&m->pending[i], 0);
}

int pci_func_add_msix(struct pci_func *f, unsigned vectors, unsigned bar, uint32_t table, uint32_t pba, struct err *e)
{
    uint64_t end = max_u64((uint64_t)table + vectors * VEC_SIZE, (uint64_t)pba + pba_len(vectors));
    assert(vectors && vectors <= PCI_MSIX_MAX && bar < PCI_BARS && !(table & 7) && !(pba & 7));
    assert((uint64_t)table + vectors * VEC_SIZE <= pba || (uint64_t)pba + pba_len(vectors) <= table);
    struct pci_msix *m = calloc(1, sizeof *m + vectors * sizeof m->v[0]);
    if (!m)
        return err_set(e, -ENOMEM, "out of memory for the interrupts of %s", f->name ? f->name : "a PCI function");
    if (f->bar[bar].kind == PCI_BAR_NONE)
        give_bar(f, bar, end);
    assert(f->bar[bar].size >= end);
    m->cap = (uint8_t)pci_func_add_cap(f, PCI_CAP_MSIX, MSIX_LEN);
    m->bar = (uint8_t)bar;
    m->n = vectors;
    m->table = table;
    m->pba = pba;
    clear(m);
    describe(f, m);
    f->msix = m;
    return 0;
}

/* ---- sending ---- */

bool pci_msix_on(const struct pci_func *f)
{
    return f->msix && atomic_load_explicit(&f->msix->ctl, memory_order_acquire) & CTL_ENABLE;
}

static bool open(struct pci_msix *m, unsigned v)
{
    return (atomic_load(&m->ctl) & (CTL_ENABLE | CTL_MASK)) == CTL_ENABLE &&
           !(atomic_load(&m->v[v].word[3]) & VEC_MASK);
}

static void send(struct pci_func *f, const struct msix_vector *v)
{
    uint32_t low = atomic_load_explicit(&v->word[0], memory_order_relaxed);
    uint32_t high = atomic_load_explicit(&v->word[1], memory_order_relaxed);
    uint32_t data = atomic_load_explicit(&v->word[2], memory_order_relaxed);
    pci_send(f, (struct msi_msg){(uint64_t)high << 32 | low, data});
}

static void send_pending(struct pci_func *f, unsigned v)
{
    struct pci_msix *m = f->msix;
    uint64_t bit = BIT(v % 64);
    if (!(atomic_load(&m->pending[v / 64]) & bit))
        return;
    atomic_fetch_add(&m->v[v].busy, 1);
    if (open(m, v) && atomic_fetch_and(&m->pending[v / 64], ~bit) & bit)
        send(f, &m->v[v]);
    atomic_fetch_sub(&m->v[v].busy, 1);
}

void msix_fire(struct pci_func *f, unsigned v)
{
    struct pci_msix *m = f->msix;
    if (!pci_msix_on(f) || v >= m->n)
        return;
    atomic_fetch_add(&m->v[v].busy, 1);
    bool may = open(m, v);
    if (may)
        send(f, &m->v[v]);
    atomic_fetch_sub(&m->v[v].busy, 1);
    if (may || !pci_msix_on(f))
        return;
    atomic_fetch_or(&m->pending[v / 64], BIT(v % 64));
    send_pending(f, v);
}

void pci_msix_flush(struct pci_func *f)
{
    struct pci_msix *m = f->msix;
    for (unsigned i = 0; m && i < (m->n + 63) / 64; i++)
        for (uint64_t left = atomic_load(&m->pending[i]); left; left &= left - 1)
            send_pending(f, i * 64 + (unsigned)__builtin_ctzll(left));
}

/* ---- configuration space ---- */

static void wait_idle(struct msix_vector *v)
{
    while (atomic_load(&v->busy))
        sched_yield();
}

static void publish(struct pci_func *f)
{
    struct pci_msix *m = f->msix;
    uint16_t ctl = ld16(f->config + m->cap + MSIX_CTL);
    bool closes = (atomic_exchange(&m->ctl, ctl) & (CTL_ENABLE | CTL_MASK)) == CTL_ENABLE &&
                  (ctl & (CTL_ENABLE | CTL_MASK)) != CTL_ENABLE;
    for (unsigned v = 0; closes && v < m->n; v++)
        wait_idle(&m->v[v]);
}

bool pci_msix_written(struct pci_func *f, unsigned off, unsigned size)
{
    if (!f->msix || !touches(off, size, f->msix->cap + MSIX_CTL, 2))
        return false;
    publish(f);
    pci_intx_update(f);
    return true;
}

void pci_msix_reset(struct pci_func *f)
{
    if (!f->msix)
        return;
    publish(f);
    clear(f->msix);
}

/* ---- the table ---- */

static void write_word(struct pci_func *f, unsigned v, unsigned word, uint32_t val, uint32_t mask)
{
    struct msix_vector *x = &f->msix->v[v];
    uint32_t old = atomic_load(&x->word[word]), rsvd = word == 0 ? 3 : word == 3 ? ~VEC_MASK : 0;
    atomic_store(&x->word[word], ((old & ~mask) | (val & mask)) & ~rsvd);
    if (word != 3)
        return;
    if (atomic_load(&x->word[3]) & VEC_MASK)
        wait_idle(x);
    else
        send_pending(f, v);
}

/* Bytes of the table, `size` of them within one quadword. */
static uint64_t table_read(const struct pci_msix *m, uint64_t off, unsigned size)
{
    const struct msix_vector *v = &m->v[off / VEC_SIZE];
    unsigned word = off / 8 % 2 * 2;
    uint64_t quad = atomic_load(&v->word[word]) | (uint64_t)atomic_load(&v->word[word + 1]) << 32;
    return quad >> (off % 8 * 8) & size_mask(size);
}

static void table_write(struct pci_func *f, uint64_t off, unsigned size, uint64_t val)
{
    unsigned v = (unsigned)(off / VEC_SIZE), word = off / 8 % 2 * 2, shift = off % 8 * 8;
    uint64_t mask = size_mask(size) << shift;
    val <<= shift;
    if ((uint32_t)mask)
        write_word(f, v, word, (uint32_t)val, (uint32_t)mask);
    if (mask >> 32)
        write_word(f, v, word + 1, (uint32_t)(val >> 32), (uint32_t)(mask >> 32));
}

enum where { ELSEWHERE, IN_TABLE, IN_PBA };

static enum where where(const struct pci_msix *m, uint64_t off)
{
    if (off >= m->table && off - m->table < (uint64_t)m->n * VEC_SIZE)
        return IN_TABLE;
    return off >= m->pba && off - m->pba < pba_len(m->n) ? IN_PBA : ELSEWHERE;
}

static uint64_t split_read(struct pci_func *f, uint64_t off, unsigned size)
{
    uint64_t val = 0, byte;
    for (unsigned i = 0; i < size; i++) {
        byte = 0;
        pci_msix_bar_read(f, off + i, 1, &byte);
        val |= byte << (8 * i);
    }
    return val;
}

bool pci_msix_bar_read(struct pci_func *f, uint64_t off, unsigned size, uint64_t *val)
{
    const struct pci_msix *m = f->msix;
    enum where w = where(m, off);
    if (w == ELSEWHERE)
        return false;
    if (off % 8 + size > 8)
        *val = split_read(f, off, size);
    else if (w == IN_TABLE)
        *val = table_read(m, off - m->table, size);
    else
        *val = atomic_load(&m->pending[(off - m->pba) / 8]) >> (off % 8 * 8) & size_mask(size);
    return true;
}

bool pci_msix_bar_write(struct pci_func *f, uint64_t off, unsigned size, uint64_t val)
{
    const struct pci_msix *m = f->msix;
    enum where w = where(m, off);
    if (w == ELSEWHERE)
        return false;
    if (off % 8 + size > 8)
        for (unsigned i = 0; i < size; i++)
            pci_msix_bar_write(f, off + i, 1, val >> (8 * i) & 0xff);
    else if (w == IN_TABLE)
        table_write(f, off - m->table, size, val);
    return true;
}
