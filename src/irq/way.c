#include "irq/way.h"

#include "base/trace_json.h"
#include "irq/ioapic.h"
#include "irq/remap_name.h"

#define TARGETS_SHOWN 8

/* Tracks of a JSON trace: CPUs in one process, sources in another. */
enum { PID_CPUS = 1, PID_SOURCES = 2 };
enum { TID_UNIT = 90, TID_DEVICES = 100 }; /* pins are 1..24, devices 100 + requester id */

/* The span's two numbers. */
enum { NOTE_TRACK, NOTE_TARGETS };
#define TRACK_SOURCE (1u << 31) /* in NOTE_TRACK: PID_SOURCES; the rest is the thread */

static struct trace_track cpu_track(vcpu_idx_t cpu)
{
    return (struct trace_track){PID_CPUS, cpu.i + 1};
}

static struct trace_track span_track(const struct trace *t, trace_span_t way)
{
    uint32_t n = trace_span_notes(t, way)[NOTE_TRACK];
    return (struct trace_track){n & TRACK_SOURCE ? PID_SOURCES : PID_CPUS, n & ~TRACK_SOURCE};
}

static trace_span_t begin(const struct trace *t, uint32_t track)
{
    trace_span_t way = trace_span_begin(t);
    if (way)
        trace_span_notes(t, way)[NOTE_TRACK] = track;
    trace_span_add(t, way, "irq: ");
    return way;
}

/* ---- where it comes from ---- */

trace_span_t way_begin_cpu(const struct trace *t, vcpu_idx_t cpu, apic_id_t id, const char *how)
{
    trace_span_t way = begin(t, cpu_track(cpu).tid);
    trace_span_add(t, way, "cpu %u (%Xh) %s", cpu.i, id.id, how);
    return way;
}

trace_span_t way_begin_pin(const struct trace *t, unsigned pin, uint64_t rte)
{
    trace_span_t way = begin(t, TRACK_SOURCE | (pin + 1));
    trace_span_add(t, way, "pin %u, entry %016llxh", pin, (unsigned long long)rte);
    return way;
}

trace_span_t way_begin_device(const struct trace *t, requester_id_t from, struct msi_msg msg)
{
    trace_span_t way = begin(t, TRACK_SOURCE | (TID_DEVICES + from.rid));
    trace_span_add(t, way, "device %02x:%02x.%x", from.rid >> 8, from.rid >> 3 & 31, from.rid & 7);
    return way;
}

trace_span_t way_begin_unit(const struct trace *t, const char *what)
{
    trace_span_t way = begin(t, TRACK_SOURCE | TID_UNIT);
    trace_span_add(t, way, "%s", what);
    return way;
}

/* ---- where it goes ---- */

void way_add_route(const struct trace *t, trace_span_t way, struct msi_msg msg, const struct remap_result *r)
{
    trace_span_add(t, way, " > %llXh/%04Xh > %s", (unsigned long long)msg.addr, msg.data, remap_form_name(r->form));
    if (r->cookie)
        trace_span_add(t, way, ", cookie %u", r->cookie);
    if (r->fault != REMAP_OK)
        trace_span_add(t, way, " > fault %02Xh: %s", r->fault, remap_fault_name(r->fault));
}

void way_irq(const struct trace *t, struct irq irq, bool posts)
{
    static const char *const shorthand[4] = {"", "self", "all", "all but self"};
    if (!irq.way)
        return;
    if (irq.shorthand & 3)
        trace_span_add(t, irq.way, " > %s", shorthand[irq.shorthand & 3]);
    else
        trace_span_add(t, irq.way, " > %s %Xh", irq.logical ? "logical" : "physical", irq.dest);
    trace_span_add(t, irq.way, " %s", irq_mode_name(irq.mode));
    if (irq.mode <= IRQ_LOWEST || irq.mode == IRQ_STARTUP)
        trace_span_add(t, irq.way, " %02Xh", irq.vector);
    trace_span_add(t, irq.way, irq.level ? " level%s" : " edge%s", posts ? " (posts)" : "");
}

static void add_flow(const struct trace *t, struct irq irq, vcpu_idx_t cpu, uint64_t ns)
{
    trace_json_flow_from(t->json, span_track(t, irq.way), ns, (uint64_t)cpu.i << 8 | irq.vector);
}

void way_target(const struct trace *t, struct irq irq, vcpu_idx_t cpu, apic_id_t id, enum lapic_taken taken, bool flow,
                uint64_t ns)
{
    static const char *const what[] = {
        [LAPIC_REFUSED] = "refuses", [LAPIC_MERGED] = "merged", [LAPIC_TAKEN] = "kicked"};
    uint32_t *n = &trace_span_notes(t, irq.way)[NOTE_TARGETS];
    if (flow)
        add_flow(t, irq, cpu, ns);
    if ((*n)++ < TARGETS_SHOWN)
        trace_span_add(t, irq.way, "%s cpu %u (%Xh) %s", *n == 1 ? " >" : ",", cpu.i, id.id, what[taken]);
}

void way_finish(const struct trace *t, trace_span_t way, int taken)
{
    uint32_t n = trace_span_notes(t, way)[NOTE_TARGETS];
    if (n > TARGETS_SHOWN)
        trace_span_add(t, way, " and %u more: %d took it", n - TARGETS_SHOWN, taken);
    else if (!n && !taken)
        trace_span_add(t, way, " > nobody");
    if (t->json) {
        uint64_t start = trace_span_start(t, way);
        const char *text = trace_span_text(t, way) + sizeof "irq: " - 1;
        trace_json_slice(t->json, span_track(t, way), start, trace_now(t) - start, "interrupt", text);
    }
    trace_span_end(t, way);
}

/* ---- at the CPU ---- */

static int highest(const uint64_t isr[4])
{
    for (int i = 3; i >= 0; i--)
        if (isr[i])
            return i * 64 + 63 - __builtin_clzll(isr[i]);
    return -1;
}

static void json_take(const struct trace *t, vcpu_idx_t cpu, int vector, bool flow)
{
    char name[32];
    uint64_t now = trace_now(t);
    snprintf(name, sizeof name, "vector %02Xh", (unsigned)vector);
    trace_json_begin(t->json, cpu_track(cpu), now, name);
    if (flow)
        trace_json_flow_to(t->json, cpu_track(cpu), now, (uint64_t)cpu.i << 8 | (unsigned)vector);
}

void way_take(const struct trace *t, vcpu_idx_t cpu, apic_id_t id, int vector, bool serviced, bool flow)
{
    if (t->json && serviced)
        json_take(t, cpu, vector, flow);
    else
        trace_write(t, "irq: cpu %u (%Xh) takes %02Xh%s", cpu.i, id.id, (unsigned)vector, serviced ? "" : ", spurious");
}

void way_eoi(const struct trace *t, vcpu_idx_t cpu, const struct lapic *l)
{
    int vector = highest(l->isr);
    if (t->json && vector >= 0)
        trace_json_end(t->json, cpu_track(cpu), trace_now(t));
    else if (vector >= 0)
        trace_write(t, "irq: cpu %u (%Xh) ends %02Xh", cpu.i, l->id.id, (unsigned)vector);
    else
        trace_write(t, "irq: cpu %u (%Xh) ends nothing", cpu.i, l->id.id);
}

void way_events(const struct trace *t, vcpu_idx_t cpu, const struct lapic *l, uint32_t events, uint8_t sipi)
{
    char text[96];
    snprintf(text, sizeof text, "irq: cpu %u (%Xh) takes%s%s%s%s", cpu.i, l->id.id,
             events & LAPIC_EV_INIT ? " INIT" : "", events & LAPIC_EV_SIPI ? " start-up" : "",
             events & LAPIC_EV_NMI ? " NMI" : "", events & LAPIC_EV_SMI ? " SMI" : "");
    if (events & LAPIC_EV_SIPI)
        snprintf(text + strlen(text), sizeof text - strlen(text), " at %05Xh", (unsigned)sipi << 12);
    if (t->json)
        trace_json_instant(t->json, cpu_track(cpu), trace_now(t), text + sizeof "irq: " - 1);
    else
        trace_write(t, "%s", text);
    if (events & LAPIC_EV_INIT)
        way_add_forgotten(t, cpu, l->isr);
}

/* Close the slices that no EOI will close. */
void way_add_forgotten(const struct trace *t, vcpu_idx_t cpu, const uint64_t isr[4])
{
    for (unsigned i = 0; i < 4 && t->json; i++)
        for (uint64_t left = isr[i]; left; left &= left - 1)
            trace_json_end(t->json, cpu_track(cpu), trace_now(t));
}

void way_name_tracks(const struct trace *t, const apic_id_t *ids, uint32_t n)
{
    char name[64];
    if (!t->json)
        return;
    trace_json_name_process(t->json, PID_CPUS, "CPUs");
    trace_json_name_process(t->json, PID_SOURCES, "interrupt sources");
    for (uint32_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "CPU %u (APIC ID %Xh)", i, ids[i].id);
        trace_json_name_track(t->json, cpu_track(VCPU_IDX(i)), name);
    }
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        snprintf(name, sizeof name, "I/O APIC pin %u", pin);
        trace_json_name_track(t->json, (struct trace_track){PID_SOURCES, pin + 1}, name);
    }
    trace_json_name_track(t->json, (struct trace_track){PID_SOURCES, TID_UNIT}, "remapping unit and others");
}
