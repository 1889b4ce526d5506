#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LEN (UINT64_C(1) << 30) /* of one system call; Linux ends at 2 GiB less a page */

static const char *remedy(int error)
{
    switch (error) {
    case ENOENT:
        return "no such file; qemu-img create -f qcow2 FILE 20G makes one";
    case EACCES:
    case EPERM:
        return "permission denied; run as its owner, or give readonly=on or snapshot=on if it may be read";
    case EROFS:
        return "it is on a read-only file system; give readonly=on or snapshot=on";
    case EBUSY:
        return "the host has it in use, perhaps mounted";
    case ETXTBSY:
        return "it is being executed or swapped to";
    default:
        return NULL;
    }
}

static int open_failed(const struct block_config *c, int error, struct err *e)
{
    const char *why = remedy(error);
    if (error == ENOENT && (strstr(c->file, "://") || !strncmp(c->file, "nbd:", 4)))
        why = "of addresses only nbd://HOST[:PORT][/NAME] and nbd+unix:///NAME?socket=PATH are known";
    return err_set(e, -error, "%s: cannot open %s: %s", c->option, c->file, why ? why : strerror(error));
}

/* ---- what it is ---- */

static int check_kind(const struct block_config *c, struct err *e)
{
    struct stat st;
    if (stat(c->file, &st))
        return open_failed(c, errno, e);
    if (S_ISDIR(st.st_mode))
        return err_set(e, -EISDIR, "%s: %s is a directory: name an image in it", c->option, c->file);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, -EINVAL, "%s: %s is neither a file nor a block device", c->option, c->file);
    if (!c->readonly && !c->snapshot && access(c->file, W_OK))
        return open_failed(c, errno, e);
    return 0;
}

int block_file_format(const struct block_config *c, const char **format, struct err *e)
{
    int rc = check_kind(c, e);
    *format = NULL;
    if (rc)
        return rc;
    if (c->format) {
        *format = strcmp(c->format, "raw") == 0 ? NULL : c->format;
        return 0;
    }
    unsigned char first[BLOCK_PROBE_BYTES];
    int fd = open(c->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return open_failed(c, errno, e);
    ssize_t n = pread(fd, first, sizeof first, 0);
    if (n < 0)
        rc = err_set(e, -errno, "%s: cannot read %s: %m", c->option, c->file);
    else
        *format = block_probe(first, (size_t)n);
    close(fd);
    return rc;
}

/* ---- what it can ---- */

/* The smallest unit that O_DIRECT reads take, for lengths and addresses alike: tried, since not every kernel and file
 * system tells. */
static unsigned probe_direct(int fd)
{
    char *mem = aligned_alloc(BLOCK_MAX_ALIGN, 2 * BLOCK_MAX_ALIGN);
    unsigned align = 512;
    while (mem && align < 4096 && pread(fd, mem + align, align, 0) < 0 && errno == EINVAL)
        align *= 2;
    free(mem);
    return align;
}

static int device_traits(struct block_file *f)
{
    uint64_t bytes;
    unsigned physical = 512;
    int logical = 512;
    if (ioctl(f->fd, BLKGETSIZE64, &bytes))
        return -errno;
    ioctl(f->fd, BLKPBSZGET, &physical);
    f->traits.size = bytes;
    f->traits.physical = physical;
    /* The page cache takes any length, but beyond the last whole sector there is nothing. */
    if (!ioctl(f->fd, BLKSSZGET, &logical) && logical > 512 && f->traits.align > 1)
        f->traits.align = (unsigned)logical;
    return 0;
}

static int find_traits(struct block_file *f, bool direct, unsigned align)
{
    struct stat st;
    if (fstat(f->fd, &st))
        return -errno;
    unsigned unit = direct ? probe_direct(f->fd) : 1;
    f->traits =
        (struct store){.size = (uint64_t)st.st_size,
                       .max_len = MAX_LEN,
                       .align = unit > align ? unit : align,
                       .mem_align = unit,
                       .physical = st.st_blksize >= 512 && st.st_blksize <= 4096 ? (unsigned)st.st_blksize : 4096,
                       .cached = !direct,
                       .can_fua = true,
                       .can_discard = true};
    return S_ISBLK(st.st_mode) ? device_traits(f) : 0;
}

/* ---- opening ---- */

/* A writer of a block device wants it for itself: O_EXCL fails on what the host has mounted. */
static int open_flags(const struct block_config *c, bool readonly, bool direct)
{
    struct stat st;
    bool device = !stat(c->file, &st) && S_ISBLK(st.st_mode);
    return O_CLOEXEC | (readonly ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | (device && !readonly ? O_EXCL : 0);
}

static int direct_refused(const struct block_config *c, struct err *e)
{
    return err_set(e, -EINVAL,
                   "%s: %s: its file system cannot pass the page cache by (O_DIRECT): use cache=writeback or "
                   "cache=writethrough",
                   c->option, c->file);
}

int block_file_open(const struct block_config *c, const struct block_tuning *t, struct block_file *f, struct err *e)
{
    bool direct = c->cache == BLOCK_NONE || c->cache == BLOCK_DIRECTSYNC, readonly = c->readonly || c->snapshot;
    f->fd = open(c->file, open_flags(c, readonly, direct));
    if (f->fd < 0)
        return direct && errno == EINVAL ? direct_refused(c, e) : open_failed(c, errno, e);
    int rc = block_lock(c->option, c->file, f->fd, readonly, e);
    if (!rc)
        rc = find_traits(f, direct, t->align);
    f->traits.readonly = readonly;
    if (rc) {
        close(f->fd);
        return err_set(e, rc, "%s: %s: %s", c->option, c->file, strerror(-rc));
    }
    return 0;
}

static int temp_fd(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (fd >= 0)
        return fd;
    char path[4096];
    snprintf(path, sizeof path, "%s/hecaton-XXXXXX", dir);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

int block_file_temp(const char *option, uint64_t size, struct block_file *f, struct err *e)
{
    const char *dir = getenv("TMPDIR");
    dir = dir && *dir ? dir : "/var/tmp";
    f->fd = temp_fd(dir);
    if (f->fd < 0)
        return err_set(e, -errno, "%s: snapshot=on: no temporary file in %s: %m (TMPDIR names another place)", option,
                       dir);
    int rc = ftruncate(f->fd, (off_t)align_up(size, 4096)) ? -errno : find_traits(f, false, 1);
    if (!rc)
        return 0;
    close(f->fd);
    return err_set(e, rc, "%s: snapshot=on: %s has no files of %llu bytes: %s (TMPDIR names another place)", option,
                   dir, (unsigned long long)size, strerror(-rc));
}
