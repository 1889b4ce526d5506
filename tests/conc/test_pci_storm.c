/* Devices' threads that fire against a guest that masks, moves vectors, and moves BARs: after a mask no message comes,
 * none goes where the vector no longer points, and none is lost. */
#include "pci_rig.h"

#include "dev/irqtest_pci.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define VECTORS 4
#define FIRERS  3
#define ROUNDS  3000
#define DEV     PCI_DEVFN(5, 0)
#define DEV2    PCI_DEVFN(6, 0)
#define TABLE   UINT64_C(0xd0100000)
#define PLACES  4
#define ABSENT  0xffffffffu

struct storm {
    struct pci_rig r;
    struct irqtest_pci *t, *u;
    struct pci_func *f;
    unsigned msi, msix;
    bool by_msi;
    _Atomic bool done, lossy;
    _Atomic uint32_t at[VECTORS];    /* generation the vector's message names; 0: masked */
    _Atomic uint64_t fired[VECTORS]; /* before each shot */
    _Atomic uint64_t seen[VECTORS];  /* `fired`, at the latest message */
    _Atomic uint64_t sent, wild, taken, read;
    _Atomic uint32_t shot, done_shot;
};

/* The message: vector 30h + v, destination the generation's low bits. */
static int deliver(void *opaque, struct irq irq)
{
    struct storm *s = opaque;
    unsigned v = irq.vector - 0x30u;
    if (atomic_fetch_add(&s->sent, 1) % 32 == 0)
        sched_yield(); /* the guest gets time to mask it */
    uint32_t now = v < VECTORS ? atomic_load(&s->at[v]) : 0;
    if (!now || (now & 0xff) != irq.dest) {
        atomic_fetch_add(&s->wild, 1);
        return 0;
    }
    uint64_t fired = atomic_load(&s->fired[v]), seen = atomic_load(&s->seen[v]);
    while (seen < fired && !atomic_compare_exchange_weak(&s->seen[v], &seen, fired))
        ;
    atomic_fetch_add(&s->taken, 1);
    return 1;
}

static void *fire(void *opaque)
{
    struct storm *s = opaque;
    for (unsigned i = 0; !atomic_load(&s->done); i++) {
        unsigned v = i % VECTORS;
        atomic_fetch_add(&s->fired[v], 1);
        if (s->by_msi)
            msi_fire(s->f, v);
        else
            msix_fire(s->f, v);
        if (i % 256 == 0)
            sched_yield();
    }
    return NULL;
}

/* ---- the guest ---- */

static void table(struct storm *s, unsigned v, unsigned off, uint32_t val)
{
    pci_msix_bar_write(s->f, v * 16 + off, 4, val);
}

/* As a guest moves a vector: mask, wait for nothing, write, unmask. From the mask on the old message may not come. */
static void move_msix(struct storm *s, unsigned v, uint32_t generation)
{
    table(s, v, 12, 1);
    atomic_store(&s->at[v], 0);
    table(s, v, 0, 0xfee00000 | (generation & 0xff) << 12);
    table(s, v, 8, 0x30 + v);
    if (generation % 3 == 0)
        sched_yield();
    atomic_store(&s->at[v], generation);
    table(s, v, 12, 0);
}

/* MSI has one address: all vectors move at once. */
static void move_msi(struct storm *s, uint32_t generation)
{
    cfg_wr(&s->r, 0, DEV, s->msi + 16, 4, 0xffffffff);
    for (unsigned v = 0; v < VECTORS; v++)
        atomic_store(&s->at[v], 0);
    cfg_wr(&s->r, 0, DEV, s->msi + 4, 4, 0xfee00000 | (generation & 0xff) << 12);
    if (generation % 3 == 0)
        sched_yield();
    for (unsigned v = 0; v < VECTORS; v++)
        atomic_store(&s->at[v], generation);
    cfg_wr(&s->r, 0, DEV, s->msi + 16, 4, 0);
}

/* The mask of the whole function, by configuration space. */
static void mask_all(struct storm *s)
{
    uint32_t was[VECTORS];
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, 0xc000);
    for (unsigned v = 0; v < VECTORS; v++)
        was[v] = atomic_exchange(&s->at[v], 0);
    sched_yield();
    for (unsigned v = 0; v < VECTORS; v++)
        atomic_store(&s->at[v], was[v]);
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, 0x8000);
}

/* Off and on: what fires meanwhile is nothing. */
static void off_and_on(struct storm *s)
{
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, 0);
    uint32_t was[VECTORS];
    for (unsigned v = 0; v < VECTORS; v++)
        was[v] = atomic_exchange(&s->at[v], 0);
    for (unsigned v = 0; v < VECTORS; v++)
        atomic_store(&s->at[v], was[v]);
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, 0x8000);
}

/* ---- BARs ---- */

static uint64_t place(unsigned i)
{
    return 0xd8000000 + (uint64_t)(i % PLACES) * 0x1000;
}

/* Two functions' registers move over each other's places, and sizes are read as guests do. */
static void *move_bars(void *opaque)
{
    struct storm *s = opaque;
    int slot = epoch_slot(&s->r.f.epoch);
    for (unsigned i = 0; !atomic_load(&s->done); i++) {
        epoch_enter(&s->r.f.epoch, slot);
        cfg_wr(&s->r, 0, DEV, 0x10, 4, place(i));
        cfg_wr(&s->r, 0, DEV2, 0x10, 4, place(i * 3 + 1));
        if (i % 5 == 0)
            cfg_wr(&s->r, 0, DEV2, 0x10, 4, 0xffffffff);
        if (i % 7 == 0)
            cfg_wr(&s->r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MASTER);
        cfg_wr(&s->r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MASTER | PCI_CMD_MEMORY);
        epoch_leave(&s->r.f.epoch, slot);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void *read_bars(void *opaque)
{
    struct storm *s = opaque;
    int slot = epoch_slot(&s->r.f.epoch);
    for (unsigned i = 0; !atomic_load(&s->done); i++) {
        epoch_enter(&s->r.f.epoch, slot);
        uint64_t id = mem_rd(&s->r, place(i), 4);
        if (id == IRQTEST_PCI_ID)
            atomic_fetch_add(&s->read, 1);
        else if (id != ABSENT)
            atomic_fetch_add(&s->wild, 1);
        epoch_leave(&s->r.f.epoch, slot);
    }
    return NULL;
}

/* ---- storms ---- */

static void storm_init(struct storm *s)
{
    memset(s, 0, sizeof *s);
    rig_init(&s->r);
    s->r.host.cfg.port = (struct irq_port){.deliver = deliver, .opaque = s};
    struct irqtest_pci_config c = {.host = &s->r.host, .devfn = DEV, .msi = VECTORS, .msix = 100};
    assert_int_equal(irqtest_pci_create(&c, &s->t, &s->r.f.err), 0);
    c.devfn = DEV2;
    assert_int_equal(irqtest_pci_create(&c, &s->u, &s->r.f.err), 0);
    s->f = irqtest_pci_func(s->t);
    cfg_wr(&s->r, 0, DEV, 0x14, 4, TABLE);
    cfg_wr(&s->r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    cfg_wr(&s->r, 0, DEV2, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    s->msi = cap_of(&s->r, 0, DEV, PCI_CAP_MSI);
    s->msix = cap_of(&s->r, 0, DEV, PCI_CAP_MSIX);
}

static void check(struct storm *s)
{
    assert_int_equal(atomic_load(&s->wild), 0);
    for (unsigned v = 0; v < VECTORS; v++)
        if (!s->lossy)
            assert_int_equal(atomic_load(&s->seen[v]), atomic_load(&s->fired[v]));
}

static void storm_fini(struct storm *s)
{
    irqtest_pci_destroy(s->t);
    irqtest_pci_destroy(s->u);
    rig_fini(&s->r);
}

/* Until all has been seen to happen at least once. */
static bool enough(const struct storm *s, uint32_t g)
{
    return g >= ROUNDS && atomic_load(&s->taken) && atomic_load(&s->read);
}

static void run(struct storm *s, void (*step)(struct storm *s, uint32_t g))
{
    pthread_t t[FIRERS + 2];
    int slot = epoch_slot(&s->r.f.epoch);
    for (unsigned i = 0; i < FIRERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, fire, s), 0);
    assert_int_equal(pthread_create(&t[FIRERS], NULL, move_bars, s), 0);
    assert_int_equal(pthread_create(&t[FIRERS + 1], NULL, read_bars, s), 0);
    for (uint32_t g = 2; !enough(s, g); g++) {
        epoch_enter(&s->r.f.epoch, slot);
        step(s, g);
        epoch_leave(&s->r.f.epoch, slot);
        if (g % 16 == 0)
            sched_yield();
    }
    atomic_store(&s->done, true);
    for (unsigned i = 0; i < FIRERS + 2; i++)
        pthread_join(t[i], NULL);
    check(s);
}

static void msix_step(struct storm *s, uint32_t g)
{
    move_msix(s, g % VECTORS, g % 200 + 1);
    if (g % 10 == 0)
        mask_all(s);
    if (s->lossy && g % 4 == 0)
        off_and_on(s);
}

static void start_msix(struct storm *s)
{
    for (unsigned v = 0; v < VECTORS; v++)
        move_msix(s, v, 1);
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, 0x8000);
}

static void msix_against_masks(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    storm_init(s);
    start_msix(s);
    run(s, msix_step);
    storm_fini(s);
    free(s);
}

static void msix_off_and_on(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    storm_init(s);
    s->lossy = true;
    start_msix(s);
    run(s, msix_step);
    storm_fini(s);
    free(s);
}

static void msi_step(struct storm *s, uint32_t g)
{
    move_msi(s, g % 200 + 1);
}

static void msi_against_masks(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    storm_init(s);
    s->by_msi = true;
    cfg_wr(&s->r, 0, DEV, s->msi + 12, 2, 0x30);
    move_msi(s, 1);
    cfg_wr(&s->r, 0, DEV, s->msi + 2, 2, 1 | 2 << 4);
    run(s, msi_step);
    storm_fini(s);
    free(s);
}

/* ---- one shot against one unmasking ---- */

#define SHOTS 60000

static void *shoot(void *opaque)
{
    struct storm *s = opaque;
    for (uint32_t i = 1; i <= SHOTS; i++) {
        while (atomic_load(&s->shot) < i)
            if (atomic_load(&s->done))
                return NULL;
        for (volatile unsigned n = 0; n < i % 61; n++)
            ; /* the two come closer to each other, and pass */
        atomic_fetch_add(&s->fired[0], 1);
        msix_fire(s->f, 0);
        atomic_store(&s->done_shot, i);
        sched_yield();
    }
    return NULL;
}

/* Whoever is first, the message has come when both are through. */
static void no_shot_is_lost_at_an_unmasking(void **state)
{
    struct storm *s = calloc(1, sizeof *s);
    pthread_t t;
    storm_init(s);
    start_msix(s);
    assert_int_equal(pthread_create(&t, NULL, shoot, s), 0);
    unsigned lost = 0;
    for (uint32_t i = 1; i <= SHOTS && !lost; i++) {
        table(s, 0, 12, 1);
        atomic_store(&s->shot, i);
        for (volatile unsigned n = 0; n < i % 509; n++)
            ;
        table(s, 0, 12, 0);
        while (atomic_load(&s->done_shot) < i)
            sched_yield();
        lost += atomic_load(&s->seen[0]) != i;
    }
    atomic_store(&s->done, true);
    pthread_join(t, NULL);
    assert_int_equal(lost, 0);
    storm_fini(s);
    free(s);
}

/* ---- INTx ---- */

#define SHARERS 3

struct wires {
    struct pci_rig r;
    struct pci_func f[SHARERS];
    _Atomic bool done;
    _Atomic unsigned next, turned;
};

/* Each drives its own; they share one GSI. */
static void *drive(void *opaque)
{
    struct wires *w = opaque;
    struct pci_func *f = &w->f[atomic_fetch_add(&w->next, 1)];
    for (unsigned i = 0; !atomic_load(&w->done); i++) {
        pci_intx_set(f, i & 1);
        atomic_fetch_add(&w->turned, 1);
        if (i % 64 == 0)
            sched_yield();
    }
    pci_intx_set(f, false);
    return NULL;
}

static void wires_end_low(void **state)
{
    struct wires *w = calloc(1, sizeof *w);
    pthread_t t[SHARERS];
    rig_init(&w->r);
    for (unsigned i = 0; i < SHARERS; i++) {
        pci_func_setup(&w->f[i], PCI_DEVFN(2 + 8 * i, 0), 1, 2, 3, 4);
        pci_func_intx(&w->f[i], 1);
        assert_int_equal(pci_host_add(&w->r.host, NULL, &w->f[i], &w->r.f.err), 0);
    }
    for (unsigned i = 0; i < SHARERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, drive, w), 0);
    for (unsigned i = 0; i < ROUNDS || atomic_load(&w->turned) < 1000; i++) {
        cfg_wr(&w->r, 0, w->f[i % SHARERS].devfn, PCI_COMMAND, 2, i & 1 ? PCI_CMD_INTX_OFF : 0);
        if (i % 64 == 0)
            sched_yield();
    }
    atomic_store(&w->done, true);
    for (unsigned i = 0; i < SHARERS; i++)
        pthread_join(t[i], NULL);
    for (unsigned i = 0; i < SHARERS; i++)
        cfg_wr(&w->r, 0, w->f[i].devfn, PCI_COMMAND, 2, 0);
    assert_int_equal(w->r.f.level, 0);
    pci_intx_set(&w->f[1], true);
    assert_true(w->r.f.level == 1u << pci_intx_gsi(2, 1));
    pci_intx_set(&w->f[1], false);
    assert_int_equal(w->r.f.level, 0);
    rig_fini(&w->r);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(msix_against_masks), cmocka_unit_test(msix_off_and_on),
        cmocka_unit_test(msi_against_masks),  cmocka_unit_test(no_shot_is_lost_at_an_unmasking),
        cmocka_unit_test(wires_end_low),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
