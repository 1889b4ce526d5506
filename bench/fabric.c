/* ns per interrupt delivery at 1, 300, 4096 and 32768 APIC IDs: to one, to a cluster of 16, to all; with one and two
 * senders; and ns per rebuild of the destination map. CPU time of the senders, best of several rounds. Unicasts are all
 * news to their targets: a vector that is pending already would spare the kick. */
#include "irq/fabric_priv.h"
#include "x86/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct bench {
    struct epoch epoch;
    struct fabric *f;
    apic_id_t *ids;
    _Atomic uint8_t *woken; /* what a kick costs at least: one store in the target's own state */
    uint32_t n;
};

struct sender {
    struct bench *b;
    uint32_t first, step; /* which targets */
    uint32_t deliveries;
    int slot;
    struct irq (*message)(const struct bench *b, uint32_t k);
    double ns; /* out: per delivery */
};

static void kick(void *opaque, vcpu_idx_t cpu)
{
    atomic_store_explicit(&((struct bench *)opaque)->woken[cpu.i * 64], 1, memory_order_relaxed);
}

static double thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void setup(struct bench *b, uint32_t n)
{
    struct err e = {""};
    b->n = n;
    b->ids = calloc(n, sizeof *b->ids);
    b->woken = aligned_alloc(64, (size_t)n * 64);
    for (uint32_t i = 0; i < n; i++)
        b->ids[i] = APIC_ID(n - 1 - i);
    epoch_init(&b->epoch);
    struct fabric_config c = {.vcpus = n,
                              .ids = b->ids,
                              .firmware_x2apic = true,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = kick,
                              .kick_opaque = b,
                              .epoch = &b->epoch};
    if (fabric_create(&c, &b->f, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    for (uint32_t i = 0; i < n; i++)
        fabric_msr_write(b->f, VCPU_IDX(i), 0, MSR_X2APIC_FIRST + APIC_SVR, 0x1ff);
}

static void teardown(struct bench *b)
{
    fabric_destroy(b->f);
    epoch_fini(&b->epoch);
    free(b->ids);
    free((void *)b->woken);
}

/* Forget all requests, so that each delivery is news. */
static void drain(struct bench *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        for (unsigned w = 0; w < 4; w++)
            atomic_store_explicit(&b->f->lapic[i].irr[w], 0, memory_order_relaxed);
}

static struct irq unicast(const struct bench *b, uint32_t k)
{
    return (struct irq){.dest = k * 7919 % b->n, .vector = (uint8_t)(16 + k / b->n % 240), .assert_ = 1};
}

static struct irq cluster(const struct bench *b, uint32_t k)
{
    return (struct irq){.dest = (k * 7919 % b->n >> 4) << 16 | 0xffff, .vector = 0x41, .assert_ = 1, .logical = 1};
}

static struct irq everyone(const struct bench *b, uint32_t k)
{
    return (struct irq){.dest = UINT32_MAX, .vector = 0x42, .assert_ = 1};
}

static void *send_all(void *opaque)
{
    struct sender *s = opaque;
    epoch_enter(&s->b->epoch, s->slot);
    double start = thread_ns();
    for (uint32_t i = 0, k = s->first; i < s->deliveries; i++, k += s->step)
        fabric_deliver(s->b->f, s->message(s->b, k));
    s->ns = (thread_ns() - start) / s->deliveries;
    epoch_leave(&s->b->epoch, s->slot);
    return NULL;
}

/* Best ns a delivery over some rounds, `senders` threads at once (the slower of them counts). */
static double measure(struct bench *b, struct irq (*message)(const struct bench *, uint32_t), uint32_t deliveries,
                      unsigned senders, const int slots[2])
{
    double best = 1e18;
    for (unsigned round = 0; round < 15; round++) {
        struct sender s[2];
        pthread_t t[2];
        double worst = 0;
        drain(b);
        for (unsigned i = 0; i < senders; i++) {
            s[i] = (struct sender){b, i, senders, deliveries, slots[i], message, 0};
            pthread_create(&t[i], NULL, send_all, &s[i]);
        }
        for (unsigned i = 0; i < senders; i++) {
            pthread_join(t[i], NULL);
            worst = s[i].ns > worst ? s[i].ns : worst;
        }
        best = worst < best ? worst : best;
    }
    return best;
}

static double measure_rebuild(struct bench *b, int slot)
{
    unsigned flips = b->n > 4096 ? 200 : 2000;
    epoch_enter(&b->epoch, slot);
    double start = thread_ns();
    for (unsigned k = 0; k < flips; k++)
        fabric_msr_write(b->f, VCPU_IDX(b->n - 1), 0, MSR_APIC_BASE,
                         APIC_BASE_DEFAULT | (b->n == 1 ? APIC_BASE_BSP : 0) | (k & 1 ? APIC_BASE_EN : 0));
    double ns = (thread_ns() - start) / flips;
    epoch_leave(&b->epoch, slot);
    return ns;
}

static void row(uint32_t n)
{
    struct bench b;
    setup(&b, n);
    int slots[2] = {epoch_slot(&b.epoch), epoch_slot(&b.epoch)};
    uint32_t many = n < 1000 ? n * 240 : 200000, all = 4000000 / (n < 300 ? 300 : n) + 1;
    double one = measure(&b, unicast, many, 1, slots), two = measure(&b, unicast, many, 2, slots);
    double sixteen = measure(&b, cluster, 20000, 1, slots);
    double cast = measure(&b, everyone, all, 1, slots);
    drain(&b);
    double cast1 = measure(&b, everyone, 1, 1, slots);
    printf("%8u  %9.1f  %13.1f  %10.1f  %12.1f  %14.1f  %11.1f  %11.0f\n", n, one, two, sixteen,
           sixteen / (n < 16 ? n : 16), cast / n, cast1 / n, measure_rebuild(&b, slots[0]));
    teardown(&b);
}

int main(void)
{
    static const uint32_t sizes[] = {1, 300, 4096, 32768};
    printf("     IDs  unicast  unicast 2 snd  cluster16  /target    all repeated/tgt  all news/tgt  rebuild\n");
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        row(sizes[i]);
    return 0;
}
