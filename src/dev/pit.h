/* 8254 programmable interval timer at 40h-43h and system control port B at 61h. 82C54 data sheet, "Mode Definitions",
 * "Read Operations".
 *
 * Counters are functions of guest time, in ticks of 1193182 Hz since power-on; only counter 0, which drives IRQ 0, has
 * a timer, and only while an edge is to come. A counter the guest no longer looks at costs nothing.
 */
#ifndef HEC_DEV_PIT_H
#define HEC_DEV_PIT_H

#include "base/clock.h"
#include "base/timerq.h"
#include "irq/irq_msg.h"
#include "mem/bus.h"

#define PIT_HZ   1193182u
#define PIT_PORT 0x40u

struct pit_config { /* all borrowed for the device's life */
    struct bus *ports;
    struct irq_line irq;   /* IRQ 0 */
    struct timerq *timerq; /* room for one timer */
    struct guest_clock *clock;
    const struct trace *trace;
};

struct pit_counter {
    uint8_t mode, access, bcd; /* access: 1 low byte, 2 high byte, 3 both */
    bool gate;
    bool null_count;            /* a count has been written but not loaded: the counter stands */
    bool running;               /* counts: `start` is valid; else `held` ticks have been counted */
    bool triggered;             /* modes 1 and 5: a gate edge has started it */
    bool write_high, read_high; /* the next byte of a two-byte access is the high one */
    uint8_t write_low;
    uint8_t latched; /* bytes left of a latched count: 0, 1 or 2 */
    bool status_latched;
    uint8_t status;
    uint16_t latch;
    uint32_t count;      /* 1 .. 10000h (or 10000 in BCD) */
    uint32_t next_count; /* modes 2 and 3: takes over at the end of this period; 0: none */
    uint64_t start;      /* tick at which `count` was loaded */
    uint64_t held;
};

struct pit {
    struct pit_config cfg; /* (c) */
    struct timer timer;    /* counter 0's next edge */
    pthread_mutex_t lock;
    struct pit_counter ch[3]; /* (l) */
    uint8_t port61;           /* (l) bits 1:0 */
    uint64_t irq_tick;        /* (l) tick of the edge the timer waits for */
};

/* ---- lifecycle ---- */
int pit_init(struct pit *p, const struct pit_config *c, struct err *e);
void pit_fini(struct pit *p);
void pit_reset(struct pit *p);

#endif
