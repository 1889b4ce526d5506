/* The local APIC's timer: one-shot, periodic, TSC deadline. SDM 3A, "APIC Timer".
 *
 * One count, before the divider, is 1 guest ns; deadlines are guest ns. Pure state: whoever owns the vCPU says what
 * time it is and raises the interrupt when lapic_timer_expire() says so.
 *
 * While the LVT entry is masked the timer goes on counting, but nobody needs waking: `published` is then HEC_NS_NEVER
 * and the periods that went by are made up for at the next access.
 */
#ifndef HEC_IRQ_LAPIC_TIMER_H
#define HEC_IRQ_LAPIC_TIMER_H

#include "base/types.h"

/* LVT timer mode, bits 18:17. */
enum lapic_timer_mode { LAPIC_ONE_SHOT = 0, LAPIC_PERIODIC = 1, LAPIC_TSC_DEADLINE = 2, LAPIC_TIMER_RESERVED = 3 };

/* A periodic timer fires no more often than this, so that a guest cannot keep its worker busy with expiries alone. */
#define LAPIC_MIN_PERIOD_NS 10000u

struct lapic_timer {
    uint64_t next;              /* (v) guest ns of the next expiry, HEC_NS_NEVER: stopped */
    _Atomic uint64_t published; /* (a) `next` if its expiry means an interrupt, else HEC_NS_NEVER */
    uint32_t initial;           /* (v) initial count */
    uint8_t divide;             /* (v) divide configuration register */
    uint8_t mode;               /* (v) enum lapic_timer_mode */
    bool masked;                /* (v) LVT mask */
};

/* ---- the owning vCPU's thread only ---- */
void lapic_timer_reset(struct lapic_timer *t);
/* Take what is due at `now`. True if an interrupt is to be raised (once, however many periods went by). */
bool lapic_timer_expire(struct lapic_timer *t, uint64_t now);
/* Register writes; the caller has called lapic_timer_expire() for `now` before. */
void lapic_timer_set_lvt(struct lapic_timer *t, uint32_t lvt);
void lapic_timer_set_initial(struct lapic_timer *t, uint64_t now, uint32_t initial);
void lapic_timer_set_divide(struct lapic_timer *t, uint64_t now, uint32_t divide);
uint32_t lapic_timer_count(const struct lapic_timer *t, uint64_t now);
/* IA32_TSC_DEADLINE in guest ns, 0 when disarmed. Writes do nothing in the other modes. */
void lapic_timer_set_deadline(struct lapic_timer *t, uint64_t deadline);
uint64_t lapic_timer_deadline(const struct lapic_timer *t);
/* Be as another timer was: its registers, and the guest ns of its next expiry (HEC_NS_NEVER: it is stopped). */
void lapic_timer_restore(struct lapic_timer *t, uint32_t lvt, uint32_t initial, uint32_t divide, uint64_t next);

#endif
