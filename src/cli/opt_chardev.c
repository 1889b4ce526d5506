/* -serial, -nographic, -chardev. */
#include "cli/field.h"
#include "cli/options_priv.h"

#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>

/* ---- -serial ---- */

static int unix_server(void *ctx, const struct keyval *k, struct err *e)
{
    bool on = false;
    int rc = keyval_onoff(k, &on, e);
    return rc || on ? rc : err_set(e, -EINVAL, "-serial unix:...,server=off: it always listens: leave it out");
}

static int unix_wait(void *ctx, const struct keyval *k, struct err *e)
{
    bool on = false;
    int rc = keyval_onoff(k, &on, e);
    return rc || !on ? rc : err_set(e, -EINVAL, "-serial unix:...,wait=on: it never waits for a peer: leave it out");
}

static int unix_nowait(void *ctx, const struct keyval *k, struct err *e)
{
    return 0;
}

static const struct prop unix_props[] = {
    {"server", unix_server, "on", NULL}, {"wait", unix_wait, "off", NULL}, {"nowait", unix_nowait, "", NULL}};

/* "unix:PATH[,server=on][,wait=off]", as QEMU users write it; the line listens in any case. */
static int serial_unix(struct vm_serial *s, const char *arg, struct err *e)
{
    struct keyval k;
    keyval_init(&k, "-serial unix", arg + strlen("unix:"));
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-serial unix: give a path after the colon");
    s->kind = VM_SERIAL_UNIX;
    if (asprintf(&s->spec, "unix:%s%s%s", k.key, k.val ? "=" : "", k.val ? k.val : "") < 0) {
        s->spec = NULL;
        return err_set(e, -ENOMEM, "-serial: no host memory");
    }
    return keyval_apply(&k, unix_props, ARRAY_SIZE(unix_props), NULL, e);
}

static int serial_plain(struct vm_serial *s, enum vm_serial_kind kind, const char *spec, struct err *e)
{
    s->kind = kind;
    s->spec = strdup(spec);
    return s->spec ? 0 : err_set(e, -ENOMEM, "-serial: no host memory");
}

static int serial_parse(struct vm_serial *s, const char *arg, struct err *e)
{
    static const char *const names[] = {"stdio", "file:PATH", "null",      "none",
                                        "pty",   "unix:PATH", "mon:stdio", "chardev:ID"};
    if (!strcmp(arg, "stdio") || !strcmp(arg, "mon:stdio"))
        return serial_plain(s, VM_SERIAL_STDIO, "stdio", e);
    if (!strcmp(arg, "null") || !strcmp(arg, "none"))
        return serial_plain(s, VM_SERIAL_NULL, "null", e);
    if (!strcmp(arg, "pty"))
        return serial_plain(s, VM_SERIAL_PTY, "pty", e);
    if (!strncmp(arg, "file:", 5) && arg[5])
        return serial_plain(s, VM_SERIAL_FILE, arg, e);
    if (!strncmp(arg, "unix:", 5))
        return serial_unix(s, arg, e);
    if (!strncmp(arg, "chardev:", 8) && arg[8])
        return serial_plain(s, VM_SERIAL_NULL, arg, e);
    return unknown_name("-serial", "backend", arg, names, ARRAY_SIZE(names), e);
}

int opt_serial(struct options *o, const char *arg, struct err *e)
{
    if (!strcmp(arg, "help")) {
        help_item(o->out, "stdio", "this terminal; Ctrl-A x ends hecaton");
        help_item(o->out, "file:PATH", "output goes to a file");
        help_item(o->out, "null, none", "nowhere (default)");
        help_item(o->out, "pty", "a new pseudo-terminal; its name is printed");
        help_item(o->out, "unix:PATH", "a socket that listens");
        help_item(o->out, "chardev:ID", "what -chardev ...,id=ID describes");
        return OPTION_DONE;
    }
    if (o->serials == VM_SERIAL_MAX)
        return err_set(e, -EINVAL, "-serial %s: this machine has %u serial port, and it is taken: drop one -serial",
                       arg, VM_SERIAL_MAX);
    return serial_parse(&o->cfg->serial[o->serials++], arg, e);
}

int opt_nographic(struct options *o, const char *arg, struct err *e)
{
    o->cfg->nographic = true;
    return 0;
}

/* ---- -chardev ---- */

struct chardev_words {
    const char *id, *path;
};

static const struct field chardev_fields[] = {
    {"id", FIELD_TEXT, offsetof(struct chardev_words, id), .help = "its name for chardev=ID and -serial chardev:ID"},
    {"path", FIELD_TEXT, offsetof(struct chardev_words, path), .values = "PATH", .help = "of file and socket"},
    {"server", FIELD_NEUTRAL, .values = "on", .help = "a socket always listens: say on, or drop it"},
    {"wait", FIELD_NEUTRAL, .values = "off", .help = "it never waits for a peer: say off, or drop it"},
    {"mux", FIELD_NEUTRAL, .values = "off", .help = "each has one user: drop it"},
    {.name = "signal", .type = FIELD_NEUTRAL},
    {"host", FIELD_NEUTRAL, .values = "-", .help = "sockets are local ones here: give path=PATH"},
    {"port", FIELD_NEUTRAL, .values = "-", .help = "sockets are local ones here: give path=PATH"},
};

static const struct {
    const char *name, *spec, *help; /* `spec` ends in a colon if it wants a path */
} chardevs[] = {
    {"stdio", "stdio", "this terminal"},
    {"file", "file:", "a file that output goes to"},
    {"null", "null", "nothing"},
    {"pty", "pty", "a new pseudo-terminal; its name is printed"},
    {"socket", "unix:", "a socket that listens"},
};

static int chardev_spec(struct options *o, const char *prefix, const struct chardev_words *w, const char **spec,
                        struct err *e)
{
    bool wants = prefix[strlen(prefix) - 1] == ':';
    if (wants != (w->path != NULL))
        return err_set(e, -EINVAL, "-chardev id=%s: %s", w->id, wants ? "give path=PATH" : "drop path=");
    *spec = vm_devices_text(&o->cfg->dev, "%s%s", prefix, wants ? w->path : "");
    return *spec ? 0 : err_set(e, -ENOMEM, "no host memory for the options");
}

static void chardev_help(FILE *out)
{
    fputs("-chardev KIND,id=ID[,property=value...]\n", out);
    for (unsigned i = 0; i < ARRAY_SIZE(chardevs); i++)
        help_item(out, chardevs[i].name, chardevs[i].help);
    fields_help(out, chardev_fields, ARRAY_SIZE(chardev_fields));
}

int opt_chardev(struct options *o, const char *arg, struct err *e)
{
    const char *names[ARRAY_SIZE(chardevs)];
    struct chardev_words w = {NULL, NULL};
    const struct field_set set = {chardev_fields, ARRAY_SIZE(chardev_fields), &w};
    struct keyval k;
    unsigned i = 0;
    if (!strcmp(arg, "help")) {
        chardev_help(o->out);
        return OPTION_DONE;
    }
    keyval_init(&k, "-chardev", arg);
    int rc = keyval_next(&k, e);
    if (rc < 0)
        return rc;
    for (; i < ARRAY_SIZE(chardevs) && (!rc || strcmp(chardevs[i].name, k.key)); i++)
        names[i] = chardevs[i].name;
    if (i == ARRAY_SIZE(chardevs))
        return unknown_name("-chardev", "kind", rc ? k.key : "", names, i, e);
    rc = fields_apply(&o->cfg->dev, &k, &set, 1, e);
    if (rc)
        return rc;
    if (!w.id)
        return err_set(e, -EINVAL, "-chardev %s: give id=ID", arg);
    struct vm_chardev *c = vm_devices_chardev(&o->cfg->dev);
    if (!c)
        return err_set(e, -ENOMEM, "no host memory for the options");
    c->id = w.id;
    return chardev_spec(o, chardevs[i].spec, &w, &c->spec, e);
}
