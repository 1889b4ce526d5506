/* pc-testdev: what bare-metal test payloads poke at.
 *
 *   E0h-E3h          a latch of 4 bytes, accessed in any width
 *   E4h-E7h          "flush page": the gpa written should be forgotten by every cache of translations
 *   E8h-EBh          the same latch, a byte at a time
 *   2000h-2017h      the level of GSI 0-23
 *   FF000000h, 64 K  memory that is reached through the MMIO path only
 */
#ifndef HEC_DEV_TESTDEV_H
#define HEC_DEV_TESTDEV_H

#include "irq/irq_msg.h"
#include "mem/bus.h"

#define TESTDEV_MMIO      UINT64_C(0xff000000)
#define TESTDEV_MMIO_SIZE 0x10000u
#define TESTDEV_GSIS      24u

struct testdev_config { /* all borrowed for the device's life */
    struct bus *ports, *mmio;
    struct irq_line irq;                         /* its `gsi` is ignored: the port gives it */
    void (*flush_page)(void *opaque, gpa_t gpa); /* may be NULL: nothing is cached that a guest could notice */
    void *flush_opaque;
};

struct testdev {
    struct testdev_config cfg; /* (c) */
    pthread_mutex_t lock;
    uint8_t latch[4]; /* (l) */
    uint32_t levels;  /* (l) GSIs that are up */
    uint8_t *mem;     /* (c) TESTDEV_MMIO_SIZE bytes; contents (l) */
};

/* ---- lifecycle ---- */
int testdev_init(struct testdev *t, const struct testdev_config *c, struct err *e);
void testdev_fini(struct testdev *t);
void testdev_reset(struct testdev *t);

#endif
