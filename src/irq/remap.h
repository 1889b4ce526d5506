/* The one translator: from what a device wrote, or an I/O APIC entry holds, to an interrupt without any format in it.
 *
 * Formats it knows, told apart by what the machine offers and by the message's own bits:
 *   REMAP_FORM_COMPAT   dest[7:0] in address bits 19:12. SDM 3A, "Message Address Register Format"
 *   REMAP_FORM_EXT_DEST the same with dest[14:8] in address bits 11:5, bit 4 clear: the KVM, Hyper-V and Xen leaves'
 * promise A format that names a table entry (VT-d, AMD-Vi) or hides bits elsewhere (address bits past 31, vector 0) has
 * its own number below as it is built, and its own step in remap_msi(); callers never see the difference.
 */
#ifndef HEC_IRQ_REMAP_H
#define HEC_IRQ_REMAP_H

#include "irq/irq_msg.h"

enum remap_form {
    REMAP_FORM_COMPAT,
    REMAP_FORM_EXT_DEST,
    REMAP_FORM_AMDVI = 8 /* data bits name an entry of the device's table, 48882, "Interrupt Remapping" */
};

/* Why a message became no interrupt. VT-d's reasons keep their own numbers (20h..26h). */
enum remap_fault {
    REMAP_OK = 0,
    REMAP_NOT_INTERRUPT = 1, /* the address is not FEExxxxxh: an ordinary memory write */
    REMAP_BAD_MODE = 2,      /* a delivery mode messages cannot carry */
    REMAP_HIGH_ADDRESS = 3,  /* bits past 31 that no offered format gives a meaning */
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
    REMAP_LOOKUP = 1   /* somebody prepares a route: nothing is logged, nothing changes */
};

/* Bus, device and function of who sends. */
typedef struct requester_id {
    uint16_t rid;
} requester_id_t;

#define REQUESTER_ID(n) ((requester_id_t){(uint16_t)(n)})

struct amdvi;

struct remap {
    bool ext_dest_id;    /* (c) the machine promised 15-bit destination IDs */
    struct amdvi *amdvi; /* (c) set once at wiring; borrowed; NULL: none */
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
/* An I/O APIC redirection entry: as the message that such a pin sends. The mask bit is not looked at. */
struct remap_result remap_rte(const struct remap *r, uint64_t rte, requester_id_t from, unsigned flags);
/* The message of an entry. 82093AA, "I/O Redirection Table Registers"; VT-d, "Programming in I/OxAPIC". */
struct msi_msg remap_rte_msg(uint64_t rte);
/* Translate and deliver. Returns how many APICs took it, 0 if none or on a fault. */
int remap_deliver_msi(const struct remap *r, struct irq_port port, struct msi_msg msg, requester_id_t from);

#endif
