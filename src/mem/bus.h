/* Dispatch of MMIO and port accesses to devices: an immutable sorted table, found without a lock.
 *
 * A machine has two: ports (0 .. FFFFh) and MMIO (gpa). Accesses arrive from many vCPU threads at once; a device guards
 * its own state. Reads nobody claims give all ones, writes vanish, as on a PC.
 */
#ifndef HEC_MEM_BUS_H
#define HEC_MEM_BUS_H

#include "base/epoch.h"
#include "base/err.h"
#include "base/trace.h"
#include "base/types.h"

struct bus_ops {
    /* `off` from the region's start; size 1, 2, 4 or 8; the access lies wholly inside the region. Any thread. */
    uint64_t (*read)(void *dev, uint64_t off, unsigned size);
    void (*write)(void *dev, uint64_t off, unsigned size, uint64_t val);
};

struct bus_region {
    uint64_t base, len;
    const struct bus_ops *ops; /* borrowed, static */
    void *dev;                 /* borrowed from the device's owner */
    const char *name;          /* borrowed, static */
};

struct bus_table;

struct bus {
    _Atomic(struct bus_table *) table; /* (a) replaced whole; readers are inside `epoch` */
    struct epoch *epoch;               /* (c) borrowed */
    pthread_mutex_t lock;              /* writers */
    const struct trace *trace;         /* (c) borrowed */
    const char *name;                  /* (c) "port" or "mmio", for messages */
};

/* ---- lifecycle ---- */
void bus_init(struct bus *b, const char *name, struct epoch *epoch, const struct trace *trace);
void bus_fini(struct bus *b);

/* ---- any thread ---- */
/* Add a region. -EEXIST if it overlaps one (both named in `e`), -ENOMEM. Safe while vCPUs run. */
int bus_map(struct bus *b, const struct bus_region *region, struct err *e);
/* Remove the region that starts at `base`; -ENOENT. An access under way may still finish on it. */
int bus_unmap(struct bus *b, uint64_t base);
/* The caller is inside the epoch (a vCPU thread is while it runs). An access that straddles a region's end is split
 * into bytes. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size);
void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t val);

#endif
