/* An assertion for programs and threads that are not cmocka's: it says what is broken, and aborts. */
#ifndef HEC_TESTS_ENSURE_H
#define HEC_TESTS_ENSURE_H

#include <stdio.h>
#include <stdlib.h>

#define ensure(what)                                                                                                   \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
