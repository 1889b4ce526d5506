/* Inside the 82574 card. Section numbers are the 82574 datasheet's.
 *
 *   e1000e.c      the PCI function and its life
 *   e1000e_regs.c registers: what vCPUs do; PHY and NVM behind them
 *   e1000e_irq.c  causes, masks, vectors, throttling
 *   e1000e_tx.c   transmit queues
 *   e1000e_rx.c   filters and the receive queue
 *
 * Every register is an atomic word. The loop's thread writes the head pointers and statistics, vCPUs write the rest,
 * and a reset writes everything. Interrupt state alone needs several words at once and has a short lock.
 */
#ifndef HEC_DEV_E1000E_PRIV_H
#define HEC_DEV_E1000E_PRIV_H

#include "base/bits.h"
#include "dev/e1000e.h"
#include "pci/dma.h"

#include <pthread.h>

#define E1K_MMIO      0x20000u
#define E1K_VECTORS   5u
#define E1K_TX_QUEUES 2u
#define E1K_RX_QUEUES 2u
#define E1K_IOVS      256u /* pieces of a frame that is sent */
#define E1K_NVM_WORDS 64u
#define E1K_PHY_REGS  32u

/* 10.2 "Register Summary". */
enum e1k_reg {
    R_CTRL = 0x0000,
    R_STATUS = 0x0008,
    R_EECD = 0x0010,
    R_EERD = 0x0014,
    R_CTRL_EXT = 0x0018,
    R_MDIC = 0x0020,
    R_VET = 0x0038,
    R_ICR = 0x00c0,
    R_ITR = 0x00c4,
    R_ICS = 0x00c8,
    R_IMS = 0x00d0,
    R_IMC = 0x00d8,
    R_EIAC = 0x00dc,
    R_IAM = 0x00e0,
    R_IVAR = 0x00e4,
    R_EITR = 0x00e8,
    R_RCTL = 0x0100,
    R_TCTL = 0x0400,
    R_TIPG = 0x0410,
    R_LEDCTL = 0x0e00,
    R_EXTCNF = 0x0f00,
    R_PBA = 0x1000,
    R_PSRCTL = 0x2170,
    R_RDBAL = 0x2800,
    R_RDBAH = 0x2804,
    R_RDLEN = 0x2808,
    R_RDH = 0x2810,
    R_RDT = 0x2818,
    R_RXDCTL = 0x2828,
    R_TDBAL = 0x3800,
    R_TDBAH = 0x3804,
    R_TDLEN = 0x3808,
    R_TDH = 0x3810,
    R_TDT = 0x3818,
    R_TARC0 = 0x3840,
    R_STATS = 0x4000,
    R_MPC = 0x4010,
    R_GPRC = 0x4074,
    R_BPRC = 0x4078,
    R_MPRC = 0x407c,
    R_GPTC = 0x4080,
    R_GORCL = 0x4088,
    R_GOTCL = 0x4090,
    R_RNBC = 0x40a0,
    R_ROC = 0x40ac,
    R_TORL = 0x40c0,
    R_TOTL = 0x40c8,
    R_TPR = 0x40d0,
    R_TPT = 0x40d4,
    R_STATS_END = 0x4128,
    R_RXCSUM = 0x5000,
    R_RFCTL = 0x5008,
    R_MTA = 0x5200,
    R_RA = 0x5400,
    R_VFTA = 0x5600
};
#define E1K_QUEUE 0x100u /* from queue 0's registers to queue 1's */

enum e1k_ctrl { CTRL_MASTER_OFF = 1u << 2, CTRL_RST = 1u << 26, CTRL_VME = 1u << 30, CTRL_PHY_RST = 1u << 31 };
enum e1k_status {
    STATUS_FD = 1,
    STATUS_LU = 2,
    STATUS_1000 = 0x80,
    STATUS_ASDV_1000 = 0x200,
    STATUS_MASTER = 1u << 19
};
enum e1k_eecd { EECD_PRES = 1u << 8, EECD_AUTO_RD = 1u << 9 };
enum e1k_ctrl_ext { CTRL_EXT_EIAME = 1u << 24, CTRL_EXT_IAME = 1u << 27, CTRL_EXT_PBA = 1u << 31 };
enum e1k_rctl {
    RCTL_EN = 1u << 1,
    RCTL_UPE = 1u << 3,
    RCTL_MPE = 1u << 4,
    RCTL_LPE = 1u << 5,
    RCTL_RDMTS_SHIFT = 8,
    RCTL_DTYP_SPLIT = 1u << 10,
    RCTL_MO_SHIFT = 12,
    RCTL_BAM = 1u << 15,
    RCTL_BSIZE_SHIFT = 16,
    RCTL_VFE = 1u << 18,
    RCTL_BSEX = 1u << 25,
    RCTL_SECRC = 1u << 26,
    RCTL_FLXBUF_SHIFT = 27
};
enum e1k_tctl { TCTL_EN = 1u << 1, TCTL_PSP = 1u << 3 };

/* 10.2.4.1 "Interrupt Cause Read Register". */
enum e1k_cause {
    C_TXDW = 1u << 0,
    C_TXQE = 1u << 1,
    C_LSC = 1u << 2,
    C_RXDMT0 = 1u << 4,
    C_RXO = 1u << 6,
    C_RXT0 = 1u << 7,
    C_MDAC = 1u << 9,
    C_SRPD = 1u << 16,
    C_ACK = 1u << 17,
    C_MNG = 1u << 18,
    C_RXQ0 = 1u << 20,
    C_RXQ1 = 1u << 21,
    C_TXQ0 = 1u << 22,
    C_TXQ1 = 1u << 23,
    C_OTHER = 1u << 24,
    C_ASSERTED = 1u << 31
};
#define C_OTHERS  (C_LSC | C_RXO | C_MDAC | C_SRPD | C_ACK | C_MNG)
#define C_VECTORS (C_RXQ0 | C_RXQ1 | C_TXQ0 | C_TXQ1 | C_OTHER)

/* What the last context descriptor of a queue said. 7.2.7 "TCP/IP Context Transmit Descriptor Format". */
struct e1k_context {
    uint8_t ipcss, ipcso, tucss, tucso, hdrlen, tucmd;
    uint16_t ipcse, tucse; /* last bytes of what is summed; 0: the frame's */
    uint16_t mss;
};

/* A frame while its descriptors are gathered. */
struct e1k_frame {
    struct iovec iov[E1K_IOVS];
    unsigned iovs;
    uint64_t len;
    bool bad;       /* it is not sent */
    bool begun;     /* its first descriptor was seen */
    uint64_t first; /* that one's second half: what counts for the whole frame */
    bool extended;
};

struct e1k_tx {
    struct e1k_context context;
    struct e1k_frame frame;
};

struct e1000e {
    struct pci_func func;
    struct net *net;     /* (c) */
    struct ioloop *loop; /* (c) */
    const struct trace *trace;
    uint8_t mac[6];                     /* (c) */
    uint16_t nvm[E1K_NVM_WORDS];        /* (c) */
    _Atomic uint32_t reg[E1K_MMIO / 4]; /* (a) */
    _Atomic uint16_t phy[E1K_PHY_REGS]; /* (a) */
    _Atomic uint32_t resets_wanted;     /* (a) counted by vCPUs */
    _Atomic uint32_t resets_done;       /* (a) up to which the loop has come: a reset asked for during one counts */
    _Atomic bool mastering;             /* (a) what STATUS says of it: the loop's word */
    _Atomic bool starved;               /* (a) the network was told that there is no room */
    _Atomic uint32_t io_address;        /* (a) IOADDR */
    pthread_mutex_t lock;
    uint32_t told; /* (l) causes whose message has been sent, and which are still there */
    struct ioloop_bell tx_bell, rx_bell, state_bell, finish;
    /* Held by the loop while it works on the card, and tried by a vCPU that looks whether a reset is over: with it what
     * is "the loop's" is its own for the moment. */
    pthread_mutex_t work;
    unsigned depth; /* the loop's thread only: a network answers a frame within net_send() */
    /* the loop's thread, or with `work` held */
    struct e1k_tx tx[E1K_TX_QUEUES];
    uint32_t gathered;              /* causes of frames received since `finish` was rung */
    uint32_t deferred[E1K_VECTORS]; /* causes that wait for their vector's interval to end */
    uint64_t next[E1K_VECTORS];     /* host ns before which a vector is not used */
    uint64_t throttle_at;           /* what `throttle` is armed for; 0: it is not */
    struct ioloop_timer throttle;
    struct ioloop_timer patience; /* a frame waits for descriptors, and there are some already */
    bool impatient;
};

static inline uint32_t e1k_get(struct e1000e *n, unsigned reg)
{
    return atomic_load_explicit(&n->reg[reg / 4], memory_order_acquire);
}
static inline void e1k_set(struct e1000e *n, unsigned reg, uint32_t val)
{
    atomic_store_explicit(&n->reg[reg / 4], val, memory_order_release);
}
static inline uint64_t e1k_get64(struct e1000e *n, unsigned low)
{
    return e1k_get(n, low) | (uint64_t)e1k_get(n, low + 4) << 32;
}
/* Statistics stop at their end, and are cleared by reading. */
static inline void e1k_count(struct e1000e *n, unsigned reg, uint32_t by)
{
    uint32_t old = atomic_load(&n->reg[reg / 4]);
    while (!atomic_compare_exchange_weak(&n->reg[reg / 4], &old, old > UINT32_MAX - by ? UINT32_MAX : old + by))
        ;
}
/* A pair of them. Each half is cleared by reading it, at any time: what was counted already is not counted again. */
static inline void e1k_count64(struct e1000e *n, unsigned low, uint32_t by)
{
    if (atomic_fetch_add(&n->reg[low / 4], by) > UINT32_MAX - by)
        atomic_fetch_add(&n->reg[low / 4 + 1], 1);
}
static inline bool e1k_resetting(struct e1000e *n)
{
    return atomic_load(&n->resets_wanted) != atomic_load(&n->resets_done);
}

/* ---- e1000e.c ---- */
/* The loop's thread, around all it does on the card; may be nested. */
void e1k_enter(struct e1000e *n);
void e1k_leave(struct e1000e *n);
/* A vCPU looks at what a reset or the end of mastering shows in: it is done right here if the loop is not at work. */
void e1k_look(struct e1000e *n);
/* Every register as after CTRL.RST; queues forgotten. `work` is held. */
void e1k_reset_now(struct e1000e *n);

/* ---- e1000e_regs.c ---- */
extern const struct bus_ops e1k_mmio_ops, e1k_io_ops; /* `dev` is the struct e1000e */
void e1k_regs_reset(struct e1000e *n);
void e1k_nvm_init(struct e1000e *n);

/* ---- e1000e_irq.c ---- */
void e1k_raise(struct e1000e *n, uint32_t causes); /* any thread */
/* The same for what queues did, not before the vector's interval has ended. The loop's thread. */
void e1k_raise_queue(struct e1000e *n, uint32_t causes);
void e1k_throttle_ends(void *e1000e);
uint32_t e1k_icr_read(struct e1000e *n);
void e1k_icr_write(struct e1000e *n, uint32_t val);
void e1k_mask(struct e1000e *n, uint32_t set, uint32_t clear); /* IMS and IMC */
void e1k_irq_reset(struct e1000e *n);                          /* `work` is held */

/* ---- e1000e_tx.c, e1000e_rx.c; the loop's thread ---- */
void e1k_transmit(void *e1000e); /* tx_bell */
void e1k_refill(void *e1000e);   /* rx_bell: the guest has added descriptors */
void e1k_patience_ends(void *e1000e);
void e1k_finish(void *e1000e); /* finish: frames that came together share an interrupt */
bool e1k_receive(void *e1000e, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs);
/* Whether the card may touch memory. */
static inline bool e1k_may_dma(struct e1000e *n)
{
    return pci_func_masters(&n->func) && !(e1k_get(n, R_CTRL) & CTRL_MASTER_OFF) && !e1k_resetting(n);
}

#endif
