#include "cli/field.h"

#include "base/bits.h"
#include "cli/options_priv.h"

#include <errno.h>
#include <stdlib.h>

#define FIELDS_MAX 128

int field_text(struct vm_devices *d, const struct keyval *k, const char **out, struct err *e)
{
    if (!k->val || !*k->val)
        return err_set(e, -EINVAL, "%s %s=: a value is missing", k->option, k->key);
    *out = vm_devices_text(d, "%s", k->val);
    return *out ? 0 : err_set(e, -ENOMEM, "no host memory for the options");
}

int field_addr(const struct keyval *k, uint32_t *out, struct err *e)
{
    char *end = "";
    const char *s = k->val ? k->val : "";
    unsigned long dev = strtoul(s, &end, 16), fn = 0;
    bool ok = *s && *s != '-' && *s != '+' && end != s;
    if (ok && *end == '.') {
        ok = end[1] >= '0' && end[1] <= '7';
        fn = ok ? (unsigned long)(end[1] - '0') : 0;
        end += ok ? 2 : 0;
    }
    if (!ok || *end || dev > 31)
        return err_set(e, -EINVAL, "%s %s=%s: give a device number and a function in hexadecimal, as 3, 1f or 1f.2",
                       k->option, k->key, s);
    *out = VM_DEVFN(dev, fn);
    return 0;
}

static int field_mac(const struct keyval *k, uint8_t mac[6], struct err *e)
{
    static const uint8_t none[6];
    const char *s = k->val ? k->val : "", *at = s;
    char *end;
    bool ok = true;
    for (unsigned i = 0; i < 6 && ok; i++) {
        unsigned long v = strtoul(at, &end, 16);
        ok = strspn(at, "0123456789abcdefABCDEF") && end - at <= 2 && (i == 5 ? !*end : *end == ':' || *end == '-');
        mac[i] = (uint8_t)v;
        at = end + (ok && *end);
    }
    if (ok && !(mac[0] & 1) && memcmp(mac, none, 6))
        return 0;
    return err_set(e, -EINVAL, "%s %s=%s: give a card's own address, as 52:54:00:12:34:56 (the first byte is even)",
                   k->option, k->key, s);
}

static int field_choice(const struct field *f, const struct keyval *k, unsigned *out, struct err *e)
{
    size_t n = 0;
    while (f->choices[n])
        n++;
    return keyval_choice(k, f->choices, n, out, e);
}

static int field_inverse(const struct keyval *k, bool *out, struct err *e)
{
    bool on = true;
    int rc = keyval_onoff(k, &on, e);
    *out = !on;
    return rc;
}

static int field_auto(const struct keyval *k, unsigned *out, struct err *e)
{
    static const char *const names[] = {"auto", "on", "off", "true", "false", "yes", "no"};
    unsigned i = 0;
    int rc = keyval_choice(k, names, ARRAY_SIZE(names), &i, e);
    *out = !i ? VM_AUTO : i % 2 ? VM_ON : VM_OFF;
    return rc;
}

/* Whether `word` is one of "a|b|c". */
static bool among(const char *word, const char *list)
{
    size_t len = strlen(word);
    for (const char *at = list; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (!strncmp(at, word, len) && (!at[len] || at[len] == '|'))
            return true;
    }
    return false;
}

static int neutral(const struct field *f, const struct keyval *k, struct err *e)
{
    if (!f->values || among(k->val ? k->val : "on", f->values))
        return 0;
    return err_set(e, -EINVAL, "%s %s=%s: %s", k->option, k->key, k->val ? k->val : "on", f->help);
}

static int apply_one(struct vm_devices *d, const struct field *f, void *base, const struct keyval *k, struct err *e)
{
    void *at = (char *)base + f->at;
    switch (f->type) {
    case FIELD_TEXT:
        return field_text(d, k, at, e);
    case FIELD_ONOFF:
        return keyval_onoff(k, at, e);
    case FIELD_OFFON:
        return field_inverse(k, at, e);
    case FIELD_AUTO:
        return field_auto(k, at, e);
    case FIELD_U32:
        return keyval_u32(k, f->min, f->max, at, e);
    case FIELD_CHOICE:
        return field_choice(f, k, at, e);
    case FIELD_ADDR:
        return field_addr(k, at, e);
    case FIELD_MAC:
        return field_mac(k, at, e);
    case FIELD_CUSTOM:
        return f->set(d, base, k, e);
    case FIELD_NEUTRAL:
        return neutral(f, k, e);
    case FIELD_IGNORED:
        return vm_devices_note(d, e, "%s: %s= is ignored: %s", k->option, k->key, f->help);
    }
    return 0;
}

static int unknown_field(const struct keyval *k, const struct field_set *sets, unsigned n, struct err *e)
{
    const char *names[FIELDS_MAX];
    size_t count = 0;
    for (unsigned s = 0; s < n; s++)
        for (size_t i = 0; i < sets[s].n && count < FIELDS_MAX; i++)
            names[count++] = sets[s].field[i].name;
    return unknown_name(k->option, "property", k->key, names, count, e);
}

int fields_apply(struct vm_devices *d, struct keyval *k, const struct field_set *sets, unsigned n, struct err *e)
{
    int rc;
    while ((rc = keyval_next(k, e)) > 0) {
        const struct field *f = NULL;
        void *base = NULL;
        for (unsigned s = 0; s < n && !f; s++)
            for (size_t i = 0; i < sets[s].n && !f; i++)
                if (!strcmp(sets[s].field[i].name, k->key)) {
                    f = &sets[s].field[i];
                    base = sets[s].base;
                }
        rc = f ? apply_one(d, f, base, k, e) : unknown_field(k, sets, n, e);
        if (rc)
            return rc;
    }
    return rc;
}

static const char *values(const struct field *f)
{
    static const char *const usual[] = {
        [FIELD_TEXT] = "ID", [FIELD_ONOFF] = "on|off", [FIELD_OFFON] = "on|off", [FIELD_AUTO] = "auto|on|off",
        [FIELD_U32] = "N",   [FIELD_ADDR] = "DD.F",    [FIELD_MAC] = "MAC"};
    return f->values ? f->values : f->type < ARRAY_SIZE(usual) && usual[f->type] ? usual[f->type] : "";
}

void fields_help(FILE *out, const struct field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char head[128];
        snprintf(head, sizeof head, "%s=%s", fields[i].name, values(&fields[i]));
        if (fields[i].help && fields[i].type != FIELD_NEUTRAL && fields[i].type != FIELD_IGNORED)
            help_item(out, head, fields[i].help);
    }
}
