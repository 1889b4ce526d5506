/* Inside of the AMD-Vi unit: what its files share, and tests look at. Names and bits are 48882's. */
#ifndef HEC_IRQ_AMDVI_PRIV_H
#define HEC_IRQ_AMDVI_PRIV_H

#include "base/bits.h"
#include "irq/amdvi.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- registers: byte offsets, each 64 bits wide ---- */
enum amdvi_reg {
    AMDVI_DEVTAB = 0x0000,
    AMDVI_CMD_BASE = 0x0008,
    AMDVI_EVT_BASE = 0x0010,
    AMDVI_CONTROL = 0x0018,
    AMDVI_EXCL_BASE = 0x0020,
    AMDVI_EXCL_LIMIT = 0x0028,
    AMDVI_EFR = 0x0030,
    AMDVI_XT_GEN = 0x0170, /* XT IOMMU general interrupt control */
    AMDVI_XT_PPR = 0x0178,
    AMDVI_XT_GA = 0x0180,
    AMDVI_EFR2 = 0x01a0,
    AMDVI_CMD_HEAD = 0x2000,
    AMDVI_CMD_TAIL = 0x2008,
    AMDVI_EVT_HEAD = 0x2010,
    AMDVI_EVT_TAIL = 0x2018,
    AMDVI_STATUS = 0x2020
};

#define CTL_IOMMU_EN    BIT(0)
#define CTL_EVT_LOG_EN  BIT(2)
#define CTL_EVT_INT_EN  BIT(3)
#define CTL_COM_WAIT_EN BIT(4)
#define CTL_CMD_BUF_EN  BIT(12)
#define CTL_GA_EN       BIT(17)
#define CTL_NUM_INT     (UINT64_C(3) << 43) /* NumIntRemapMode */
#define CTL_NUM_INT_2K  BIT(43)
#define CTL_XT_EN       BIT(50)
#define CTL_INTCAPXT_EN BIT(51)
#define CTL_PLAIN       UINT64_C(0xfe3) /* kept, without effect here: HT tunnel, time-out, pass PW, coherent, isochronous */
#define CTL_RW                                                                                                         \
    (CTL_IOMMU_EN | CTL_EVT_LOG_EN | CTL_EVT_INT_EN | CTL_COM_WAIT_EN | CTL_CMD_BUF_EN | CTL_GA_EN | CTL_NUM_INT |     \
     CTL_PLAIN)

#define ST_EVT_OVERFLOW BIT(0)
#define ST_EVT_INT      BIT(1)
#define ST_COM_WAIT     BIT(2)
#define ST_EVT_RUN      BIT(3)
#define ST_CMD_RUN      BIT(4)
#define ST_RW1C         (ST_EVT_OVERFLOW | ST_EVT_INT | ST_COM_WAIT)

#define EFR_PREFETCH  BIT(0)
#define EFR_XT        BIT(2)
#define EFR_IA        BIT(6)
#define EFR_GA        BIT(7)
#define EFR_HATS(n)   ((uint64_t)(n) << 10)
#define EFR_HATS_NONE 3
#define EFR2_INT_2K   (UINT64_C(1) << 8) /* NumIntRemapSup: 2048 */

#define ADDR_51_12     (((UINT64_C(1) << 40) - 1) << 12)
#define DEVTAB_RW      (ADDR_51_12 | 0x1ff)
#define BUFFER_RW      (ADDR_51_12 | UINT64_C(15) << 56)
#define POINTER_RW     UINT64_C(0x7fff0)
#define XT_INT_RW      UINT64_C(0xff0001ffffffff04)
#define BUFFER_LEN_MIN 8 /* smaller encodings are reserved, and taken for it */

/* ---- device table entries: four quadwords ---- */
#define DTE_SIZE        32
#define DTE0_V          BIT(0)
#define DTE0_TV         BIT(1)
#define DTE0_MODE(q)    ((unsigned)bits(q, 11, 9))
#define DTE0_RESERVED   (UINT64_C(0x1f) << 2)
#define DTE0_IR         BIT(61) /* in page table entries too */
#define DTE0_IW         BIT(62)
#define DTE1_DOMAIN(q)  ((uint16_t)(q))
#define DTE1_SE         BIT(33)
#define DTE1_SA         BIT(34)
#define DTE1_EX         BIT(39)
#define DTE2_IV         BIT(0)
#define DTE2_LEN(q)     ((unsigned)bits(q, 4, 1))
#define DTE2_LEN_MAX    11 /* 2048 entries */
#define DTE2_IG         BIT(5)
#define DTE2_ROOT(q)    ((q) & ((UINT64_C(1) << 52) - 64))
#define DTE2_RESERVED   (UINT64_C(15) << 52)
#define DTE2_INIT_PASS  BIT(56)
#define DTE2_EXT_PASS   BIT(57)
#define DTE2_NMI_PASS   BIT(58)
#define DTE2_INT_CTL(q) ((unsigned)bits(q, 61, 60))
enum { INT_CTL_ABORT = 0, INT_CTL_PASS = 1, INT_CTL_REMAP = 2 };

/* ---- events ---- */
enum amdvi_event_code {
    EVT_ILLEGAL_DTE = 1,
    EVT_IO_PAGE_FAULT = 2,
    EVT_DEVTAB_HW = 3,
    EVT_PAGETAB_HW = 4,
    EVT_ILLEGAL_CMD = 5,
    EVT_CMD_HW = 6,
    EVT_INVALID_DEVICE_REQUEST = 8
};
/* Flags at their places in the second doubleword. */
#define EVT_I           (1u << 19) /* an interrupt request */
#define EVT_PR          (1u << 20)
#define EVT_RW          (1u << 21)
#define EVT_PE          (1u << 22)
#define EVT_RZ          (1u << 23)
#define EVT_TYPE(t)     ((uint32_t)(t) << 25)
#define EVT_MASTER      EVT_TYPE(1) /* hardware errors: master abort */
#define EVT_READ_INT    EVT_TYPE(0) /* invalid requests: a read of the interrupt range, */
#define EVT_INT_BLOCKED EVT_TYPE(5) /* an interrupt of a device that may send none, */
#define EVT_INT_KIND    EVT_TYPE(6) /* and of a kind nobody may send */

struct amdvi_event {
    enum amdvi_event_code code;
    uint16_t device;
    uint16_t domain;
    uint32_t flags;
    uint64_t addr;
};

/* ---- the translation cache ---- */
#define IOTLB_SHARDS 16
#define IOTLB_SLOTS  64 /* a shard */

struct iotlb_entry {
    uint64_t page; /* iova >> 12; UINT64_MAX: empty */
    uint64_t gpa;  /* of the 4 KiB page */
    uint64_t mask; /* bytes of the page it is part of, less 1 */
    uint16_t domain;
    uint8_t perm; /* bit 0 read, 1 write */
};

struct iotlb_shard {
    pthread_mutex_t lock;
    struct iotlb_entry e[IOTLB_SLOTS];
};

struct amdvi {
    struct amdvi_config cfg;                /* (c) */
    _Atomic uint64_t devtab, control;       /* (a) written under lock */
    _Atomic uint64_t excl_base, excl_limit; /* (a) likewise */
    pthread_mutex_t lock;
    uint64_t cmd_base, cmd_head, cmd_tail; /* (l) */
    uint64_t evt_base, evt_head, evt_tail; /* (l) */
    uint64_t status;                       /* (l) */
    uint64_t xt_int[3];                    /* (l) general, PPR, GA log */
    uint64_t lines;                        /* (l) status bits that have asked for an interrupt */
    bool msi_enabled;                      /* (l) */
    struct msi_msg msi;                    /* (l) */
    uint64_t logged_once[65536 / 64];      /* (l) devices with DTE.SE whose one fault is in the log */
    _Atomic uint64_t iotlb_era;            /* (a) grows with each invalidation */
    struct iotlb_shard shard[IOTLB_SHARDS];
};

/* ---- amdvi_event.c ---- */
/* Log an event and ask for its interrupt. Takes the lock. */
void amdvi_log(struct amdvi *a, struct amdvi_event ev);
void amdvi_log_locked(struct amdvi *a, struct amdvi_event ev);
/* Send the interrupt if a status bit has come that is enabled to. Lock held. */
void amdvi_lines_changed(struct amdvi *a);

/* ---- amdvi_cmd.c ---- */
/* Carry out what is in the command buffer, if it runs. Lock held. */
void amdvi_run_commands(struct amdvi *a);
/* Any route may have changed. Lock held. */
void amdvi_stale_all(struct amdvi *a);

/* ---- amdvi_ir.c ---- */
/* Read an aligned quadword of guest memory. False: no RAM there. */
bool amdvi_load(const struct amdvi *a, gpa_t gpa, uint64_t *out);
enum amdvi_dte { AMDVI_DTE_OK, AMDVI_DTE_OUTSIDE, AMDVI_DTE_UNREACHABLE };
/* Quadwords 0-2 of a device's entry; `*at` gets where it is. */
enum amdvi_dte amdvi_read_dte(const struct amdvi *a, uint16_t device, uint64_t q[3], gpa_t *at);

/* ---- amdvi_dma.c ---- */
void amdvi_iotlb_init(struct amdvi *a);
void amdvi_iotlb_fini(struct amdvi *a);
/* Forget translations of `domain` (-1: of all) within [first, last]. */
void amdvi_iotlb_drop(struct amdvi *a, int domain, uint64_t first, uint64_t last);

static inline bool amdvi_serves(const struct amdvi *a, requester_id_t from)
{
    return !a->cfg.scoped || from.rid == a->cfg.scope.rid;
}

static inline bool amdvi_xt_on(const struct amdvi *a, uint64_t control)
{
    return a->cfg.xt && (control & (CTL_XT_EN | CTL_GA_EN)) == (CTL_XT_EN | CTL_GA_EN);
}

/* Bytes of a command buffer or an event log. */
static inline uint64_t amdvi_buffer_size(uint64_t base)
{
    uint64_t len = bits(base, 59, 56);
    return UINT64_C(16) << (len < BUFFER_LEN_MIN ? BUFFER_LEN_MIN : len);
}

#endif
