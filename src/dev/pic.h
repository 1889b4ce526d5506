/* The PC's two cascaded 8259A interrupt controllers, with ELCR. 8259A data sheet, "Programming the 8259A"; ELCR as the
 * PIIX/ICH data sheets have it ("Edge/Level Control Registers").
 *
 * Lock order: a device's own lock, then this one; `output` is called with this lock held and must not come back.
 */
#ifndef HEC_DEV_PIC_H
#define HEC_DEV_PIC_H

#include "mem/bus.h"

struct pic_config { /* all borrowed for the device's life */
    struct bus *ports;
    /* The INTR output changed to `level`: LINT0 of the CPUs that listen to it. Any thread; must not block. */
    void (*output)(void *opaque, bool level);
    void *output_opaque;
    const struct trace *trace;
};

struct pic_chip {
    uint8_t irr, isr, imr;
    uint8_t lines;  /* input levels */
    uint8_t elcr;   /* 1: level-triggered */
    uint8_t base;   /* vector of input 0 */
    uint8_t lowest; /* the input of lowest priority, 7 unless rotated */
    uint8_t init;   /* the ICW expected next at the odd port, 0 if none */
    bool need_icw4, single, ltim;
    bool aeoi, rotate_aeoi, sfnm, special_mask, read_isr, poll;
};

struct pic {
    struct pic_config cfg; /* (c) */
    pthread_mutex_t lock;
    struct pic_chip chip[2]; /* (l) master, slave */
    bool intr;               /* (l) as last told to `output` */
};

/* ---- lifecycle ---- */
int pic_init(struct pic *p, const struct pic_config *c, struct err *e);
void pic_fini(struct pic *p);
/* As a BIOS leaves it: initialised, vectors 08h and 70h, everything masked. */
void pic_reset(struct pic *p);

/* ---- any thread ---- */
/* Level of input `irq`, 0-15 (2 is the cascade: ignored). The signature is that of irq_line.set. */
void pic_set_irq(void *pic, unsigned irq, bool level);
/* An INTA cycle: the vector of the highest request, which is then in service; a spurious one (input 7) if it went away.
 * The signature is that of fabric_config.extint_ack. */
uint8_t pic_ack(void *pic);

#endif
