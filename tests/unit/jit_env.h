/* The translator's switch for tests that make engines: HEC_TEST_JIT=N translates a block once it has run N times;
 * absent or 0: everything is interpreted. CTest runs the tests of guest code both ways. */
#ifndef HEC_TESTS_JIT_ENV_H
#define HEC_TESTS_JIT_ENV_H

#include "cpu/engine.h"

#include <stdlib.h>

static inline uint32_t jit_env_heat(void)
{
    const char *heat = getenv("HEC_TEST_JIT");
    return heat ? (uint32_t)strtoul(heat, NULL, 0) : 0;
}

static inline void jit_env(struct engine_config *c)
{
    c->jit_heat = jit_env_heat();
    c->jit = c->jit_heat != 0;
}

#endif
