/* The -d categories. One struct trace a machine, borrowed by every room that has something to say: as lines of text, or
 * as a Chrome/Perfetto trace (trace_json.h).
 *
 * What happens in one place is one trace() line. What goes through several rooms, as an interrupt does, is a span: the
 * first room begins it, each adds its part, and it is written as one line when it ends. Rooms hand the span's number
 * on; 0 is no span, and adding to it does nothing.
 */
#ifndef HEC_BASE_TRACE_H
#define HEC_BASE_TRACE_H

#include "base/bits.h"
#include "base/err.h"

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

struct trace_json;
struct trace_spans;

struct trace {
    uint32_t mask;             /* (c) categories that are on */
    FILE *out;                 /* (c) where lines go; stdio's own lock orders them */
    struct trace_json *json;   /* (c) instead of `out`; NULL: lines */
    struct trace_spans *spans; /* (c) NULL: none; a zeroed struct trace has none */
};

typedef uint8_t trace_span_t;

/* ---- lifecycle ---- */
/* Trace the categories of `mask` to `path` (NULL: standard error; a JSON trace needs a file). -errno. In any case the
 * caller calls trace_close(). */
int trace_open(struct trace *t, uint32_t mask, const char *path, bool json, struct err *e);
/* Write what is left and close the file. Nobody traces any more. */
void trace_close(struct trace *t);

/* ---- any thread ---- */
/* Write one line (a newline is added). Use the macro, which costs a test when the category is off. */
void trace_write(const struct trace *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline bool trace_wants(const struct trace *t, enum trace_cat cat)
{
    return unlikely(t && t->mask & cat);
}

#define trace(t, cat, ...)                                                                                             \
    do {                                                                                                               \
        if (trace_wants((t), (cat)))                                                                                   \
            trace_write((t), __VA_ARGS__);                                                                             \
    } while (0)

/* Begin a span; 0 if there are none to be had (many are under way: it is then counted as lost). */
trace_span_t trace_span_begin(const struct trace *t);
/* Add to its text, which is cut where it gets too long. */
void trace_span_add(const struct trace *t, trace_span_t span, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Its text so far, and when it began (host ns since the trace did). Only between begin and end. */
const char *trace_span_text(const struct trace *t, trace_span_t span);
uint64_t trace_span_start(const struct trace *t, trace_span_t span);
/* Two numbers of the callers' that the span keeps; 0 at first. Not for span 0. */
uint32_t *trace_span_notes(const struct trace *t, trace_span_t span);
/* Write the line, unless the trace is JSON, and forget it. */
void trace_span_end(const struct trace *t, trace_span_t span);
/* Host ns since the trace was opened. */
uint64_t trace_now(const struct trace *t);

#endif
