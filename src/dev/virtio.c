#include "dev/virtio.h"

#include "dev/virtio_pci.h"

#include <errno.h>
#include <stdlib.h>

#define TRACE(v, fmt, ...)                                                                                             \
    trace((v)->trace, TRACE_DEV, "%s %02x:%02x.%x: " fmt, (v)->func->name, pci_func_requester((v)->func).rid >> 8,     \
          pci_func_requester((v)->func).rid >> 3 & 31, pci_func_requester((v)->func).rid & 7, __VA_ARGS__)

/* ---- registers, under the lock ---- */

static void registers_reset(struct virtio *v)
{
    v->status = 0;
    v->accepted = 0;
    v->want_start = v->started = v->resetting = false;
    for (unsigned i = 0; i < v->queues; i++) {
        struct virtq *q = &v->q[i];
        atomic_store_explicit(&q->vector, VIRTIO_NO_VECTOR, memory_order_relaxed);
        q->reg_size = q->max_size;
        q->reg_enable = false;
        memset(q->reg_addr, 0, sizeof q->reg_addr);
    }
    atomic_store_explicit(&v->vector, VIRTIO_NO_VECTOR, memory_order_relaxed);
    virtio_pci_registers_reset(v);
    pthread_cond_broadcast(&v->changed);
}

/* At once if the loop knows nothing of this driver, else when nothing is in flight. */
static void ask_reset(struct virtio *v)
{
    if (!v->started) {
        registers_reset(v);
        return;
    }
    v->resetting = true;
    ioloop_ring(v->loop, &v->control);
}

static bool features_good(const struct virtio *v)
{
    uint64_t must = VIRTIO_F_VERSION_1 | (v->offered & VIRTIO_F_ACCESS_PLATFORM);
    return !(v->accepted & ~v->offered) && (v->accepted & must) == must;
}

/* 2.1.1 "Driver Requirements: Device Status Field": a driver clears no bit but by a reset, so what was set stays, and a
 * device at work never reads as one that has been reset. */
static void set_status(struct virtio *v, uint8_t status)
{
    uint8_t rising = status & ~v->status;
    v->status |= status & ~VIRTIO_NEEDS_RESET;
    if (rising & VIRTIO_FEATURES_OK && !features_good(v)) {
        TRACE(v, "features %#llx refused", (unsigned long long)v->accepted);
        v->status &= ~VIRTIO_FEATURES_OK;
    }
    if (v->status & VIRTIO_DRIVER_OK && v->status & VIRTIO_FEATURES_OK && !v->started) {
        v->started = v->want_start = true;
        ioloop_ring(v->loop, &v->control);
    }
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
    pthread_mutex_lock(&v->lock);
    TRACE(v, "status %#x -> %#x%s", v->status, status, v->resetting ? ", while it is being reset" : "");
    if (!status)
        ask_reset(v);
    else if (!v->resetting)
        set_status(v, status);
    pthread_mutex_unlock(&v->lock);
}

/* ---- configuration bytes ---- */

void virtio_config_read(struct virtio *v, uint64_t off, void *buf, unsigned size)
{
    memset(buf, 0, size);
    if (off >= v->config_len)
        return;
    pthread_mutex_lock(&v->lock);
    memcpy(buf, v->config + off, min_u64(size, v->config_len - off));
    pthread_mutex_unlock(&v->lock);
}

void virtio_config_write(struct virtio *v, uint64_t off, unsigned size, uint32_t val)
{
    if (off + size > v->config_len || !v->ops->config_write)
        return;
    pthread_mutex_lock(&v->lock);
    if (!v->resetting)
        v->ops->config_write(v, (unsigned)off, size, val);
    pthread_mutex_unlock(&v->lock);
}

void virtio_config_set(struct virtio *v, unsigned off, const void *bytes, unsigned len)
{
    pthread_mutex_lock(&v->lock);
    memcpy(v->config + off, bytes, len);
    v->generation++;
    bool tell = v->status & VIRTIO_DRIVER_OK;
    pthread_mutex_unlock(&v->lock);
    if (tell)
        virtio_pci_fire_config(v);
}

/* ---- the loop's thread ---- */

void virtio_broken(struct virtio *v, const struct virtq *q, const char *why, uint64_t what)
{
    if (v->broken)
        return;
    v->broken = true;
    for (unsigned i = 0; i < v->queues; i++)
        virtq_stop(&v->q[i]);
    TRACE(v, "needs a reset: queue %u: %s: %#llx", q->index, why, (unsigned long long)what);
    pthread_mutex_lock(&v->lock);
    v->status |= VIRTIO_NEEDS_RESET;
    pthread_mutex_unlock(&v->lock);
    virtio_pci_fire_config(v);
}

/* NEEDS_RESET may have been set since the driver asked, so the whole status is cleared here. */
void virtio_idle(struct virtio *v)
{
    v->phase = VIRTIO_OFF;
    v->broken = false;
    pthread_mutex_lock(&v->lock);
    registers_reset(v);
    pthread_mutex_unlock(&v->lock);
}

static void stop(struct virtio *v)
{
    if (v->phase == VIRTIO_STOPPING)
        return;
    for (unsigned i = 0; i < v->queues; i++)
        virtq_stop(&v->q[i]);
    bool running = v->phase == VIRTIO_RUNNING;
    v->phase = VIRTIO_STOPPING;
    if (!running || !v->ops->stop || v->ops->stop(v))
        virtio_idle(v);
}

/* The driver may have filled queues before DRIVER_OK, and need not notify of that again. */
static void start(struct virtio *v, uint64_t features)
{
    v->phase = VIRTIO_RUNNING;
    v->features = features;
    for (unsigned i = 0; i < v->queues && !v->broken; i++)
        virtq_start(&v->q[i], features);
    TRACE(v, "started with features %#llx", (unsigned long long)features);
    if (v->ops->start)
        v->ops->start(v);
    for (unsigned i = 0; i < v->queues; i++)
        ioloop_ring(v->loop, &v->q[i].bell);
}

static void control(void *opaque)
{
    struct virtio *v = opaque;
    pthread_mutex_lock(&v->lock);
    bool resetting = v->resetting, want_start = v->want_start;
    uint64_t features = v->accepted;
    v->want_start = false;
    pthread_mutex_unlock(&v->lock);
    if (resetting)
        stop(v);
    else if (want_start)
        start(v, features);
}

/* ---- lifecycle ---- */

int virtio_init(struct virtio *v, const struct virtio_setup *s, struct err *e)
{
    *v = (struct virtio){.ops = s->ops,
                         .func = s->func,
                         .ram = s->ram,
                         .loop = s->loop,
                         .trace = s->trace,
                         .offered = s->features,
                         .queues = s->queues,
                         .config_len = s->config_len};
    v->q = calloc(s->queues, sizeof *v->q);
    if (!v->q)
        return err_set(e, -ENOMEM, "%s: no memory for %u queues", s->func->name, s->queues);
    for (unsigned i = 0; i < s->queues; i++)
        virtq_init(&v->q[i], v, (uint16_t)i, s->queue_size);
    atomic_init(&v->vector, VIRTIO_NO_VECTOR);
    ioloop_bell_init(&v->control, control, v);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    return 0;
}

static void remove_bells(void *opaque)
{
    struct virtio *v = opaque;
    ioloop_bell_remove(v->loop, &v->control);
    for (unsigned i = 0; i < v->queues; i++)
        ioloop_bell_remove(v->loop, &v->q[i].bell);
}

void virtio_fini(struct virtio *v)
{
    virtio_reset(v);
    ioloop_call(v->loop, remove_bells, v);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    free(v->q);
}

void virtio_reset(struct virtio *v)
{
    pthread_mutex_lock(&v->lock);
    ask_reset(v);
    while (v->resetting)
        pthread_cond_wait(&v->changed, &v->lock);
    pthread_mutex_unlock(&v->lock);
}
