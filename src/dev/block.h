/* A disk image behind a disk: requests in, completions out, on one ioloop's thread. Raw files and block devices go
 * through io_uring (block_uring.c), everything else through libnbd to a server (block_nbd.c): a qcow2 image to a
 * qemu-nbd (or nbdkit) started for the user, an nbd:// address to the server it names.
 *
 * A request that completed with BLOCK_FUA, or that completed before a flush was submitted which then completed, is on
 * stable storage. Nothing else is promised about order: requests that overlap are the device's business.
 */
#ifndef HEC_DEV_BLOCK_H
#define HEC_DEV_BLOCK_H

#include "base/err.h"
#include "base/ioloop.h"

#include <sys/uio.h>

#define BLOCK_SECTOR 512u

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };
enum block_flag { BLOCK_FUA = 1, BLOCK_UNMAP = 2 /* BLOCK_WRITE_ZEROES may deallocate */ };

/* As QEMU's cache=: host page cache used (writeback), passed by (none), each write flushed (writethrough, directsync =
 * none + writethrough), flushes ignored (unsafe). */
enum block_cache { BLOCK_WRITEBACK, BLOCK_NONE, BLOCK_WRITETHROUGH, BLOCK_DIRECTSYNC, BLOCK_UNSAFE };

struct block;

struct block_request {
    enum block_op op;
    unsigned flags;    /* enum block_flag */
    uint64_t offset;   /* bytes, a multiple of BLOCK_SECTOR */
    uint64_t len;      /* bytes, likewise; the sum of iov for reads and writes */
    struct iovec *iov; /* borrowed until `done`; any alignment */
    unsigned iovs;
    /* 0 or -errno, on the loop's thread, never from inside block_submit(). */
    void (*done)(struct block_request *r, int result);
    void *opaque; /* the submitter's */
    /* private to block*.c from submit to done */
    struct block *block;
    struct block_request *next;
    void *bounce;
    uint64_t progress;
    unsigned step;
};

struct block_config {   /* plain data; strings are borrowed */
    const char *option; /* for messages, what the user wrote: "-hda", "-drive id=ID" */
    const char *file;   /* path or nbd:// / nbd+unix:// address */
    const char *format; /* "raw", "qcow2", ...; NULL: by the file's first bytes, and raw is said aloud */
    enum block_cache cache;
    bool readonly;
    bool snapshot; /* writes go to an unlinked temporary file and are gone at the end */
    bool discard;  /* pass BLOCK_DISCARD on (discard=unmap); else it succeeds and does nothing */
};

struct block_stats { /* since it was opened */
    uint64_t requests[5], bytes[5], failed;
};

/* ---- pure ---- */
/* Formats of images, in order and ended by NULL: "raw", and those that a qemu-nbd reads without being told more. */
extern const char *const block_formats[];

/* ---- lifecycle ---- */
/* Open the image: -errno with one line that names file, reason and remedy (missing file, no permission, a lock held by
 * another hecaton or QEMU, qemu-nbd not installed, ...). Waits for the server of an NBD image. */
int block_open(const struct block_config *c, struct ioloop *loop, struct block **out, struct err *e);
/* Wait for what is in flight, flush (unless unsafe), close, end the server. NULL is allowed. */
void block_close(struct block *b);

/* ---- any thread ---- */
uint64_t block_size(const struct block *b); /* bytes; rounded down to BLOCK_SECTOR */
bool block_readonly(const struct block *b);
unsigned block_physical_sector(const struct block *b); /* what the storage below likes writes to be a multiple of */
bool block_can_discard(const struct block *b);
struct ioloop *block_loop(const struct block *b);
void block_stats(struct block *b, struct block_stats *out);

/* ---- the loop's thread only ---- */
/* Take a request. It is sent at block_kick(), or before. A request past the end fails with -EINVAL (BLOCK_SECTOR
 * multiples likewise), a write to a read-only image with -EROFS: through `done` as well. */
void block_submit(struct block *b, struct block_request *r);
/* Send all that was taken: one system call for many. */
void block_kick(struct block *b);
unsigned block_in_flight(const struct block *b);

#endif
