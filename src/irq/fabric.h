/* The software fabric: every local APIC of the machine, the destination map, and the one place that acts on what an
 * APIC's register write asks for (send, level EOI, mode change).
 *
 * `now` is guest time in ns, given by the caller: irq/ keeps no clock. One APIC-timer count (before the divider) is
 * 1 ns; deadlines are guest ns.
 */
#ifndef HEC_IRQ_FABRIC_H
#define HEC_IRQ_FABRIC_H

#include "base/epoch.h"
#include "base/err.h"
#include "base/trace.h"
#include "irq/irq_msg.h"

struct fabric;

/* What a delivery means for the vCPU it reached. Called on the sender's thread, after the target's state is published;
 * must not block. */
typedef void fabric_kick_fn(void *opaque, vcpu_idx_t target);

struct fabric_config {
    uint32_t vcpus;       /* number of local APICs */
    const apic_id_t *ids; /* [vcpus], ascending vCPU index; need not be dense or sorted; copied */
    bool firmware_x2apic; /* APICs leave reset in x2APIC mode, as firmware leaves a machine with IDs past 254 */
    bool x2apic;          /* CPUID offers x2APIC */
    bool ext_dest_id;     /* 15-bit destination IDs in MSIs and I/O APIC entries (the translator's business) */
    bool id8;             /* in xAPIC mode an APIC answers to its 8-bit ID alone, and all that share one receive */
    uint32_t inhibits;    /* reasons the machine never posts (inhibit.h), bits; 0: none */
    fabric_kick_fn *kick; /* the one indirection out of irq/ */
    void *kick_opaque;
    uint8_t (*extint_ack)(void *opaque); /* vector of the PIC's pending interrupt (INTA cycle) */
    void *extint_opaque;
    struct epoch *epoch;       /* borrowed */
    const struct trace *trace; /* borrowed */
};

/* Pending events that are not vectors, as fabric_events_take() returns them. */
enum fabric_event { FABRIC_EV_INIT = 1, FABRIC_EV_SIPI = 2, FABRIC_EV_NMI = 4, FABRIC_EV_SMI = 8 };

/* ---- lifecycle ---- */
/* -EINVAL: no vCPUs, an ID past HEC_APIC_ID_MAX, x2APIC firmware without x2APIC; -EEXIST: an ID twice; -ENOMEM. */
int fabric_create(const struct fabric_config *c, struct fabric **out, struct err *e);
void fabric_destroy(struct fabric *f);
void fabric_reset(struct fabric *f); /* power-on reset of every APIC; no vCPU runs */

/* ---- any thread (inside the epoch) ---- */
/* Deliver a resolved interrupt (shorthand must be IRQ_DEST). Returns how many APICs took it, 0 if nobody. O(targets).
 */
int fabric_deliver(struct fabric *f, struct irq irq);
/* The same on behalf of a vCPU (a hypercall): the trace says so. */
int fabric_deliver_from(struct fabric *f, vcpu_idx_t from, struct irq irq);
/* Level of LINT0 (0) or LINT1 (1) of one APIC: the PIC's INTR output and NMI. */
void fabric_lint(struct fabric *f, vcpu_idx_t cpu, unsigned lint, bool level);
/* Why interrupts are not posted straight now: bits of enum inhibit_reason, 0 if they are. */
uint32_t fabric_inhibits(const struct fabric *f);
/* A debugger holds back this machine's interrupts (INHIBIT_BLOCKIRQ), or no longer; calls nest. */
void fabric_block_irqs(struct fabric *f, bool on);
/* vCPU of an ID as the guest knows it, or false. */
bool fabric_find(struct fabric *f, apic_id_t id, vcpu_idx_t *out);
apic_id_t fabric_id(const struct fabric *f, vcpu_idx_t cpu);
/* Call the kick hook for `cpu` (the PV unhalt kick uses it). */
void fabric_kick(struct fabric *f, vcpu_idx_t cpu);
/* The port devices, I/O APICs and the translator deliver through. */
struct irq_port fabric_port(struct fabric *f);
/* Who is told of the EOI of a level-triggered vector: the I/O APIC. Set once at wiring. */
void fabric_set_eoi(struct fabric *f, void (*eoi)(void *opaque, uint8_t vector), void *opaque);

/* ---- the owning vCPU's thread only ---- */
/* xAPIC page accesses at byte offset 0..FFFh. SDM 3A, "Local APIC Register Address Map". An access in x2APIC mode or to
 * a disabled APIC is the caller's mistake: the page is RAM/MMIO then (see fabric_mmio_base()). */
uint32_t fabric_mmio_read(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t off);
void fabric_mmio_write(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t off, uint32_t val);
/* gpa of the APIC page, or UINT64_MAX when disabled or in x2APIC mode. Cheap: called on each MMIO access. */
gpa_t fabric_mmio_base(const struct fabric *f, vcpu_idx_t cpu);
/* MSRs 1Bh and 800h-83Fh. False: #GP. SDM 3A, "Extended XAPIC (x2APIC)". */
bool fabric_msr_read(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t *val);
bool fabric_msr_write(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t val);
/* IA32_TSC_DEADLINE (6E0h), already converted to guest ns (0: disarmed). */
uint64_t fabric_deadline_get(struct fabric *f, vcpu_idx_t cpu);
void fabric_deadline_set(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint64_t deadline);
/* KVM's PV EOI: MSR 4b564d04h as written, and the byte of guest RAM it names (NULL: switched off). */
void fabric_pv_eoi_set(struct fabric *f, vcpu_idx_t cpu, uint64_t msr, uint8_t *flag);
uint64_t fabric_pv_eoi_get(const struct fabric *f, vcpu_idx_t cpu);
/* CR8, i.e. TPR[7:4]. */
uint8_t fabric_cr8_get(struct fabric *f, vcpu_idx_t cpu);
void fabric_cr8_set(struct fabric *f, vcpu_idx_t cpu, uint8_t cr8);
/* The vector the CPU would take now with IF = 1, FABRIC_IRQ_EXTINT if it is the PIC's, or -1. fabric_irq_take() takes
 * it: IRR to ISR, or the PIC's INTA cycle. Returns the vector; spurious if it went away.
 *
 * No wakeup is lost: a sender makes its request visible, then kicks; the owner clears its attention word, then asks
 * here. Whenever the owner's own register write, CR8, deadline or timer makes a vector deliverable that was not, the
 * fabric kicks the owner too. */
#define FABRIC_IRQ_EXTINT 256
int fabric_irq_pending(struct fabric *f, vcpu_idx_t cpu);
int fabric_irq_take(struct fabric *f, vcpu_idx_t cpu);
/* Take all pending events (enum fabric_event bits); `sipi` gets the page number if SIPI is among them. INIT's effect on
 * the APIC itself (SDM 3A, "Local APIC State After It Receives an INIT-Deassert IPI") has been done. */
unsigned fabric_events_take(struct fabric *f, vcpu_idx_t cpu, uint8_t *sipi);
/* Put back an event that cannot be taken yet (NMI while blocked). */
void fabric_events_put(struct fabric *f, vcpu_idx_t cpu, unsigned events);
bool fabric_events_pending(const struct fabric *f, vcpu_idx_t cpu);
/* All of this APIC's state, and back; as lapic_export() and lapic_import(). Or nobody runs the vCPU; inside the epoch.
 */
struct lapic_image;
void fabric_export(struct fabric *f, vcpu_idx_t cpu, uint64_t now, struct lapic_image *out);
bool fabric_import(struct fabric *f, vcpu_idx_t cpu, uint64_t now, const struct lapic_image *in);
/* Guest ns at which this APIC's timer fires next, HEC_NS_NEVER if unarmed; fabric_timer_expire() fires what is due.
 * The deadline may be read by another thread while the vCPU is parked. */
uint64_t fabric_timer_deadline(const struct fabric *f, vcpu_idx_t cpu);
void fabric_timer_expire(struct fabric *f, vcpu_idx_t cpu, uint64_t now);

#endif
