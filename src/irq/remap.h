/* The one translator: from what a device wrote, or an I/O APIC entry holds, to an interrupt without any format in it.
 *
 * Formats it knows, told apart by what the machine offers and by the message's own bits (REMAP_FORM_...):
 *
 * - COMPAT: dest[7:0] in address bits 19:12. SDM 3A, "Message Address Register Format".
 * - EXT_DEST: the same with dest[14:8] in address bits 11:5, bit 4 clear: the KVM, Hyper-V and Xen leaves' promise.
 * - VTD: bit 4 set and VT-d's remapping on: address and data name a table entry (vtd.h).
 * - AMDVI: AMD-Vi's remapping on for the sender: data bits name an entry of its table (amdvi.h).
 * - ADDR_HI: dest[31:8] in address bits 63:40, bits 39:32 clear: how KVM's users hand it 32-bit IDs (Linux,
 *   Documentation/virt/kvm/api.rst, "KVM_SET_GSI_ROUTING"). Only if the caller says so by the flag REMAP_ADDR_HI: it is
 *   remapped already, and passes by every table.
 * - WINDOWS_HIGH: dest[31:8] in address bits 55:32: Windows without a remapping unit; 8 bits lower than the former.
 *   Only where the machine offers it.
 * - WINDOWS_AMD: Windows on an AMD CPU with an Intel unit: the I/O APIC's entry names VT-d's by its data bits, as on
 *   AMD's units. Only where the machine offers it.
 * - XEN_PIRQ: vector 0: the destination bits number an event of Xen's. Only if somebody resolves those.
 * - UNIT: what a remapping unit itself sends: dest[31:8] in address bits 63:40; passes by every table.
 *
 * Each has its own step in remap_msi(); callers never see the difference.
 */
#ifndef HEC_IRQ_REMAP_H
#define HEC_IRQ_REMAP_H

#include "base/trace.h"
#include "irq/irq_msg.h"

enum remap_form {
    REMAP_FORM_COMPAT,
    REMAP_FORM_EXT_DEST,
    REMAP_FORM_VTD,
    REMAP_FORM_UNIT,
    REMAP_FORM_ADDR_HI,
    REMAP_FORM_WINDOWS_HIGH,
    REMAP_FORM_WINDOWS_AMD,
    REMAP_FORM_XEN_PIRQ,
    REMAP_FORM_AMDVI = 8 /* data bits name an entry of the device's table, 48882, "Interrupt Remapping" */
};

/* Why a message became no interrupt. VT-d's reasons keep their own numbers (20h..28h). */
enum remap_fault {
    REMAP_OK = 0,
    REMAP_NOT_INTERRUPT = 1, /* the address is not FEExxxxxh: an ordinary memory write */
    REMAP_BAD_MODE = 2,      /* a delivery mode messages cannot carry */
    REMAP_HIGH_ADDRESS = 3,  /* bits past 31 that no offered format gives a meaning */
    REMAP_POSTED = 4,   /* no fault: noted in a posted-interrupt descriptor, and nobody is to be notified. A look-up
                         * always says this of such an entry: each delivery has to come here */
    REMAP_XEN_PIRQ = 5, /* Xen's PIRQ form, which nobody here resolves, or a number nobody knows */
    /* VT-d, "Interrupt Remapping Fault Conditions" */
    REMAP_VTD_REQUEST_RSVD = 0x20,    /* reserved bits of the message */
    REMAP_VTD_INDEX = 0x21,           /* past the table's end */
    REMAP_VTD_NOT_PRESENT = 0x22,     /* entry not present */
    REMAP_VTD_TABLE = 0x23,           /* table not in memory */
    REMAP_VTD_ENTRY_RSVD = 0x24,      /* reserved bits of the entry */
    REMAP_VTD_COMPAT_BLOCKED = 0x25,  /* compatibility format */
    REMAP_VTD_SOURCE = 0x26,          /* the sender may not use the entry */
    REMAP_VTD_DESCRIPTOR = 0x27,      /* posted-interrupt descriptor not in memory */
    REMAP_VTD_DESCRIPTOR_RSVD = 0x28, /* its reserved bits */
    /* AMD-Vi */
    REMAP_AMDVI_BLOCKED = 0x40,     /* the device's entry lets no interrupt of this kind through */
    REMAP_AMDVI_DEVICE = 0x41,      /* no entry for the device, or an illegal one */
    REMAP_AMDVI_INDEX = 0x42,       /* past the end of the device's table */
    REMAP_AMDVI_NOT_PRESENT = 0x43, /* RemapEn is clear */
    REMAP_AMDVI_RESERVED = 0x44,    /* reserved bits or a reserved type in the table's entry */
    REMAP_AMDVI_UNREACHABLE = 0x45  /* a table that is not in memory */
};

enum remap_flag {
    REMAP_DELIVER = 0, /* a delivery: faults are logged where the architecture logs them */
    REMAP_LOOKUP = 1,  /* somebody prepares a route: nothing is logged, nothing changes */
    REMAP_ADDR_HI = 2  /* the message came through an interface that has dest[31:8] in address bits 63:40 */
};

/* Bus, device and function of who sends. */
typedef struct requester_id {
    uint16_t rid;
} requester_id_t;

#define REQUESTER_ID(n) ((requester_id_t){(uint16_t)(n)})

/* Who keeps routes that look-ups gave is told which cookies no longer hold, first to last; 0 and UINT32_MAX: all, also
 * those without a cookie. */
struct remap_stale {
    void (*fn)(void *opaque, uint32_t first, uint32_t last);
    void *opaque;
};

/* Who knows what Xen's PIRQ numbers stand for. False: none of them. Any thread. */
struct remap_pirq {
    bool (*resolve)(void *opaque, uint32_t pirq, struct irq *out);
    void *opaque;
};

struct vtd;
struct amdvi;

struct remap {
    bool ext_dest_id;          /* (c) the machine promised 15-bit destination IDs */
    bool broadcast_quirk;      /* (c) FFh is everyone, in x2APIC mode too */
    bool windows_high;         /* (c) REMAP_FORM_WINDOWS_HIGH is offered */
    bool windows_amd;          /* (c) REMAP_FORM_WINDOWS_AMD is, to `ioapic` */
    requester_id_t ioapic;     /* (c) */
    struct remap_pirq pirq;    /* (c) `resolve` NULL: REMAP_FORM_XEN_PIRQ is a fault */
    const struct trace *trace; /* (c) borrowed, may be NULL */
    struct vtd *vtd;           /* (c) set once at wiring; borrowed; NULL: none */
    struct amdvi *amdvi;       /* (c) likewise; a machine has one unit at most */
};

struct remap_result {
    struct irq irq; /* valid if fault is REMAP_OK */
    enum remap_fault fault;
    enum remap_form form;
    uint32_t cookie; /* names the table entry it came from, for invalidation; 0: none, never goes stale */
};

/* ---- lifecycle ---- */
void remap_init(struct remap *r, bool ext_dest_id);

/* ---- any thread (inside the epoch) ---- */
struct remap_result remap_msi(const struct remap *r, struct msi_msg msg, requester_id_t from, unsigned flags);
/* Whether a device's write to `addr` is a message, good or bad, and so must not go to memory. */
bool remap_claims(const struct remap *r, uint64_t addr);
/* An I/O APIC redirection entry: as the message that such a pin sends. The mask bit is not looked at. */
struct remap_result remap_rte(const struct remap *r, uint64_t rte, requester_id_t from, unsigned flags);
/* The message of an entry. 82093AA, "I/O Redirection Table Registers"; VT-d, "Programming in I/OxAPIC". */
struct msi_msg remap_rte_msg(uint64_t rte);
/* A message of a remapping unit's own (fault and invalidation events): never remapped itself. VT-d, "Fault Event Upper
 * Address Register". */
struct remap_result remap_unit_msi(struct msi_msg msg);
/* Translate and deliver. Returns how many APICs took it, 0 if none or on a fault. */
int remap_deliver_msi(const struct remap *r, struct irq_port port, struct msi_msg msg, requester_id_t from);

#endif
