/* -name, -d, -D. */
#include "cli/options_priv.h"

#include "base/bits.h"
#include "base/trace.h"

#include <errno.h>

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
