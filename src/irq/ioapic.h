/* An I/O APIC, version 20h: 24 pins and an EOI register. 82093AA, "I/O APIC Register Description"; ICH/PCH datasheet,
 * "APIC Direct Registers" for the EOI register.
 *
 * A pin is told whether its source asserts it, not which voltage that is: the polarity bit is the guest's to keep, and
 * inverts nothing. (PCI's INTx, active low, comes here as `true` when asserted.)
 *
 * Level: while asserted and unmasked the pin sends once, sets remote IRR when an APIC took it, and sends again at each
 * EOI of its vector while still asserted. Edge: one message a rising edge; an edge on a masked pin is lost.
 */
#ifndef HEC_IRQ_IOAPIC_H
#define HEC_IRQ_IOAPIC_H

#include "base/err.h"
#include "base/trace.h"
#include "irq/irq_msg.h"
#include "irq/remap.h"
#include "mem/bus.h"

#define IOAPIC_PINS 24
#define IOAPIC_GPA  UINT64_C(0xfec00000)
#define IOAPIC_SIZE UINT64_C(0x1000)
/* Requester id of the machine's I/O APIC, as DMAR and IVRS name it: bus 0, device 14h, function 0. */
#define IOAPIC_REQUESTER 0x00a0

struct ioapic;

struct ioapic_config {
    uint8_t id;                /* initial ID, bits 27:24 of register 0 */
    requester_id_t requester;  /* who its messages come from */
    bool ext_dest_id;          /* entries keep bits 55:48: extended destinations, or a remapping unit */
    const struct remap *remap; /* borrowed */
    struct irq_port port;      /* borrowed */
    const struct trace *trace; /* borrowed, may be NULL */
};

/* ---- lifecycle ---- */
int ioapic_create(const struct ioapic_config *c, struct ioapic **out, struct err *e);
void ioapic_destroy(struct ioapic *io);
/* Entries masked, selector 0, ID as configured; pins keep the level their sources drive. */
void ioapic_reset(struct ioapic *io);

/* ---- any thread (inside the epoch) ---- */
/* Equal levels may be told twice. A pin past the last one is nobody's. */
void ioapic_set_pin(struct ioapic *io, unsigned pin, bool level);
/* EOI broadcast: for fabric_set_eoi(). */
void ioapic_eoi(void *io, uint8_t vector);
/* MMIO at IOAPIC_GPA, IOAPIC_SIZE bytes; `dev` is the struct ioapic. */
extern const struct bus_ops ioapic_bus_ops;
/* The entry of a pin as the guest reads it; 0 past the last one. */
uint64_t ioapic_rte(struct ioapic *io, unsigned pin);

#endif
