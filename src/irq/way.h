/* An interrupt's way, as the trace shows it (-d irq): one line from its source by the message, its form and what it
 * became to who took it; and, in a JSON trace, slices and arrows on a track a vCPU and a source.
 *
 *   irq: pin 4, entry 2b02000000000024h > FEE2B020h/0024h > extended destination > physical 12Bh fixed 24h edge
 *        > cpu 299 (12Bh) kicked
 *   irq: cpu 299 (12Bh) takes 24h
 *   irq: cpu 299 (12Bh) ends 24h
 *
 * The span travels in struct irq.way from whoever begins it to the fabric; who began it ends it. Without -d irq every
 * call is one test. Any thread, except where an APIC is given: its owner.
 */
#ifndef HEC_IRQ_WAY_H
#define HEC_IRQ_WAY_H

#include "base/trace.h"
#include "irq/lapic.h"
#include "irq/remap.h"

/* ---- behind the tests ---- */
trace_span_t way_begin_cpu(const struct trace *t, vcpu_idx_t cpu, apic_id_t id, const char *how);
trace_span_t way_begin_pin(const struct trace *t, unsigned pin, uint64_t rte);
trace_span_t way_begin_device(const struct trace *t, requester_id_t from, struct msi_msg msg);
trace_span_t way_begin_unit(const struct trace *t, const char *what);
void way_add_route(const struct trace *t, trace_span_t way, struct msi_msg msg, const struct remap_result *r);
void way_finish(const struct trace *t, trace_span_t way, int taken);
void way_add_forgotten(const struct trace *t, vcpu_idx_t cpu, const uint64_t isr[4]);
void way_name_tracks(const struct trace *t, const apic_id_t *ids, uint32_t n);

/* ---- where it comes from; 0: not traced ---- */
static inline trace_span_t way_from_cpu(const struct trace *t, vcpu_idx_t cpu, apic_id_t id, const char *how)
{
    return trace_wants(t, TRACE_IRQ) ? way_begin_cpu(t, cpu, id, how) : 0;
}

static inline trace_span_t way_from_pin(const struct trace *t, unsigned pin, uint64_t rte)
{
    return trace_wants(t, TRACE_IRQ) ? way_begin_pin(t, pin, rte) : 0;
}

static inline trace_span_t way_from_device(const struct trace *t, requester_id_t from, struct msi_msg msg)
{
    return trace_wants(t, TRACE_IRQ) ? way_begin_device(t, from, msg) : 0;
}

/* A remapping unit's own interrupt; `what` is static. */
static inline trace_span_t way_from_unit(const struct trace *t, const char *what)
{
    return trace_wants(t, TRACE_IRQ) ? way_begin_unit(t, what) : 0;
}

/* From somebody who did not say. */
static inline trace_span_t way_begin(const struct trace *t)
{
    return way_from_unit(t, "direct");
}

/* ---- where it goes ---- */
/* The message, and what the translator made of it. */
static inline void way_route(const struct trace *t, trace_span_t way, struct msi_msg msg, const struct remap_result *r)
{
    if (unlikely(way))
        way_add_route(t, way, msg, r);
}

/* The interrupt at the fabric's door; `posts`: straight into the target's IRR. */
void way_irq(const struct trace *t, struct irq irq, bool posts);
/* One receiver; `flow`: draw an arrow from here at `ns` to where the vector is taken. */
void way_target(const struct trace *t, struct irq irq, vcpu_idx_t cpu, apic_id_t id, enum lapic_taken taken, bool flow,
                uint64_t ns);

static inline void way_end(const struct trace *t, trace_span_t way, int taken)
{
    if (unlikely(way))
        way_finish(t, way, taken);
}

/* ---- at the CPU ---- */
/* `serviced`: it is in the ISR now, so that an EOI will come; `flow`: an arrow leads here. */
void way_take(const struct trace *t, vcpu_idx_t cpu, apic_id_t id, int vector, bool serviced, bool flow);
/* The owner is about to write its EOI register. */
void way_eoi(const struct trace *t, vcpu_idx_t cpu, const struct lapic *l);
/* NMI, INIT, start-up, SMI taken: bits of enum lapic_event. */
void way_events(const struct trace *t, vcpu_idx_t cpu, const struct lapic *l, uint32_t events, uint8_t sipi);
/* What was in service is no more: a reset. */
static inline void way_forgotten(const struct trace *t, vcpu_idx_t cpu, const uint64_t isr[4])
{
    if (trace_wants(t, TRACE_IRQ))
        way_add_forgotten(t, cpu, isr);
}

/* Name the tracks of a JSON trace. */
static inline void way_tracks(const struct trace *t, const apic_id_t *ids, uint32_t n)
{
    if (trace_wants(t, TRACE_IRQ))
        way_name_tracks(t, ids, n);
}

#endif
