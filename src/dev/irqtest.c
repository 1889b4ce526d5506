#include "dev/irqtest.h"

enum { REG_ADDR_LO = 0, REG_ADDR_HI = 4, REG_DATA = 8, REG_REQUESTER = 12 };

static uint64_t irqtest_read(void *dev, uint64_t off, unsigned size)
{
    struct irqtest *t = dev;
    pthread_mutex_lock(&t->lock);
    uint32_t val = off == REG_ADDR_LO ? t->addr_lo : off == REG_ADDR_HI ? t->addr_hi : t->taken;
    pthread_mutex_unlock(&t->lock);
    return val;
}

static void irqtest_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct irqtest *t = dev;
    if (size != 4)
        return;
    pthread_mutex_lock(&t->lock);
    if (off == REG_ADDR_LO)
        t->addr_lo = (uint32_t)val;
    else if (off == REG_ADDR_HI)
        t->addr_hi = (uint32_t)val;
    else if (off == REG_REQUESTER)
        t->requester = (uint32_t)val;
    struct msi_msg msg = {.addr = (uint64_t)t->addr_hi << 32 | t->addr_lo, .data = (uint32_t)val};
    requester_id_t from = REQUESTER_ID(t->requester);
    pthread_mutex_unlock(&t->lock);
    if (off != REG_DATA)
        return;
    int taken = remap_deliver_msi(t->cfg.remap, t->cfg.port, msg, from);
    pthread_mutex_lock(&t->lock);
    t->taken = (uint32_t)taken;
    pthread_mutex_unlock(&t->lock);
}

static const struct bus_ops irqtest_ops = {.read = irqtest_read, .write = irqtest_write};

int irqtest_init(struct irqtest *t, const struct irqtest_config *c, struct err *e)
{
    struct bus_region region = {
        .base = IRQTEST_PORT, .len = IRQTEST_LEN, .ops = &irqtest_ops, .dev = t, .name = "irq-test"};
    *t = (struct irqtest){.cfg = *c};
    pthread_mutex_init(&t->lock, NULL);
    int rc = bus_map(c->ports, &region, e);
    if (rc)
        pthread_mutex_destroy(&t->lock);
    return rc;
}

void irqtest_fini(struct irqtest *t)
{
    bus_unmap(t->cfg.ports, IRQTEST_PORT);
    pthread_mutex_destroy(&t->lock);
}

void irqtest_reset(struct irqtest *t)
{
    t->addr_lo = t->addr_hi = t->requester = t->taken = 0;
}
