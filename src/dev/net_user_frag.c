/* IPv4 reassembly, so that libslirp sees no fragments: it keeps any number of them, and a few well-chosen ones end the
 * process (4.7: ip_reass()). RFC 791, 3.2 "Discussion", "An Example Reassembly Procedure"; fragments that overlap
 * discard their datagram, as in RFC 5722. */
#include "dev/net_user_priv.h"

#include "base/clock.h"

#include <stdlib.h>

enum { L3 = 14, IPV4_MIN = 20, HEADER_MAX = 60, MORE = 0x2000, OFFSET = 0x1fff };

#define DATAGRAM_MAX (65535u - HEADER_MAX)
#define BLOCKS       8192u /* of 8 bytes */
#define PATIENCE     (30 * NS_PER_SEC)

struct datagram {
    bool used;
    uint64_t since;  /* host ns of its first fragment */
    uint8_t key[11]; /* source, destination, identification, protocol */
    uint8_t head[L3 + HEADER_MAX];
    unsigned head_len; /* 0: the first fragment has not come */
    unsigned total;    /* bytes of data; 0: the last has not come */
    unsigned end;      /* of what has come */
    unsigned blocks;   /* that have come */
    uint64_t have[BLOCKS / 64];
    uint8_t data[65536];
};

struct user_frags {
    struct datagram *d[16]; /* NULL: never needed */
};

struct user_frags *net_user_frags_create(void)
{
    return calloc(1, sizeof(struct user_frags));
}

void net_user_frags_destroy(struct user_frags *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(f->d); i++)
        free(f->d[i]);
    free(f);
}

static void make_key(const uint8_t *ip, uint8_t key[11])
{
    memcpy(key, ip + 12, 8);
    memcpy(key + 8, ip + 4, 2);
    key[10] = ip[9];
}

static void begin(struct datagram *d, const uint8_t *key, uint64_t now)
{
    d->used = true;
    d->since = now;
    d->head_len = d->total = d->end = d->blocks = 0;
    memcpy(d->key, key, sizeof d->key);
    memset(d->have, 0, sizeof d->have);
}

/* The datagram a fragment belongs to, or a place for a new one: a free one, or the one that has waited longest. */
static struct datagram *find(struct user_frags *f, const uint8_t *ip, uint64_t now)
{
    uint8_t key[11];
    unsigned best = 0;
    uint64_t oldest = UINT64_MAX;
    make_key(ip, key);
    for (unsigned i = 0; i < ARRAY_SIZE(f->d); i++) {
        struct datagram *d = f->d[i];
        bool live = d && d->used && now - d->since < PATIENCE;
        if (live && !memcmp(d->key, key, sizeof key))
            return d;
        uint64_t age = live ? d->since : d ? 0 : 1; /* memory that is there before memory that is not */
        if (age < oldest) {
            oldest = age;
            best = i;
        }
    }
    if (!f->d[best] && !(f->d[best] = malloc(sizeof *f->d[best])))
        return NULL;
    begin(f->d[best], key, now);
    return f->d[best];
}

/* Note that blocks [from, from + n) have come. False: one had come before. */
static bool mark(struct datagram *d, unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++) {
        if (d->have[i / 64] & BIT(i % 64))
            return false;
        d->have[i / 64] |= BIT(i % 64);
    }
    d->blocks += n;
    return true;
}

static bool put(struct datagram *d, const uint8_t *frame, unsigned head, unsigned len)
{
    const uint8_t *ip = frame + L3;
    unsigned field = get16be(ip + 6), off = (field & OFFSET) * 8u;
    if (!len || off + len > DATAGRAM_MAX || (field & MORE && len % 8))
        return false;
    if (!(field & MORE)) {
        if (d->total)
            return false;
        d->total = off + len;
    }
    d->end = (unsigned)max_u64(d->end, off + len);
    if ((d->total && d->end > d->total) || !mark(d, off / 8, (len + 7) / 8))
        return false;
    memcpy(d->data + off, ip + head, len);
    if (!off) {
        d->head_len = L3 + head;
        memcpy(d->head, frame, d->head_len);
    }
    return true;
}

/* Nothing is past the total, so as many blocks as it has are all of them. */
static bool complete(const struct datagram *d)
{
    unsigned need = (d->total + 7) / 8;
    return d->total && d->head_len && d->blocks == need;
}

static size_t deliver(struct datagram *d, uint8_t *frame)
{
    memcpy(frame, d->head, d->head_len);
    memcpy(frame + d->head_len, d->data, d->total);
    uint8_t *ip = frame + L3;
    unsigned head = d->head_len - L3;
    put16be(ip + 2, (uint16_t)(head + d->total));
    put16be(ip + 6, 0);
    put16be(ip + 10, 0);
    st16(ip + 10, (uint16_t)~net_sum(ip, head));
    d->used = false;
    return d->head_len + d->total;
}

enum user_fragment net_user_reassemble(struct user_frags *f, uint8_t *frame, size_t *len, uint64_t now)
{
    unsigned head = (frame[L3] & 15u) * 4;
    struct datagram *d = net_sum(frame + L3, head) == 0xffff ? find(f, frame + L3, now) : NULL;
    if (!d)
        return FRAGMENT_BAD;
    if (!put(d, frame, head, (unsigned)*len - L3 - head)) {
        d->used = false;
        return FRAGMENT_BAD;
    }
    if (!complete(d))
        return FRAGMENT_KEPT;
    *len = deliver(d, frame);
    return FRAGMENT_LAST;
}
