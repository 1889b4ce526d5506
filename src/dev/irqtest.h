/* irq-test: sends any interrupt message on command, as any requester. For payloads that prove routes (hecaton census).
 *
 *   2100h  address, low half       2104h  address, high half
 *   2108h  data; writing it sends the message
 *   210Ch  requester id that the message comes from; reads give how many APICs took the last message
 *
 * The registers are one set for the whole machine; a payload that uses them from several CPUs takes turns.
 */
#ifndef HEC_DEV_IRQTEST_H
#define HEC_DEV_IRQTEST_H

#include "irq/remap.h"
#include "mem/bus.h"

#define IRQTEST_PORT 0x2100u
#define IRQTEST_LEN  16u

struct irqtest_config { /* all borrowed for the device's life */
    struct bus *ports;
    const struct remap *remap;
    struct irq_port port;
};

struct irqtest {
    struct irqtest_config cfg; /* (c) */
    pthread_mutex_t lock;
    uint32_t addr_lo, addr_hi, requester, taken; /* (l) */
};

/* ---- lifecycle ---- */
int irqtest_init(struct irqtest *t, const struct irqtest_config *c, struct err *e);
void irqtest_fini(struct irqtest *t);
void irqtest_reset(struct irqtest *t);

#endif
