#include "pci/dma.h"

#include "irq/amdvi.h"
#include "irq/vtd.h"
#include "pci/pci_priv.h"

#define INT_FIRST UINT64_C(0xfee00000) /* no piece of memory reaches over the interrupt addresses */

/* ---- where it goes ---- */

static bool by_vtd(struct vtd *v, struct pci_func *f, uint64_t addr, bool write, gpa_t *gpa, uint64_t *len)
{
    struct vtd_page page;
    if (!vtd_translate(v, pci_func_requester(f), addr, write, &page))
        return false;
    *gpa = page.gpa;
    *len = page.len;
    return true;
}

static bool translate(struct pci_func *f, uint64_t addr, bool write, gpa_t *gpa, uint64_t *len)
{
    const struct remap *r = f->host->cfg.remap;
    if (r->vtd)
        return by_vtd(r->vtd, f, addr, write, gpa, len);
    if (r->amdvi)
        return amdvi_dma(r->amdvi, pci_func_requester(f), addr, write, gpa, len) == AMDVI_DMA_OK;
    *gpa = addr;
    *len = UINT64_MAX - addr;
    return true;
}

/* Bytes of RAM from `gpa` on that are contiguous in the host; 0: there is none. */
static uint64_t ram_room(const struct ram *r, gpa_t gpa)
{
    if (gpa < r->low_size)
        return r->low_size - gpa;
    gpa -= RAM_HIGH_GPA;
    return gpa < r->high_size ? r->high_size - gpa : 0;
}

/* Where Windows' form of messages is offered, addresses above 4 GiB are messages too, but not where there is RAM. */
static bool is_message(const struct pci_host_config *c, uint64_t addr)
{
    return unlikely(remap_claims(c->remap, addr)) && !(addr >> 32 && ram_room(c->ram, addr));
}

void *pci_dma_map(struct pci_func *f, uint64_t addr, uint64_t *len, bool write)
{
    const struct ram *ram = f->host->cfg.ram;
    gpa_t gpa;
    uint64_t room;
    if (!pci_func_masters(f) || (write && is_message(&f->host->cfg, addr)) || !translate(f, addr, write, &gpa, &room))
        return NULL;
    if (addr < INT_FIRST)
        room = min_u64(room, INT_FIRST - addr);
    *len = min_u64(*len, min_u64(room, ram_room(ram, gpa)));
    return *len ? ram_hva(ram, gpa, 1) : NULL;
}

void pci_dma_stored(struct pci_func *f, const void *hva, uint64_t len)
{
    const struct ram *ram = f->host->cfg.ram;
    ram_written(ram, ram_gpa(ram, hva), len);
}

/* ---- bytes ---- */

/* Words that rings are made of move whole: one load, one store. The guest races with all of it, and may. */
#if defined(__SANITIZE_THREAD__)
#define RACY __attribute__((no_sanitize("thread"), noinline))
#else
#define RACY
#endif

RACY static void copy(void *to, const void *from, uint64_t len)
{
    uint64_t v8;
    uint32_t v4;
    uint16_t v2;
    switch (len) {
    case 8:
        memcpy(&v8, from, 8);
        memcpy(to, &v8, 8);
        break;
    case 4:
        memcpy(&v4, from, 4);
        memcpy(to, &v4, 4);
        break;
    case 2:
        memcpy(&v2, from, 2);
        memcpy(to, &v2, 2);
        break;
    default:
        memcpy(to, from, len);
    }
}

bool pci_dma_read(struct pci_func *f, uint64_t addr, void *buf, uint64_t len)
{
    for (uint8_t *at = buf; len;) {
        uint64_t n = len;
        const void *p = pci_dma_map(f, addr, &n, false);
        if (!p)
            return false;
        copy(at, p, n);
        at += n;
        addr += n;
        len -= n;
    }
    return true;
}

/* An interrupt request is one aligned dword; what else is written there goes nowhere. VT-d, "Interrupt Requests". */
static bool message(struct pci_func *f, uint64_t addr, const void *buf, uint64_t len)
{
    if (len != 4 || addr & 3 || !pci_func_masters(f))
        return false;
    pci_send(f, (struct msi_msg){addr, ld32(buf)});
    return true;
}

bool pci_dma_write(struct pci_func *f, uint64_t addr, const void *buf, uint64_t len)
{
    if (is_message(&f->host->cfg, addr))
        return message(f, addr, buf, len);
    for (const uint8_t *at = buf; len;) {
        uint64_t n = len;
        void *p = pci_dma_map(f, addr, &n, true);
        if (!p)
            return false;
        copy(p, at, n);
        pci_dma_stored(f, p, n);
        at += n;
        addr += n;
        len -= n;
    }
    return true;
}

bool pci_dma_iov(struct pci_func *f, uint64_t addr, uint64_t len, bool write, struct iovec *iov, unsigned *n,
                 unsigned max)
{
    for (unsigned first = *n; len;) {
        uint64_t piece = len;
        void *p = pci_dma_map(f, addr, &piece, write);
        if (!p)
            return false;
        struct iovec *last = *n > first ? &iov[*n - 1] : NULL;
        if (last && (uint8_t *)last->iov_base + last->iov_len == p)
            last->iov_len += piece;
        else if (*n == max)
            return false;
        else
            iov[(*n)++] = (struct iovec){p, piece};
        addr += piece;
        len -= piece;
    }
    return true;
}

/* ---- messages ---- */

void pci_send(struct pci_func *f, struct msi_msg msg)
{
    const struct pci_host_config *c = &f->host->cfg;
    if (!pci_func_masters(f))
        return;
    if (likely(remap_claims(c->remap, msg.addr)))
        remap_deliver_msi(c->remap, c->port, msg, pci_func_requester(f));
    else
        pci_dma_write(f, msg.addr, &msg.data, sizeof msg.data);
}
