/* "Did you mean": the known name nearest to one nobody knows. Pure, any thread. */
#ifndef HEC_BASE_SUGGEST_H
#define HEC_BASE_SUGGEST_H

#include <stddef.h>

/* The name of names[0 .. n-1] with the smallest edit distance to `word` (insert, delete, replace, swap neighbours; case
 * and leading dashes don't count); the first of equals. NULL only if n is 0: an unlikely guess still shows what a name
 * looks like. */
const char *suggest_nearest(const char *word, const char *const *names, size_t n);

#endif
