/* A thread that serves devices' input and output: file descriptors, timers, and bells that other threads ring.
 *
 * A device belongs to one loop; what it does on queues, descriptors and backends it does there, so that it needs no
 * lock of its own. A vCPU that notifies a device rings a bell and goes on: no lock, and a system call only if the loop
 * sleeps. Every callback runs inside the machine's epoch, so it may send interrupts.
 *
 * No ring is lost: who rings marks the bell, then looks whether the loop sleeps; the loop says that it sleeps, then
 * looks at the bells. A bell is taken before its function is called: a ring during the call calls it again.
 */
#ifndef HEC_BASE_IOLOOP_H
#define HEC_BASE_IOLOOP_H

#include "base/epoch.h"
#include "base/err.h"
#include "base/heap.h"

#include <stdbool.h>

struct ioloop;

struct ioloop_config {
    const char *name;    /* the thread's name, at most 15 bytes; copied */
    struct epoch *epoch; /* borrowed; the loop takes a slot */
};

/* Embedded in whoever serves it. */
struct ioloop_bell {
    void (*fn)(void *opaque); /* (c) on the loop's thread */
    void *opaque;             /* (c) */
    _Atomic(struct ioloop_bell *) next;
    _Atomic bool rung;
};

struct ioloop_fd {
    void (*fn)(void *opaque, uint32_t events); /* (c) on the loop's thread; EPOLLIN and friends */
    void *opaque;                              /* (c) */
    int fd;                                    /* (c) borrowed */
};

struct ioloop_timer {
    void (*fn)(void *opaque); /* (c) on the loop's thread; may arm again */
    void *opaque;             /* (c) */
    struct heap_node node;
};

/* ---- lifecycle ---- */
/* Make the loop and start its thread, with every signal blocked. -errno. */
int ioloop_create(const struct ioloop_config *c, struct ioloop **out, struct err *e);
/* Stop and join the thread. Everything has been removed from it. NULL is allowed. */
void ioloop_destroy(struct ioloop *l);
void ioloop_bell_init(struct ioloop_bell *b, void (*fn)(void *), void *opaque);
void ioloop_timer_init(struct ioloop_timer *t, void (*fn)(void *), void *opaque);

/* ---- any thread ---- */
/* Have `b`'s function called soon, once for any number of rings until then. */
void ioloop_ring(struct ioloop *l, struct ioloop_bell *b);
/* Call `fn` on the loop's thread, between two callbacks, and wait until it has returned. On the loop's own thread it is
 * called at once. Not for vCPU threads while they run: a vCPU waits for no device. */
void ioloop_call(struct ioloop *l, void (*fn)(void *opaque), void *opaque);
bool ioloop_here(const struct ioloop *l); /* whether this is its thread */

/* ---- the loop's thread only ---- */
int ioloop_fd_add(struct ioloop *l, struct ioloop_fd *f, uint32_t events, struct err *e);
void ioloop_fd_events(struct ioloop *l, struct ioloop_fd *f, uint32_t events); /* 0: none for now */
/* Its function is not called again, not even for an event that was already fetched. */
void ioloop_fd_remove(struct ioloop *l, struct ioloop_fd *f);
/* At host time `at` (clock_host_ns()); replaces an earlier deadline. At most 64 timers are armed at once. */
void ioloop_timer_arm(struct ioloop *l, struct ioloop_timer *t, uint64_t at);
void ioloop_timer_cancel(struct ioloop *l, struct ioloop_timer *t);
/* A bell that the loop forgets, rung or not: whoever embeds it goes away. Nobody rings it any more, or a later ring may
 * come as the first of a new life. */
void ioloop_bell_remove(struct ioloop *l, struct ioloop_bell *b);

#endif
