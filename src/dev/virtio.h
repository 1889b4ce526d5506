/* A virtio device, whatever it does: features, status, queues, configuration bytes, reset. VIRTIO 1.2, 2 "Basic
 * Facilities of a Virtio Device", 3 "General Initialization And Device Operation". Without legacy interface.
 *
 * Two sides. The driver's registers are read and written by vCPUs under `lock`, which is held for moments only. The
 * device's work is done on its ioloop's thread: queues are started there once the driver has said DRIVER_OK, and are
 * stopped there when it writes 0 to the status, which it reads as 0 when nothing is in flight any more. A notification
 * is a bell that is rung, and nothing else.
 */
#ifndef HEC_DEV_VIRTIO_H
#define HEC_DEV_VIRTIO_H

#include "base/err.h"
#include "base/trace.h"
#include "dev/virtq.h"
#include "pci/func.h"

#include <pthread.h>

#define VIRTIO_QUEUES_MAX 2047u /* one MSI-X vector each, and one for the configuration */
#define VIRTIO_CONFIG_MAX 256u
#define VIRTIO_NO_VECTOR  0xffffu

/* 5 "Device Types". */
enum virtio_type { VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_CONSOLE = 3, VIRTIO_RNG = 4, VIRTIO_VSOCK = 19 };

/* 2.1 "Device Status Field". */
enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 0x40,
    VIRTIO_FAILED = 0x80
};

/* 6 "Reserved Feature Bits". */
#define VIRTIO_F_INDIRECT_DESC   BIT(28)
#define VIRTIO_F_EVENT_IDX       BIT(29)
#define VIRTIO_F_VERSION_1       BIT(32)
#define VIRTIO_F_ACCESS_PLATFORM BIT(33)
#define VIRTIO_F_RING_PACKED     BIT(34)

struct virtio_ops {
    /* The loop's thread: the driver has notified of `q`, or the queues have just been started. Called for live queues
     * only; there may be nothing in it. */
    void (*serve)(struct virtio *v, struct virtq *q);
    /* The loop's thread: DRIVER_OK; the queues are live (unless that broke the device), v->features is what both
     * agreed on. May be NULL. */
    void (*start)(struct virtio *v);
    /* The loop's thread: the queues have been stopped (a reset). Let go of chains that only wait for something; true:
     * nothing is in flight. False: it calls virtio_idle() when nothing is any more. NULL: nothing ever is. Comes
     * once for each start. */
    bool (*stop)(struct virtio *v);
    /* A vCPU's thread, under v->lock: the driver has written `size` (1, 2 or 4) bytes at `off` of the configuration,
     * which is unchanged; the device may change v->config[]. NULL: nothing there can be written. */
    void (*config_write)(struct virtio *v, unsigned off, unsigned size, uint32_t val);
};

struct virtio_setup { /* how virtio_init() is to make it */
    const struct virtio_ops *ops;
    struct pci_func *func; /* borrowed: DMA, and messages' names */
    struct ram *ram;       /* borrowed */
    struct ioloop *loop;   /* borrowed */
    const struct trace *trace;
    uint64_t features; /* all that are offered */
    uint16_t queues;
    uint16_t queue_size; /* a power of 2, at most VIRTQ_SIZE_MAX */
    unsigned config_len; /* bytes of v->config[] the driver sees */
};

struct virtio {
    const struct virtio_ops *ops; /* (c) */
    struct pci_func *func;        /* (c) */
    struct ram *ram;              /* (c) */
    struct ioloop *loop;          /* (c) */
    const struct trace *trace;    /* (c) */
    uint64_t offered;             /* (c) features */
    uint16_t queues;              /* (c) */
    unsigned config_len;          /* (c) */
    struct virtq *q;              /* (c) owned, queues of them */
    _Atomic uint16_t vector;      /* (a) MSI-X for configuration changes; FFFFh: none */
    struct ioloop_bell control;   /* the driver wants start or reset */

    pthread_mutex_t lock;
    pthread_cond_t changed;            /* `resetting` has become false */
    uint8_t status;                    /* (l) */
    uint8_t generation;                /* (l) of config[] */
    bool want_start;                   /* (l) DRIVER_OK, and the loop has not seen it */
    bool started;                      /* (l) the loop has seen DRIVER_OK, or is about to */
    bool resetting;                    /* (l) a reset waits for what is in flight */
    uint64_t accepted;                 /* (l) features, as the driver writes them */
    uint8_t config[VIRTIO_CONFIG_MAX]; /* (l) little-endian */

    uint64_t features; /* the loop's thread, after start: what both agreed on */
    enum virtio_phase { VIRTIO_OFF, VIRTIO_RUNNING, VIRTIO_STOPPING } phase; /* the loop's thread */
    bool broken;                                                             /* the loop's thread: NEEDS_RESET */
};

/* ---- lifecycle ---- */
/* -ENOMEM. */
int virtio_init(struct virtio *v, const struct virtio_setup *s, struct err *e);
/* Nobody calls it any more; what is in flight is waited for. */
void virtio_fini(struct virtio *v);
/* As after power-on; waits for what is in flight. The owner's thread, no vCPU runs, not the loop's thread. */
void virtio_reset(struct virtio *v);

/* ---- the loop's thread only ---- */
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return v->features & feature;
}
/* Nothing is in flight any more, after stop() said that something was. */
void virtio_idle(struct virtio *v);
/* The driver did what it must not: `why` goes to the trace. 2.1.2 "Device Requirements: Device Status Field". */
void virtio_broken(struct virtio *v, const struct virtq *q, const char *why, uint64_t what);

/* ---- any thread (inside the epoch), without v->lock ---- */
/* Change bytes of the configuration that the driver sees, and tell it. */
void virtio_config_set(struct virtio *v, unsigned off, const void *bytes, unsigned len);

/* ---- the transport's: any thread ---- */
/* The driver writes the status; 0 is a reset. Never waits. */
void virtio_set_status(struct virtio *v, uint8_t status);
void virtio_config_read(struct virtio *v, uint64_t off, void *buf, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t off, unsigned size, uint32_t val);
static inline void virtio_notify(struct virtio *v, unsigned queue)
{
    if (queue < v->queues)
        ioloop_ring(v->loop, &v->q[queue].bell);
}

#endif
