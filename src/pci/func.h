/* One PCI Express function: configuration space, BARs, capabilities, INTx. PCI Express Base 5.0, chapter 7 "Software
 * Initialization and Configuration"; PCI Local Bus 3.0, 6 "Configuration Space".
 *
 * A device embeds a struct pci_func, describes it between pci_func_setup() and pci_host_add(), and from then on is told
 * of what the guest writes. Configuration accesses are serialised by the host's lock; what other threads need of the
 * configuration (bus mastering, INTx disable, MSI state) is kept beside it in atomics.
 */
#ifndef HEC_PCI_FUNC_H
#define HEC_PCI_FUNC_H

#include "base/err.h"
#include "irq/remap.h"
#include "mem/bus.h"

#define PCI_CONFIG_SIZE 4096u /* mechanism #1 reaches the first 256 */
#define PCI_BARS        6u
#define PCI_DEVFN(d, f) ((uint8_t)((d) << 3 | (f)))

/* Header offsets. PCI Local Bus 3.0, 6.1 "Configuration Space Organization". */
enum pci_config_offset {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_HEADER = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_BARS_END = 0x28,
    PCI_SUBSYSTEM = 0x2c,
    PCI_CAPABILITIES = 0x34,
    PCI_INTLINE = 0x3c,
    PCI_INTPIN = 0x3d
};

enum pci_command { PCI_CMD_IO = 1, PCI_CMD_MEMORY = 2, PCI_CMD_MASTER = 4, PCI_CMD_INTX_OFF = 0x400 };

enum pci_status { PCI_STS_INTX = 0x08, PCI_STS_CAPABILITIES = 0x10 };

enum pci_cap_id { PCI_CAP_MSI = 0x05, PCI_CAP_VENDOR = 0x09, PCI_CAP_EXPRESS = 0x10, PCI_CAP_MSIX = 0x11 };

/* Offsets in an MSI capability with 64-bit addresses, and bits of its control word. PCI Express Base 5.0, 7.7.1 "MSI
 * Capability Structures". */
enum pci_msi_reg { PCI_MSI_CTL = 2, PCI_MSI_ADDR = 4, PCI_MSI_DATA = 12 };
enum pci_msi_ctl { PCI_MSI_ENABLE = 0x0001, PCI_MSI_64BIT = 0x0080 };

/* Device/port types of the PCI Express capability. */
enum pci_express_type { PCI_EXP_ENDPOINT = 0, PCI_EXP_ROOT_PORT = 4, PCI_EXP_ROOT_ENDPOINT = 9 };

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 /* takes two numbers */ };

struct pci_func;
struct pci_bus;
struct pci_host;
struct pci_msi;
struct pci_msix;

struct pci_bar {
    enum pci_bar_kind kind;    /* (c) */
    bool prefetch;             /* (c) */
    uint64_t size;             /* (c) bytes, a power of two >= 4 KiB for memory, >= 4 for I/O */
    const struct bus_ops *ops; /* (c) accesses, any thread, offsets from the BAR's start */
    void *dev;                 /* (c) */
    const char *name;          /* (c) static */
    bool mapped;               /* (l) */
    bool refused;              /* (l) the bus has another there; `at` says where it was refused */
    uint64_t at;               /* (l) where, if mapped */
};

struct pci_func_ops {
    /* The guest has written `size` bytes at `off`; config[] holds the result. Called after the header, BARs and
     * capabilities this room knows have been served. Under the host's lock: keep it short, deliver nothing. */
    void (*config_written)(struct pci_func *f, unsigned off, unsigned size);
    /* Before the guest reads: bring volatile bytes of config[] up to date. NULL: none are. Under the host's lock. */
    void (*config_read)(struct pci_func *f, unsigned off, unsigned size);
    /* Function level reset or secondary bus reset, under the host's lock: must not wait; configuration space is reset
     * already. NULL: there is none. */
    void (*reset)(struct pci_func *f);
};

struct pci_func {
    const struct pci_func_ops *ops;   /* (c) NULL: plain configuration space */
    void *dev;                        /* (c) for ops */
    const char *name;                 /* (c) static, for messages: "virtio-blk-pci" */
    struct pci_host *host;            /* (c) by pci_host_add() */
    struct pci_bus *bus;              /* (c) by pci_host_add() */
    struct pci_func *next;            /* (c) all functions of the host, in the order they were added */
    uint8_t devfn;                    /* (c) on its bus */
    uint8_t gsi;                      /* (c) by pci_host_add(): of its INTx pin; 0: it has none */
    uint8_t express;                  /* (c) offset of the PCI Express capability; 0: none */
    uint16_t next_cap, next_ext_cap;  /* (c) where the next capability goes */
    uint8_t last_cap;                 /* (c) */
    uint16_t last_ext_cap;            /* (c) */
    uint8_t config[PCI_CONFIG_SIZE];  /* (l) the host's lock */
    uint8_t wmask[PCI_CONFIG_SIZE];   /* (c) bits the guest may change */
    uint8_t w1cmask[PCI_CONFIG_SIZE]; /* (c) bits a written 1 clears */
    uint8_t reset[PCI_CONFIG_SIZE];   /* (c) config[] after reset, taken by pci_host_add() */
    struct pci_bar bar[PCI_BARS];
    struct pci_msi *msi;        /* (c) owned; NULL: none */
    struct pci_msix *msix;      /* (c) owned; NULL: none */
    _Atomic uint16_t command;   /* (a) the command register */
    _Atomic bool masters;       /* (a) its own and its bridge's bus master enable */
    _Atomic uint16_t requester; /* (a) bus, device, function: the bus number is the guest's choice */
    _Atomic bool intx;          /* (a) what the device drives */
    bool intx_told;             /* (l: the host's INTx lock) what the host counts */
};

/* ---- before the function is added ---- */
/* Vendor, device, class (24 bits: class, subclass, interface), revision; all else zero. Without capabilities. The
 * PCI Express capability comes with pci_func_add_express(). */
void pci_func_setup(struct pci_func *f, uint8_t devfn, uint16_t vendor, uint16_t device, uint32_t class_code,
                    uint8_t revision);
void pci_func_subsystem(struct pci_func *f, uint16_t vendor, uint16_t id);
void pci_func_intx(struct pci_func *f, uint8_t pin); /* 1 = INTA# .. 4 = INTD# */
/* `bar` as in struct pci_bar, without (l) fields. */
void pci_func_bar(struct pci_func *f, unsigned index, const struct pci_bar *bar);
/* Room for a capability of `len` bytes (its two header bytes included); returns its offset. The caller fills it and its
 * wmask. An assert if there is no room: how much there is, is known when the device is written. */
unsigned pci_func_add_cap(struct pci_func *f, uint8_t id, unsigned len);
unsigned pci_func_add_ext_cap(struct pci_func *f, uint16_t id, uint8_t version, unsigned len); /* from 100h */
/* The PCI Express capability: an endpoint (which pci_host_add() makes one of the root complex on the root bus), or a
 * root port. FLR is offered to endpoints if ops->reset is there: set `ops` first. */
unsigned pci_func_add_express(struct pci_func *f, enum pci_express_type type);
/* Free what pci_func_add_msi() and pci_func_add_msix() made. No vCPU runs any more, or it was never added. */
void pci_func_fini(struct pci_func *f);

/* ---- any thread ---- */
/* Whether it may write and read memory, and so send messages. */
static inline bool pci_func_masters(const struct pci_func *f)
{
    return atomic_load_explicit(&f->masters, memory_order_acquire);
}
static inline requester_id_t pci_func_requester(const struct pci_func *f)
{
    return REQUESTER_ID(atomic_load_explicit(&f->requester, memory_order_relaxed));
}
/* The level of the function's INTx wire; equal levels may be told twice. Goes through the bridges above it to a GSI,
 * unless the command register's bit 10 is set. Inside the epoch. */
void pci_intx_set(struct pci_func *f, bool level);

#endif
