/* -serial, -device, -name, -d, -D. */
#include "cli/options_priv.h"

#include "base/bits.h"
#include "base/trace.h"

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
    static const char *const names[] = {"stdio", "file:PATH", "null", "none", "pty", "unix:PATH", "mon:stdio"};
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

/* ---- -device ---- */

static int port_value(const struct keyval *k, uint16_t *out, struct err *e)
{
    uint32_t v = 0;
    int rc = keyval_u32(k, 1, 0xffff, &v, e);
    if (!rc)
        *out = (uint16_t)v;
    return rc;
}

static int exit_iobase(void *ctx, const struct keyval *k, struct err *e)
{
    return port_value(k, &((struct vm_config *)ctx)->debug_exit_base, e);
}

static int exit_iosize(void *ctx, const struct keyval *k, struct err *e)
{
    return port_value(k, &((struct vm_config *)ctx)->debug_exit_size, e);
}

static const struct prop exit_props[] = {
    {"iobase", exit_iobase, "PORT", "first port (0xf4)"},
    {"iosize", exit_iosize, "N", "ports (4)"},
};

static void device_help(FILE *out)
{
    help_item(out, "isa-debug-exit", "a write of N ends hecaton with status (N << 1) | 1");
    help_props(out, exit_props, ARRAY_SIZE(exit_props));
    help_intel_iommu(out);
    help_amd_iommu(out);
    help_item(out, "pc-testdev", "ports and memory that test programs use");
}

int opt_device(struct options *o, const char *arg, struct err *e)
{
    static const char *const names[] = {"isa-debug-exit", "pc-testdev", "intel-iommu", "amd-iommu"};
    struct keyval k;
    if (!strcmp(arg, "help")) {
        device_help(o->out);
        return OPTION_DONE;
    }
    keyval_init(&k, "-device", arg);
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-device: give a device; -device help lists them");
    const char *name = k.val && !strcmp(k.key, "driver") ? k.val : k.key;
    if (!strcmp(name, names[0])) {
        o->cfg->debug_exit = true;
        k.option = "-device isa-debug-exit";
        return keyval_apply(&k, exit_props, ARRAY_SIZE(exit_props), o->cfg, e);
    }
    if (!strcmp(name, names[2]))
        return opt_intel_iommu(o->cfg, &k, e);
    if (!strcmp(name, names[3]))
        return opt_amd_iommu(o->cfg, &k, e);
    if (strcmp(name, names[1]))
        return unknown_name("-device", "device", name, names, ARRAY_SIZE(names), e);
    o->cfg->pc_testdev = true;
    k.option = "-device pc-testdev";
    rc = keyval_next(&k, e);
    return rc <= 0 ? rc : err_set(e, -EINVAL, "-device pc-testdev: it has no properties, drop '%s'", k.key);
}

/* ---- -name ---- */

static int name_set(struct vm_config *c, const char *name, struct err *e)
{
    if (strlen(name) >= sizeof c->name)
        return err_set(e, -EINVAL, "-name: more than %zu characters", sizeof c->name - 1);
    strcpy(c->name, name);
    return 0;
}

static int name_guest(void *ctx, const struct keyval *k, struct err *e)
{
    return name_set(ctx, k->val ? k->val : "", e);
}

static int name_threads(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &((struct vm_config *)ctx)->debug_threads, e);
}

int opt_name(struct options *o, const char *arg, struct err *e)
{
    static const struct prop props[] = {{"guest", name_guest, "NAME", NULL},
                                        {"debug-threads", name_threads, "on|off", NULL}};
    struct keyval k;
    keyval_init(&k, "-name", arg);
    int rc = keyval_next(&k, e);
    if (rc > 0 && !k.val)
        rc = name_set(o->cfg, k.key, e);
    else
        keyval_init(&k, "-name", arg);
    return rc < 0 ? rc : keyval_apply(&k, props, ARRAY_SIZE(props), o->cfg, e);
}

/* ---- -d, -D ---- */

static const struct {
    const char *name;
    uint32_t mask;
    const char *help;
} categories[] = {
    {"irq", TRACE_IRQ, "each interrupt's way"},
    {"cpu", TRACE_CPU, "resets, SIPIs, mode changes, triple faults"},
    {"int", TRACE_INT, "every exception and interrupt a CPU takes"},
    {"msr", TRACE_MSR, "MSRs that answered with a fault"},
    {"bus", TRACE_BUS, "accesses nobody claimed"},
    {"dev", TRACE_DEV, "device state changes"},
    {"sched", TRACE_SCHED, "parking, waking, time jumps"},
    {"in_asm", TRACE_IN_ASM, "each block when it is translated"},
    {"guest_errors", TRACE_MSR | TRACE_BUS, "msr and bus"},
    {"cpu_reset", TRACE_CPU, "cpu"},
};

static int add_category(uint32_t *mask, const char *name, struct err *e)
{
    const char *names[ARRAY_SIZE(categories)];
    for (unsigned i = 0; i < ARRAY_SIZE(categories); i++) {
        names[i] = categories[i].name;
        if (!strcmp(name, names[i])) {
            *mask |= categories[i].mask;
            return 0;
        }
    }
    return unknown_name("-d", "category", name, names, ARRAY_SIZE(names), e);
}

int opt_trace(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    int rc;
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        fputs("-d CATEGORY[,CATEGORY...]; lines go to standard error or -D FILE:\n", o->out);
        for (unsigned i = 0; i < ARRAY_SIZE(categories); i++)
            help_item(o->out, categories[i].name, categories[i].help);
        help_item(o->out, "json", "with irq: a Chrome trace for ui.perfetto.dev, to -D FILE");
        return OPTION_DONE;
    }
    keyval_init(&k, "-d", arg);
    while ((rc = keyval_next(&k, e)) > 0)
        if (!strcmp(k.key, "json"))
            o->cfg->trace_json = true;
        else if ((rc = add_category(&o->cfg->trace_mask, k.key, e)))
            return rc;
    return rc;
}

int opt_trace_file(struct options *o, const char *arg, struct err *e)
{
    o->cfg->trace_file = arg;
    return 0;
}
