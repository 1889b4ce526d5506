/* An interrupt on its way: the raw message a device writes, and what the translator makes of it.
 *
 * struct msi_msg is bytes as the bus carries them; struct irq is resolved, with no format left in it. Only remap.c
 * turns the one into the other; only fabric.c (or the KVM port) takes a struct irq.
 */
#ifndef HEC_IRQ_MSG_H
#define HEC_IRQ_MSG_H

#include "base/types.h"

/* A memory write to FEExxxxxh, as a device or an I/O APIC sends it. SDM 3A, "Message Signalled Interrupts". */
struct msi_msg {
    uint64_t addr;
    uint32_t data;
};

/* Delivery modes. SDM 3A, "Message Data Register Format" and "Interrupt Command Register (ICR)". */
enum irq_mode {
    IRQ_FIXED = 0,
    IRQ_LOWEST = 1,
    IRQ_SMI = 2,
    IRQ_REMRD = 3, /* on no bus; KVM's PV kick uses the number */
    IRQ_NMI = 4,
    IRQ_INIT = 5,
    IRQ_STARTUP = 6,
    IRQ_EXTINT = 7
};

enum irq_shorthand { IRQ_DEST = 0, IRQ_SELF = 1, IRQ_ALL = 2, IRQ_ALL_BUT_SELF = 3 };

/* What FFh means as a destination. */
enum irq_dest8 {
    IRQ_DEST32 = 0,   /* the field was wider than 8 bits: an ID or logical destination like any other */
    IRQ_DEST8 = 1,    /* 8 bits: everyone in xAPIC mode, and the x2APIC whose ID it is */
    IRQ_DEST8_ALL = 2 /* 8 bits on a machine with the broadcast quirk: everyone in either mode */
};

/* Resolved: whom, how, what. 16 bytes, passed by value. */
struct irq {
    uint32_t dest;     /* APIC ID or logical destination; FFFFFFFFh is everyone */
    uint8_t vector;    /* or the SIPI's page number */
    uint8_t mode;      /* enum irq_mode */
    uint8_t logical;   /* destination mode: 0 physical, 1 logical */
    uint8_t level;     /* trigger mode: 0 edge, 1 level */
    uint8_t assert_;   /* 0 only for the INIT level de-assert */
    uint8_t shorthand; /* enum irq_shorthand; only IPIs have one */
    uint8_t dest8;     /* enum irq_dest8 */
    uint8_t way;       /* the trace span that its way is written to (way.h); 0: none */
};

/* Who takes a resolved interrupt: the software fabric or an engine that has APICs of its own. Set once while the
 * machine is wired. Returns how many APICs took it. Any thread, inside the epoch. */
struct irq_port {
    int (*deliver)(void *opaque, struct irq irq);
    void *opaque;
    /* A level-triggered interrupt of an I/O APIC's pin, each time before it is delivered: for a port that must know it
     * so that the vector's EOI comes back. It holds until the next call for that pin, past the entry's mask; NULL: the
     * pin sends none any more. It may be called under a lock of the I/O APIC's. `pin` NULL: the port need not know. */
    void (*pin)(void *opaque, unsigned pin, const struct irq *irq);
};

/* An interrupt input that a device drives: a pin of the I/O APIC with its PIC twin, or nothing. Wired by vm/machine.c.
 * Level-triggered semantics: `set` is told the new level; equal levels may be told twice. Any thread. */
struct irq_line {
    void (*set)(void *opaque, unsigned gsi, bool level);
    void *opaque;
    unsigned gsi;
};

static inline void irq_line_set(const struct irq_line *l, bool level)
{
    if (l->set)
        l->set(l->opaque, l->gsi, level);
}

#endif
