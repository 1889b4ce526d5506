/* The soft_rig of a file whose tests each have a new one. */
#ifndef HEC_TESTS_SOFT_MACHINE_H
#define HEC_TESTS_SOFT_MACHINE_H

#include "soft_rig.h"

#define MIB UINT64_C(0x100000)

static struct soft_rig rig;

static inline int set_up_bare(void **state)
{
    soft_rig_init(&rig, 4 * MIB, NULL);
    return 0;
}

static inline int tear_down(void **state)
{
    soft_rig_fini(&rig);
    return 0;
}

/* A paging entry, or whatever 8 bytes are there. */
static inline uint64_t *q(gpa_t gpa)
{
    return (uint64_t *)(void *)(rig.ram.low + gpa);
}

#endif
