/* Entries replaced and invalidated while others deliver and translate: no entry is ever seen half, none is used after
 * the COMPLETION_WAIT that follows its invalidation, and no fault's event is lost. */
#include "amdvi_rig.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define ROUNDS  20000
#define READERS 2
#define SYNC    UINT64_C(0x300000)
#define TABLE   UINT64_C(0x200000)
#define DOMAIN  9
#define BAD_DEV 0x111

struct conc {
    struct arig r;
    _Atomic uint32_t floor; /* generations below are past: nobody may see them any more */
    _Atomic bool done;
    _Atomic unsigned failures, lookups, translations, faults;
};

/* Generation g as an entry: its destination and its vector must belong together. */
static void put_irte(struct conc *c, uint32_t g)
{
    unsigned __int128 *p = (unsigned __int128 *)(void *)(c->r.ram.low + ARIG_IRT + 16 * 3);
    uint64_t lo = 1 | (uint64_t)(g & 0xffffff) << 8, hi = (g & 0xff) | (uint64_t)(g >> 24) << 56;
    unsigned __int128 new = (unsigned __int128)hi << 64 | lo, old = 0, seen;
    while ((seen = __sync_val_compare_and_swap(p, old, new)) != old)
        old = seen;
}

static void put_pte(struct conc *c, uint32_t g)
{
    uint64_t v = 1 | DTE0_IR | DTE0_IW | (uint64_t)g << 12;
    atomic_store((_Atomic uint64_t *)(void *)(c->r.ram.low + TABLE + 8 * 5), v);
}

static void *deliver(void *opaque)
{
    struct conc *c = opaque;
    while (!atomic_load(&c->done)) {
        uint32_t floor = atomic_load(&c->floor);
        struct remap_result res = arig_remap(&c->r, ARIG_DEV, 3);
        if (res.fault != REMAP_OK || res.irq.vector != (res.irq.dest & 0xff) || res.irq.dest < floor)
            atomic_fetch_add(&c->failures, 1);
        atomic_fetch_add(&c->lookups, 1);
    }
    return NULL;
}

static void *translate(void *opaque)
{
    struct conc *c = opaque;
    while (!atomic_load(&c->done)) {
        uint32_t floor = atomic_load(&c->floor);
        gpa_t gpa = 0;
        uint64_t len;
        if (amdvi_dma(c->r.a, REQUESTER_ID(ARIG_DEV), 0x5123, true, &gpa, &len) != AMDVI_DMA_OK ||
            (gpa & 0xfff) != 0x123 || gpa >> 12 < floor)
            atomic_fetch_add(&c->failures, 1);
        atomic_fetch_add(&c->translations, 1);
    }
    return NULL;
}

/* Never more than half a log ahead of who reads it. */
static void *make_faults(void *opaque)
{
    struct conc *c = opaque;
    while (!atomic_load(&c->done)) {
        uint64_t used = arig_rd(&c->r, AMDVI_EVT_TAIL) - arig_rd(&c->r, AMDVI_EVT_HEAD);
        if ((used & 0xfff) > 0x800) {
            sched_yield();
            continue;
        }
        if (arig_remap(&c->r, BAD_DEV, 3).fault != REMAP_AMDVI_BLOCKED)
            atomic_fetch_add(&c->failures, 1);
        atomic_fetch_add(&c->faults, 1);
    }
    return NULL;
}

static unsigned drain(struct conc *c)
{
    unsigned n = 0;
    for (uint64_t q[2]; arig_event(&c->r, q); n++)
        if ((q[0] & 0xffff) != BAD_DEV || q[0] >> 60 != EVT_INVALID_DEVICE_REQUEST)
            atomic_fetch_add(&c->failures, 1);
    return n;
}

/* As a guest's driver: change, invalidate, wait for completion. */
static void next_generation(struct conc *c, uint32_t g)
{
    put_irte(c, g);
    put_pte(c, g);
    arig_command(&c->r, arig_op(5, ARIG_DEV), 0);
    arig_command(&c->r, arig_op(3, (uint64_t)DOMAIN << 32), 0x5000);
    arig_command(&c->r, arig_op(1, SYNC | 1), g);
    if (arig_ld(&c->r, SYNC) != g)
        atomic_fetch_add(&c->failures, 1);
    atomic_store(&c->floor, g);
}

static void conc_init(struct conc *c)
{
    arig_init(&c->r);
    arig_start(&c->r, CTL_GA_EN | CTL_XT_EN);
    arig_dte(&c->r, ARIG_DEV, DTE0_V | DTE0_TV | UINT64_C(1) << 9 | TABLE | DTE0_IR | DTE0_IW, DOMAIN, arig_int(9));
    arig_dte(&c->r, BAD_DEV, 0, 0, DTE2_IV);
    next_generation(c, 1);
}

static void invalidation_against_use(void **state)
{
    static void *(*const jobs[])(void *) = {deliver, translate, make_faults};
    struct conc *c = calloc(1, sizeof *c);
    pthread_t t[READERS * 3];
    unsigned events = 0;
    conc_init(c);
    for (unsigned i = 0; i < READERS * 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, jobs[i % 3], c), 0);
    for (uint32_t g = 2;
         g < ROUNDS || !atomic_load(&c->lookups) || !atomic_load(&c->translations) || !atomic_load(&c->faults); g++) {
        next_generation(c, g);
        events += drain(c);
        if (g % 64 == 0)
            sched_yield();
    }
    atomic_store(&c->done, true);
    for (unsigned i = 0; i < READERS * 3; i++)
        pthread_join(t[i], NULL);
    events += drain(c);
    assert_int_equal(atomic_load(&c->failures), 0);
    assert_int_equal(events, atomic_load(&c->faults));
    assert_false(arig_rd(&c->r, AMDVI_STATUS) & ST_EVT_OVERFLOW);
    arig_fini(&c->r);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(invalidation_against_use)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
