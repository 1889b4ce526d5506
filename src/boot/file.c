#include "boot/boot_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *what, const char *path, uint64_t *size, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, -errno, "%s %s: %s", what, path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, -EINVAL, "%s %s: not a regular file", what, path);
    }
    if (!st.st_size) {
        close(fd);
        return err_set(e, -EBADMSG, "%s %s: the file is empty", what, path);
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

static int read_all(const char *what, const char *path, int fd, uint8_t *to, uint64_t size, struct err *e)
{
    for (uint64_t at = 0; at < size;) {
        ssize_t n = read(fd, to + at, size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(e, -errno, "%s %s: %s", what, path, strerror(errno));
        if (!n)
            return err_set(e, -EBADMSG, "%s %s: it became shorter while it was read", what, path);
        at += (uint64_t)n;
    }
    return 0;
}

int file_read(const char *what, const char *path, uint64_t max, uint8_t **data, uint64_t *size, struct err *e)
{
    int fd = open_regular(what, path, size, e);
    if (fd < 0)
        return fd;
    int rc = 0;
    *data = NULL;
    if (*size > max)
        rc = err_set(e, -EFBIG, "%s %s: %llu MiB is more than the %llu MiB a %s may have", what, path,
                     (unsigned long long)(*size >> 20), (unsigned long long)(max >> 20), what);
    else if (!(*data = malloc(*size)))
        rc = err_set(e, -ENOMEM, "%s %s: no host memory to read it", what, path);
    else
        rc = read_all(what, path, fd, *data, *size, e);
    close(fd);
    if (rc) {
        free(*data);
        *data = NULL;
    }
    return rc;
}

int file_size(const char *what, const char *path, uint64_t *size, struct err *e)
{
    int fd = open_regular(what, path, size, e);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

int file_read_to(const char *what, const char *path, uint8_t *to, uint64_t size, struct err *e)
{
    uint64_t now = 0;
    int fd = open_regular(what, path, &now, e);
    if (fd < 0)
        return fd;
    int rc = read_all(what, path, fd, to, size, e);
    close(fd);
    return rc;
}
