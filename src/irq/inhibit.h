/* Why interrupts are not posted straight into their target's IRR.
 *
 * The accelerated path (fabric_post()) takes a physical, edge-triggered, fixed interrupt to the APIC that was built
 * with that ID, as APICv and AVIC do: no map, no word of any APIC, the IRR bit and a kick. It is right as long as every
 * APIC answers to that ID and to no other; what breaks this, and what hardware of that kind can't do, is an inhibit.
 * One atomic word holds them, and a delivery looks at nothing else: 0 means post.
 *
 * Numbers and rules are those of Linux' KVM, enum kvm_apicv_inhibit, so that its users can read our trace:
 *   recomputed whenever the destination map is: 4, 5, 11. Held by count while somebody needs them: 1, 3, 7, 8.
 *   Set and never cleared: 0, 2, 6, 9, 10, 12.
 * A reset recomputes the first kind from APICs that have been reset, drops the second, and leaves the third.
 */
#ifndef HEC_IRQ_INHIBIT_H
#define HEC_IRQ_INHIBIT_H

#include "base/trace.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum inhibit_reason {
    INHIBIT_DISABLED = 0,             /* switched off by the machine's options */
    INHIBIT_HYPERV = 1,               /* a synthetic interrupt with automatic EOI */
    INHIBIT_ABSENT = 2,               /* the machine has no interrupt controllers that could */
    INHIBIT_BLOCKIRQ = 3,             /* a debugger holds interrupts back */
    INHIBIT_PHYSICAL_ID_ALIASED = 4,  /* a physical ID has several owners, or there is no map */
    INHIBIT_APIC_ID_MODIFIED = 5,     /* an xAPIC ID is not the low byte of the APIC's own ID */
    INHIBIT_APIC_BASE_MODIFIED = 6,   /* an APIC's page was moved */
    INHIBIT_NESTED = 7,               /* a vCPU runs a guest of its own */
    INHIBIT_IRQWIN = 8,               /* an ExtINT waits to be taken; normal and transient */
    INHIBIT_PIT_REINJ = 9,            /* lost PIT ticks are made up for at EOI */
    INHIBIT_SEV = 10,                 /* encrypted guests */
    INHIBIT_LOGICAL_ID_ALIASED = 11,  /* a logical ID has several owners, or modes are mixed, or there is no map */
    INHIBIT_PHYSICAL_ID_TOO_BIG = 12, /* an ID the table of targets has no room for */
    INHIBIT_REASONS
};

#define INHIBIT_BIT(reason) (1u << (reason))

struct inhibit {
    _Atomic uint32_t word; /* (a) INHIBIT_BIT of each */
    pthread_mutex_t lock;
    uint32_t holders[INHIBIT_REASONS]; /* (l) of those held by count */
    const struct trace *trace;         /* (c) may be NULL */
};

/* ---- lifecycle ---- */
/* `word`: what the machine is built with. */
void inhibit_init(struct inhibit *in, uint32_t word, const struct trace *trace);
void inhibit_fini(struct inhibit *in);
/* No vCPU runs: nobody holds anything any more. */
void inhibit_reset(struct inhibit *in);

/* ---- any thread ---- */
/* Traces `apicv_inhibit_changed: set reason=8, inhibits=0x120` (or `cleared`) if that changes it. */
void inhibit_set(struct inhibit *in, enum inhibit_reason reason, bool on);
/* One holder more or less. */
void inhibit_hold(struct inhibit *in, enum inhibit_reason reason);
void inhibit_release(struct inhibit *in, enum inhibit_reason reason);
const char *inhibit_name(enum inhibit_reason reason);

static inline uint32_t inhibit_word(const struct inhibit *in)
{
    return atomic_load_explicit(&in->word, memory_order_acquire);
}

#endif
