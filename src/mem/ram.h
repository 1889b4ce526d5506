/* Guest RAM: gpa -> hva. Set up once, then read by every thread without a lock.
 *
 * The layout is q35's: RAM from 0 up to RAM_LOW_MAX, the rest from 4 GiB. Slots never move while a vCPU runs.
 */
#ifndef HEC_MEM_RAM_H
#define HEC_MEM_RAM_H

#include "base/bits.h"
#include "base/err.h"
#include "base/types.h"

#define RAM_LOW_MAX  UINT64_C(0x80000000)  /* the PCI hole starts here */
#define RAM_HIGH_GPA UINT64_C(0x100000000) /* RAM above the hole */
#define RAM_PAGE     UINT64_C(4096)

/* Who is told of stores that no vCPU made: an engine that keeps what it made of guest code. Any thread. */
struct ram_watch {
    void (*written)(void *opaque, gpa_t gpa, uint64_t len);
    void *opaque;
};

struct ram {
    uint8_t *low;           /* (c) hva of gpa 0 */
    uint64_t low_size;      /* (c) bytes below the hole, a multiple of 4 KiB */
    uint8_t *high;          /* (c) hva of gpa 4 GiB, or NULL */
    uint64_t high_size;     /* (c) bytes */
    struct ram_watch watch; /* (c) wired before anybody stores; `written` NULL: nobody */
};

/* ---- lifecycle ---- */
/* Reserve `size` bytes (a multiple of 4 KiB) of zeroed, lazily populated memory. -ENOMEM with the
 * remedy in `e`. The caller owns `r` and calls ram_fini(). */
int ram_init(struct ram *r, uint64_t size, struct err *e);
void ram_fini(struct ram *r);

/* ---- any thread ---- */
/* hva of `gpa`, or NULL if [gpa, gpa+len) is not wholly RAM of one slot. */
static inline uint8_t *ram_hva(const struct ram *r, gpa_t gpa, uint64_t len)
{
    if (likely(gpa < r->low_size))
        return len <= r->low_size - gpa ? r->low + gpa : NULL;
    gpa -= RAM_HIGH_GPA;
    if (gpa < r->high_size && len <= r->high_size - gpa)
        return r->high + gpa;
    return NULL;
}

/* A device, a loader or a remapping unit has stored to [gpa, gpa+len): call it after the bytes are there, before
 * anybody is told of them. */
static inline void ram_written(const struct ram *r, gpa_t gpa, uint64_t len)
{
    if (r->watch.written)
        r->watch.written(r->watch.opaque, gpa, len);
}

/* gpa of an hva that is inside the slots. */
static inline gpa_t ram_gpa(const struct ram *r, const void *hva)
{
    uint64_t off = (uint64_t)((const uint8_t *)hva - r->low);
    return off < r->low_size ? off : RAM_HIGH_GPA + (uint64_t)((const uint8_t *)hva - r->high);
}

/* Dense number of the RAM page holding `gpa` (0 .. ram_pages()-1), which must be RAM. */
static inline uint64_t ram_page_index(const struct ram *r, gpa_t gpa)
{
    return (gpa < r->low_size ? gpa : gpa - RAM_HIGH_GPA + r->low_size) / RAM_PAGE;
}

static inline uint64_t ram_pages(const struct ram *r)
{
    return (r->low_size + r->high_size) / RAM_PAGE;
}

#endif
