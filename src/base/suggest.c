#include "base/suggest.h"

#include <ctype.h>
#include <string.h>

#define WORD_MAX 48

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* Lower-case copy of at most WORD_MAX characters, without leading dashes. */
static size_t fold(const char *s, char out[WORD_MAX])
{
    size_t n = 0;
    s += strspn(s, "-");
    while (n < WORD_MAX && s[n]) {
        out[n] = (char)tolower((unsigned char)s[n]);
        n++;
    }
    return n;
}

/* Optimal string alignment distance, three rows at a time. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
    unsigned row[3][WORD_MAX + 1];
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            now[j] = min3(up[j] + 1, now[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < now[j])
                now[j] = up2[j - 2] + 1;
        }
    }
    return row[na % 3][nb];
}

const char *suggest_nearest(const char *word, const char *const *names, size_t n)
{
    char a[WORD_MAX], b[WORD_MAX];
    size_t na = fold(word, a);
    const char *best = NULL;
    unsigned best_d = ~0u;
    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(a, na, b, fold(names[i], b));
        if (d < best_d) {
            best_d = d;
            best = names[i];
        }
    }
    return best;
}
