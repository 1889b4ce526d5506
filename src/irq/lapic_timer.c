#include "irq/lapic_timer.h"

#include "base/bits.h"
#include "x86/apic.h"

#include <stdatomic.h>

/* SDM 3A, "APIC Timer", Divide Configuration Register: bits 3, 1, 0 are 0 for /2 up to 6 for /128, and 7 for /1. */
static unsigned divide_shift(const struct lapic_timer *t)
{
    unsigned code = (t->divide & 3u) | (t->divide & 8u) >> 1;
    return (code + 1) & 7;
}

static void publish(struct lapic_timer *t)
{
    atomic_store_explicit(&t->published, t->masked ? HEC_NS_NEVER : t->next, memory_order_release);
}

static uint64_t period_of(const struct lapic_timer *t)
{
    return max_u64((uint64_t)t->initial << divide_shift(t), LAPIC_MIN_PERIOD_NS);
}

void lapic_timer_reset(struct lapic_timer *t)
{
    t->next = HEC_NS_NEVER;
    t->initial = 0;
    t->divide = 0;
    t->mode = LAPIC_ONE_SHOT;
    t->masked = true;
    publish(t);
}

bool lapic_timer_expire(struct lapic_timer *t, uint64_t now)
{
    if (likely(now < t->next) || t->next == HEC_NS_NEVER)
        return false;
    if (t->mode == LAPIC_PERIODIC) {
        uint64_t period = period_of(t);
        t->next += ((now - t->next) / period + 1) * period;
    } else {
        t->next = HEC_NS_NEVER;
    }
    publish(t);
    return !t->masked;
}

void lapic_timer_set_lvt(struct lapic_timer *t, uint32_t lvt)
{
    unsigned mode = (lvt & APIC_LVT_TIMER_MODE) >> 17;
    if (mode != t->mode && (mode >= LAPIC_TSC_DEADLINE || t->mode >= LAPIC_TSC_DEADLINE)) {
        t->next = HEC_NS_NEVER;
        t->initial = 0;
    }
    t->mode = (uint8_t)mode;
    t->masked = (lvt & APIC_LVT_MASKED) != 0;
    publish(t);
}

void lapic_timer_set_initial(struct lapic_timer *t, uint64_t now, uint32_t initial)
{
    if (t->mode >= LAPIC_TSC_DEADLINE)
        return;
    t->initial = initial;
    uint64_t span = (uint64_t)initial << divide_shift(t);
    if (t->mode == LAPIC_PERIODIC)
        span = period_of(t);
    t->next = initial ? now + span : HEC_NS_NEVER;
    publish(t);
}

void lapic_timer_set_divide(struct lapic_timer *t, uint64_t now, uint32_t divide)
{
    uint64_t left = lapic_timer_count(t, now);
    t->divide = divide & 0xb;
    if (t->mode < LAPIC_TSC_DEADLINE && t->next != HEC_NS_NEVER)
        t->next = now + (left << divide_shift(t));
    publish(t);
}

uint32_t lapic_timer_count(const struct lapic_timer *t, uint64_t now)
{
    if (t->mode >= LAPIC_TSC_DEADLINE || t->next == HEC_NS_NEVER || t->next <= now)
        return 0;
    unsigned shift = divide_shift(t);
    uint64_t left = (t->next - now + (UINT64_C(1) << shift) - 1) >> shift;
    return (uint32_t)min_u64(left, t->initial);
}

void lapic_timer_set_deadline(struct lapic_timer *t, uint64_t deadline)
{
    if (t->mode != LAPIC_TSC_DEADLINE)
        return;
    t->next = deadline ? deadline : HEC_NS_NEVER;
    publish(t);
}

uint64_t lapic_timer_deadline(const struct lapic_timer *t)
{
    return t->mode == LAPIC_TSC_DEADLINE && t->next != HEC_NS_NEVER ? t->next : 0;
}

void lapic_timer_restore(struct lapic_timer *t, uint32_t lvt, uint32_t initial, uint32_t divide, uint64_t next)
{
    t->mode = (lvt & APIC_LVT_TIMER_MODE) >> 17;
    t->masked = (lvt & APIC_LVT_MASKED) != 0;
    t->divide = divide & 0xb;
    t->initial = t->mode < LAPIC_TSC_DEADLINE ? initial : 0;
    t->next = next;
    publish(t);
}
