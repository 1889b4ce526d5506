/* QEMU locks bytes of an image with shared open-file-description locks: 100 + p says "I use permission p", 200 + p "I
 * want nobody else to have p". Whether somebody stands against us is asked for, not locked for. We do as it does, so
 * that the two programs keep out of one another's way (docs/interop and "Image locking" in QEMU's manual).
 */
#include "dev/block_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PERM_READ   0
#define PERM_WRITE  1
#define PERM_RESIZE 3
#define USED(p)     (100 + (p))
#define UNSHARED(p) (200 + (p))

static int byte_op(int fd, int op, short type, off_t at, struct flock *out)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    int rc = fcntl(fd, op, &l);
    if (out)
        *out = l;
    return rc ? -errno : 0;
}

static int claim(int fd, bool readonly)
{
    int rc = byte_op(fd, F_OFD_SETLK, F_RDLCK, USED(PERM_READ), NULL);
    if (!rc && !readonly)
        rc = byte_op(fd, F_OFD_SETLK, F_RDLCK, USED(PERM_WRITE), NULL);
    if (!rc)
        rc = byte_op(fd, F_OFD_SETLK, F_RDLCK, UNSHARED(PERM_WRITE), NULL);
    return rc ? rc : byte_op(fd, F_OFD_SETLK, F_RDLCK, UNSHARED(PERM_RESIZE), NULL);
}

static bool taken(int fd, off_t at)
{
    struct flock l;
    return !byte_op(fd, F_OFD_GETLK, F_WRLCK, at, &l) && l.l_type != F_UNLCK;
}

static bool opposed(int fd, bool readonly)
{
    return taken(fd, USED(PERM_WRITE)) || taken(fd, USED(PERM_RESIZE)) || taken(fd, UNSHARED(PERM_READ)) ||
           (!readonly && taken(fd, UNSHARED(PERM_WRITE)));
}

static int in_use(const char *option, const char *file, bool readonly, struct err *e)
{
    return err_set(
        e, -EAGAIN,
        "%s: %s is in use by another process (hecaton, QEMU or one of its tools) or another disk of this machine%s: "
        "end that one, or use a copy",
        option, file, readonly ? " that writes it" : "");
}

int block_lock_look(const char *option, const char *file, bool readonly, struct err *e)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    bool used = opposed(fd, readonly);
    close(fd);
    return used ? in_use(option, file, readonly, e) : 0;
}

int block_lock(const char *option, const char *file, int fd, bool readonly, struct err *e)
{
    int rc = claim(fd, readonly);
    if (rc && rc != -EAGAIN && rc != -EACCES)
        return 0; /* a file system without locks */
    if (rc || opposed(fd, readonly))
        return in_use(option, file, readonly, e);
    return 0;
}
