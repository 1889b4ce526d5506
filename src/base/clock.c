#include "base/clock.h"

#include <time.h>

uint64_t clock_host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t clock_wall_seconds(uint32_t *ns)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ns)
        *ns = (uint32_t)ts.tv_nsec;
    return (uint64_t)ts.tv_sec;
}
