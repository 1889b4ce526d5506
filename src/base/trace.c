#include "base/trace.h"

#include "base/clock.h"
#include "base/trace_json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#define SPANS     255
#define SPAN_TEXT 700

struct trace_spans {
    uint64_t start;        /* (c) host ns */
    _Atomic uint64_t lost; /* (a) spans that found no slot */
    _Atomic uint32_t hint; /* (a) where to look first */
    struct trace_slot {
        _Atomic bool used; /* (a) its taker alone touches the rest */
        uint32_t len, notes[2];
        uint64_t start;
        char text[SPAN_TEXT];
    } slot[SPANS];
};

/* ---- lifecycle ---- */

int trace_open(struct trace *t, uint32_t mask, const char *path, bool json, struct err *e)
{
    *t = (struct trace){.mask = mask, .out = stderr};
    if (!mask)
        return 0;
    t->spans = calloc(1, sizeof *t->spans);
    if (!t->spans)
        return err_set(e, -ENOMEM, "no memory for the trace");
    t->spans->start = clock_host_ns();
    if (json)
        return trace_json_open(path, &t->json, e);
    if (!path)
        return 0;
    t->out = fopen(path, "we");
    if (t->out)
        return 0;
    return err_set(e, -errno, "cannot write the trace to %s: %s", path, strerror(errno));
}

void trace_close(struct trace *t)
{
    uint64_t lost = t->spans ? atomic_load(&t->spans->lost) : 0;
    if (lost && (t->out || t->json))
        trace_write(t, "trace: %llu interrupts are missing: too many were under way", (unsigned long long)lost);
    int rc = trace_json_close(t->json);
    if (t->out && t->out != stderr && (ferror(t->out) | fclose(t->out)))
        rc = errno ? -errno : -EIO;
    if (rc)
        fprintf(stderr, "hecaton: the trace of -D is not whole: %s\n", strerror(-rc));
    free(t->spans);
    *t = (struct trace){.mask = 0};
}

/* ---- lines ---- */

void trace_write(const struct trace *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (t->json) {
        char text[SPAN_TEXT];
        vsnprintf(text, sizeof text, fmt, ap);
        trace_json_log(t->json, trace_now(t), text);
    } else {
        flockfile(t->out);
        vfprintf(t->out, fmt, ap);
        putc('\n', t->out);
        funlockfile(t->out);
    }
    va_end(ap);
}

/* ---- spans ---- */

uint64_t trace_now(const struct trace *t)
{
    return t->spans ? clock_host_ns() - t->spans->start : 0;
}

trace_span_t trace_span_begin(const struct trace *t)
{
    struct trace_spans *s = t->spans;
    if (!s)
        return 0;
    uint32_t from = atomic_fetch_add_explicit(&s->hint, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < SPANS; i++) {
        uint32_t n = (from + i) % SPANS;
        struct trace_slot *slot = &s->slot[n];
        if (atomic_load_explicit(&slot->used, memory_order_relaxed) || atomic_exchange(&slot->used, true))
            continue;
        slot->len = slot->notes[0] = slot->notes[1] = 0;
        slot->text[0] = 0;
        slot->start = trace_now(t);
        return (trace_span_t)(n + 1);
    }
    atomic_fetch_add(&s->lost, 1);
    return 0;
}

void trace_span_add(const struct trace *t, trace_span_t span, const char *fmt, ...)
{
    if (!span)
        return;
    struct trace_slot *slot = &t->spans->slot[span - 1];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(slot->text + slot->len, SPAN_TEXT - slot->len, fmt, ap);
    va_end(ap);
    slot->len = (uint32_t)min_u64(slot->len + (n > 0 ? (uint32_t)n : 0), SPAN_TEXT - 1);
}

const char *trace_span_text(const struct trace *t, trace_span_t span)
{
    return span ? t->spans->slot[span - 1].text : "";
}

uint64_t trace_span_start(const struct trace *t, trace_span_t span)
{
    return span ? t->spans->slot[span - 1].start : 0;
}

uint32_t *trace_span_notes(const struct trace *t, trace_span_t span)
{
    return t->spans->slot[span - 1].notes;
}

void trace_span_end(const struct trace *t, trace_span_t span)
{
    if (!span)
        return;
    struct trace_slot *slot = &t->spans->slot[span - 1];
    if (!t->json)
        trace_write(t, "%s", slot->text);
    atomic_store_explicit(&slot->used, false, memory_order_release);
}
