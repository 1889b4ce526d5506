#include "dev/pic.h"

#include "base/bits.h"
#include "dev/bytes.h"

#define CASCADE 2u
#define NOBODY  8u /* "no input" where a number 0-7 is expected */

/* ELCR bits that can be set: not 0, 1, 2 (timer, keyboard, cascade), not 8 and 13. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

/* ---- one chip (lock held) ---- */

/* Priority of input `i`: 0 is highest. */
static unsigned rank_of(const struct pic_chip *c, unsigned i)
{
    return (i - c->lowest - 1) & 7;
}

static unsigned input_at(const struct pic_chip *c, unsigned rank)
{
    return (rank + c->lowest + 1) & 7;
}

/* The input of highest priority in `set`, or NOBODY. */
static unsigned highest(const struct pic_chip *c, uint8_t set)
{
    for (unsigned rank = 0; rank < 8; rank++)
        if (set & 1u << input_at(c, rank))
            return input_at(c, rank);
    return NOBODY;
}

static bool level_input(const struct pic_chip *c, unsigned i)
{
    return c->ltim || c->elcr & 1u << i;
}

/* The input a chip asks to be served, or NOBODY: unmasked, and above everything in service. In special mask mode an
 * input in service holds back only itself. `nested`: the master in special fully nested mode, where the slave may
 * interrupt its own service. */
static unsigned wanted(const struct pic_chip *c, bool nested)
{
    unsigned i = highest(c, c->irr & (uint8_t)~c->imr);
    if (c->special_mask)
        return highest(c, c->irr & (uint8_t)~c->imr & (uint8_t)~c->isr);
    unsigned busy = highest(c, c->isr);
    if (i == NOBODY || busy == NOBODY)
        return i;
    if (nested && i == CASCADE && busy == CASCADE)
        return i;
    return rank_of(c, i) < rank_of(c, busy) ? i : NOBODY;
}

static void set_input(struct pic_chip *c, unsigned i, bool level)
{
    uint8_t bit = (uint8_t)(1u << i);
    bool rose = level && !(c->lines & bit);
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
    if (level_input(c, i))
        c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
    else if (rose)
        c->irr |= bit;
    else if (!level)
        c->irr &= (uint8_t)~bit; /* the request must stay high until it is acknowledged */
}

/* Put input `i` into service, or through it at once with automatic EOI. */
static void serve(struct pic_chip *c, unsigned i)
{
    uint8_t bit = (uint8_t)(1u << i);
    if (!level_input(c, i))
        c->irr &= (uint8_t)~bit;
    if (!c->aeoi)
        c->isr |= bit;
    else if (c->rotate_aeoi)
        c->lowest = (uint8_t)i;
}

/* ---- both (lock held) ---- */

static void update(struct pic *p)
{
    set_input(&p->chip[0], CASCADE, wanted(&p->chip[1], false) != NOBODY);
    bool intr = wanted(&p->chip[0], p->chip[0].sfnm) != NOBODY;
    if (intr == p->intr)
        return;
    p->intr = intr;
    if (p->cfg.output)
        p->cfg.output(p->cfg.output_opaque, intr);
}

/* One INTA on one chip: the input served, or NOBODY for a spurious cycle. */
static unsigned inta(struct pic_chip *c, bool nested)
{
    unsigned i = wanted(c, nested);
    if (i != NOBODY)
        serve(c, i);
    return i;
}

static uint8_t ack_locked(struct pic *p)
{
    unsigned i = inta(&p->chip[0], p->chip[0].sfnm);
    const struct pic_chip *c = &p->chip[0];
    if (i == CASCADE) {
        c = &p->chip[1];
        i = inta(&p->chip[1], false);
    }
    return (uint8_t)(c->base + (i == NOBODY ? 7 : i));
}

/* ---- command words (lock held). 8259A, "Initialization Command Words", "Operation Command Words" ---- */

static void write_icw1(struct pic *p, struct pic_chip *c, uint8_t val)
{
    uint8_t elcr = c->elcr, lines = c->lines, base = c->base;
    *c = (struct pic_chip){.elcr = elcr, .lines = lines, .base = base, .lowest = 7, .init = 2};
    c->need_icw4 = val & 1;
    c->single = val & 2;
    c->ltim = val & 8;
    /* The edge detectors are cleared: an edge-triggered input must go low and high again. */
    for (unsigned i = 0; i < 8; i++)
        if (level_input(c, i))
            c->irr |= c->lines & (uint8_t)(1u << i);
}

static void write_icw(struct pic_chip *c, uint8_t val)
{
    switch (c->init) {
    case 2:
        c->base = val & 0xf8;
        c->init = !c->single ? 3 : c->need_icw4 ? 4 : 0;
        break;
    case 3: /* which input is the cascade is wired */
        c->init = c->need_icw4 ? 4 : 0;
        break;
    default:
        c->sfnm = val & 0x10;
        c->aeoi = val & 2;
        c->init = 0;
        break;
    }
}

static void end_of_interrupt(struct pic_chip *c, unsigned i, bool rotate)
{
    if (i == NOBODY)
        return;
    c->isr &= (uint8_t) ~(1u << i);
    if (rotate)
        c->lowest = (uint8_t)i;
}

/* In special mask mode a masked input's service is invisible to the non-specific EOI. */
static unsigned in_service(const struct pic_chip *c)
{
    return highest(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
}

static void write_ocw2(struct pic_chip *c, uint8_t val)
{
    unsigned i = val & 7;
    switch (val >> 5) {
    case 0:
    case 4:
        c->rotate_aeoi = val & 0x80;
        break;
    case 1:
    case 5:
        end_of_interrupt(c, in_service(c), val & 0x80);
        break;
    case 3:
    case 7:
        end_of_interrupt(c, i, val & 0x80);
        break;
    case 6:
        c->lowest = (uint8_t)i;
        break;
    default:
        break;
    }
}

static void write_ocw3(struct pic_chip *c, uint8_t val)
{
    if (val & 4)
        c->poll = true;
    if (val & 2)
        c->read_isr = val & 1;
    if (val & 0x40)
        c->special_mask = val & 0x20;
}

static void write_locked(struct pic *p, unsigned chip, unsigned odd, uint8_t val)
{
    struct pic_chip *c = &p->chip[chip];
    if (odd && c->init)
        write_icw(c, val);
    else if (odd)
        c->imr = val;
    else if (val & 0x10)
        write_icw1(p, c, val);
    else if (val & 8)
        write_ocw3(c, val);
    else
        write_ocw2(c, val);
    update(p);
}

/* The poll command turns the next read into an INTA. */
static uint8_t poll_locked(struct pic *p, unsigned chip)
{
    struct pic_chip *c = &p->chip[chip];
    c->poll = false;
    unsigned i = inta(c, !chip && c->sfnm);
    update(p);
    return i == NOBODY ? 0x07 : (uint8_t)(0x80 | i);
}

static uint8_t read_locked(struct pic *p, unsigned chip, unsigned odd)
{
    struct pic_chip *c = &p->chip[chip];
    if (c->poll)
        return poll_locked(p, chip);
    if (odd)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

/* ---- the bus ---- */

static uint8_t chip_read(struct pic *p, unsigned chip, unsigned off)
{
    pthread_mutex_lock(&p->lock);
    uint8_t v = read_locked(p, chip, off);
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void chip_write(struct pic *p, unsigned chip, unsigned off, uint8_t val)
{
    pthread_mutex_lock(&p->lock);
    write_locked(p, chip, off, val);
    pthread_mutex_unlock(&p->lock);
}

static uint8_t master_read(void *dev, unsigned off)
{
    return chip_read(dev, 0, off);
}

static void master_write(void *dev, unsigned off, uint8_t val)
{
    chip_write(dev, 0, off, val);
}

static uint8_t slave_read(void *dev, unsigned off)
{
    return chip_read(dev, 1, off);
}

static void slave_write(void *dev, unsigned off, uint8_t val)
{
    chip_write(dev, 1, off, val);
}

static uint8_t elcr_read(void *dev, unsigned off)
{
    struct pic *p = dev;
    pthread_mutex_lock(&p->lock);
    uint8_t v = p->chip[off].elcr;
    pthread_mutex_unlock(&p->lock);
    return v;
}

/* An input that becomes level-triggered requests as long as its line is high. */
static void elcr_write(void *dev, unsigned off, uint8_t val)
{
    struct pic *p = dev;
    pthread_mutex_lock(&p->lock);
    struct pic_chip *c = &p->chip[off];
    c->elcr = val & elcr_mask[off];
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
    update(p);
    pthread_mutex_unlock(&p->lock);
}

static uint64_t bus_master_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(master_read, dev, off, size);
}

static void bus_master_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(master_write, dev, off, size, val);
}

static uint64_t bus_slave_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(slave_read, dev, off, size);
}

static void bus_slave_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(slave_write, dev, off, size, val);
}

static uint64_t bus_elcr_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(elcr_read, dev, off, size);
}

static void bus_elcr_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(elcr_write, dev, off, size, val);
}

static const struct bus_ops master_ops = {bus_master_read, bus_master_write};
static const struct bus_ops slave_ops = {bus_slave_read, bus_slave_write};
static const struct bus_ops elcr_ops = {bus_elcr_read, bus_elcr_write};

/* ---- any thread ---- */

void pic_set_irq(void *pic, unsigned irq, bool level)
{
    struct pic *p = pic;
    if (irq > 15 || irq == CASCADE)
        return;
    pthread_mutex_lock(&p->lock);
    set_input(&p->chip[irq / 8], irq % 8, level);
    update(p);
    pthread_mutex_unlock(&p->lock);
}

uint8_t pic_ack(void *pic)
{
    struct pic *p = pic;
    pthread_mutex_lock(&p->lock);
    uint8_t vector = ack_locked(p);
    update(p);
    pthread_mutex_unlock(&p->lock);
    return vector;
}

/* ---- lifecycle ---- */

static void reset_locked(struct pic *p)
{
    static const uint8_t base[2] = {0x08, 0x70};
    for (unsigned i = 0; i < 2; i++) {
        uint8_t lines = p->chip[i].lines;
        p->chip[i] = (struct pic_chip){.base = base[i], .imr = 0xff, .lowest = 7, .lines = lines};
    }
    update(p);
}

void pic_reset(struct pic *p)
{
    pthread_mutex_lock(&p->lock);
    reset_locked(p);
    pthread_mutex_unlock(&p->lock);
}

int pic_init(struct pic *p, const struct pic_config *c, struct err *e)
{
    *p = (struct pic){.cfg = *c};
    pthread_mutex_init(&p->lock, NULL);
    reset_locked(p);
    const struct bus_region r[] = {
        {0x20, 2, &master_ops, p, "pic"}, {0xa0, 2, &slave_ops, p, "pic"}, {0x4d0, 2, &elcr_ops, p, "elcr"}};
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(r) && rc == 0; i++)
        rc = bus_map(c->ports, &r[i], e);
    if (rc < 0)
        pic_fini(p);
    return rc;
}

void pic_fini(struct pic *p)
{
    bus_unmap(p->cfg.ports, 0x4d0);
    bus_unmap(p->cfg.ports, 0xa0);
    bus_unmap(p->cfg.ports, 0x20);
    pthread_mutex_destroy(&p->lock);
}
