#include "dev/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define CLASS_CODE 0x00ff00u
#define QUEUE_SIZE 8u
#define AT_ONCE    65536u /* bytes for one buffer: a driver that wants more asks again */
#define BUDGET     64u    /* buffers in one go */

struct virtio_rng {
    struct virtio_pci pci;
    struct iovec iov[VIRTQ_SIZE_MAX];
};

/* Returns how many bytes there are now; a host that cannot say anything random gives 0 of them. */
static uint32_t fill(const struct iovec *in, unsigned n)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < n && done < AT_ONCE; i++) {
        size_t want = min_u64(in[i].iov_len, AT_ONCE - done);
        ssize_t got;
        do
            got = getrandom(in[i].iov_base, want, GRND_NONBLOCK);
        while (got < 0 && errno == EINTR);
        done += got > 0 ? (uint32_t)got : 0;
        if (got < (ssize_t)want)
            break;
    }
    return done;
}

static void serve(struct virtio *v, struct virtq *q)
{
    struct virtio_rng *r = container_of(v, struct virtio_rng, pci.v);
    struct virtq_chain c;
    unsigned budget = BUDGET;
    do {
        virtq_disarm(q);
        while (budget && virtq_pop(q, &c, r->iov, VIRTQ_SIZE_MAX)) {
            const struct iovec *in = r->iov + c.outs;
            virtq_push(q, &c, in, fill(in, c.ins));
            budget--;
        }
        virtq_flush(q);
        if (!budget) {
            ioloop_ring(v->loop, &q->bell);
            return;
        }
    } while (virtq_arm(q));
}

static const struct virtio_ops ops = {.serve = serve};

int virtio_rng_create(const struct virtio_rng_config *c, struct virtio_rng **out, struct err *e)
{
    struct virtio_rng *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, -ENOMEM, "virtio-rng-pci: no memory");
    struct virtio_pci_setup s = {.host = c->host,
                                 .bus = c->bus,
                                 .devfn = c->devfn,
                                 .loop = c->loop,
                                 .ops = &ops,
                                 .options = c->options,
                                 .name = "virtio-rng-pci",
                                 .type = VIRTIO_RNG,
                                 .class_code = CLASS_CODE,
                                 .queues = 1,
                                 .queue_size = QUEUE_SIZE};
    int rc = virtio_pci_init(&r->pci, &s, e);
    if (rc) {
        free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void virtio_rng_reset(struct virtio_rng *r)
{
    virtio_pci_reset(&r->pci);
}

void virtio_rng_destroy(struct virtio_rng *r)
{
    if (!r)
        return;
    virtio_pci_fini(&r->pci);
    free(r);
}
