#include "irq/ioapic.h"

#include "irq/way.h"

#include "base/bits.h"
#include "x86/apic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* `lock` is held while a message is delivered: delivery never comes back here (an APIC takes an interrupt without
 * calling anybody but the kick hook). */
struct ioapic {
    struct ioapic_config cfg; /* (c) */
    pthread_mutex_t lock;
    uint32_t id;               /* (l) register 0 */
    uint8_t select;            /* (l) */
    uint32_t asserted;         /* (l) pins their sources assert */
    uint64_t rte[IOAPIC_PINS]; /* (l) */
};

#define RTE_WRITABLE_LOW                                                                                               \
    (RTE_VECTOR | UINT64_C(7) << RTE_MODE_SHIFT | RTE_LOGICAL | RTE_LOW_ACTIVE | RTE_LEVEL | RTE_MASKED)
#define RTE_DEST8 (UINT64_C(0xff) << 56)
#define RTE_EXT   (UINT64_C(0xff) << 48) /* 55:49 the extended destination, 48 the format */

static uint64_t rte_writable(const struct ioapic *io)
{
    return RTE_WRITABLE_LOW | RTE_DEST8 | (io->cfg.ext_dest_id ? RTE_EXT : 0);
}

/* Only fixed and lowest-priority interrupts can be level-triggered. */
static bool rte_is_level(uint64_t rte)
{
    return rte & RTE_LEVEL && bits(rte, 10, 8) <= IRQ_LOWEST;
}

/* The port may have to know a level-triggered interrupt before it comes, as it is now: what the entry says of a
 * remapping table may have changed behind it. */
static void announce(struct ioapic *io, unsigned pin, const struct irq *irq)
{
    if (io->cfg.port.pin)
        io->cfg.port.pin(io->cfg.port.opaque, pin, irq);
}

static bool send(struct ioapic *io, unsigned pin)
{
    struct remap_result res = remap_rte(io->cfg.remap, io->rte[pin], io->cfg.requester, REMAP_DELIVER);
    res.irq.way = way_from_pin(io->cfg.trace, pin, io->rte[pin]);
    way_route(io->cfg.trace, res.irq.way, remap_rte_msg(io->rte[pin]), &res);
    if (res.fault == REMAP_OK && rte_is_level(io->rte[pin]))
        announce(io, pin, &res.irq);
    int taken = res.fault == REMAP_OK ? io->cfg.port.deliver(io->cfg.port.opaque, res.irq) : 0;
    way_end(io->cfg.trace, res.irq.way, taken);
    return taken > 0;
}

/* Send a level pin's request if one is due. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t *rte = &io->rte[pin];
    if (!rte_is_level(*rte) || *rte & (RTE_MASKED | RTE_REMOTE_IRR) || !(io->asserted >> pin & 1))
        return;
    if (send(io, pin))
        *rte |= RTE_REMOTE_IRR;
}

void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level)
{
    if (pin >= IOAPIC_PINS)
        return;
    pthread_mutex_lock(&io->lock);
    bool was = io->asserted >> pin & 1;
    io->asserted = (io->asserted & ~(1u << pin)) | (uint32_t)level << pin;
    if (rte_is_level(io->rte[pin]))
        service_level(io, pin);
    else if (level && !was && !(io->rte[pin] & RTE_MASKED))
        send(io, pin);
    pthread_mutex_unlock(&io->lock);
}

void ioapic_eoi(void *opaque, uint8_t vector)
{
    struct ioapic *io = opaque;
    pthread_mutex_lock(&io->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *rte = &io->rte[pin];
        if (!(*rte & RTE_REMOTE_IRR) || (*rte & RTE_VECTOR) != vector)
            continue;
        *rte &= ~RTE_REMOTE_IRR;
        service_level(io, pin);
    }
    pthread_mutex_unlock(&io->lock);
}

/* ---- registers ---- */

/* An entry turned to edge forgets its remote IRR: that is how guests end a level interrupt where there is no EOI
 * register. */
static void write_rte(struct ioapic *io, unsigned pin, bool high, uint32_t val)
{
    uint64_t *rte = &io->rte[pin];
    uint64_t half = high ? UINT64_C(0xffffffff) << 32 : UINT64_C(0xffffffff);
    uint64_t mask = rte_writable(io) & half;
    *rte = (*rte & ~mask) | (((uint64_t)val << (high ? 32 : 0)) & mask);
    if (!(*rte & RTE_LEVEL))
        *rte &= ~RTE_REMOTE_IRR;
    if (!rte_is_level(*rte))
        announce(io, pin, NULL);
    service_level(io, pin);
}

static uint32_t read_register(const struct ioapic *io)
{
    unsigned n = io->select - IOAPIC_REG_RTE;
    switch (io->select) {
    case IOAPIC_REG_ID:
    case IOAPIC_REG_ARB:
        return io->id;
    case IOAPIC_REG_VERSION:
        return (IOAPIC_PINS - 1) << 16 | 0x20;
    default:
        if (io->select < IOAPIC_REG_RTE || n >= IOAPIC_PINS * 2)
            return 0;
        return (uint32_t)(io->rte[n >> 1] >> (n & 1) * 32);
    }
}

static void write_register(struct ioapic *io, uint32_t val)
{
    unsigned n = io->select - IOAPIC_REG_RTE;
    if (io->select == IOAPIC_REG_ID)
        io->id = val & 0x0f000000u;
    else if (io->select >= IOAPIC_REG_RTE && n < IOAPIC_PINS * 2)
        write_rte(io, n >> 1, n & 1, val);
}

static uint64_t mmio_read(void *dev, uint64_t off, unsigned size)
{
    struct ioapic *io = dev;
    uint32_t val = 0;
    pthread_mutex_lock(&io->lock);
    if ((off & ~UINT64_C(3)) == IOAPIC_REGSEL)
        val = io->select;
    else if ((off & ~UINT64_C(3)) == IOAPIC_WINDOW)
        val = read_register(io);
    pthread_mutex_unlock(&io->lock);
    return val >> (off & 3) * 8 & size_mask(size);
}

/* Registers are 32 bits wide; narrower writes reach the selector and the EOI register only. */
static void mmio_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct ioapic *io = dev;
    if (off == IOAPIC_EOI) {
        ioapic_eoi(io, (uint8_t)val);
        return;
    }
    pthread_mutex_lock(&io->lock);
    if (off == IOAPIC_REGSEL)
        io->select = (uint8_t)val;
    else if (off == IOAPIC_WINDOW && size >= 4)
        write_register(io, (uint32_t)val);
    pthread_mutex_unlock(&io->lock);
}

const struct bus_ops ioapic_bus_ops = {.read = mmio_read, .write = mmio_write};

uint64_t ioapic_rte(struct ioapic *io, unsigned pin)
{
    if (pin >= IOAPIC_PINS)
        return 0;
    pthread_mutex_lock(&io->lock);
    uint64_t rte = io->rte[pin];
    pthread_mutex_unlock(&io->lock);
    return rte;
}

/* ---- lifecycle ---- */

int ioapic_create(const struct ioapic_config *c, struct ioapic **out, struct err *e)
{
    struct ioapic *io = calloc(1, sizeof *io);
    if (!io)
        return err_set(e, -ENOMEM, "no memory for an I/O APIC");
    io->cfg = *c;
    pthread_mutex_init(&io->lock, NULL);
    ioapic_reset(io);
    *out = io;
    return 0;
}

void ioapic_destroy(struct ioapic *io)
{
    if (!io)
        return;
    pthread_mutex_destroy(&io->lock);
    free(io);
}

void ioapic_reset(struct ioapic *io)
{
    pthread_mutex_lock(&io->lock);
    io->id = (uint32_t)(io->cfg.id & 0xf) << 24;
    io->select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        io->rte[pin] = RTE_MASKED;
        announce(io, pin, NULL);
    }
    pthread_mutex_unlock(&io->lock);
}
