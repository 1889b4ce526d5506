/* What a device is wired to, with nothing behind it: buses, virtual time, a timer queue, and a log of what came out. */
#ifndef HEC_TESTS_DEV_FIXTURE_H
#define HEC_TESTS_DEV_FIXTURE_H

#include "base/clock.h"
#include "base/timerq.h"
#include "dev/control.h"
#include "irq/irq_msg.h"
#include "mem/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct epoch epoch;
    struct bus ports, mmio;
    struct guest_clock clock;
    struct timerq timerq;
    struct irq_line line; /* GSI 4 */
    struct vm_control control;
    struct err err;
    _Atomic uint32_t level; /* by GSI */
    _Atomic unsigned rises[32];
    unsigned requests;
    enum vm_request last_request;
    int last_code;
};

static inline void fixture_set(void *opaque, unsigned gsi, bool level)
{
    struct fixture *f = opaque;
    uint32_t bit = 1u << gsi;
    if (level && !(f->level & bit))
        f->rises[gsi]++;
    if (level)
        f->level |= bit;
    else
        f->level &= ~bit;
}

static inline void fixture_request(void *opaque, enum vm_request req, int code)
{
    struct fixture *f = opaque;
    f->requests++;
    f->last_request = req;
    f->last_code = code;
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    epoch_init(&f->epoch);
    bus_init(&f->ports, "port", &f->epoch, NULL);
    bus_init(&f->mmio, "mmio", &f->epoch, NULL);
    assert_int_equal(timerq_init(&f->timerq, 8), 0);
    f->line = (struct irq_line){fixture_set, f, 4};
    f->control = (struct vm_control){fixture_request, f};
}

static inline void fixture_fini(struct fixture *f)
{
    timerq_fini(&f->timerq);
    bus_fini(&f->ports);
    bus_fini(&f->mmio);
    epoch_fini(&f->epoch);
}

/* Move guest time to `at`, running each timer at its own deadline on the way. */
static inline void fixture_run_to(struct fixture *f, uint64_t at)
{
    for (uint64_t next; (next = timerq_next(&f->timerq)) <= at;) {
        guest_clock_reach(&f->clock, next);
        timerq_run(&f->timerq, guest_clock_now(&f->clock));
    }
    guest_clock_reach(&f->clock, at);
}

static inline void fixture_pass(struct fixture *f, uint64_t ns)
{
    fixture_run_to(f, guest_clock_now(&f->clock) + ns);
}

static inline void outb(struct fixture *f, uint16_t port, unsigned val)
{
    bus_write(&f->ports, port, 1, val);
}

static inline unsigned inb(struct fixture *f, uint16_t port)
{
    return (unsigned)bus_read(&f->ports, port, 1);
}

static inline void outl(struct fixture *f, uint16_t port, uint32_t val)
{
    bus_write(&f->ports, port, 4, val);
}

static inline uint32_t inl(struct fixture *f, uint16_t port)
{
    return (uint32_t)bus_read(&f->ports, port, 4);
}

#endif
