#include "dev/pit.h"

#include "base/bits.h"
#include "dev/bytes.h"

#define REFRESH_NS 15085u /* port 61h bit 4 toggles with each DRAM refresh */

/* ---- ticks ---- */

static uint64_t tick_of(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SEC);
}

/* First ns that belongs to `tick`. */
static uint64_t ns_of(uint64_t tick)
{
    return (uint64_t)(((unsigned __int128)tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t pit_tick(const struct pit *p)
{
    return tick_of(guest_clock_now(p->cfg.clock));
}

/* ---- one counter ---- */

static bool periodic(const struct pit_counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool one_shot_by_gate(const struct pit_counter *c)
{
    return c->mode == 1 || c->mode == 5;
}

static uint64_t elapsed(const struct pit_counter *c, uint64_t tick)
{
    return c->running ? tick - c->start : c->held;
}

/* Let a count written during a period take over where that period ended. */
static void settle(struct pit_counter *c, uint64_t tick)
{
    if (!c->next_count || !c->running || tick - c->start < c->count)
        return;
    c->start += c->count;
    c->count = c->next_count;
    c->next_count = 0;
}

/* Level of OUT after `t` ticks. 82C54, "Mode Definitions". */
static bool out_at(const struct pit_counter *c, uint64_t t)
{
    switch (c->mode) {
    case 0:
        return !c->null_count && t > c->count;
    case 1:
        return !c->triggered || t >= c->count;
    case 2:
        return c->null_count || !c->gate || t % c->count != c->count - 1;
    case 3:
        return c->null_count || !c->gate || t % c->count < (c->count + 1) / 2;
    default: /* 4 and 5: low for one tick */
        return c->null_count || (c->mode == 5 && !c->triggered) || t != c->count;
    }
}

static bool out(struct pit_counter *c, uint64_t tick)
{
    settle(c, tick);
    return out_at(c, elapsed(c, tick));
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static uint32_t from_bcd(uint32_t v)
{
    return (v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}

/* The counting element as the guest reads it. One-shot modes wrap and go on counting; mode 3 counts by two. */
static uint16_t counting_element(struct pit_counter *c, uint64_t tick)
{
    settle(c, tick);
    uint64_t t = elapsed(c, tick);
    uint32_t modulus = c->bcd ? 10000 : 0x10000, v;
    if (c->mode == 2)
        v = c->count - (uint32_t)(t % c->count);
    else if (c->mode == 3)
        v = (c->count & ~1u) - (uint32_t)(2 * t % c->count & ~UINT64_C(1));
    else
        v = (uint32_t)((c->count + modulus - t % modulus) % modulus);
    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

static void restart(struct pit_counter *c, uint64_t tick)
{
    c->start = tick;
    c->running = true;
    c->triggered = true;
    if (c->next_count)
        c->count = c->next_count;
    c->next_count = 0;
}

/* Gate input. 82C54, "Gate Pin Operations Summary". */
static void set_gate(struct pit_counter *c, uint64_t tick, bool gate)
{
    if (gate == c->gate)
        return;
    settle(c, tick);
    c->gate = gate;
    if (c->null_count)
        return;
    if (gate && (periodic(c) || one_shot_by_gate(c))) {
        restart(c, tick);
    } else if (gate) {
        c->start = tick - c->held;
        c->running = true;
    } else if (!one_shot_by_gate(c)) {
        c->held = elapsed(c, tick);
        c->running = false;
    }
}

static void load_count(struct pit_counter *c, uint64_t tick, uint16_t written)
{
    uint32_t n = c->bcd ? from_bcd(written) : written;
    if (!n)
        n = c->bcd ? 10000 : 0x10000;
    settle(c, tick);
    /* A count of 1 is illegal in modes 2 and 3; a period of two ticks is the shortest with an edge in it. */
    if (periodic(c) && n == 1)
        n = 2;
    if (!c->null_count && (periodic(c) || one_shot_by_gate(c))) {
        c->next_count = n;
        return;
    }
    c->count = n;
    c->null_count = false;
    if (one_shot_by_gate(c))
        return; /* waits for its gate */
    c->start = tick;
    c->held = 0;
    c->running = c->gate;
}

static void write_mode(struct pit_counter *c, uint8_t val)
{
    uint8_t mode = val >> 1 & 7;
    bool gate = c->gate;
    *c = (struct pit_counter){.mode = mode > 5 ? mode & 3 : mode,
                              .access = val >> 4 & 3,
                              .bcd = val & 1,
                              .gate = gate,
                              .null_count = true,
                              .count = val & 1 ? 10000 : 0x10000};
}

static void latch_count(struct pit_counter *c, uint64_t tick)
{
    if (c->latched)
        return; /* the first latch stays until it is read */
    c->latch = counting_element(c, tick);
    c->latched = c->access == 3 ? 2 : 1;
}

static void latch_status(struct pit_counter *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    c->status =
        (uint8_t)(out(c, tick) << 7 | (c->null_count || c->next_count) << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static uint8_t read_latch(struct pit_counter *c)
{
    bool high = c->access == 2 || (c->access == 3 && c->latched == 1);
    c->latched--;
    return (uint8_t)(high ? c->latch >> 8 : c->latch);
}

static uint8_t read_counter(struct pit_counter *c, uint64_t tick)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    if (c->latched)
        return read_latch(c);
    uint16_t v = counting_element(c, tick);
    bool high = c->access == 2 || (c->access == 3 && c->read_high);
    if (c->access == 3)
        c->read_high = !c->read_high;
    return (uint8_t)(high ? v >> 8 : v);
}

static void write_counter(struct pit_counter *c, uint64_t tick, uint8_t val)
{
    if (c->access == 3 && !c->write_high) {
        c->write_low = val;
        c->write_high = true;
        /* The first byte stops a mode 0 count. */
        if (c->mode == 0 && !c->null_count) {
            c->held = 0;
            c->running = false;
        }
        return;
    }
    uint16_t v = c->access == 3 ? (uint16_t)(c->write_low | val << 8) : c->access == 2 ? (uint16_t)(val << 8) : val;
    c->write_high = false;
    load_count(c, tick, v);
}

/* ---- IRQ 0 (lock held) ---- */

/* Tick of the next rising edge of OUT after `tick`, or HEC_NS_NEVER. */
static uint64_t next_rise(struct pit_counter *c, uint64_t tick)
{
    settle(c, tick);
    if (c->null_count || !c->running)
        return HEC_NS_NEVER;
    uint64_t t = tick - c->start;
    if (periodic(c))
        return t < c->count ? c->start + c->count : c->start + (t / c->count + 1) * c->count;
    if (t > c->count || one_shot_by_gate(c)) /* counter 0's gate never moves */
        return HEC_NS_NEVER;
    return c->start + c->count + 1;
}

static void arm_irq(struct pit *p, uint64_t tick)
{
    p->irq_tick = next_rise(&p->ch[0], tick);
    if (p->irq_tick == HEC_NS_NEVER)
        timer_cancel(p->cfg.timerq, &p->timer);
    else
        timer_arm(p->cfg.timerq, &p->timer, ns_of(p->irq_tick));
}

/* A rising edge is due: the low phase before it is passed on with it, since only the edge interrupts. */
static void on_timer(void *opaque, uint64_t now)
{
    struct pit *p = opaque;
    pthread_mutex_lock(&p->lock);
    uint64_t tick = tick_of(now);
    if (tick >= p->irq_tick) {
        irq_line_set(&p->cfg.irq, false);
        irq_line_set(&p->cfg.irq, true);
        arm_irq(p, tick);
    }
    pthread_mutex_unlock(&p->lock);
}

static void counter0_changed(struct pit *p, uint64_t tick)
{
    /* Only the level that a write makes at once: the low of mode 0, the high of the others. */
    if (p->ch[0].mode == 0 || p->ch[0].null_count)
        irq_line_set(&p->cfg.irq, out(&p->ch[0], tick));
    arm_irq(p, tick);
}

/* ---- the bus ---- */

static void read_back(struct pit *p, uint64_t tick, uint8_t val)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(val & 2u << i))
            continue;
        if (!(val & 0x10))
            latch_status(&p->ch[i], tick);
        if (!(val & 0x20))
            latch_count(&p->ch[i], tick);
    }
}

static void write_control(struct pit *p, uint64_t tick, uint8_t val)
{
    unsigned i = val >> 6;
    if (i == 3) {
        read_back(p, tick, val);
    } else if (!(val & 0x30)) {
        latch_count(&p->ch[i], tick);
    } else {
        write_mode(&p->ch[i], val);
        if (i == 0)
            counter0_changed(p, tick);
    }
}

static uint8_t read_reg(void *opaque, unsigned off)
{
    struct pit *p = opaque;
    if (off == 3)
        return 0xff; /* write only */
    pthread_mutex_lock(&p->lock);
    uint8_t v = read_counter(&p->ch[off], pit_tick(p));
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void write_reg(void *opaque, unsigned off, uint8_t val)
{
    struct pit *p = opaque;
    pthread_mutex_lock(&p->lock);
    uint64_t tick = pit_tick(p);
    if (off == 3) {
        write_control(p, tick, val);
    } else {
        write_counter(&p->ch[off], tick, val);
        if (off == 0)
            counter0_changed(p, tick);
    }
    pthread_mutex_unlock(&p->lock);
}

static uint64_t pit_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(read_reg, dev, off, size);
}

static void pit_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(write_reg, dev, off, size, val);
}

/* Port 61h: gate of counter 2 (0), speaker (1), refresh toggle (4), OUT of counter 2 (5). */
static uint64_t port61_read(void *dev, uint64_t off, unsigned size)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    uint64_t now = guest_clock_now(p->cfg.clock);
    uint8_t v = p->port61;
    v |= now / REFRESH_NS % 2 ? 0x10 : 0;
    v |= out(&p->ch[2], tick_of(now)) ? 0x20 : 0;
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void port61_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pit *p = dev;
    pthread_mutex_lock(&p->lock);
    p->port61 = val & 3;
    set_gate(&p->ch[2], pit_tick(p), val & 1);
    pthread_mutex_unlock(&p->lock);
}

static const struct bus_ops pit_ops = {pit_read, pit_write};
static const struct bus_ops port61_ops = {port61_read, port61_write};

/* ---- lifecycle ---- */

static void reset_locked(struct pit *p)
{
    for (unsigned i = 0; i < 3; i++) {
        p->ch[i].gate = i != 2;
        write_mode(&p->ch[i], 0x36);
    }
    p->port61 = 0;
    arm_irq(p, 0);
}

void pit_reset(struct pit *p)
{
    pthread_mutex_lock(&p->lock);
    reset_locked(p);
    irq_line_set(&p->cfg.irq, false);
    pthread_mutex_unlock(&p->lock);
}

int pit_init(struct pit *p, const struct pit_config *c, struct err *e)
{
    *p = (struct pit){.cfg = *c};
    pthread_mutex_init(&p->lock, NULL);
    timer_init(&p->timer, on_timer, p);
    reset_locked(p);
    const struct bus_region r = {PIT_PORT, 4, &pit_ops, p, "pit"};
    const struct bus_region r61 = {0x61, 1, &port61_ops, p, "port 61h"};
    int rc = bus_map(c->ports, &r, e);
    if (rc == 0)
        rc = bus_map(c->ports, &r61, e);
    if (rc < 0)
        pit_fini(p);
    return rc;
}

void pit_fini(struct pit *p)
{
    timer_cancel(p->cfg.timerq, &p->timer);
    bus_unmap(p->cfg.ports, 0x61);
    bus_unmap(p->cfg.ports, PIT_PORT);
    pthread_mutex_destroy(&p->lock);
}
