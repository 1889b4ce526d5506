#include "irq/inhibit.h"

#include <assert.h>

void inhibit_init(struct inhibit *in, uint32_t word, const struct trace *trace)
{
    *in = (struct inhibit){.trace = trace};
    atomic_init(&in->word, word);
    pthread_mutex_init(&in->lock, NULL);
}

void inhibit_fini(struct inhibit *in)
{
    pthread_mutex_destroy(&in->lock);
}

/* The lock makes trace lines agree with each other and counts with the word; readers need only the word. */
static void change(struct inhibit *in, enum inhibit_reason reason, bool on)
{
    uint32_t old = atomic_load_explicit(&in->word, memory_order_relaxed);
    uint32_t new = on ? old | INHIBIT_BIT(reason) : old & ~INHIBIT_BIT(reason);
    if (old == new)
        return;
    atomic_store(&in->word, new);
    trace(in->trace, TRACE_IRQ, "apicv_inhibit_changed: %s reason=%u, inhibits=0x%x", on ? "set" : "cleared", reason,
          new);
}

void inhibit_set(struct inhibit *in, enum inhibit_reason reason, bool on)
{
    if (!(inhibit_word(in) & INHIBIT_BIT(reason)) == !on)
        return;
    pthread_mutex_lock(&in->lock);
    change(in, reason, on);
    pthread_mutex_unlock(&in->lock);
}

void inhibit_hold(struct inhibit *in, enum inhibit_reason reason)
{
    pthread_mutex_lock(&in->lock);
    in->holders[reason]++;
    change(in, reason, true);
    pthread_mutex_unlock(&in->lock);
}

void inhibit_release(struct inhibit *in, enum inhibit_reason reason)
{
    pthread_mutex_lock(&in->lock);
    assert(in->holders[reason]);
    if (!--in->holders[reason])
        change(in, reason, false);
    pthread_mutex_unlock(&in->lock);
}

void inhibit_reset(struct inhibit *in)
{
    pthread_mutex_lock(&in->lock);
    for (unsigned i = 0; i < INHIBIT_REASONS; i++)
        if (in->holders[i]) {
            in->holders[i] = 0;
            change(in, i, false);
        }
    pthread_mutex_unlock(&in->lock);
}

const char *inhibit_name(enum inhibit_reason reason)
{
    static const char *const names[INHIBIT_REASONS] = {"disabled",
                                                       "hyperv",
                                                       "absent",
                                                       "blockirq",
                                                       "physical-id-aliased",
                                                       "apic-id-modified",
                                                       "apic-base-modified",
                                                       "nested",
                                                       "irqwin",
                                                       "pit-reinj",
                                                       "sev",
                                                       "logical-id-aliased",
                                                       "physical-id-too-big"};
    return reason < INHIBIT_REASONS ? names[reason] : "?";
}
