/* A device that writes to each chain's writable part what was in its readable one. */
#ifndef HEC_TESTS_VIRTIO_ECHO_H
#define HEC_TESTS_VIRTIO_ECHO_H

#include "virtio_rig.h"

#define ECHO_QUEUES 3u
#define ECHO_CONFIG 6u

struct echo {
    struct virtio_pci pci;
    unsigned starts, stops;
    bool hold; /* take chains and keep them */
    unsigned held;
    struct virtq_chain chain[16];
    struct iovec in[16];
    uint32_t wrote;
};

struct box {
    struct vrig r;
    struct echo e;
    struct vdev d;
};

static inline struct echo *echo_of(struct virtio *v)
{
    return container_of(v, struct echo, pci.v);
}

static inline void echo_serve(struct virtio *v, struct virtq *q)
{
    struct echo *e = echo_of(v);
    static struct iovec iov[VIRTQ_SIZE_MAX];
    uint8_t buf[4096];
    struct virtq_chain c;
    do {
        virtq_disarm(q);
        while (virtq_pop(q, &c, iov, VIRTQ_SIZE_MAX)) {
            if (e->hold) {
                e->in[e->held] = iov[c.outs];
                e->chain[e->held++] = c;
                continue;
            }
            size_t n = virtq_copy_from(iov, c.outs, 0, buf, sizeof buf);
            n = virtq_copy_to(iov + c.outs, c.ins, 0, buf, n);
            virtq_push(q, &c, iov + c.outs, (uint32_t)n);
        }
        virtq_flush(q);
    } while (virtq_arm(q));
}

static inline void echo_start(struct virtio *v)
{
    echo_of(v)->starts++;
}

static inline bool echo_stop(struct virtio *v)
{
    struct echo *e = echo_of(v);
    e->stops++;
    return !e->held;
}

static inline void echo_config_write(struct virtio *v, unsigned off, unsigned size, uint32_t val)
{
    memcpy(v->config + off, &val, size);
    echo_of(v)->wrote = val;
}

static const struct virtio_ops echo_ops = {echo_serve, echo_start, echo_stop, echo_config_write};

static inline void box_init_with(struct box *b, struct virtio_options options, bool msix)
{
    vr_init(&b->r);
    memset(&b->e, 0, sizeof b->e);
    struct virtio_pci_setup s = {.host = &b->r.pci.host,
                                 .devfn = PCI_DEVFN(5, 0),
                                 .loop = b->r.loop,
                                 .ops = &echo_ops,
                                 .options = options,
                                 .name = "echo",
                                 .type = VIRTIO_RNG,
                                 .class_code = 0xff0000,
                                 .features = BIT(3),
                                 .queues = ECHO_QUEUES,
                                 .queue_size = 16,
                                 .config = "config",
                                 .config_len = ECHO_CONFIG};
    assert_int_equal(virtio_pci_init(&b->e.pci, &s, &b->r.pci.f.err), 0);
    vr_power_on(&b->r);
    vd_find(&b->d, &b->r, PCI_DEVFN(5, 0), msix);
}

static inline void box_init(struct box *b)
{
    box_init_with(b, (struct virtio_options){.packed = true}, true);
}

static inline void box_fini(struct box *b)
{
    virtio_pci_fini(&b->e.pci);
    vr_fini(&b->r);
}

static inline void box_up(struct box *b, struct vq *q, uint64_t features)
{
    vd_agree(&b->d, features);
    vq_init(q, &b->d, 1, 16);
    vd_go(&b->d);
}

#endif
