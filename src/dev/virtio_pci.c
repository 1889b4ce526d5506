#include "dev/virtio_pci.h"

#include "pci/host.h"
#include "pci/msi.h"

#include <assert.h>
#include <errno.h>

#define VENDOR_ID    0x1af4u
#define DEVICE_ID    0x1040u /* plus the type */
#define SUBSYSTEM_ID 0x1100u
#define CAP_VENDOR   9u
#define BAR_MSIX     1u
#define BAR_REGS     4u
#define PAGE         0x1000u

/* 4.1.4 "Virtio Structure PCI Capabilities". */
enum cap_type { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI_CFG };
enum cap_field { CAP_LEN = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };

/* Where the structures are in the BAR. */
enum layout { COMMON_AT = 0, ISR_AT = PAGE, CONFIG_AT = 2 * PAGE, NOTIFY_AT = 3 * PAGE };
enum { COMMON_LEN = 56, NOTIFY_STEP = 4 };
enum isr_bit { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* 4.1.4.3 "Common configuration structure layout". */
enum common_reg {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16,
    NUM_QUEUES = 18,
    STATUS = 20,
    GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_ADDRESSES = 32 /* three of 64 bits, as enum virtq_area */
};

static struct virtio_pci *pci_of(struct virtio *v)
{
    return container_of(v, struct virtio_pci, v);
}

/* ---- interrupts ---- */

/* 4.1.4.5 "ISR status capability": INTA# is high while a bit is set, and the lock keeps the two together. */
static void fire_intx(struct virtio_pci *p, uint8_t bit)
{
    pthread_mutex_lock(&p->intx_lock);
    p->isr |= bit;
    pci_intx_set(&p->func, true);
    pthread_mutex_unlock(&p->intx_lock);
}

static uint8_t take_isr(struct virtio_pci *p)
{
    pthread_mutex_lock(&p->intx_lock);
    uint8_t isr = p->isr;
    p->isr = 0;
    pci_intx_set(&p->func, false);
    pthread_mutex_unlock(&p->intx_lock);
    return isr;
}

static void fire(struct virtio_pci *p, uint16_t vector, uint8_t bit)
{
    if (!p->vectors || !pci_msix_on(&p->func))
        fire_intx(p, bit);
    else if (vector != VIRTIO_NO_VECTOR)
        msix_fire(&p->func, vector);
}

void virtio_pci_fire_queue(struct virtio *v, const struct virtq *q)
{
    fire(pci_of(v), atomic_load_explicit(&q->vector, memory_order_relaxed), ISR_QUEUE);
}

void virtio_pci_fire_config(struct virtio *v)
{
    fire(pci_of(v), atomic_load_explicit(&v->vector, memory_order_relaxed), ISR_CONFIG);
}

/* ---- the common configuration, under the device's lock ---- */

static struct virtq *selected(struct virtio_pci *p)
{
    return p->queue_select < p->v.queues ? &p->v.q[p->queue_select] : NULL;
}

static uint32_t half(uint64_t v, uint32_t which)
{
    return which < 2 ? (uint32_t)(v >> (32 * which)) : 0;
}

static void image_queue(struct virtio_pci *p, uint8_t *m)
{
    struct virtq *q = selected(p);
    if (!q)
        return;
    st16(m + QUEUE_SIZE, q->reg_size);
    st16(m + QUEUE_VECTOR, atomic_load_explicit(&q->vector, memory_order_relaxed));
    st16(m + QUEUE_ENABLE, q->reg_enable);
    st16(m + QUEUE_NOTIFY_OFF, q->index);
    memcpy(m + QUEUE_ADDRESSES, q->reg_addr, sizeof q->reg_addr);
}

static void image(struct virtio_pci *p, uint8_t *m)
{
    struct virtio *v = &p->v;
    st32(m + DEVICE_FEATURE_SELECT, p->feature_select);
    st32(m + DEVICE_FEATURE, half(v->offered, p->feature_select));
    st32(m + DRIVER_FEATURE_SELECT, p->driver_select);
    st32(m + DRIVER_FEATURE, half(v->accepted, p->driver_select));
    st16(m + CONFIG_VECTOR, atomic_load_explicit(&v->vector, memory_order_relaxed));
    st16(m + NUM_QUEUES, v->queues);
    m[STATUS] = v->status;
    m[GENERATION] = v->generation;
    st16(m + QUEUE_SELECT, p->queue_select);
    image_queue(p, m);
}

static uint64_t common_read(struct virtio_pci *p, unsigned off, unsigned size)
{
    uint8_t m[COMMON_LEN + 8] = {0};
    pthread_mutex_lock(&p->v.lock);
    image(p, m);
    pthread_mutex_unlock(&p->v.lock);
    return ld64(m + off) & size_mask(size);
}

/* 2.2.2 "Driver Requirements": what is agreed on stays, and bits past those there are 0s nobody offered. */
static void accept_features(struct virtio_pci *p, uint32_t val)
{
    struct virtio *v = &p->v;
    unsigned shift = 32 * (p->driver_select & 1);
    if (v->status & VIRTIO_FEATURES_OK || p->driver_select > 1)
        return;
    v->accepted = (v->accepted & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)val << shift;
}

static uint16_t good_vector(const struct virtio_pci *p, uint16_t vector)
{
    return vector < p->vectors ? vector : VIRTIO_NO_VECTOR;
}

static void write_address(struct virtq *q, unsigned off, uint32_t val)
{
    uint64_t *addr = &q->reg_addr[(off - QUEUE_ADDRESSES) / 8];
    unsigned shift = off & 4 ? 32 : 0;
    *addr = (*addr & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)val << shift;
}

static void write_queue(struct virtio_pci *p, unsigned off, unsigned size, uint32_t val)
{
    struct virtq *q = selected(p);
    if (!q)
        return;
    if (off >= QUEUE_ADDRESSES && size == 4)
        write_address(q, off, val);
    if (size != 2)
        return;
    if (off == QUEUE_VECTOR)
        atomic_store_explicit(&q->vector, good_vector(p, (uint16_t)val), memory_order_relaxed);
    else if (off == QUEUE_SIZE)
        q->reg_size = (uint16_t)val;
    else if (off == QUEUE_ENABLE && val == 1)
        q->reg_enable = true;
}

static void write_device(struct virtio_pci *p, unsigned off, unsigned size, uint32_t val)
{
    switch (off << 4 | size) {
    case DEVICE_FEATURE_SELECT << 4 | 4:
        p->feature_select = val;
        break;
    case DRIVER_FEATURE_SELECT << 4 | 4:
        p->driver_select = val;
        break;
    case DRIVER_FEATURE << 4 | 4:
        accept_features(p, val);
        break;
    case CONFIG_VECTOR << 4 | 2:
        atomic_store_explicit(&p->v.vector, good_vector(p, (uint16_t)val), memory_order_relaxed);
        break;
    case QUEUE_SELECT << 4 | 2:
        p->queue_select = (uint16_t)val;
        break;
    }
}

/* Fields are written as they are wide; queue addresses by halves, too. A driver that resets waits until that is done,
 * so that nothing it writes meanwhile is lost. */
static void common_write(struct virtio_pci *p, unsigned off, unsigned size, uint64_t val)
{
    if (off == STATUS) {
        virtio_set_status(&p->v, (uint8_t)val);
        return;
    }
    if (size == 8) {
        common_write(p, off, 4, (uint32_t)val);
        common_write(p, off + 4, 4, val >> 32);
        return;
    }
    pthread_mutex_lock(&p->v.lock);
    if (!p->v.resetting && off >= QUEUE_SIZE)
        write_queue(p, off, size, (uint32_t)val);
    else if (!p->v.resetting)
        write_device(p, off, size, (uint32_t)val);
    pthread_mutex_unlock(&p->v.lock);
}

void virtio_pci_registers_reset(struct virtio *v)
{
    struct virtio_pci *p = pci_of(v);
    p->feature_select = p->driver_select = p->queue_select = 0;
    take_isr(p);
}

/* ---- the BAR ---- */

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    struct virtio_pci *p = dev;
    uint64_t val = 0;
    if (off < COMMON_LEN)
        return common_read(p, (unsigned)off, size);
    if (off == ISR_AT)
        return take_isr(p);
    if (off >= CONFIG_AT && off < NOTIFY_AT)
        virtio_config_read(&p->v, off - CONFIG_AT, &val, size);
    return val;
}

static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct virtio_pci *p = dev;
    if (likely(off >= NOTIFY_AT)) {
        virtio_notify(&p->v, (unsigned)((off - NOTIFY_AT) / NOTIFY_STEP));
        return;
    }
    if (off < COMMON_LEN && off % size == 0)
        common_write(p, (unsigned)off, size, val);
    else if (off >= CONFIG_AT && size <= 4)
        virtio_config_write(&p->v, off - CONFIG_AT, size, (uint32_t)val);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

/* ---- configuration space ---- */

/* 4.1.4.9 "PCI configuration access capability": what its fields name, or size 0. */
static unsigned window(const struct virtio_pci *p, uint32_t *off)
{
    const uint8_t *cap = p->func.config + p->cfg_cap;
    uint32_t len = ld32(cap + CAP_LENGTH);
    *off = ld32(cap + CAP_OFFSET);
    bool good = cap[CAP_BAR] == BAR_REGS && (len == 1 || len == 2 || len == 4) && *off % len == 0;
    return good && *off < p->bar_size ? len : 0;
}

static bool touches_window(const struct virtio_pci *p, unsigned off, unsigned size)
{
    unsigned data = p->cfg_cap + CAP_EXTRA;
    return off < data + 4 && off + size > data;
}

static void config_read(struct pci_func *f, unsigned off, unsigned size)
{
    struct virtio_pci *p = f->dev;
    uint32_t at = 0;
    unsigned len = touches_window(p, off, size) ? window(p, &at) : 0;
    if (len)
        st32(f->config + p->cfg_cap + CAP_EXTRA, (uint32_t)bar_read(p, at, len));
}

/* A device that may now use memory looks at what was put into its queues before. */
static void config_written(struct pci_func *f, unsigned off, unsigned size)
{
    struct virtio_pci *p = f->dev;
    uint32_t at = 0;
    if (off <= PCI_COMMAND && off + size > PCI_COMMAND && pci_func_masters(f))
        for (unsigned i = 0; i < p->v.queues; i++)
            virtio_notify(&p->v, i);
    unsigned len = touches_window(p, off, size) ? window(p, &at) : 0;
    if (len)
        bar_write(p, at, len, ld32(f->config + p->cfg_cap + CAP_EXTRA) & size_mask(len));
}

static void function_reset(struct pci_func *f)
{
    struct virtio_pci *p = f->dev;
    virtio_set_status(&p->v, 0);
}

static const struct pci_func_ops func_ops = {
    .config_written = config_written, .config_read = config_read, .reset = function_reset};

static unsigned add_cap(struct pci_func *f, enum cap_type type, unsigned len, uint32_t offset, uint32_t length)
{
    unsigned at = pci_func_add_cap(f, CAP_VENDOR, len);
    f->config[at + CAP_LEN] = (uint8_t)len;
    f->config[at + CAP_TYPE] = (uint8_t)type;
    f->config[at + CAP_BAR] = BAR_REGS;
    st32(f->config + at + CAP_OFFSET, offset);
    st32(f->config + at + CAP_LENGTH, length);
    return at;
}

static void add_caps(struct virtio_pci *p)
{
    struct pci_func *f = &p->func;
    add_cap(f, CAP_COMMON, 16, COMMON_AT, COMMON_LEN);
    add_cap(f, CAP_ISR, 16, ISR_AT, 1);
    if (p->v.config_len)
        add_cap(f, CAP_DEVICE, 16, CONFIG_AT, p->v.config_len);
    unsigned at = add_cap(f, CAP_NOTIFY, 20, NOTIFY_AT, NOTIFY_STEP * p->v.queues);
    st32(f->config + at + CAP_EXTRA, NOTIFY_STEP);
    at = add_cap(f, CAP_PCI_CFG, 20, 0, 0);
    f->config[at + CAP_BAR] = 0;
    f->wmask[at + CAP_BAR] = 0xff;
    memset(f->wmask + at + CAP_OFFSET, 0xff, 12);
    p->cfg_cap = at;
}

/* ---- lifecycle ---- */

bool virtio_pci_translated(const struct pci_host *host, const struct virtio_options *o)
{
    const struct remap *remap = host->cfg.remap;
    if (o->iommu_platform == VIRTIO_IOMMU_AUTO)
        return remap && (remap->vtd || remap->amdvi);
    return o->iommu_platform == VIRTIO_IOMMU_ON;
}

static uint64_t offered(const struct virtio_pci_setup *s)
{
    const struct virtio_options *o = &s->options;
    uint64_t features = s->features | VIRTIO_F_VERSION_1;
    if (!o->no_event_idx)
        features |= VIRTIO_F_EVENT_IDX;
    if (!o->no_indirect)
        features |= VIRTIO_F_INDIRECT_DESC;
    if (virtio_pci_translated(s->host, o))
        features |= VIRTIO_F_ACCESS_PLATFORM;
    if (o->packed)
        features |= VIRTIO_F_RING_PACKED;
    return features;
}

static int init_virtio(struct virtio_pci *p, const struct virtio_pci_setup *s, struct err *e)
{
    struct virtio_setup v = {.ops = s->ops,
                             .func = &p->func,
                             .ram = s->host->cfg.ram,
                             .loop = s->loop,
                             .trace = s->host->cfg.trace,
                             .features = offered(s),
                             .queues = s->queues,
                             .queue_size = s->queue_size,
                             .config_len = s->config_len};
    int rc = virtio_init(&p->v, &v, e);
    if (!rc && s->config_len)
        memcpy(p->v.config, s->config, s->config_len);
    return rc;
}

static int check_setup(const struct virtio_pci_setup *s, struct err *e)
{
    uint16_t size = s->queue_size;
    if (size < 2 || size > VIRTQ_SIZE_MAX || size & (size - 1))
        return err_set(e, -EINVAL, "%s: a queue has a power of 2 entries, 2 to %u, not %u", s->name, VIRTQ_SIZE_MAX,
                       size);
    if (!s->queues || s->queues > VIRTIO_QUEUES_MAX)
        return err_set(e, -EINVAL, "%s: it may have 1 to %u queues, not %u", s->name, VIRTIO_QUEUES_MAX, s->queues);
    if (s->options.vectors > PCI_MSIX_MAX)
        return err_set(e, -EINVAL, "%s: vectors=%u: at most %u", s->name, s->options.vectors, PCI_MSIX_MAX);
    assert(s->config_len <= VIRTIO_CONFIG_MAX);
    return 0;
}

static int describe(struct virtio_pci *p, const struct virtio_pci_setup *s, struct err *e)
{
    struct pci_func *f = &p->func;
    pci_func_subsystem(f, VENDOR_ID, SUBSYSTEM_ID);
    pci_func_intx(f, 1);
    pci_func_bar(
        f, BAR_REGS,
        &(struct pci_bar){
            .kind = PCI_BAR_MEM64, .prefetch = true, .size = p->bar_size, .ops = &bar_ops, .dev = p, .name = s->name});
    if (p->vectors && pci_func_add_msix(f, p->vectors, BAR_MSIX, 0, (uint32_t)align_up(16 * p->vectors, PAGE / 2), e))
        return -ENOMEM;
    add_caps(p);
    pci_func_add_express(f, PCI_EXP_ENDPOINT);
    return pci_host_add(s->host, s->bus, f, e);
}

static uint32_t next_power(uint32_t n)
{
    uint32_t size = PAGE;
    while (size < n)
        size *= 2;
    return size;
}

int virtio_pci_init(struct virtio_pci *p, const struct virtio_pci_setup *s, struct err *e)
{
    int rc = check_setup(s, e);
    if (rc)
        return rc;
    *p = (struct virtio_pci){.func = {.ops = NULL}};
    pci_func_setup(&p->func, s->devfn, VENDOR_ID, (uint16_t)(DEVICE_ID + s->type), s->class_code, 1);
    p->func.ops = &func_ops;
    p->func.dev = p;
    p->func.name = s->name;
    p->vectors = s->options.no_msix ? 0 : s->options.vectors ? s->options.vectors : s->queues + 1u;
    p->bar_size = next_power(NOTIFY_AT + NOTIFY_STEP * s->queues);
    pthread_mutex_init(&p->intx_lock, NULL);
    rc = init_virtio(p, s, e);
    if (rc) {
        pthread_mutex_destroy(&p->intx_lock);
        return rc;
    }
    rc = describe(p, s, e);
    if (rc)
        virtio_pci_fini(p);
    return rc;
}

void virtio_pci_fini(struct virtio_pci *p)
{
    virtio_fini(&p->v);
    pci_func_fini(&p->func);
    pthread_mutex_destroy(&p->intx_lock);
}

void virtio_pci_reset(struct virtio_pci *p)
{
    virtio_reset(&p->v);
}
