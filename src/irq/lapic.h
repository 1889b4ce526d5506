/* One local APIC: its registers and what they mean, xAPIC and x2APIC. SDM 3A, "Advanced Programmable Interrupt
 * Controller (APIC)".
 *
 * Pure: it calls nobody. A register write says in a struct lapic_effect what the rest of the machine must do, and
 * fabric.c alone acts on it.
 *
 * Who writes what: any thread adds to irr, tmr, events, errors and lint, each by one atomic step; the owning vCPU's
 * thread takes from them and owns all the rest. A sender touches the first cache line only, unless the interrupt is
 * level-triggered.
 */
#ifndef HEC_IRQ_LAPIC_H
#define HEC_IRQ_LAPIC_H

#include "base/bits.h"
#include "irq/irq_msg.h"
#include "irq/lapic_timer.h"
#include "x86/apic.h"

#include <stdatomic.h>

enum lapic_mode { LAPIC_DISABLED = 0, LAPIC_XAPIC = 1, LAPIC_X2APIC = 2 };

enum lapic_flag {
    LAPIC_F_HW = 1u << 0,   /* APIC_BASE.EN */
    LAPIC_F_SW = 1u << 1,   /* SVR bit 8 */
    LAPIC_F_LEVEL = 1u << 2 /* tmr may have bits set */
};

/* Bits of `events`. The first four are enum fabric_event; SIPI's page number is in bits 15:8. */
enum lapic_event {
    LAPIC_EV_INIT = 1u << 0,
    LAPIC_EV_SIPI = 1u << 1,
    LAPIC_EV_NMI = 1u << 2,
    LAPIC_EV_SMI = 1u << 3,
    LAPIC_EV_PUBLIC = 0xf,
    LAPIC_EV_EXTINT = 1u << 4, /* an ExtINT message came: one INTA cycle is owed */
    LAPIC_EV_ERROR = 1u << 5,  /* a sender added to `errors` */
    LAPIC_EV_LINT0 = 1u << 6,  /* LINT0 rose */
    LAPIC_EV_LINT1 = 1u << 7,
    LAPIC_EV_INNER = LAPIC_EV_ERROR | LAPIC_EV_LINT0 | LAPIC_EV_LINT1 /* lapic_settle() turns these into others */
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct lapic {
    _Alignas(64) _Atomic uint64_t irr[4]; /* (a) */
    _Atomic uint32_t flags;               /* (a) enum lapic_flag */
    _Atomic uint32_t events;              /* (a) enum lapic_event */
    _Atomic uint32_t errors;              /* (a) ESR bits the next ESR write will show */
    _Atomic uint32_t lint;                /* (a) levels of LINT0 (bit 0) and LINT1 (bit 1) */
    apic_id_t id;                         /* (c) 32 bits */
    bool bsp;                             /* (c) */
    bool x2apic;                          /* (c) CPUID offers x2APIC */
    bool firmware_x2apic;                 /* (c) leaves reset in x2APIC mode */
    bool id8;                             /* (c) in xAPIC mode it has no other ID than the 8-bit one */

    _Alignas(64) _Atomic uint64_t tmr[4]; /* (a) */
    uint64_t isr[4];                      /* (v) */

    uint64_t base;                    /* (v) IA32_APIC_BASE */
    uint64_t icr;                     /* (v) xAPIC: ICR2 in the upper half */
    uint32_t tpr, svr, esr, ldr, dfr; /* (v) ldr and dfr are the xAPIC ones */
    uint32_t lvt[LVT_COUNT];          /* (v) */
    uint8_t xid;                      /* (v) xAPIC ID */
    uint8_t mode;                     /* (v) enum lapic_mode */
    bool irq_window;                  /* (v) an ExtINT is waiting to be taken */
    bool pv_eoi_lent;                 /* (v) the guest may end the interrupt in service by clearing *pv_eoi */
    uint8_t *pv_eoi;                  /* (v) a byte of guest RAM, bit 0 counts; NULL: the guest has not asked */
    uint64_t pv_eoi_msr;              /* (v) as the guest wrote it */
    struct lapic_timer timer;         /* (v) but for `published` */
};

enum lapic_effect_kind {
    LAPIC_NONE,
    LAPIC_SEND,      /* send `irq` */
    LAPIC_EOI_LEVEL, /* tell the I/O APICs of the EOI of `vector` */
    LAPIC_MODE       /* mode, ID or logical destination may have changed: the destination map is stale */
};

struct lapic_effect {
    enum lapic_effect_kind kind;
    uint8_t vector;
    struct irq irq;
};

/* What became of an offered interrupt. */
enum lapic_taken {
    LAPIC_REFUSED, /* the APIC does not take it */
    LAPIC_MERGED,  /* already pending: whoever sent it first wakes the vCPU */
    LAPIC_TAKEN    /* now pending: wake the vCPU */
};

/* All of an APIC's state, to take it elsewhere. */
struct lapic_image {
    uint64_t base;       /* IA32_APIC_BASE */
    uint64_t timer_left; /* ns until a timer that counts expires, HEC_NS_NEVER: it does not count */
    uint64_t deadline;   /* guest ns, 0: disarmed */
    uint32_t events;     /* LAPIC_EV_PUBLIC bits, SIPI's page in 15:8 */
    uint8_t regs[1024];  /* the register page; in x2APIC mode the ID has all 32 bits, and ICR2 ICR's upper half */
};

/* ---- lifecycle ---- */
void lapic_init(struct lapic *l, apic_id_t id, bool bsp, bool x2apic, bool firmware_x2apic);
/* SDM 3A, "Local APIC State After Power-Up or Reset". The boot CPU's LINT0 is left as firmware leaves it, ExtINT and
 * unmasked ("virtual wire"). Owner, or nobody runs it. */
void lapic_reset(struct lapic *l);

/* ---- any thread ---- */
/* SDM 3A, "Interrupt Acceptance for Fixed Interrupts". An `irq` that has been routed here. */
enum lapic_taken lapic_accept(struct lapic *l, struct irq irq);
/* New level of LINT0 or LINT1. True: wake the vCPU. */
bool lapic_lint(struct lapic *l, unsigned lint, bool level);

/* Whether a fixed interrupt would be accepted now: a candidate of lowest-priority delivery. */
static inline bool lapic_enabled(const struct lapic *l)
{
    return (~atomic_load_explicit(&l->flags, memory_order_relaxed) & (LAPIC_F_HW | LAPIC_F_SW)) == 0;
}

/* ---- the owning vCPU's thread only ---- */
/* xAPIC page, byte offset 0..FFFh. Unknown registers read 0 and set ESR bit 7. */
uint32_t lapic_read(struct lapic *l, uint64_t now, uint32_t off);
struct lapic_effect lapic_write(struct lapic *l, uint64_t now, uint32_t off, uint32_t val);
/* MSRs 1Bh and 800h..83Fh; false: #GP. */
bool lapic_msr_read(struct lapic *l, uint64_t now, uint32_t msr, uint64_t *val);
bool lapic_msr_write(struct lapic *l, uint64_t now, uint32_t msr, uint64_t val, struct lapic_effect *fx);
/* SDM 3A, "Local APIC State After It Receives an INIT-Deassert IPI": keeps the base, the mode and the ID. */
void lapic_init_event(struct lapic *l);
/* Raise the timer's interrupt if it is due; true if it was. */
bool lapic_timer_poll(struct lapic *l, uint64_t now);
/* Turn what other threads left in LAPIC_EV_INNER into interrupts by the LVT. Before lapic_pending() and events. */
void lapic_settle(struct lapic *l);
/* See whether the guest has ended the interrupt in service by clearing the bit it was lent, and take the bit back.
 * Before anything looks at the ISR. Linux, Documentation/virt/kvm/x86/msr.rst, "MSR_KVM_EOI_EN". */
void lapic_pv_eoi_sync(struct lapic *l);
/* SDM 3A, "Task and Processor Priorities". */
uint32_t lapic_ppr(const struct lapic *l);
/* Highest vector above PPR, or -1. */
int lapic_pending(const struct lapic *l);
/* Move it from IRR to ISR; the spurious vector if there is none. */
uint8_t lapic_take(struct lapic *l);
/* What is there now, with what is due done. Errors not yet shown by an ESR write stay behind. */
void lapic_export(struct lapic *l, uint64_t now, struct lapic_image *out);
/* Be what the image says; wires keep their levels, what senders added meanwhile is lost. False: it says what this APIC
 * can't be (reserved bits of the base, x2APIC mode with another ID or without x2APIC), and nothing has changed. */
bool lapic_import(struct lapic *l, uint64_t now, const struct lapic_image *in);
/* Whether the PIC's INTR reaches the CPU now. */
bool lapic_extint(const struct lapic *l);

#endif
