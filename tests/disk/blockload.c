/* blockload read DEVICE COUNT DEPTH: COUNT random aligned reads of 4 KiB.
 * blockload write DEVICE MIB DEPTH: MIB sequential MiB in pieces of 128 KiB, and no flush.
 *
 * DEPTH requests are in flight at any time (Linux AIO, past the page cache). Static, so that it runs in an initramfs;
 * it measures nothing itself, since a guest's clock need not be the host's. Status 0: every byte was moved.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ_LEN  4096u
#define WRITE_LEN (128u << 10)
#define DEPTH_MAX 256

struct load {
    int fd;
    uint16_t op;
    uint32_t len;
    uint64_t pieces; /* the device has */
    uint64_t count;  /* to do */
    uint64_t begun;
    uint64_t random;
    aio_context_t aio;
    struct iocb cb[DEPTH_MAX];
};

static uint64_t next_random(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random;
}

static void prepare(struct load *l, struct iocb *cb)
{
    uint64_t piece = l->op == IOCB_CMD_PREAD ? next_random(l) : l->begun;
    cb->aio_offset = (int64_t)(piece % l->pieces * l->len);
    l->begun++;
}

static int submit(struct load *l, struct iocb **list, long n)
{
    while (n > 0) {
        long done = syscall(SYS_io_submit, l->aio, n, list);
        if (done < 0 && errno != EAGAIN && errno != EINTR) {
            perror("blockload: io_submit");
            return 1;
        }
        if (done > 0) {
            list += done;
            n -= done;
        }
    }
    return 0;
}

static int run(struct load *l, unsigned depth)
{
    struct iocb *list[DEPTH_MAX];
    struct io_event event[DEPTH_MAX];
    long n = 0;
    uint64_t ended = 0;
    for (; n < (long)depth && l->begun < l->count; n++) {
        prepare(l, &l->cb[n]);
        list[n] = &l->cb[n];
    }
    while (ended < l->count) {
        if (submit(l, list, n))
            return 1;
        long got = syscall(SYS_io_getevents, l->aio, 1L, (long)depth, event, NULL);
        n = 0;
        for (long i = 0; i < got; i++, ended++) {
            if (event[i].res != (int64_t)l->len) {
                fprintf(stderr, "blockload: a request ended with %lld\n", (long long)event[i].res);
                return 1;
            }
            if (l->begun == l->count)
                continue;
            list[n] = (struct iocb *)(uintptr_t)event[i].obj;
            prepare(l, list[n++]);
        }
    }
    return 0;
}

static int make_requests(struct load *l, unsigned depth)
{
    uint8_t *memory = aligned_alloc(4096, (size_t)depth * l->len);
    if (!memory || syscall(SYS_io_setup, DEPTH_MAX, &l->aio)) {
        perror("blockload: set-up");
        return 1;
    }
    memset(memory, 0x5a, (size_t)depth * l->len);
    for (unsigned i = 0; i < depth; i++)
        l->cb[i] = (struct iocb){.aio_lio_opcode = l->op,
                                 .aio_fildes = (uint32_t)l->fd,
                                 .aio_buf = (uintptr_t)(memory + (size_t)i * l->len),
                                 .aio_nbytes = l->len};
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 5 || (strcmp(argv[1], "read") != 0 && strcmp(argv[1], "write") != 0)) {
        fprintf(stderr, "usage: blockload read|write DEVICE COUNT|MIB DEPTH\n");
        return 2;
    }
    bool write = argv[1][0] == 'w';
    struct load l = {.op = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                     .len = write ? WRITE_LEN : READ_LEN,
                     .random = 88172645463325252};
    uint64_t bytes = 0, n = strtoull(argv[3], NULL, 0);
    unsigned depth = (unsigned)strtoul(argv[4], NULL, 0);
    l.fd = open(argv[2], (write ? O_RDWR : O_RDONLY) | O_DIRECT);
    if (l.fd < 0 || ioctl(l.fd, BLKGETSIZE64, &bytes) || !depth || depth > DEPTH_MAX) {
        perror(argv[2]);
        return 1;
    }
    l.pieces = bytes / l.len;
    l.count = write ? (n << 20) / l.len : n;
    return !l.pieces || make_requests(&l, depth) || run(&l, depth);
}
