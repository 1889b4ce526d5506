#include "dev/testdev.h"

#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>

/* What has been written stays there to be read. */
static uint64_t stored(struct testdev *t, const uint8_t *at, unsigned size)
{
    uint64_t v = 0;
    pthread_mutex_lock(&t->lock);
    memcpy(&v, at, size);
    pthread_mutex_unlock(&t->lock);
    return v;
}

static void store(struct testdev *t, uint8_t *at, unsigned size, uint64_t val)
{
    pthread_mutex_lock(&t->lock);
    memcpy(at, &val, size);
    pthread_mutex_unlock(&t->lock);
}

static uint64_t latch_read(void *dev, uint64_t off, unsigned size)
{
    struct testdev *t = dev;
    return stored(t, t->latch + off, size);
}

static void latch_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct testdev *t = dev;
    store(t, t->latch + off, size, val);
}

static uint64_t flush_read(void *dev, uint64_t off, unsigned size)
{
    return 0;
}

static void flush_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    const struct testdev *t = dev;
    if (t->cfg.flush_page)
        t->cfg.flush_page(t->cfg.flush_opaque, val);
}

static uint64_t gsi_read(void *dev, uint64_t off, unsigned size)
{
    struct testdev *t = dev;
    pthread_mutex_lock(&t->lock);
    uint64_t v = t->levels >> off & 1;
    pthread_mutex_unlock(&t->lock);
    return v;
}

/* Lock held. The lock orders the levels two CPUs write to the same line. */
static void set_gsi(struct testdev *t, unsigned gsi, bool level)
{
    t->levels = (t->levels & ~(1u << gsi)) | (uint32_t)level << gsi;
    if (t->cfg.irq.set)
        t->cfg.irq.set(t->cfg.irq.opaque, gsi, level);
}

static void gsi_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct testdev *t = dev;
    pthread_mutex_lock(&t->lock);
    set_gsi(t, (unsigned)off, val != 0);
    pthread_mutex_unlock(&t->lock);
}

static uint64_t mem_read(void *dev, uint64_t off, unsigned size)
{
    struct testdev *t = dev;
    return stored(t, t->mem + off, size);
}

static void mem_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct testdev *t = dev;
    store(t, t->mem + off, size, val);
}

static const struct bus_ops latch_ops = {latch_read, latch_write};
static const struct bus_ops flush_ops = {flush_read, flush_write};
static const struct bus_ops gsi_ops = {gsi_read, gsi_write};
static const struct bus_ops mem_ops = {mem_read, mem_write};

static int map_all(struct testdev *t, struct err *e)
{
    const struct bus_region r[] = {
        {0xe0, 4, &latch_ops, t, "pc-testdev"},
        {0xe4, 4, &flush_ops, t, "pc-testdev flush"},
        {0xe8, 4, &latch_ops, t, "pc-testdev bytes"},
        {0x2000, TESTDEV_GSIS, &gsi_ops, t, "pc-testdev gsi"},
    };
    const struct bus_region mem = {TESTDEV_MMIO, TESTDEV_MMIO_SIZE, &mem_ops, t, "pc-testdev memory"};
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        int rc = bus_map(t->cfg.ports, &r[i], e);
        if (rc < 0)
            return rc;
    }
    return bus_map(t->cfg.mmio, &mem, e);
}

int testdev_init(struct testdev *t, const struct testdev_config *c, struct err *e)
{
    *t = (struct testdev){.cfg = *c, .mem = calloc(1, TESTDEV_MMIO_SIZE)};
    pthread_mutex_init(&t->lock, NULL);
    int rc = t->mem ? map_all(t, e) : err_set(e, -ENOMEM, "out of memory for pc-testdev");
    if (rc < 0)
        testdev_fini(t);
    return rc;
}

void testdev_fini(struct testdev *t)
{
    static const uint16_t bases[] = {0xe0, 0xe4, 0xe8, 0x2000};
    bus_unmap(t->cfg.mmio, TESTDEV_MMIO);
    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++)
        bus_unmap(t->cfg.ports, bases[i]);
    pthread_mutex_destroy(&t->lock);
    free(t->mem);
}

void testdev_reset(struct testdev *t)
{
    pthread_mutex_lock(&t->lock);
    memset(t->latch, 0, sizeof t->latch);
    memset(t->mem, 0, TESTDEV_MMIO_SIZE);
    for (unsigned i = 0; i < TESTDEV_GSIS; i++)
        if (t->levels & 1u << i)
            set_gsi(t, i, false);
    pthread_mutex_unlock(&t->lock);
}
