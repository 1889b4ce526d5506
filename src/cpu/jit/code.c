/* The code's memory: one file without a name, mapped twice. */
#include "cpu/jit/jit_priv.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEAT = 32 };

bool jit_host_can(void)
{
    enum { CX16 = 1 << 13, POPCNT = 1 << 23, LAHF_LM = 1 };
    unsigned a, b, c, d;
    bool first = __get_cpuid(1, &a, &b, &c, &d) && c & CX16 && c & POPCNT;
    return first && __get_cpuid(0x80000001, &a, &b, &c, &d) && c & LAHF_LM;
}

static bool map_twice(struct jit *j, void *at, int fd)
{
    void *rw = mmap(NULL, JIT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rw == MAP_FAILED)
        return false;
    j->rw = rw;
    void *rx = mmap(at, JIT_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
    if (rx == MAP_FAILED)
        return false;
    j->rx = rx;
    return true;
}

static int map_code(struct jit *j, void *at, struct err *e)
{
    int fd = memfd_create("hecaton-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool ok = fd >= 0 && !ftruncate(fd, JIT_SIZE) && map_twice(j, at, fd);
    int rc = ok ? 0 : -errno;
    if (ok)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    if (fd >= 0)
        close(fd);
    return ok ? 0
              : err_set(e, rc, "no memory for translated code (%s): -accel soft,jit=off does without", strerror(-rc));
}

int jit_create(void *at, uint32_t heat, struct jit **out, struct err *e)
{
    struct jit *j = calloc(1, sizeof *j);
    if (!j)
        return err_set(e, -ENOMEM, "out of memory for the translator");
    pthread_mutex_init(&j->lock, NULL);
    j->heat = heat ? heat : HEAT;
    j->back = JIT_SIZE;
    int rc = map_code(j, at, e);
    if (rc) {
        jit_destroy(j);
        return rc;
    }
    bool made = jit_make_thunks(j);
    assert(made);
    (void)made;
    *out = j;
    return 0;
}

void jit_destroy(struct jit *j)
{
    if (!j)
        return;
    if (j->rw)
        munmap(j->rw, JIT_SIZE);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

bool jit_full(const struct jit *j)
{
    return atomic_load_explicit(&j->full, memory_order_relaxed);
}

void jit_flush(struct jit *j)
{
    pthread_mutex_lock(&j->lock);
    j->front = j->thunks;
    j->back = JIT_SIZE;
    atomic_store_explicit(&j->full, false, memory_order_relaxed);
    pthread_mutex_unlock(&j->lock);
}
