/* A guest's virtio driver, small: it finds the device by its capabilities, and knows split and packed rings, indirect
 * tables, event indices, MSI-X and INTA#. One thread is the guest; the device is on its ioloop's thread.
 */
#ifndef HEC_TESTS_VIRTIO_RIG_H
#define HEC_TESTS_VIRTIO_RIG_H

#include "pci_rig.h"

#include "dev/virtio_pci.h"

#include <sched.h>

#define VR_VECTOR0 0x30u /* of MSI-X entry 0, the configuration's; queue i has entry i + 1 */
#define VR_DEST    0x6bu /* an APIC ID that is no index */

struct vrig {
    struct pci_rig pci;
    struct ioloop *loop;
    int slot;
    uint64_t bump; /* gpa of memory nobody has */
    pthread_mutex_t lock;
    pthread_cond_t came;
    unsigned irqs[256];  /* (l) messages, by vector */
    unsigned intx;       /* (l) rises of any GSI */
    bool intx_level[32]; /* (l) */
};

struct vdev {
    struct vrig *r;
    unsigned devfn, cfg_cap;
    uint64_t common, isr, config, notify, msix; /* gpas */
    uint32_t notify_step;
    uint64_t offered, features;
    bool use_msix;
};

struct vbuf {
    uint64_t addr;
    uint32_t len;
};

#define VQ_MAX 1024u

struct vq {
    struct vdev *d;
    unsigned index, size;
    bool packed, event;
    uint64_t area[VIRTQ_AREAS];
    uint8_t *desc, *driver, *device;
    uint16_t free_head, avail, last_used;
    uint16_t published; /* packed: where the last kick ended, and its wrap counter in bit 15 */
    unsigned free;
    bool wrap, used_wrap;
    uint16_t next[VQ_MAX], slots[VQ_MAX];
    void *token[VQ_MAX];
    uint64_t tables; /* gpa of indirect tables, 16 entries for each descriptor */
    unsigned kicks;
};

/* ---- the machine around it ---- */

static inline int vr_deliver(void *opaque, struct irq irq)
{
    struct vrig *r = opaque;
    assert_int_equal(irq.dest, VR_DEST);
    pthread_mutex_lock(&r->lock);
    r->irqs[irq.vector]++;
    pthread_cond_broadcast(&r->came);
    pthread_mutex_unlock(&r->lock);
    return 1;
}

static inline void vr_line(void *opaque, unsigned gsi, bool level)
{
    struct vrig *r = opaque;
    pthread_mutex_lock(&r->lock);
    r->intx += level && !r->intx_level[gsi];
    r->intx_level[gsi] = level;
    pthread_cond_broadcast(&r->came);
    pthread_mutex_unlock(&r->lock);
}

static inline void vr_init(struct vrig *r)
{
    memset(r, 0, sizeof *r);
    rig_init(&r->pci);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->came, NULL);
    r->pci.host.cfg.port = (struct irq_port){.deliver = vr_deliver, .opaque = r};
    r->pci.host.cfg.intx = (struct irq_line){vr_line, r, 0};
    r->bump = 0x100000;
    const struct ioloop_config c = {.name = "test", .epoch = &r->pci.f.epoch};
    assert_int_equal(ioloop_create(&c, &r->loop, &r->pci.f.err), 0);
    r->slot = epoch_slot(&r->pci.f.epoch);
    epoch_enter(&r->pci.f.epoch, r->slot);
}

/* Devices are gone. */
static inline void vr_fini(struct vrig *r)
{
    epoch_leave(&r->pci.f.epoch, r->slot);
    ioloop_destroy(r->loop);
    pthread_cond_destroy(&r->came);
    pthread_mutex_destroy(&r->lock);
    rig_fini(&r->pci);
}

/* After the devices were added: places for BARs. */
static inline void vr_power_on(struct vrig *r)
{
    pci_host_reset(&r->pci.host);
    assert_int_equal(pci_host_assign(&r->pci.host, &r->pci.f.err), 0);
}

static inline uint64_t vr_alloc(struct vrig *r, uint64_t len)
{
    uint64_t gpa = r->bump;
    r->bump += align_up(len, 4096);
    assert_true(r->bump <= RIG_RAM);
    return gpa;
}

static inline uint8_t *vr_hva(struct vrig *r, uint64_t gpa)
{
    return r->pci.ram.low + gpa;
}

static inline unsigned vr_irqs(struct vrig *r, unsigned vector)
{
    pthread_mutex_lock(&r->lock);
    unsigned n = r->irqs[vector];
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* Wait until `vector` has come more than `seen` times. */
static inline void vr_wait_irq(struct vrig *r, unsigned vector, unsigned seen)
{
    pthread_mutex_lock(&r->lock);
    while (r->irqs[vector] <= seen)
        pthread_cond_wait(&r->came, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static inline void vr_wait_intx(struct vrig *r, unsigned gsi)
{
    pthread_mutex_lock(&r->lock);
    while (!r->intx_level[gsi])
        pthread_cond_wait(&r->came, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static inline void vr_nothing(void *opaque)
{
}

/* The loop has done all that was asked of it before. Bells rung by bells take another round. */
static inline void vr_settle(struct vrig *r)
{
    for (unsigned i = 0; i < 4; i++)
        ioloop_call(r->loop, vr_nothing, NULL);
}

/* ---- the device ---- */

static inline uint64_t vd_bar(struct vdev *d, unsigned bar)
{
    uint64_t at = cfg_rd(&d->r->pci, 0, d->devfn, PCI_BAR0 + 4 * bar, 4);
    if (at & 4)
        at |= cfg_rd(&d->r->pci, 0, d->devfn, PCI_BAR0 + 4 * bar + 4, 4) << 32;
    return at & ~UINT64_C(15);
}

static inline void vd_cap(struct vdev *d, unsigned cap)
{
    struct pci_rig *p = &d->r->pci;
    unsigned type = (unsigned)cfg_rd(p, 0, d->devfn, cap + 3, 1);
    uint64_t at = vd_bar(d, (unsigned)cfg_rd(p, 0, d->devfn, cap + 4, 1)) + cfg_rd(p, 0, d->devfn, cap + 8, 4);
    switch (type) {
    case 1:
        d->common = at;
        break;
    case 2:
        d->notify = at;
        d->notify_step = (uint32_t)cfg_rd(p, 0, d->devfn, cap + 16, 4);
        break;
    case 3:
        d->isr = at;
        break;
    case 4:
        d->config = at;
        break;
    case 5:
        d->cfg_cap = cap;
    }
}

static inline void vd_msix(struct vdev *d, unsigned cap)
{
    struct pci_rig *p = &d->r->pci;
    uint32_t table = (uint32_t)cfg_rd(p, 0, d->devfn, cap + 4, 4);
    unsigned n = (unsigned)(cfg_rd(p, 0, d->devfn, cap + 2, 2) & 0x7ff) + 1;
    d->msix = vd_bar(d, table & 7) + (table & ~7u);
    for (unsigned i = 0; i < n; i++) {
        mem_wr(p, d->msix + 16 * i, 4, 0xfee00000 | VR_DEST << 12);
        mem_wr(p, d->msix + 16 * i + 4, 4, 0);
        mem_wr(p, d->msix + 16 * i + 8, 4, VR_VECTOR0 + i % 0xc0);
        mem_wr(p, d->msix + 16 * i + 12, 4, 0);
    }
    cfg_wr(p, 0, d->devfn, cap + 2, 2, 0x8000);
}

static inline uint64_t vd_rd(struct vdev *d, unsigned off, unsigned size)
{
    return mem_rd(&d->r->pci, d->common + off, size);
}

static inline void vd_wr(struct vdev *d, unsigned off, unsigned size, uint64_t val)
{
    mem_wr(&d->r->pci, d->common + off, size, val);
}

static inline uint8_t vd_status(struct vdev *d)
{
    return (uint8_t)vd_rd(d, 20, 1);
}

static inline void vd_set_status(struct vdev *d, uint8_t status)
{
    vd_wr(d, 20, 1, status);
}

static inline void vd_reset(struct vdev *d)
{
    vd_set_status(d, 0);
    while (vd_status(d))
        sched_yield();
}

/* Find the structures and switch the function on. */
static inline void vd_find(struct vdev *d, struct vrig *r, unsigned devfn, bool msix)
{
    struct pci_rig *p = &r->pci;
    *d = (struct vdev){.r = r, .devfn = devfn, .use_msix = msix};
    cfg_wr(p, 0, devfn, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    unsigned at = (unsigned)cfg_rd(p, 0, devfn, PCI_CAPABILITIES, 1);
    for (; at; at = (unsigned)cfg_rd(p, 0, devfn, at + 1, 1)) {
        unsigned id = (unsigned)cfg_rd(p, 0, devfn, at, 1);
        if (id == 9)
            vd_cap(d, at);
        else if (id == 0x11 && msix)
            vd_msix(d, at);
    }
    assert_true(d->common && d->notify && d->isr && d->cfg_cap);
}

/* Reset, and agree on features: those of `want` that are offered, and what there must be. */
static inline void vd_agree(struct vdev *d, uint64_t want)
{
    vd_reset(d);
    vd_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    d->offered = 0;
    for (unsigned i = 0; i < 2; i++) {
        vd_wr(d, 0, 4, i);
        d->offered |= vd_rd(d, 4, 4) << (32 * i);
    }
    d->features = (want | VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM) & d->offered;
    for (unsigned i = 0; i < 2; i++) {
        vd_wr(d, 8, 4, i);
        vd_wr(d, 12, 4, (uint32_t)(d->features >> (32 * i)));
    }
    vd_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    assert_true(vd_status(d) & VIRTIO_FEATURES_OK);
    if (d->use_msix)
        vd_wr(d, 16, 2, 0);
}

static inline void vd_go(struct vdev *d)
{
    vd_set_status(d, vd_status(d) | VIRTIO_DRIVER_OK);
}

static inline uint64_t vd_config(struct vdev *d, unsigned off, unsigned size)
{
    return mem_rd(&d->r->pci, d->config + off, size);
}

/* Wait for DEVICE_NEEDS_RESET, told by a configuration interrupt. */
static inline void vd_wait_broken(struct vdev *d)
{
    vr_wait_irq(d->r, VR_VECTOR0, 0);
    assert_true(vd_status(d) & VIRTIO_NEEDS_RESET);
}

/* ---- its queues ---- */

static inline unsigned vq_vector(const struct vq *q)
{
    return VR_VECTOR0 + q->index + 1;
}

static inline void vq_clear(struct vq *q)
{
    memset(q->desc, 0, 16 * q->size);
    memset(q->driver, 0, 8 + 2 * q->size);
    memset(q->device, 0, 8 + 8 * q->size);
    for (unsigned i = 0; i < q->size; i++)
        q->next[i] = (uint16_t)(i + 1);
    q->free = q->size;
    q->free_head = q->avail = q->last_used = 0;
    q->published = 1u << 15;
    q->wrap = q->used_wrap = true;
}

/* Tell the device of the queue; between vd_agree() and vd_go(). */
static inline void vq_enable(struct vq *q)
{
    struct vdev *d = q->d;
    vd_wr(d, 22, 2, q->index);
    vd_wr(d, 24, 2, q->size);
    if (d->use_msix) {
        vd_wr(d, 26, 2, q->index + 1);
        assert_int_equal(vd_rd(d, 26, 2), q->index + 1);
    }
    for (unsigned i = 0; i < VIRTQ_AREAS; i++) {
        vd_wr(d, 32 + 8 * i, 4, (uint32_t)q->area[i]);
        vd_wr(d, 36 + 8 * i, 4, q->area[i] >> 32);
    }
    vd_wr(d, 28, 2, 1);
}

static inline void vq_init(struct vq *q, struct vdev *d, unsigned index, unsigned size)
{
    *q = (struct vq){.d = d,
                     .index = index,
                     .size = size,
                     .packed = d->features & VIRTIO_F_RING_PACKED,
                     .event = d->features & VIRTIO_F_EVENT_IDX};
    q->area[VIRTQ_DESC] = vr_alloc(d->r, 16 * size);
    q->area[VIRTQ_DRIVER] = vr_alloc(d->r, 8 + 2 * size);
    q->area[VIRTQ_DEVICE] = vr_alloc(d->r, 8 + 8 * size);
    q->tables = vr_alloc(d->r, 256 * size);
    q->desc = vr_hva(d->r, q->area[VIRTQ_DESC]);
    q->driver = vr_hva(d->r, q->area[VIRTQ_DRIVER]);
    q->device = vr_hva(d->r, q->area[VIRTQ_DEVICE]);
    vq_clear(q);
    vq_enable(q);
}

static inline void vq_st16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

static inline uint16_t vq_ld16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

/* The two ways the last 4 bytes of a descriptor are laid out. */
static inline void vq_desc(uint8_t *p, bool packed, struct vbuf b, uint16_t flags, uint16_t other)
{
    st64(p, b.addr);
    st32(p + 8, b.len);
    st16(p + (packed ? 12 : 14), other);
    vq_st16(p + (packed ? 14 : 12), flags);
}

static inline void vq_add_split(struct vq *q, const struct vbuf *b, unsigned out, unsigned in, void *token, bool table)
{
    uint16_t head = q->free_head, at = head;
    for (unsigned i = 0; i < out + in; i++) {
        uint16_t flags = (uint16_t)((i + 1 < out + in ? 1 : 0) | (i >= out ? 2 : 0));
        if (table) {
            vq_desc(vr_hva(q->d->r, q->tables + 256 * head + 16 * i), false, b[i], flags, (uint16_t)(i + 1));
        } else {
            vq_desc(q->desc + 16 * at, false, b[i], flags, q->next[at]);
            at = q->next[at];
        }
    }
    if (table) {
        vq_desc(q->desc + 16 * head, false, (struct vbuf){q->tables + 256 * head, 16 * (out + in)}, 4, 0);
        at = q->next[head];
    }
    q->free_head = at;
    q->slots[head] = (uint16_t)(table ? 1 : out + in);
    q->free -= q->slots[head];
    q->token[head] = token;
    vq_st16(q->driver + 4 + 2 * (q->avail % q->size), head);
    q->avail++;
}

/* Buffers' ids are slots' numbers from the free list, `slots` of them for a chain. */
static inline void vq_add_packed(struct vq *q, const struct vbuf *b, unsigned out, unsigned in, void *token, bool table)
{
    unsigned n = table ? 1 : out + in, first = q->avail;
    uint16_t id = q->free_head, first_flags = 0;
    for (unsigned i = 0; table && i < out + in; i++)
        vq_desc(vr_hva(q->d->r, q->tables + 256 * id + 16 * i), true, b[i], i >= out ? 2 : 0, 0);
    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = (uint16_t)(table ? 4 : (i + 1 < n ? 1 : 0) | (i >= out ? 2 : 0));
        struct vbuf one = table ? (struct vbuf){q->tables + 256 * id, 16 * (out + in)} : b[i];
        flags |= (uint16_t)(q->wrap ? 1u << 7 : 1u << 15);
        if (i == 0)
            first_flags = flags;
        uint8_t *p = q->desc + 16 * q->avail;
        vq_desc(p, true, one, i == 0 ? ld16(p + 14) : flags, id);
        if (++q->avail == q->size) {
            q->avail = 0;
            q->wrap = !q->wrap;
        }
        q->free_head = q->next[q->free_head];
    }
    q->slots[id] = (uint16_t)n;
    q->free -= n;
    q->token[id] = token;
    vq_st16(q->desc + 16 * first + 14, first_flags);
}

/* False: no room. At most 16 buffers with an indirect table. */
static inline bool vq_add(struct vq *q, const struct vbuf *b, unsigned out, unsigned in, void *token, bool table)
{
    table = table && q->d->features & VIRTIO_F_INDIRECT_DESC;
    if (q->free < (table ? 1 : out + in))
        return false;
    if (q->packed)
        vq_add_packed(q, b, out, in, token, table);
    else
        vq_add_split(q, b, out, in, token, table);
    return true;
}

static inline void vq_notify(struct vq *q)
{
    struct vdev *d = q->d;
    q->kicks++;
    mem_wr(&d->r->pci, d->notify + (uint64_t)d->notify_step * q->index, 2, q->index);
}

static inline bool vq_wants_kick(struct vq *q, uint16_t then, bool then_wrap)
{
    if (!q->packed) {
        if (!q->event)
            return !(vq_ld16(q->device) & 1);
        uint16_t event = vq_ld16(q->device + 4 + 8 * q->size);
        return (uint16_t)(q->avail - event - 1) < (uint16_t)(q->avail - then);
    }
    uint16_t flags = vq_ld16(q->device + 2), event = vq_ld16(q->device);
    if (flags != 2)
        return flags == 0;
    int at = event & 0x7fff, old = then;
    at -= event >> 15 != q->wrap ? (int)q->size : 0;
    old -= then_wrap != q->wrap ? (int)q->size : 0;
    return (uint16_t)(q->avail - at - 1) < (uint16_t)(q->avail - old);
}

/* Make what was added visible (in packed rings it is already), without a word. */
static inline void vq_publish(struct vq *q)
{
    if (!q->packed)
        vq_st16(q->driver + 2, q->avail);
}

/* Make it visible; notify if the device wants that. */
static inline void vq_kick(struct vq *q)
{
    uint16_t then = q->published & 0x7fff;
    bool then_wrap = q->published >> 15;
    if (!q->packed)
        then = ld16(q->driver + 2);
    vq_publish(q);
    atomic_thread_fence(memory_order_seq_cst);
    bool kick = vq_wants_kick(q, then, then_wrap);
    if (q->packed)
        q->published = (uint16_t)(q->avail | q->wrap << 15);
    if (kick)
        vq_notify(q);
}

static inline void vq_free(struct vq *q, uint16_t id)
{
    uint16_t last = id;
    for (unsigned i = 1; i < q->slots[id]; i++)
        last = q->next[last];
    q->next[last] = q->free_head;
    q->free_head = id;
    q->free += q->slots[id];
}

static inline bool vq_has_used(const struct vq *q)
{
    if (!q->packed)
        return vq_ld16(q->device + 2) != q->last_used;
    uint16_t flags = vq_ld16(q->desc + 16 * q->last_used + 14);
    return !!(flags & 1u << 7) == q->used_wrap && !!(flags & 1u << 15) == q->used_wrap;
}

/* The next finished chain's token, or NULL. */
static inline void *vq_get(struct vq *q, uint32_t *len)
{
    uint32_t id, n;
    if (!vq_has_used(q))
        return NULL;
    if (q->packed) {
        const uint8_t *p = q->desc + 16 * q->last_used;
        id = ld16(p + 12);
        n = ld32(p + 8);
    } else {
        const uint8_t *p = q->device + 4 + 8 * (q->last_used % q->size);
        id = ld32(p);
        n = ld32(p + 4);
    }
    assert_true(id < q->size && q->token[id]);
    if (!q->packed)
        q->last_used++;
    else if ((q->last_used = (uint16_t)(q->last_used + q->slots[id])) >= q->size) {
        q->last_used -= (uint16_t)q->size;
        q->used_wrap = !q->used_wrap;
    }
    void *token = q->token[id];
    q->token[id] = NULL;
    vq_free(q, (uint16_t)id);
    if (len)
        *len = n;
    return token;
}

/* Ask for an interrupt at the next completion; false: there is one already. */
static inline bool vq_arm(struct vq *q)
{
    if (q->packed) {
        vq_st16(q->driver, (uint16_t)(q->last_used | q->used_wrap << 15));
        vq_st16(q->driver + 2, q->event ? 2 : 0);
    } else if (q->event) {
        vq_st16(q->driver + 4 + 2 * q->size, q->last_used);
    } else {
        vq_st16(q->driver, 0);
    }
    atomic_thread_fence(memory_order_seq_cst);
    return !vq_has_used(q);
}

/* No interrupts for now. */
static inline void vq_disarm(struct vq *q)
{
    if (q->packed)
        vq_st16(q->driver + 2, 1);
    else if (!q->event)
        vq_st16(q->driver, 1);
}

/* Wait for a completion, by its interrupt. */
static inline void *vq_wait(struct vq *q, uint32_t *len)
{
    for (;;) {
        unsigned seen = vr_irqs(q->d->r, vq_vector(q));
        void *token = vq_get(q, len);
        if (token)
            return token;
        if (vq_arm(q))
            vr_wait_irq(q->d->r, vq_vector(q), seen);
    }
}

#endif
