/* The -d categories. One struct trace a machine, borrowed by every room that has something to say. */
#ifndef HEC_BASE_TRACE_H
#define HEC_BASE_TRACE_H

#include "base/bits.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

enum trace_cat {
    TRACE_IRQ = 1u << 0,   /* each interrupt's way */
    TRACE_CPU = 1u << 1,   /* resets, SIPIs, mode changes, triple faults */
    TRACE_INT = 1u << 2,   /* every exception and interrupt a vCPU takes */
    TRACE_MSR = 1u << 3,   /* MSRs that answered #GP */
    TRACE_BUS = 1u << 4,   /* accesses nobody claimed */
    TRACE_DEV = 1u << 5,   /* device state changes */
    TRACE_SCHED = 1u << 6, /* parking, waking, time jumps */
    TRACE_IN_ASM = 1u << 7 /* each block when it is translated */
};

struct trace {
    uint32_t mask; /* (c) categories that are on */
    FILE *out;     /* (c) where lines go; stdio's own lock orders them */
};

/* Write one line (a newline is added). Any thread; use the macro, which costs a test when the category is off. */
void trace_write(const struct trace *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define trace(t, cat, ...)                                                                                             \
    do {                                                                                                               \
        if (unlikely((t) && ((t)->mask & (cat))))                                                                      \
            trace_write((t), __VA_ARGS__);                                                                             \
    } while (0)

#endif
