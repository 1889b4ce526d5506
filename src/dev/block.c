#include "dev/block_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void block_note(const struct block *b, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "hecaton: %s: %s: %s\n", b->option, b->file, line);
}

/* ---- requests ---- */

static void append(struct block_request ***end, struct block_request *r)
{
    r->next = NULL;
    **end = r;
    *end = &r->next;
}

void block_finish(struct block *b, struct block_request *r, int result)
{
    r->step = (unsigned)-result;
    append(&b->finished_end, r);
    ioloop_ring(b->loop, &b->bell);
}

void block_slot_done(struct slot *s, int result)
{
    struct block *b = s->b;
    struct block_request *r = s->r;
    s->next = b->free;
    b->free = s;
    b->busy--;
    b->exclusive = false; /* if it was set, this was the one */
    block_finish(b, r, result);
}

static bool sums_up(const struct block_request *r)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < r->iovs; i++)
        if (__builtin_add_overflow(sum, r->iov[i].iov_len, &sum))
            return false;
    return sum == r->len;
}

/* A guest whose disk was taken for raw for want of a magic may not write one: it would choose, at the next start, which
 * files of the host's its image refers to. */
static bool writes_magic(const struct block *b, const struct block_request *r)
{
    unsigned char first[BLOCK_PROBE_BYTES];
    size_t n = 0;
    if (!b->guessed || r->op != BLOCK_WRITE || r->offset || !r->len)
        return false;
    for (unsigned i = 0; i < r->iovs && n < sizeof first; i++) {
        size_t len = min_u64(r->iov[i].iov_len, sizeof first - n);
        memcpy(first + n, r->iov[i].iov_base, len);
        n += len;
    }
    return block_probe(first, n);
}

static int check(const struct block *b, const struct block_request *r)
{
    if (b->closing)
        return -ESHUTDOWN;
    if (r->op == BLOCK_FLUSH)
        return 0;
    if (r->op > BLOCK_WRITE_ZEROES || (r->offset | r->len) % BLOCK_SECTOR || r->offset > b->size ||
        r->len > b->size - r->offset)
        return -EINVAL;
    if (r->op != BLOCK_READ && b->readonly)
        return -EROFS;
    if ((r->op == BLOCK_READ || r->op == BLOCK_WRITE) && !sums_up(r))
        return -EINVAL;
    return writes_magic(b, r) ? -EPERM : 0;
}

void block_submit(struct block *b, struct block_request *r)
{
    assert(ioloop_here(b->loop));
    r->block = b;
    r->bounce = NULL;
    r->progress = 0;
    b->in_flight++;
    int rc = check(b, r);
    if (rc)
        block_finish(b, r, rc);
    else
        append(&b->waiting_end, r);
}

/* Whether the first that waits may begin. Order is kept, so one that must be alone waits no longer than it must. */
static bool may_begin(struct block *b)
{
    if (!b->waiting || !b->free || b->exclusive)
        return false;
    b->exclusive = block_parts_exclusive(b, b->waiting) && !b->busy;
    return b->exclusive || !block_parts_exclusive(b, b->waiting);
}

static void begin_waiting(struct block *b)
{
    while (may_begin(b)) {
        struct block_request *r = b->waiting;
        struct slot *s = b->free;
        b->waiting = r->next;
        if (!b->waiting)
            b->waiting_end = &b->waiting;
        b->free = s->next;
        b->busy++;
        s->r = r;
        block_parts_begin(s);
    }
}

/* What requests' ends bring is sent in one go when all have been told. */
void block_kick(struct block *b)
{
    assert(ioloop_here(b->loop));
    if (b->delivering)
        return;
    begin_waiting(b);
    b->base->ops->kick(b->base);
    if (b->overlay)
        b->overlay->ops->kick(b->overlay);
}

static void count(struct block *b, const struct block_request *r, int result)
{
    if (result) {
        atomic_fetch_add_explicit(&b->failed, 1, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&b->requests[r->op], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&b->bytes[r->op], r->op == BLOCK_FLUSH ? 0 : r->len, memory_order_relaxed);
    }
}

/* What finished until now; then what may begin since there is room. */
static void deliver(void *opaque)
{
    struct block *b = opaque;
    struct block_request *list = b->finished;
    b->finished = NULL;
    b->finished_end = &b->finished;
    b->delivering = true;
    while (list) {
        struct block_request *r = list;
        list = r->next;
        int result = -(int)r->step;
        free(r->bounce);
        b->in_flight--;
        count(b, r, result);
        r->done(r, result);
    }
    b->delivering = false;
    block_kick(b);
}

unsigned block_in_flight(const struct block *b)
{
    return b->in_flight;
}

/* ---- closing ---- */

static void wait_for_one(struct block *b)
{
    struct store *s = b->base->in_flight ? b->base : b->overlay;
    assert(s && s->in_flight);
    s->ops->wait(s);
}

static void drain(struct block *b)
{
    b->closing = true;
    while (b->in_flight) {
        block_kick(b);
        if (b->finished)
            deliver(b);
        else
            wait_for_one(b);
    }
}

struct last_sync {
    struct store_io io;
    bool over;
    int64_t result;
};

static void last_sync_done(struct store_io *io, int64_t result)
{
    struct last_sync *l = container_of(io, struct last_sync, io);
    l->over = true;
    l->result = result;
}

static void flush_at_end(struct block *b)
{
    struct last_sync l = {.io = {.op = STORE_SYNC, .done = last_sync_done}};
    if (b->unsafe || b->readonly || b->overlay || b->sync_failed)
        return;
    b->base->ops->put(b->base, &l.io);
    b->base->ops->kick(b->base);
    while (!l.over)
        b->base->ops->wait(b->base);
    if (l.result < 0)
        block_note(b, "the last flush failed: %s. What was written may be lost", strerror((int)-l.result));
}

static void close_on_loop(void *opaque)
{
    struct block *b = opaque;
    drain(b);
    flush_at_end(b);
    b->base->ops->detach(b->base);
    if (b->overlay)
        b->overlay->ops->detach(b->overlay);
    ioloop_bell_remove(b->loop, &b->bell);
}

static void block_free(struct block *b)
{
    if (b->base)
        b->base->ops->close(b->base);
    if (b->overlay)
        b->overlay->ops->close(b->overlay);
    block_map_fini(&b->map);
    free(b->slots);
    free(b->option);
    free(b->file);
    free(b);
}

void block_close(struct block *b)
{
    if (!b)
        return;
    ioloop_call(b->loop, close_on_loop, b);
    block_free(b);
}

/* ---- opening ---- */

static int file_store(struct block *b, struct block_file *f, const struct block_tuning *t, struct store **out,
                      struct err *e)
{
    int rc = t->no_uring ? -ENOSYS : block_uring_create(f, b->loop, out);
    if (rc) {
        if (!t->no_uring)
            block_note(b, "io_uring is not to be had (%s): threads do its work, more slowly", strerror(-rc));
        rc = block_threads_create(f, b->loop, out);
    }
    if (rc) {
        close(f->fd);
        return err_set(e, rc, "%s: %s: cannot start: %s", b->option, b->file, strerror(-rc));
    }
    return 0;
}

static int open_raw(struct block *b, const struct block_config *c, const struct block_tuning *t, struct err *e)
{
    struct block_file f;
    int rc = block_file_open(c, t, &f, e);
    return rc ? rc : file_store(b, &f, t, &b->base, e);
}

static int open_overlay(struct block *b, const struct block_tuning *t, struct err *e)
{
    struct block_file f;
    int rc = block_map_init(&b->map, b->base->size);
    if (rc)
        return err_set(e, rc, "%s: no memory", b->option);
    rc = block_file_temp(b->option, b->base->size, &f, e);
    return rc ? rc : file_store(b, &f, t, &b->overlay, e);
}

static int open_base(struct block *b, const struct block_config *c, const struct block_tuning *t, struct err *e)
{
    const char *format = NULL;
    if (t->base) {
        b->base = t->base;
        return 0;
    }
    if (block_nbd_is_address(c->file)) {
        if (c->format && strcmp(c->format, "raw") != 0)
            return err_set(e, -EINVAL, "%s: %s: an NBD server serves what is in an image: leave format=%s out",
                           c->option, c->file, c->format);
        return block_nbd_create(c, NULL, b->loop, &b->base, e);
    }
    int rc = block_file_format(c, &format, e);
    if (rc)
        return rc;
    if (format && (rc = block_lock_look(c->option, c->file, c->readonly || c->snapshot, e)))
        return rc;
    if (format)
        return block_nbd_create(c, format, b->loop, &b->base, e);
    rc = open_raw(b, c, t, e);
    b->guessed = !c->format && !c->readonly && !c->snapshot;
    return rc;
}

static int make_slots(struct block *b, struct err *e)
{
    b->slots = calloc(BLOCK_SLOTS, sizeof *b->slots);
    if (!b->slots)
        return err_set(e, -ENOMEM, "%s: no memory", b->option);
    for (unsigned i = 0; i < BLOCK_SLOTS; i++) {
        b->slots[i].b = b;
        b->slots[i].next = b->free;
        b->free = &b->slots[i];
    }
    return 0;
}

static struct block *block_new(const struct block_config *c, struct ioloop *loop)
{
    struct block *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->option = strdup(c->option);
    b->file = strdup(c->file);
    b->loop = loop;
    b->readonly = c->readonly;
    b->discard = c->discard;
    b->unsafe = c->cache == BLOCK_UNSAFE;
    b->write_through = c->cache == BLOCK_WRITETHROUGH || c->cache == BLOCK_DIRECTSYNC;
    b->waiting_end = &b->waiting;
    b->finished_end = &b->finished;
    ioloop_bell_init(&b->bell, deliver, b);
    if (b->option && b->file)
        return b;
    block_free(b);
    return NULL;
}

static int open_stores(struct block *b, const struct block_config *c, const struct block_tuning *t, struct err *e)
{
    int rc = open_base(b, c, t, e);
    if (rc)
        return rc;
    b->size = align_down(b->base->size, BLOCK_SECTOR);
    b->physical = b->base->physical;
    if (!b->size)
        return err_set(e, -EINVAL, "%s: %s is smaller than a sector: give it a size (truncate -s 8G FILE)", b->option,
                       b->file);
    if (b->guessed)
        block_note(b, "the format was not given and nothing in the file tells: taken for raw, and the guest may not "
                      "write a format's magic to its first sector. format=raw says that it is raw");
    if (c->snapshot && !c->readonly)
        return open_overlay(b, t, e);
    return 0;
}

static void detach_all(void *opaque)
{
    struct block *b = opaque;
    if (b->base)
        b->base->ops->detach(b->base);
    if (b->overlay)
        b->overlay->ops->detach(b->overlay);
}

int block_open_tuned(const struct block_config *c, const struct block_tuning *t, struct ioloop *loop,
                     struct block **out, struct err *e)
{
    struct block *b = block_new(c, loop);
    if (!b)
        return err_set(e, -ENOMEM, "%s: no memory", c->option);
    int rc = make_slots(b, e);
    if (!rc)
        rc = open_stores(b, c, t, e);
    if (rc) {
        ioloop_call(loop, detach_all, b);
        block_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

int block_open(const struct block_config *c, struct ioloop *loop, struct block **out, struct err *e)
{
    return block_open_tuned(c, &(struct block_tuning){.align = 1}, loop, out, e);
}

/* ---- what is known of it ---- */

uint64_t block_size(const struct block *b)
{
    return b->size;
}

bool block_readonly(const struct block *b)
{
    return b->readonly;
}

unsigned block_physical_sector(const struct block *b)
{
    return b->physical;
}

bool block_can_discard(const struct block *b)
{
    return b->discard && !b->readonly && (b->overlay || b->base->can_discard);
}

struct ioloop *block_loop(const struct block *b)
{
    return b->loop;
}

void block_stats(struct block *b, struct block_stats *out)
{
    for (unsigned i = 0; i < 5; i++) {
        out->requests[i] = atomic_load_explicit(&b->requests[i], memory_order_relaxed);
        out->bytes[i] = atomic_load_explicit(&b->bytes[i], memory_order_relaxed);
    }
    out->failed = atomic_load_explicit(&b->failed, memory_order_relaxed);
}
