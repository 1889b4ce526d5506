/* Inside the AHCI controller. AHCI 1.3.1.
 *
 *   ahci.c       the PCI function, its life, interrupts
 *   ahci_regs.c  registers: what vCPUs do
 *   ahci_port.c  ports: starting and stopping, resets, issuing, completing
 *   ahci_cmd.c   one command: header, FIS, PRD table, data
 *
 * Registers that vCPUs write are atomics, and so are those they read. PxCI and PxSACT are set by vCPUs and cleared by
 * the loop. What a vCPU asks a port to do is counted (struct ahci_ask), so that no request is lost and none is answered
 * before it was served: while one is open, the register bits the guest polls say "not yet", whatever else is known.
 */
#ifndef HEC_DEV_AHCI_PRIV_H
#define HEC_DEV_AHCI_PRIV_H

#include "base/bits.h"
#include "dev/ahci.h"
#include "dev/ata.h"
#include "pci/dma.h"

#define AHCI_SLOTS       32u
#define AHCI_IOVS        256u     /* pieces of a request: a PRD has two bytes at least, so a sector always fits */
#define AHCI_PRD_BATCH   16u      /* PRDs read at a time */
#define AHCI_CHUNK       0x800000 /* most bytes of a request */
#define AHCI_SCRATCH_LEN 0x10000u /* where verified sectors go */

/* Generic host control. 3.1 "Generic Host Control" */
enum ahci_reg {
    AHCI_CAP = 0x00,
    AHCI_GHC = 0x04,
    AHCI_IS = 0x08,
    AHCI_PI = 0x0c,
    AHCI_VS = 0x10,
    AHCI_PORT0 = 0x100,
    AHCI_PORT_LEN = 0x80
};

/* 3.3 "Port Registers (one set per port)" */
enum ahci_port_reg {
    AHCI_PxCLB = 0x00,
    AHCI_PxCLBU = 0x04,
    AHCI_PxFB = 0x08,
    AHCI_PxFBU = 0x0c,
    AHCI_PxIS = 0x10,
    AHCI_PxIE = 0x14,
    AHCI_PxCMD = 0x18,
    AHCI_PxTFD = 0x20,
    AHCI_PxSIG = 0x24,
    AHCI_PxSSTS = 0x28,
    AHCI_PxSCTL = 0x2c,
    AHCI_PxSERR = 0x30,
    AHCI_PxSACT = 0x34,
    AHCI_PxCI = 0x38
};

enum ahci_ghc { GHC_HR = 1, GHC_IE = 2 };
#define GHC_AE 0x80000000u

enum ahci_pxis {
    IS_DHRS = 1u << 0,
    IS_PSS = 1u << 1,
    IS_SDBS = 1u << 3,
    IS_UFS = 1u << 4,
    IS_DPS = 1u << 5,
    IS_PCS = 1u << 6,
    IS_PRCS = 1u << 22,
    IS_OFS = 1u << 24,
    IS_IFS = 1u << 27,
    IS_HBFS = 1u << 29,
    IS_TFES = 1u << 30
};

enum ahci_pxcmd {
    CMD_ST = 1u << 0,
    CMD_SUD = 1u << 1,
    CMD_POD = 1u << 2,
    CMD_CLO = 1u << 3,
    CMD_FRE = 1u << 4,
    CMD_CCS_SHIFT = 8,
    CMD_FR = 1u << 14,
    CMD_CR = 1u << 15,
    CMD_ATAPI = 1u << 24,
    CMD_DLAE = 1u << 25
};

enum ahci_serr {
    SERR_P = 1u << 10, /* protocol */
    SERR_E = 1u << 11, /* internal */
    SERR_N = 1u << 16, /* PhyRdy change */
    SERR_H = 1u << 22, /* handshake */
    SERR_F = 1u << 25, /* unknown FIS */
    SERR_X = 1u << 26  /* exchanged: COMINIT */
};

/* 4.2.2 "Command List Structure", first dword */
enum ahci_header { HDR_CFL = 0x1f, HDR_C = 1u << 10, HDR_PRDTL_SHIFT = 16 };

/* 4.2.1 "Received FIS Structure" */
enum ahci_rfis { RFIS_DMA_SETUP = 0x00, RFIS_PIO_SETUP = 0x20, RFIS_D2H = 0x40, RFIS_SDB = 0x58 };

struct ahci_ask {
    _Atomic uint32_t asked, served; /* (a) by vCPUs; by the loop */
};

struct ahci_prd {  /* a place in a command's PRD table */
    uint32_t next; /* the PRD after this one */
    uint32_t left; /* bytes */
    uint64_t addr;
    bool interrupt; /* its I bit */
};

struct ahci_slot { /* a command; the loop's */
    struct block_request req;
    struct ahci_port *port; /* (c) */
    struct iovec *iov;      /* (c) AHCI_IOVS */
    struct ata_cmd cmd;
    bool active;     /* there is a command that is not yet answered */
    int result;      /* of `req` */
    uint32_t header; /* first dword */
    uint64_t table;  /* guest address of the command table */
    struct ahci_prd prd;
    uint32_t batch_at, batch_n; /* which PRDs `batch` has */
    uint8_t batch[AHCI_PRD_BATCH * 16];
    uint32_t at;     /* sectors done; of ATA_OP_TRIM, ranges */
    uint32_t chunk;  /* bytes of `req` */
    uint32_t moved;  /* bytes between the host and the disk, for PRDBC */
    bool descriptor; /* a PRD with its I bit was used up */
};

struct ahci_port {
    struct ahci *hba;        /* (c) */
    unsigned n;              /* (c) */
    struct block *block;     /* (c) NULL: no device */
    struct ahci_slot *slots; /* (c) AHCI_SLOTS, if there is one */
    struct iovec *iovs;      /* (c) theirs */
    uint8_t *scratch;        /* (c) AHCI_SCRATCH_LEN */
    struct ata_config ata;   /* (c) */

    _Atomic uint32_t clb, clbu, fb, fbu, ie, cmd, sctl; /* (a) by vCPUs */
    _Atomic uint32_t is, serr, sact, ci;                /* (a) by both */
    _Atomic uint32_t tfd, sig, state;                   /* (a) by the loop; `state` is CR, FR and CCS of PxCMD */
    struct ahci_ask stop, fis_off, comreset, clo;
    struct ioloop_bell bell;

    /* The loop's. */
    struct ata_disk disk;
    unsigned in_flight; /* requests at the block layer */
    uint32_t finished;  /* slots whose request is done, but not looked at */
    uint32_t queued;    /* active slots with queued commands */
    uint32_t succeeded; /* queued commands to be told with the next Set Device Bits FIS */
    int busy;           /* slot of the command that is not queued, or -1 */
    unsigned last;      /* slot that was issued last */
    bool halted;        /* an error: nothing until PxCMD.ST is cleared */
    bool failing;       /* the queue has failed: `fail` is told when nothing is in flight */
    bool fail_queued;   /* by a queued command */
    struct ata_cmd fail;
    unsigned fail_slot;
    bool srst;       /* device control's bit */
    bool soft_reset; /* it fell: the disk resets as soon as nothing is in flight */
    bool signature;  /* a reset's FIS was not yet received */
    bool submitted;  /* there is something to kick */
    bool interrupt;  /* PxIS has got a bit */
};

struct ahci {
    struct ahci_config cfg; /* (c) */
    struct pci_func func;
    struct ahci_port port[AHCI_PORTS];
    _Atomic uint32_t ghc, is; /* (a) */
    _Atomic uint32_t index;   /* (a) of the index-data pair */
    struct ahci_ask reset;
    struct ioloop_bell bell;
    pthread_mutex_t intx_lock;

    /* Held by the loop while it works on ports, and tried by a vCPU that looks whether a reset is over: with it what is
     * "the loop's" is its own for the moment. */
    pthread_mutex_t work;
    unsigned in_flight; /* the loop's: all ports' */
    bool quiet;         /* the loop's: the owner resets, nobody starts anything */
    pthread_mutex_t lock;
    pthread_cond_t idle_cond;
    bool idle; /* (l) quiet, and nothing in flight */
};

extern const struct bus_ops ahci_bar_ops, ahci_index_ops;

static inline bool ahci_asked(const struct ahci_ask *q)
{
    return atomic_load(&q->asked) != atomic_load(&q->served);
}

/* ---- any thread (inside the epoch) ---- */
unsigned ahci_port_speed(const struct ahci_port *p);   /* generation that PxSCTL.SPD lets the link have */
uint32_t ahci_port_pending(const struct ahci_port *p); /* PxIS */
/* PxIS or PxIE has got a bit: IS, and the interrupt if it is due. */
void ahci_port_interrupt(struct ahci_port *p);
void ahci_interrupt(struct ahci *a); /* IS or GHC.IE has got a bit */
/* A vCPU looks at GHC.HR: the reset is done right here if nothing is in flight and the loop is not at work. */
void ahci_hba_look(struct ahci *a);
void ahci_is_clear(struct ahci *a, uint32_t val);

/* ---- the loop's thread only, or with `work` held ---- */
void ahci_port_run(void *port);          /* the bell: everything there is to do */
void ahci_hba_run(void *hba);            /* likewise */
void ahci_hba_try_reset(struct ahci *a); /* GHC.HR, if it is set and nothing is in flight */
/* Power-on, or an HBA reset, which keeps PxCLB and PxFB. Nothing is in flight. */
void ahci_port_reset(struct ahci_port *p, bool power_on);
void ahci_port_raise(struct ahci_port *p, uint32_t is);
/* An error that ends the port's work until PxCMD.ST is cleared: bits of PxIS and PxSERR. */
void ahci_port_fatal(struct ahci_port *p, uint32_t is, uint32_t serr);
void ahci_port_status(struct ahci_port *p, uint8_t status, uint8_t error);
/* A command is done as far as the disk is concerned: `s->cmd` has its status. */
void ahci_port_done(struct ahci_port *p, struct ahci_slot *s);
void ahci_queue_broke(struct ahci_port *p, struct ahci_slot *s, bool queued);
/* The last request of a port is done while the owner waits. */
void ahci_quiet_check(struct ahci *a);

/* Fetch and start the command in `slot`. */
void ahci_cmd_start(struct ahci_port *p, unsigned slot);
/* Its request is done: go on. */
void ahci_cmd_continue(struct ahci_slot *s);
/* FISes into the receive area; false: it is not memory (ahci_port_fatal() was called). */
bool ahci_fis_d2h(struct ahci_port *p, const struct ata_cmd *c, bool interrupt);
bool ahci_fis_pio_setup(struct ahci_slot *s, bool in);
bool ahci_fis_set_bits(struct ahci_port *p, uint8_t status, uint8_t error, uint32_t done);
bool ahci_cmd_prdbc(struct ahci_slot *s);

static inline unsigned ahci_slot_number(const struct ahci_slot *s)
{
    return (unsigned)(s - s->port->slots);
}

#endif
