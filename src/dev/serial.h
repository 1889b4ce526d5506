/* A 16550A UART. PC16550D data sheet (Universal Asynchronous Receiver/Transmitter with FIFOs), sections 8 "Registers".
 *
 * The transmitter is as fast as the host takes bytes: a written byte goes to the chardev's ring at once, and THRE is
 * low only while that ring is full. Reception is never overrun by the host: it gives bytes only as the FIFO has room.
 */
#ifndef HEC_DEV_SERIAL_H
#define HEC_DEV_SERIAL_H

#include "base/clock.h"
#include "base/epoch.h"
#include "base/timerq.h"
#include "dev/chardev.h"
#include "irq/irq_msg.h"
#include "mem/bus.h"

#define SERIAL_COM1 0x3f8u
#define SERIAL_FIFO 16u

struct serial_config { /* all borrowed for the device's life */
    struct bus *ports;
    uint16_t base;         /* SERIAL_COM1 */
    struct irq_line irq;   /* must work from serial_init() on */
    struct chardev *chr;   /* NULL: output vanishes, no input */
    struct timerq *timerq; /* room for one timer */
    struct guest_clock *clock;
    struct epoch *epoch; /* the chardev's thread raises interrupts inside it; NULL: no need to */
    /* A vCPU waits while the host's reader is behind, rather than see THRE low: output never changes what the guest
     * does. For deterministic machines. */
    bool wait_when_full;
};

struct serial_fifo {
    uint8_t byte[SERIAL_FIFO];
    uint8_t at, n;
};

struct serial {
    struct serial_config cfg; /* (c) */
    int epoch_slot;           /* (c) of the chardev's thread */
    struct timer timeout;     /* receive FIFO: four character times without traffic */
    pthread_mutex_t lock;
    struct serial_fifo rx, tx;                              /* (l) */
    uint8_t ier, fcr, lcr, mcr, scr, msr_delta, lsr_errors; /* (l) lsr_errors: OE and BI until LSR is read */
    uint16_t divisor;                                       /* (l) */
    bool thri;                                              /* (l) THRE interrupt pending */
    bool timed_out;                                         /* (l) character timeout pending */
};

/* ---- lifecycle ---- */
int serial_init(struct serial *s, const struct serial_config *c, struct err *e);
/* chardev_destroy() comes first, so that nobody calls in any more. */
void serial_fini(struct serial *s);
void serial_reset(struct serial *s);

#endif
