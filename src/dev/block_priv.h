/* What block*.c share. A block is a disk to its device; below it are one or two stores: a file or a server, and with
 * snapshot=on an overlay. block.c takes requests and gives their results back, block_parts.c turns a request into the
 * operations a store can do, one after another, and the store (block_uring.c, block_threads.c, block_nbd.c) does them.
 * All of it on the loop's thread, unless said otherwise.
 */
#ifndef HEC_DEV_BLOCK_PRIV_H
#define HEC_DEV_BLOCK_PRIV_H

#include "base/bits.h"
#include "dev/block.h"

#include <stdatomic.h>
#include <sys/types.h>

/* The hostile build is always short of everything. */
#if HEC_HOSTILE
#define BLOCK_SLOTS     3u
#define BLOCK_SLOT_IOVS 2u
#define BLOCK_BOUNCE    8192u
#else
#define BLOCK_SLOTS     256u /* requests a block works on at once; more wait */
#define BLOCK_SLOT_IOVS 64u
#define BLOCK_BOUNCE    (1u << 20) /* bytes a bounce buffer takes of a request at most, besides what alignment adds */
#endif
#define BLOCK_MAX_ALIGN 65536u /* of a store */

/* ---- stores ---- */

enum store_op {
    STORE_READ,
    STORE_WRITE,
    STORE_SYNC,
    STORE_DISCARD, /* what is there may be lost */
    STORE_PUNCH,   /* zeroes, by giving the room back */
    STORE_ZERO     /* zeroes, keeping the room */
};

/* One operation, the caller's until done. */
struct store_io {
    enum store_op op;
    bool fua; /* STORE_WRITE, if the store can */
    uint64_t off, len;
    struct iovec *iov; /* for reads and writes: the sum is `len` */
    unsigned iovs;
    /* Bytes for reads and writes (0: there is nothing), 0 for others, or -errno: -EOPNOTSUPP if it can't do that.
     * Never from inside put(). May put(). */
    void (*done)(struct store_io *io, int64_t result);
    /* the store's from put() to done */
    struct store *store;
    struct store_io *next;
    int64_t result;
};

struct store;

struct store_ops {
    /* At most BLOCK_SLOTS at once. */
    void (*put)(struct store *s, struct store_io *io);
    void (*kick)(struct store *s); /* send what was put; may call done */
    void (*wait)(struct store *s); /* until something is done that was put; calls done */
    /* Take it from the loop; nothing is in flight. */
    void (*detach)(struct store *s);
    void (*close)(struct store *s); /* any thread, detached */
};

struct store {
    const struct store_ops *ops;
    uint64_t size;      /* bytes */
    uint64_t max_len;   /* of a read or write; a multiple of align */
    unsigned align;     /* offsets and lengths of reads and writes are multiples of it; a power of two */
    unsigned mem_align; /* so are their buffers' addresses and lengths */
    unsigned physical;  /* bytes it likes writes to be a multiple of */
    unsigned in_flight; /* put and not done */
    bool contiguous;    /* takes one buffer only */
    bool readonly;
    bool cached;      /* by the host: once a sync has failed, what was written may be gone for good */
    bool can_fua;     /* may turn false when a write says -EOPNOTSUPP */
    bool can_discard; /* STORE_DISCARD is worth trying */
};

/* An opened file and what is known of it, on its way to a store. */
struct block_file {
    int fd;
    struct store traits; /* ops not set */
};

/* ---- the block ---- */

struct slot {
    struct store_io io;
    struct block *b;
    struct block_request *r;
    struct slot *next;    /* while free */
    struct store *store;  /* of the part under way */
    uint64_t part;        /* bytes of the request it serves */
    uint64_t bounce_off;  /* where the bounce buffer's bytes lie in the store, if r->bounce is in use */
    uint64_t bounce_len;  /* how many */
    uint64_t bounce_done; /* of them written */
    uint64_t bounce_room; /* bytes of the bounce buffer */
    uint64_t at_offset;   /* with `at`: the request's buffer that comes next, and the byte in it */
    unsigned at;
    unsigned retries;    /* since there was progress */
    enum store_op range; /* how it discards or zeroes */
    bool by_writing;     /* it zeroes by writing zeroes */
    bool use_bounce;     /* for this part */
    bool sync;           /* a sync ends it */
    struct iovec iov[BLOCK_SLOT_IOVS];
};

/* Which sectors lie in the overlay. Leaves of LEAF_SECTORS, made as they are written to. */
struct block_map {
    uint64_t **leaf;
    uint64_t leaves;
};

struct block_tuning { /* for tests */
    bool no_uring;
    unsigned align;     /* at least this, for files */
    struct store *base; /* instead of the file; closed with the block */
};

struct block {
    char *option, *file;     /* (c) for messages */
    struct ioloop *loop;     /* (c) */
    struct store *base;      /* (c) */
    struct store *overlay;   /* (c) NULL: writes go to base */
    uint64_t size;           /* (c) */
    unsigned physical;       /* (c) */
    bool readonly, guessed;  /* (c) guessed: raw for want of anything better */
    bool discard;            /* (c) */
    bool write_through;      /* (c) */
    bool unsafe;             /* (c) flushes are ignored */
    struct ioloop_bell bell; /* there is something finished, or a kick to be made up for */
    struct block_map map;
    struct slot *slots, *free;
    struct block_request *waiting, **waiting_end;
    struct block_request *finished, **finished_end; /* the result is in `step` */
    unsigned in_flight;                             /* requests taken and not given back */
    unsigned busy;                                  /* slots in use */
    bool exclusive;                                 /* the one request in its slot must be alone */
    bool sync_failed;
    bool delivering;
    bool closing;
    _Atomic uint64_t requests[5], bytes[5], failed; /* (a) */
};

/* block.c */
int block_open_tuned(const struct block_config *c, const struct block_tuning *t, struct ioloop *loop,
                     struct block **out, struct err *e);
/* Give `r` back soon; its slot, if it had one, is free again. */
void block_finish(struct block *b, struct block_request *r, int result);
/* One line on stderr. */
void block_note(const struct block *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* block_parts.c */
/* Whether the request may only run alone: it writes less than a unit of a store that has larger ones. */
bool block_parts_exclusive(const struct block *b, const struct block_request *r);
/* Begin with the request in the slot; it ends with block_parts_ended(). Never from inside. */
void block_parts_begin(struct slot *s);

/* block.c, for block_parts.c: the request is through and the slot is free. */
void block_slot_done(struct slot *s, int result);

/* block_map.c */
int block_map_init(struct block_map *m, uint64_t size);
void block_map_fini(struct block_map *m);
/* So that block_map_mark() of the range can't fail. 0 or -ENOMEM. */
int block_map_reserve(struct block_map *m, uint64_t off, uint64_t len);
void block_map_mark(struct block_map *m, uint64_t off, uint64_t len);
/* How many bytes from `off` (any byte), at most `len`, lie in the same place, and whether that is the overlay. */
uint64_t block_map_run(const struct block_map *m, uint64_t off, uint64_t len, bool *overlay);

/* block_probe.c */
#define BLOCK_PROBE_BYTES 512u
/* The format whose magic these first bytes have, or NULL. */
const char *block_probe(const void *bytes, size_t n);

/* block_file.c */
/* What the image is to be read as: NULL for raw, or for unknown with c->format NULL. -errno with a line, also if the
 * file is not there or not a file. */
int block_file_format(const struct block_config *c, const char **format, struct err *e);
/* Open a raw image, lock it and find out what it can. */
int block_file_open(const struct block_config *c, const struct block_tuning *t, struct block_file *f, struct err *e);
/* An unlinked temporary file of `size` bytes that takes no room yet. */
int block_file_temp(const char *option, uint64_t size, struct block_file *f, struct err *e);

/* block_lock.c: what block_lock() would say, without taking anything: for a file that a server is going to lock. */
int block_lock_look(const char *option, const char *file, bool readonly, struct err *e);
/* block_lock.c: keep other processes away as QEMU's do: -EAGAIN if another one writes the file, or reads it while we
 * want to write. */
int block_lock(const char *option, const char *file, int fd, bool readonly, struct err *e);

/* block_uring.c: takes f->fd on success. -errno without a message: there is no io_uring to be had. */
int block_uring_create(const struct block_file *f, struct ioloop *loop, struct store **out);
/* block_threads.c: likewise. */
int block_threads_create(const struct block_file *f, struct ioloop *loop, struct store **out);

/* block_nbd.c: connect to the address c->file, or to a server started for the image of `format` (not NULL then). */
int block_nbd_create(const struct block_config *c, const char *format, struct ioloop *loop, struct store **out,
                     struct err *e);
bool block_nbd_is_address(const char *file);

/* block_server.c: a qemu-nbd (or, where that will do, an nbdkit) for one image and one connection. It goes when the
 * connection does, so it ends with us however we end; it has its own session, so a terminal's Ctrl-C is not for it. */
struct block_server {
    pid_t pid;           /* 0: none, or it has been waited for */
    int pidfd;           /* -1: the host has none */
    int log;             /* what it said; -1: none */
    int status;          /* waitpid()'s, once it has been waited for */
    const char *program; /* NULL: none */
};
#define BLOCK_SERVER_NONE ((struct block_server){.pidfd = -1, .log = -1})

/* Start it; *connection is a socket it will answer on. -errno with a line. */
int block_server_start(const struct block_config *c, const char *format, struct block_server *s, int *connection,
                       struct err *e);
/* The first line it wrote, without a newline, or "". */
void block_server_said(const struct block_server *s, char *line, size_t size);
/* Whether it has ended, after at most `ms`: it has been waited for then. */
bool block_server_ended(struct block_server *s, int ms);
/* What became of it, as "qemu-nbd was killed by signal 9 (Killed)". */
void block_server_fate(const struct block_server *s, char *line, size_t size);
/* Wait until it has written what it has and is gone; the connection is closed. One that does not go in half a minute is
 * ended. */
void block_server_end(struct block_server *s);
/* It has nothing to lose: ask it to end, before waiting for it. Nothing if none was started. */
void block_server_hasten(const struct block_server *s);

#endif
