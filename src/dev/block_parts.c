/* A request as a sequence of operations of stores. One operation at a time: what a store did less of than asked for is
 * asked for again from there on. Where a store wants alignment that the request does not have, or one buffer where it
 * has many, the data goes through a bounce buffer; what is written to a part of a unit is fetched first, and nobody
 * else is under way meanwhile (block_parts_exclusive()).
 */
#include "dev/block_priv.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define RANGE_PART  (UINT64_C(1) << 30) /* of a discard or zeroing: servers count in 32 bits */
#define RETRIES_MAX 100u

static void next_part(struct slot *s);
static void next_range(struct slot *s);

static bool aligned(uint64_t v, unsigned a)
{
    return !(v & (a - 1));
}

static struct store *target(const struct block *b)
{
    return b->overlay ? b->overlay : b->base;
}

bool block_parts_exclusive(const struct block *b, const struct block_request *r)
{
    if (r->op != BLOCK_WRITE && r->op != BLOCK_WRITE_ZEROES)
        return false;
    return !aligned(r->offset | r->len, target(b)->align);
}

static uint64_t position(const struct slot *s)
{
    return s->r->offset + s->r->progress;
}

static uint64_t left(const struct slot *s)
{
    return s->r->len - s->r->progress;
}

/* Whether the request's data is to be on stable storage when it completes. */
static bool durable(const struct slot *s)
{
    const struct block *b = s->b;
    return !b->unsafe && !b->overlay && (b->write_through || s->r->flags & BLOCK_FUA);
}

static void ended(struct slot *s, int result)
{
    struct block_request *r = s->r;
    if (!result && s->b->overlay && r->op != BLOCK_READ && r->op != BLOCK_FLUSH)
        block_map_mark(&s->b->map, r->offset, r->len);
    block_slot_done(s, result);
}

/* A store kicks itself when it has called back, but not the other one. */
static void put(struct slot *s, struct store *store, enum store_op op, void (*done)(struct store_io *, int64_t))
{
    if (s->store && s->store != store)
        ioloop_ring(s->b->loop, &s->b->bell);
    s->store = store;
    s->io.op = op;
    s->io.done = done;
    store->in_flight++;
    store->ops->put(store, &s->io);
}

static struct slot *slot_of(struct store_io *io)
{
    struct slot *s = container_of(io, struct slot, io);
    s->store->in_flight--;
    return s;
}

/* What is worth another try with nothing changed. */
static bool again(struct slot *s, int64_t result)
{
    if ((result != -EINTR && result != -EAGAIN) || ++s->retries > RETRIES_MAX)
        return false;
    put(s, s->store, s->io.op, s->io.done);
    return true;
}

/* ---- sync ---- */

static void sync_done(struct store_io *io, int64_t result)
{
    struct slot *s = slot_of(io);
    if (again(s, result))
        return;
    if (result < 0 && s->store->cached && !s->b->sync_failed) {
        s->b->sync_failed = true;
        block_note(s->b, "cannot be flushed: %s. What was written may be lost, and no flush succeeds any more",
                   strerror((int)-result));
    }
    ended(s, (int)result);
}

static void begin_sync(struct slot *s)
{
    if (s->b->sync_failed)
        ended(s, -EIO);
    else
        put(s, s->b->base, STORE_SYNC, sync_done);
}

static void begin_flush(struct slot *s)
{
    const struct block *b = s->b;
    if (b->unsafe || b->overlay || b->readonly)
        ended(s, 0);
    else
        begin_sync(s);
}

static void data_is_through(struct slot *s)
{
    if (s->sync)
        begin_sync(s);
    else
        ended(s, 0);
}

/* ---- the request's buffers ---- */

/* Step over the next `n` bytes, which become `progress`. */
static void advance(struct slot *s, uint64_t n)
{
    struct block_request *r = s->r;
    r->progress += n;
    if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
        return;
    s->at_offset += n;
    while (s->at < r->iovs && s->at_offset >= r->iov[s->at].iov_len)
        s->at_offset -= r->iov[s->at++].iov_len;
}

/* Copy the next `n` bytes to `buf`, or from it. Zeroing has only zeroes. */
static void copy_next(struct slot *s, char *buf, uint64_t n, bool to_buf)
{
    const struct block_request *r = s->r;
    if (r->op == BLOCK_WRITE_ZEROES) {
        memset(buf, 0, n);
        return;
    }
    uint64_t skip = s->at_offset;
    for (unsigned i = s->at; n; i++, skip = 0) {
        char *mem = (char *)r->iov[i].iov_base + skip;
        uint64_t len = min_u64(n, r->iov[i].iov_len - skip);
        memcpy(to_buf ? buf : mem, to_buf ? mem : buf, len);
        buf += len;
        n -= len;
    }
}

static bool buffers_fit(const struct store *st, const struct iovec *iov, unsigned n)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < n; i++)
        all |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    return aligned(all, st->mem_align);
}

/* The next buffers, at most `want` bytes and as many as the slot has room for. Returns the bytes. */
static uint64_t slice(struct slot *s, uint64_t want)
{
    const struct block_request *r = s->r;
    uint64_t bytes = 0, skip = s->at_offset;
    unsigned n = 0;
    for (unsigned i = s->at; bytes < want && n < BLOCK_SLOT_IOVS && i < r->iovs; i++, skip = 0) {
        uint64_t len = min_u64(want - bytes, r->iov[i].iov_len - skip);
        if (!len)
            continue;
        s->iov[n++] = (struct iovec){(char *)r->iov[i].iov_base + skip, len};
        bytes += len;
    }
    s->io.iov = s->iov;
    s->io.iovs = n;
    return bytes;
}

/* Set up `io` for the next part straight from the request's buffers, if the store takes them as they are. */
static bool plan_straight(struct slot *s, const struct store *st, uint64_t want)
{
    struct block_request *r = s->r;
    if (r->op == BLOCK_WRITE_ZEROES || !aligned(position(s), st->align))
        return false;
    if (want == r->len && r->iovs <= (st->contiguous ? 1 : IOV_MAX)) {
        s->io.iov = r->iov;
        s->io.iovs = r->iovs;
        s->part = want;
    } else {
        s->part = slice(s, want);
        if (st->contiguous && (s->io.iovs > 1 || s->part < want))
            return false;
    }
    return aligned(s->part, st->align) && (st->mem_align == 1 || buffers_fit(st, s->io.iov, s->io.iovs));
}

/* ---- the bounce buffer ---- */

static uint64_t bounce_room(const struct store *st)
{
    return min_u64(max_u64(BLOCK_BOUNCE, st->align), st->max_len);
}

/* One buffer serves all parts, unless a later one is larger or of another store. */
static bool bounce_alloc(struct slot *s, const struct store *st)
{
    uint64_t align = max_u64(st->mem_align, 4096);
    if (s->r->bounce && s->bounce_room >= s->bounce_len && aligned((uintptr_t)s->r->bounce, st->mem_align))
        return true;
    free(s->r->bounce);
    s->bounce_room = align_up(s->bounce_len, align);
    s->r->bounce = aligned_alloc(align, s->bounce_room);
    return s->r->bounce;
}

static bool plan_bounce(struct slot *s, const struct store *st, uint64_t want)
{
    uint64_t pos = position(s), room = bounce_room(st);
    s->use_bounce = true;
    s->bounce_off = align_down(pos, st->align);
    s->part = min_u64(want, s->bounce_off + room - pos);
    s->bounce_len = align_up(pos + s->part, st->align) - s->bounce_off;
    s->bounce_done = 0;
    return bounce_alloc(s, st);
}

/* The part of the bounce buffer that was not moved yet. */
static void put_bounce(struct slot *s, struct store *st, enum store_op op, void (*done)(struct store_io *, int64_t))
{
    s->iov[0] = (struct iovec){(char *)s->r->bounce + s->bounce_done, s->bounce_len - s->bounce_done};
    s->io.iov = s->iov;
    s->io.iovs = 1;
    s->io.off = s->bounce_off + s->bounce_done;
    s->io.len = s->iov[0].iov_len;
    put(s, st, op, done);
}

/* ---- reads and writes ---- */

static void part_moved(struct slot *s, uint64_t n)
{
    advance(s, n);
    next_part(s);
}

static void read_done(struct store_io *io, int64_t result)
{
    struct slot *s = slot_of(io);
    if (again(s, result))
        return;
    s->retries = 0;
    uint64_t skip = s->use_bounce ? position(s) - s->bounce_off : 0;
    if (result <= (int64_t)skip) { /* nothing where there should be something: the file has shrunk */
        ended(s, result < 0 ? (int)result : -EIO);
        return;
    }
    uint64_t n = min_u64((uint64_t)result - skip, s->part);
    if (s->use_bounce)
        copy_next(s, (char *)s->r->bounce + skip, n, false);
    part_moved(s, n);
}

static void write_done(struct store_io *io, int64_t result);

/* What the store has of the units that the part covers in part, and the request's own bytes over it. */
static void fetch_done(struct store_io *io, int64_t result)
{
    struct slot *s = slot_of(io);
    if (again(s, result))
        return;
    uint64_t got = result < 0 ? 0 : (uint64_t)result, end = s->bounce_done + got;
    if (result < 0 || s->bounce_off + end < min_u64(s->bounce_off + s->bounce_len, s->store->size)) {
        if (got && aligned(got, s->store->align)) { /* some, not all */
            s->bounce_done = end;
            put_bounce(s, s->store, STORE_READ, fetch_done);
            return;
        }
        ended(s, result < 0 ? (int)result : -EIO);
        return;
    }
    char *bounce = s->r->bounce;
    if (end < s->bounce_len) /* the last unit of a file that ends inside it */
        memset(bounce + end, 0, s->bounce_len - end);
    copy_next(s, bounce + (position(s) - s->bounce_off), s->part, true);
    s->bounce_done = 0;
    put_bounce(s, s->store, STORE_WRITE, write_done);
}

/* Not at once durable after all: a sync ends the request. */
static bool without_fua(struct slot *s, int64_t result)
{
    if (result != -EOPNOTSUPP || !s->io.fua)
        return false;
    s->store->can_fua = false;
    s->io.fua = false;
    s->sync = true;
    put(s, s->store, s->io.op, s->io.done);
    return true;
}

static void write_done(struct store_io *io, int64_t result)
{
    struct slot *s = slot_of(io);
    if (again(s, result) || without_fua(s, result))
        return;
    s->retries = 0;
    uint64_t n = result < 0 ? 0 : align_down((uint64_t)result, s->store->align);
    if (!n) {
        ended(s, result < 0 ? (int)result : -EIO);
        return;
    }
    s->bounce_done += n;
    if (!s->use_bounce)
        part_moved(s, n);
    else if (s->bounce_done < s->bounce_len)
        put_bounce(s, s->store, STORE_WRITE, write_done);
    else
        part_moved(s, s->part);
}

static void bounce_part(struct slot *s, struct store *st, uint64_t want)
{
    if (!plan_bounce(s, st, want)) {
        ended(s, -ENOMEM);
    } else if (s->r->op == BLOCK_READ) {
        put_bounce(s, st, STORE_READ, read_done);
    } else if (s->part == s->bounce_len) {
        copy_next(s, s->r->bounce, s->part, true);
        put_bounce(s, st, STORE_WRITE, write_done);
    } else {
        put_bounce(s, st, STORE_READ, fetch_done);
    }
}

static void next_part(struct slot *s)
{
    const struct block *b = s->b;
    if (!left(s)) {
        data_is_through(s);
        return;
    }
    uint64_t want = left(s);
    struct store *st = target(b);
    if (s->r->op == BLOCK_READ && b->overlay) {
        bool there;
        want = block_map_run(&b->map, position(s), want, &there);
        st = there ? b->overlay : b->base;
    }
    bool must = s->r->op != BLOCK_READ && durable(s);
    s->io.fua = must && st->can_fua && s->r->op == BLOCK_WRITE; /* of zeroes, some may have been punched */
    s->sync = must && !s->io.fua;
    want = min_u64(want, st->max_len);
    if (!plan_straight(s, st, want)) {
        bounce_part(s, st, want);
        return;
    }
    s->use_bounce = false;
    s->io.off = position(s);
    s->io.len = s->part;
    if (s->r->op == BLOCK_READ)
        put(s, st, STORE_READ, read_done);
    else
        put(s, st, STORE_WRITE, write_done);
}

/* ---- discarding and zeroing ---- */

/* The next best way, if the store can't do this one. Writing zeroes always goes. */
static void zero_otherwise(struct slot *s)
{
    if (s->range == STORE_PUNCH)
        s->range = STORE_ZERO;
    else
        s->by_writing = true;
    next_range(s);
}

static bool is_refusal(int64_t result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -ENOTTY || result == -ENODEV;
}

static void range_done(struct store_io *io, int64_t result)
{
    struct slot *s = slot_of(io);
    if (again(s, result))
        return;
    s->retries = 0;
    if (is_refusal(result) && s->range != STORE_DISCARD) {
        zero_otherwise(s);
    } else if (is_refusal(result)) { /* nobody is promised that a discard does anything */
        s->store->can_discard = false;
        ended(s, 0);
    } else if (result < 0) {
        ended(s, (int)result);
    } else {
        advance(s, s->part);
        next_range(s);
    }
}

static void next_range(struct slot *s)
{
    struct store *st = target(s->b);
    s->part = min_u64(left(s), RANGE_PART);
    if (!left(s)) {
        data_is_through(s);
    } else if (s->by_writing || !aligned(position(s) | s->part, st->align)) {
        next_part(s);
    } else {
        s->io.off = position(s);
        s->io.len = s->part;
        s->io.iovs = 0;
        s->io.fua = false;
        put(s, st, s->range, range_done);
    }
}

static void begin_zeroes(struct slot *s)
{
    const struct block *b = s->b;
    bool unmap = b->overlay || (b->discard && s->r->flags & BLOCK_UNMAP);
    s->range = unmap ? STORE_PUNCH : STORE_ZERO;
    s->by_writing = false;
    s->sync = durable(s);
    next_range(s);
}

/* Of the base: whole units of it, or nothing. Of an overlay: what is not there reads as zeroes, and the base is not
 * looked at any more. */
static void begin_discard(struct slot *s)
{
    const struct block *b = s->b;
    if (b->overlay && b->discard) {
        begin_zeroes(s);
    } else if (!b->discard || !b->base->can_discard || !aligned(s->r->offset | s->r->len, b->base->align)) {
        block_slot_done(s, 0);
    } else {
        s->range = STORE_DISCARD;
        s->by_writing = false;
        s->sync = false;
        next_range(s);
    }
}

/* ---- */

static int reserve(struct slot *s)
{
    const struct block_request *r = s->r;
    if (!s->b->overlay || r->op == BLOCK_READ || r->op == BLOCK_FLUSH)
        return 0;
    return block_map_reserve(&s->b->map, r->offset, r->len);
}

void block_parts_begin(struct slot *s)
{
    s->store = NULL;
    s->retries = 0;
    s->at = 0;
    s->at_offset = 0;
    s->sync = false;
    s->bounce_room = 0;
    if (reserve(s)) {
        block_slot_done(s, -ENOMEM);
        return;
    }
    switch (s->r->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        next_part(s);
        break;
    case BLOCK_FLUSH:
        begin_flush(s);
        break;
    case BLOCK_DISCARD:
        begin_discard(s);
        break;
    case BLOCK_WRITE_ZEROES:
        begin_zeroes(s);
        break;
    }
}
