#include "mem/ram.h"

#include <errno.h>
#include <sys/mman.h>

static uint8_t *ram_map(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_DONTDUMP);
    return p;
}

int ram_init(struct ram *r, uint64_t size, struct err *e)
{
    *r = (struct ram){.low_size = min_u64(size, RAM_LOW_MAX)};
    r->high_size = size - r->low_size;
    r->low = ram_map(r->low_size);
    if (r->low && r->high_size)
        r->high = ram_map(r->high_size);
    if (r->low && (r->high || !r->high_size))
        return 0;
    ram_fini(r);
    return err_set(e, -ENOMEM, "cannot reserve %llu MiB of guest memory: lower -m or raise the address-space limit",
                   (unsigned long long)(size >> 20));
}

void ram_fini(struct ram *r)
{
    if (r->low)
        munmap(r->low, r->low_size);
    if (r->high)
        munmap(r->high, r->high_size);
    *r = (struct ram){0};
}
