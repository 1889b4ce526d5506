#include "cli/keyval.h"

#include "base/bits.h"
#include "base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define PROPS_MAX 64

void keyval_init(struct keyval *k, const char *option, const char *list)
{
    k->option = option;
    k->rest = list;
    k->key = k->val = NULL;
}

int keyval_next(struct keyval *k, struct err *e)
{
    size_t n = 0;
    const char *s = k->rest;
    if (!*s)
        return 0;
    for (; *s && (*s != ',' || s[1] == ','); s++) {
        if (n == sizeof k->buf - 1)
            return err_set(e, -EINVAL, "%s: an item of more than %zu characters", k->option, sizeof k->buf - 1);
        s += *s == ',';
        k->buf[n++] = *s;
    }
    k->buf[n] = 0;
    k->rest = *s ? s + 1 : s;
    char *eq = strchr(k->buf, '=');
    if (eq)
        *eq = 0;
    k->key = k->buf;
    k->val = eq ? eq + 1 : NULL;
    return 1;
}

int unknown_name(const char *option, const char *what, const char *word, const char *const *names, size_t n,
                 struct err *e)
{
    const char *near = suggest_nearest(word, names, n);
    return err_set(e, -EINVAL, "%s: unknown %s '%s'; the nearest one is '%s'", option, what, word,
                   near ? near : "none");
}

int keyval_apply(struct keyval *k, const struct prop *props, size_t n, void *ctx, struct err *e)
{
    int rc;
    while ((rc = keyval_next(k, e)) > 0) {
        size_t i = 0;
        while (i < n && strcmp(props[i].name, k->key))
            i++;
        if (i == n) {
            const char *names[PROPS_MAX];
            for (i = 0; i < n && i < PROPS_MAX; i++)
                names[i] = props[i].name;
            return unknown_name(k->option, "property", k->key, names, i, e);
        }
        rc = props[i].set(ctx, k, e);
        if (rc)
            return rc;
    }
    return rc;
}

int keyval_choice(const struct keyval *k, const char *const *names, size_t n, unsigned *out, struct err *e)
{
    char option[96];
    for (size_t i = 0; i < n; i++)
        if (k->val && !strcmp(k->val, names[i])) {
            *out = (unsigned)i;
            return 0;
        }
    snprintf(option, sizeof option, "%s %.60s=", k->option, k->key);
    return unknown_name(option, "value", k->val ? k->val : "", names, n, e);
}

int keyval_onoff(const struct keyval *k, bool *out, struct err *e)
{
    static const char *const names[] = {"on", "off", "yes", "no", "true", "false", "y", "n"};
    unsigned i = 0;
    int rc = k->val ? keyval_choice(k, names, ARRAY_SIZE(names), &i, e) : 0;
    *out = i % 2 == 0;
    return rc;
}

int keyval_u64(const struct keyval *k, uint64_t min, uint64_t max, uint64_t *out, struct err *e)
{
    char *end = NULL;
    const char *s = k->val ? k->val : "";
    bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    errno = 0;
    unsigned long long v = strtoull(s, &end, hex ? 16 : 10);
    if (*s < '0' || *s > '9' || *end || errno || v < min || v > max)
        return err_set(e, -EINVAL, "%s %s=%s: give a number from %llu to %llu", k->option, k->key, s,
                       (unsigned long long)min, (unsigned long long)max);
    *out = v;
    return 0;
}

int keyval_u32(const struct keyval *k, uint32_t min, uint32_t max, uint32_t *out, struct err *e)
{
    uint64_t v = 0;
    int rc = keyval_u64(k, min, max, &v, e);
    if (!rc)
        *out = (uint32_t)v;
    return rc;
}

int keyval_size(const struct keyval *k, uint64_t *out, struct err *e)
{
    static const char units[] = "BKMGT";
    char *end = NULL;
    const char *s = k->val ? k->val : "";
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    const char *unit = *end ? strchr(units, *end & ~0x20) : &units[2];
    unsigned shift = unit ? 10 * (unsigned)(unit - units) : 0;
    bool tail = *end && end[1] && strcasecmp(end + 1, "B") && strcasecmp(end + 1, "iB");
    if (*s < '0' || *s > '9' || errno || !unit || tail || v > UINT64_MAX >> shift)
        return err_set(e, -EINVAL, "%s %s: not a size: give one as 512M or 4G", k->option, s);
    *out = (uint64_t)v << shift;
    return 0;
}
