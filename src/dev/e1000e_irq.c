/* Interrupts. 82574, 7.4 "Interrupts". */
#include "base/clock.h"
#include "dev/e1000e_priv.h"
#include "pci/msi.h"

#define ITR_UNIT 256u /* ns */

/* Causes that have a field of IVAR each, from bit C_RXQ0 on: queue 0 and 1 of receiving, of transmitting, others. */
static bool vector_of(struct e1000e *n, uint32_t cause, unsigned *v)
{
    uint32_t field = e1k_get(n, R_IVAR) >> (4 * (unsigned)__builtin_ctz(cause / C_RXQ0)) & 0xf;
    *v = field & 7;
    return field & 8 && *v < E1K_VECTORS;
}

/* 7.4.4 "Clearing Interrupt Causes", 10.2.4.5 "Interrupt Auto Clear": what a message has told of needs no reading. */
static void auto_clear(struct e1000e *n, uint32_t cause)
{
    uint32_t ext = e1k_get(n, R_CTRL_EXT);
    if (ext & CTRL_EXT_EIAME)
        e1k_set(n, R_IMS, e1k_get(n, R_IMS) & ~(e1k_get(n, R_IAM) & cause));
    cause &= e1k_get(n, R_EIAC);
    e1k_set(n, R_ICR, e1k_get(n, R_ICR) & ~cause);
    n->told &= ~cause;
    if (!(ext & CTRL_EXT_IAME))
        e1k_set(n, R_IMS, e1k_get(n, R_IMS) & ~cause);
}

static void send_vectors(struct e1000e *n, uint32_t news)
{
    unsigned v;
    for (uint32_t left = news & C_VECTORS; left; left &= left - 1) {
        uint32_t cause = left & -left;
        if (!vector_of(n, cause, &v))
            continue;
        msix_fire(&n->func, v);
        auto_clear(n, cause);
    }
}

/* Under `lock`, after the cause or mask registers have changed. */
static void update(struct e1000e *n)
{
    uint32_t active = e1k_get(n, R_ICR) & e1k_get(n, R_IMS), news = active & ~n->told;
    n->told = active;
    if (pci_msix_on(&n->func))
        send_vectors(n, news);
    else if (pci_msi_on(&n->func) && news)
        msi_fire(&n->func, 0);
    pci_intx_set(&n->func, e1k_get(n, R_ICR) & e1k_get(n, R_IMS)); /* a message may have cleared its cause */
}

void e1k_raise(struct e1000e *n, uint32_t causes)
{
    pthread_mutex_lock(&n->lock);
    if (causes & C_OTHERS)
        causes |= C_OTHER;
    e1k_set(n, R_ICR, (e1k_get(n, R_ICR) | causes) & ~C_ASSERTED);
    update(n);
    pthread_mutex_unlock(&n->lock);
}

void e1k_mask(struct e1000e *n, uint32_t set, uint32_t clear)
{
    pthread_mutex_lock(&n->lock);
    e1k_set(n, R_IMS, (e1k_get(n, R_IMS) | set) & ~clear);
    update(n);
    pthread_mutex_unlock(&n->lock);
}

/* 10.2.4.1: reading clears if nothing is enabled, or an interrupt is asserted. */
uint32_t e1k_icr_read(struct e1000e *n)
{
    pthread_mutex_lock(&n->lock);
    uint32_t icr = e1k_get(n, R_ICR), ims = e1k_get(n, R_IMS);
    bool asserted = icr & ims;
    if (!ims || asserted)
        e1k_set(n, R_ICR, 0);
    if (asserted && e1k_get(n, R_CTRL_EXT) & CTRL_EXT_IAME)
        e1k_set(n, R_IMS, ims & ~e1k_get(n, R_IAM));
    update(n);
    pthread_mutex_unlock(&n->lock);
    return icr | (asserted ? C_ASSERTED : 0);
}

void e1k_icr_write(struct e1000e *n, uint32_t val)
{
    pthread_mutex_lock(&n->lock);
    if (e1k_get(n, R_CTRL_EXT) & CTRL_EXT_IAME)
        e1k_set(n, R_IMS, e1k_get(n, R_IMS) & ~e1k_get(n, R_IAM));
    e1k_set(n, R_ICR, e1k_get(n, R_ICR) & ~val);
    update(n);
    pthread_mutex_unlock(&n->lock);
}

void e1k_irq_reset(struct e1000e *n)
{
    pthread_mutex_lock(&n->lock);
    e1k_set(n, R_ICR, 0);
    e1k_set(n, R_IMS, 0);
    update(n);
    pthread_mutex_unlock(&n->lock);
    n->gathered = 0;
    memset(n->deferred, 0, sizeof n->deferred);
    memset(n->next, 0, sizeof n->next);
}

/* ---- throttling. 7.4.6 "Interrupt Moderation" ---- */

/* The least time between two interrupts by `v`; without MSI-X all go by vector 0. */
static uint64_t interval(struct e1000e *n, unsigned v)
{
    return (uint64_t)(e1k_get(n, pci_msix_on(&n->func) ? R_EITR + 4 * v : R_ITR) & 0xffff) * ITR_UNIT;
}

static void raise_by(struct e1000e *n, unsigned v, uint32_t causes, uint64_t now)
{
    if (now >= n->next[v]) {
        n->next[v] = now + interval(n, v);
        e1k_raise(n, causes);
        return;
    }
    n->deferred[v] |= causes;
    if (n->throttle_at && n->throttle_at <= n->next[v])
        return;
    n->throttle_at = n->next[v];
    ioloop_timer_arm(n->loop, &n->throttle, n->throttle_at);
}

/* Causes without a vector of their own go with the first that has one: a message is sent for none of them. */
void e1k_raise_queue(struct e1000e *n, uint32_t causes)
{
    uint64_t now = clock_host_ns();
    uint32_t by[E1K_VECTORS] = {0}, rest = causes;
    unsigned v;
    if (!pci_msix_on(&n->func)) {
        raise_by(n, 0, causes, now);
        return;
    }
    for (uint32_t left = causes & C_VECTORS; left; left &= left - 1)
        if (vector_of(n, left & -left, &v)) {
            by[v] |= left & -left;
            rest &= ~(left & -left);
        }
    for (v = 0; v < E1K_VECTORS; v++)
        if (by[v]) {
            raise_by(n, v, by[v] | rest, now);
            rest = 0;
        }
    if (rest)
        e1k_raise(n, rest);
}

void e1k_throttle_ends(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    uint64_t now = max_u64(clock_host_ns(), n->throttle_at);
    n->throttle_at = 0;
    for (unsigned v = 0; v < E1K_VECTORS; v++) {
        uint32_t causes = n->deferred[v];
        n->deferred[v] = 0;
        if (causes)
            raise_by(n, v, causes, now);
    }
    e1k_leave(n);
}
