/* -machine, -accel, -smp, -m, -cpu. */
#include "cli/options_priv.h"

#include "base/bits.h"
#include "cpu/cpuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

/* ---- -accel ---- */

static int add_accel(struct vm_config *c, const char *option, const char *name, struct err *e)
{
    static const char *const names[] = {"soft", "tcg", "kvm"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(name, names[i])) {
            if (c->accels == VM_ACCEL_MAX)
                return err_set(e, -EINVAL, "%s: more than %u accelerators", option, VM_ACCEL_MAX);
            c->accel[c->accels++] = i == 2 ? VM_ACCEL_KVM : VM_ACCEL_SOFT;
            return 0;
        }
    return unknown_name(option, "accelerator", name, names, ARRAY_SIZE(names), e);
}

/* "kvm:soft": tried in order. Replaces what was given before. */
static int set_accels(struct vm_config *c, const char *option, const char *list, struct err *e)
{
    char word[32];
    c->accels = 0;
    do {
        size_t len = strcspn(list, ":");
        snprintf(word, sizeof word, "%.*s", (int)min_u64(len, sizeof word - 1), list);
        int rc = add_accel(c, option, word, e);
        if (rc)
            return rc;
        list += len;
    } while (*list++ == ':');
    return 0;
}

static int accel_thread(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {"multi", "single"};
    struct vm_config *c = ctx;
    unsigned i = 0;
    int rc = keyval_choice(k, names, ARRAY_SIZE(names), &i, e);
    if (!rc && i == 1)
        c->workers = 1;
    return rc;
}

static int accel_jit(void *ctx, const struct keyval *k, struct err *e)
{
    struct vm_config *c = ctx;
    bool on = false;
    int rc = keyval_onoff(k, &on, e);
    c->jit = on ? VM_ON : VM_OFF;
    return rc;
}

static int accel_jit_heat(void *ctx, const struct keyval *k, struct err *e)
{
    struct vm_config *c = ctx;
    return keyval_u32(k, 1, UINT32_MAX, &c->jit_heat, e);
}

static const struct prop accel_props[] = {
    {"jit", accel_jit, "on|off", "soft: translate what runs often into host code (on; off with deterministic=on)"},
    {"jit-heat", accel_jit_heat, "N", "soft: translate what has run N times (32)"},
    {"thread", accel_thread, "multi|single", "single: one worker (multi)"},
};

static void accel_help(FILE *out)
{
    fputs("-accel NAME[:NAME...]; the first that works is used:\n", out);
    help_item(out, "soft, tcg", "the built-in engine");
    help_item(out, "kvm", "the host's KVM; as kvm:soft the built-in engine takes over where it can't run the machine");
    fputs("Without -accel: KVM where it runs unmodified guests (VMX or SVM), else soft.\n", out);
    help_props(out, accel_props, ARRAY_SIZE(accel_props));
}

int opt_accel(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    if (!strcmp(arg, "help")) {
        accel_help(o->out);
        return OPTION_DONE;
    }
    keyval_init(&k, "-accel", arg);
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-accel: give soft, kvm or kvm:soft");
    rc = set_accels(o->cfg, "-accel", k.val && !strcmp(k.key, "accel") ? k.val : k.key, e);
    return rc ? rc : keyval_apply(&k, accel_props, ARRAY_SIZE(accel_props), o->cfg, e);
}

/* ---- -sandbox, -S ---- */

/* QEMU's own switches are all on here, and can't be taken back one by one. */
static int sandbox_deny(void *ctx, const struct keyval *k, struct err *e)
{
    if (k->val && !strcmp(k->val, "deny"))
        return 0;
    return err_set(e, -EINVAL, "-sandbox %s=%s: it is denied, always: drop it, or say -sandbox off", k->key,
                   k->val ? k->val : "");
}

int opt_sandbox(struct options *o, const char *arg, struct err *e)
{
    static const struct prop props[] = {{"elevateprivileges", sandbox_deny, "deny", NULL},
                                        {"obsolete", sandbox_deny, "deny", NULL},
                                        {"resourcecontrol", sandbox_deny, "deny", NULL},
                                        {"spawn", sandbox_deny, "deny", NULL}};
    static const char *const names[] = {"on", "off"};
    struct keyval k;
    keyval_init(&k, "-sandbox", arg);
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-sandbox: give on or off");
    const char *word = k.val && !strcmp(k.key, "enable") ? k.val : k.key;
    if (strcmp(word, "on") && strcmp(word, "off"))
        return unknown_name("-sandbox", "setting", word, names, ARRAY_SIZE(names), e);
    o->cfg->sandbox = !strcmp(word, "on") ? VM_ON : VM_OFF;
    return keyval_apply(&k, props, ARRAY_SIZE(props), o->cfg, e);
}

int opt_enable_kvm(struct options *o, const char *arg, struct err *e)
{
    return set_accels(o->cfg, "-enable-kvm", "kvm", e);
}

/* ---- -machine ---- */

static int m_accel(void *ctx, const struct keyval *k, struct err *e)
{
    return set_accels(ctx, "-machine accel=", k->val ? k->val : "", e);
}

static int m_time(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {
        [VM_TIME_AUTO] = "auto", [VM_TIME_REAL] = "real", [VM_TIME_VIRTUAL] = "virtual"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &((struct vm_config *)ctx)->time, e);
}

static int m_boot(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {[VM_BOOT_AUTO] = "auto", [VM_BOOT_PVH] = "pvh", [VM_BOOT_LINUX64] = "linux64"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &((struct vm_config *)ctx)->boot, e);
}

static int m_irqchip(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {[VM_IRQCHIP_SPLIT] = "split", [VM_IRQCHIP_ON] = "on", [VM_IRQCHIP_OFF] = "off"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &((struct vm_config *)ctx)->irqchip, e);
}

static int m_ids32(void *ctx, const struct keyval *k, struct err *e)
{
    bool on = true;
    int rc = keyval_onoff(k, &on, e);
    ((struct vm_config *)ctx)->x2apic_8bit_ids = !on;
    return rc;
}

static int m_apicv(void *ctx, const struct keyval *k, struct err *e)
{
    bool on = true;
    int rc = keyval_onoff(k, &on, e);
    ((struct vm_config *)ctx)->apicv_off = !on;
    return rc;
}

static int m_windows_amd(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &((struct vm_config *)ctx)->windows_amd_msi, e);
}

static int m_windows_high(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &((struct vm_config *)ctx)->windows_msi_high_bits, e);
}

static int m_quirk(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &((struct vm_config *)ctx)->x2apic_broadcast_quirk, e);
}

static int m_firmware(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {[VM_AUTO] = "auto", [VM_ON] = "on", [VM_OFF] = "off"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &((struct vm_config *)ctx)->firmware_x2apic, e);
}

static int m_destination(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {
        [VM_DEST_AUTO] = "auto", [VM_DEST_PHYSICAL] = "physical", [VM_DEST_CLUSTER] = "cluster"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &((struct vm_config *)ctx)->apic_destination, e);
}

static int m_deterministic(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &((struct vm_config *)ctx)->deterministic, e);
}

static int m_seed(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_u64(k, 0, UINT64_MAX, &((struct vm_config *)ctx)->seed, e);
}

static int m_workers(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_u32(k, 1, VM_WORKERS_MAX, &((struct vm_config *)ctx)->workers, e);
}

/* Add "N" or "N-M" to the ID list. */
static int add_ids(struct vm_config *c, const char *s, struct err *e)
{
    char *end;
    unsigned long a = strtoul(s, &end, 10), b = a;
    bool ok = isdigit((unsigned char)*s);
    if (ok && *end == '-') {
        ok = isdigit((unsigned char)end[1]);
        b = strtoul(end + 1, &end, 10);
    }
    if (!ok || *end || b < a)
        return err_set(e, -EINVAL, "-machine apic-ids=: '%s' is not an ID or a range: write 0,256-554", s);
    if (b > HEC_APIC_ID_MAX)
        return err_set(e, -EINVAL, "-machine apic-ids=: '%s' is past %u, the largest ID", s, HEC_APIC_ID_MAX);
    if (c->apic_ids_n + (b - a + 1) > VM_CPUS_MAX)
        return err_set(e, -EINVAL, "-machine apic-ids=: more than %u IDs", VM_CPUS_MAX);
    uint32_t *ids = realloc(c->apic_ids, (c->apic_ids_n + (b - a + 1)) * sizeof *ids);
    if (!ids)
        return err_set(e, -ENOMEM, "-machine apic-ids=: no host memory");
    c->apic_ids = ids;
    for (; a <= b; a++)
        ids[c->apic_ids_n++] = (uint32_t)a;
    return 0;
}

static int m_apic_ids(void *ctx, const struct keyval *k, struct err *e)
{
    struct vm_config *c = ctx;
    free(c->apic_ids);
    c->apic_ids = NULL;
    c->apic_ids_n = 0;
    return add_ids(c, k->val ? k->val : "", e);
}

/* What other machines have and this one has not: "off" is true already. */
static int m_absent(void *ctx, const struct keyval *k, struct err *e)
{
    bool on = false;
    int rc = keyval_onoff(k, &on, e);
    if (rc || !on)
        return rc;
    return err_set(e, -EINVAL, "-machine %s=on: this machine has none: leave it out", k->key);
}

static int m_type(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {"q35"};
    unsigned i;
    return keyval_choice(k, names, ARRAY_SIZE(names), &i, e);
}

static const struct prop machine_props[] = {
    {"accel", m_accel, "NAME[:NAME]", "as -accel"},
    {"apic-destination", m_destination, "auto|physical|cluster", "how the FADT asks guests to address CPUs (auto)"},
    {"apic-ids", m_apic_ids, "LIST", "APIC IDs of the CPUs, as 0,256-554, up to 32767 (by topology)"},
    {"apicv", m_apicv, "on|off", "post interrupts straight into their target's APIC where that is right (on)"},
    {"boot", m_boot, "auto|pvh|linux64", "how a Linux kernel is entered; auto: pvh if it can (auto)"},
    {"deterministic", m_deterministic, "on|off",
     "the same inputs give the same run; prints a state hash at exit (off)"},
    {"firmware-x2apic", m_firmware, "auto|on|off", "CPUs start in x2APIC mode; auto: if an ID is past 254 (auto)"},
    {"kernel-irqchip", m_irqchip, "split|on|off", "whose I/O APIC; only split has room for IDs past 254 (split)"},
    {"seed", m_seed, "N", "of RDRAND in a deterministic machine (0)"},
    {"time", m_time, "auto|real|virtual", "guest time; auto: virtual with more CPUs than workers"},
    {"type", m_type, "q35", "the machine's name"},
    {"workers", m_workers, "N", "host threads that run CPUs (one a host CPU)"},
    {"windows-amd-msi", m_windows_amd, "on|off", "Windows on an AMD CPU with intel-iommu: its I/O APIC entries (off)"},
    {"windows-msi-high-bits", m_windows_high, "on|off", "Windows' 32-bit IDs in address bits 55:32 (off)"},
    {"x2apic-32bit-ids", m_ids32, "on|off",
     "an APIC in xAPIC mode answers to its full ID too; off: to 8 bits, shared (on)"},
    {"x2apic-broadcast-quirk", m_quirk, "on|off", "messages to FFh are for every CPU, as on old KVM (off)"},
    {"graphics", m_absent, "off", NULL},
    {"hpet", m_absent, "off", NULL},
    {"smm", m_absent, "off", NULL},
    {"usb", m_absent, "off", NULL},
    {"vmport", m_absent, "off", NULL},
};

static void machine_help(FILE *out)
{
    fputs("-machine NAME[,property=value...]\n", out);
    help_item(out, "q35", "the only one: a PC with I/O APIC, ACPI, serial port (default)");
    fputs("Properties (default in brackets):\n", out);
    help_props(out, machine_props, ARRAY_SIZE(machine_props));
    fputs("  graphics, hpet, smm, usb, vmport: off is accepted, there are none.\n", out);
}

static bool is_id_item(const char *key)
{
    return isdigit((unsigned char)*key) && key[strspn(key, "0123456789-")] == 0;
}

/* Commas also separate the IDs of apic-ids=, so numbers after it belong to it. */
static int apply_machine(struct vm_config *c, struct keyval *k, struct err *e)
{
    bool ids = false;
    for (;;) {
        const char *item = k->rest;
        int rc = keyval_next(k, e);
        if (rc <= 0)
            return rc;
        if (ids && !k->val && is_id_item(k->key)) {
            rc = add_ids(c, k->key, e);
        } else {
            struct keyval one;
            char text[KEYVAL_MAX];
            size_t len = strlen(item) - strlen(k->rest);
            ids = !strcmp(k->key, "apic-ids");
            snprintf(text, sizeof text, "%.*s", (int)len, item);
            keyval_init(&one, k->option, text);
            rc = keyval_apply(&one, machine_props, ARRAY_SIZE(machine_props), c, e);
        }
        if (rc)
            return rc;
    }
}

int opt_machine(struct options *o, const char *arg, struct err *e)
{
    static const char *const names[] = {"q35"};
    struct keyval k;
    if (!strcmp(arg, "help")) {
        machine_help(o->out);
        return OPTION_DONE;
    }
    keyval_init(&k, "-machine", arg);
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-machine: give q35");
    if (k.val)
        keyval_init(&k, "-machine", arg);
    else if (strcmp(k.key, "q35"))
        return unknown_name("-machine", "machine", k.key, names, 1, e);
    return apply_machine(o->cfg, &k, e);
}

/* ---- -smp ---- */

#define SMP_FIELD(field)                                                                                               \
    static int smp_##field(void *ctx, const struct keyval *k, struct err *e)                                           \
    {                                                                                                                  \
        return keyval_u32(k, 1, VM_CPUS_MAX, &((struct vm_smp *)ctx)->field, e);                                       \
    }
SMP_FIELD(cpus)
SMP_FIELD(maxcpus)
SMP_FIELD(sockets)
SMP_FIELD(dies)
SMP_FIELD(cores)
SMP_FIELD(threads)

static const struct prop smp_props[] = {
    {"cpus", smp_cpus, "N", "CPUs that are there at the start"},
    {"maxcpus", smp_maxcpus, "N", "CPUs the topology has room for"},
    {"sockets", smp_sockets, "N", "packages (1)"},
    {"dies", smp_dies, "N", "dies a package (1)"},
    {"cores", smp_cores, "N", "cores a die"},
    {"threads", smp_threads, "N", "threads a core (2 if it divides evenly)"},
};

int opt_smp(struct options *o, const char *arg, struct err *e)
{
    struct vm_smp s = {0};
    struct keyval k;
    if (!strcmp(arg, "help")) {
        fputs("-smp [cpus=]N[,property=N...]; what is left out follows from the rest:\n", o->out);
        help_props(o->out, smp_props, ARRAY_SIZE(smp_props));
        return OPTION_DONE;
    }
    keyval_init(&k, "-smp", arg);
    int rc = keyval_next(&k, e);
    if (rc < 0)
        return rc;
    if (rc && !k.val && isdigit((unsigned char)*k.key)) {
        struct keyval n = {.option = "-smp", .key = "cpus", .val = k.key};
        rc = smp_cpus(&s, &n, e);
    } else {
        keyval_init(&k, "-smp", arg);
        rc = *arg ? 0 : err_set(e, -EINVAL, "-smp: give the number of CPUs");
    }
    if (rc || (rc = keyval_apply(&k, smp_props, ARRAY_SIZE(smp_props), &s, e)) || (rc = vm_config_topology(&s, e)))
        return rc;
    o->cfg->smp = s;
    o->smp_given = true;
    return 0;
}

/* ---- -m ---- */

static int mem_size(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_size(k, ctx, e);
}

int opt_memory(struct options *o, const char *arg, struct err *e)
{
    static const struct prop props[] = {{"size", mem_size, "SIZE", NULL}};
    uint64_t size = 0;
    struct keyval k;
    keyval_init(&k, "-m", arg);
    int rc = keyval_next(&k, e);
    if (rc < 0)
        return rc;
    if (rc && !k.val) {
        struct keyval n = {.option = "-m", .key = "size", .val = k.key};
        rc = mem_size(&size, &n, e);
    } else {
        keyval_init(&k, "-m", arg);
        rc = *arg ? 0 : err_set(e, -EINVAL, "-m: give a size as 512M or 4G");
    }
    if (rc || (rc = keyval_apply(&k, props, ARRAY_SIZE(props), &size, e)))
        return rc;
    if (size < VM_MEM_MIN || size > VM_MEM_MAX || size % 4096)
        return err_set(e, -EINVAL, "-m %s: give a multiple of 4K from %lluM to %lluG", arg,
                       (unsigned long long)VM_MEM_MIN >> 20, (unsigned long long)VM_MEM_MAX >> 30);
    o->cfg->mem_size = size;
    return 0;
}

/* ---- -cpu ---- */

static void print_line(void *opaque, const char *text)
{
    fprintf(opaque, "  %s\n", text);
}

int opt_cpu(struct options *o, const char *arg, struct err *e)
{
    static const struct cpu_topology topo = {1, 1, 1, 1};
    struct cpuid_model m;
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        fputs("-cpu MODEL[,FLAG=on|off...]\nModels: max (default), host and qemu64 (the same here).\nFlags:\n", o->out);
        cpuid_print_flags(print_line, o->out);
        return OPTION_DONE;
    }
    o->cfg->cpu = arg;
    /* What the engine has not is config_check()'s to say, once it is known which engine. */
    struct err why = {{0}};
    int rc = cpuid_model_init(&m, arg, &topo, 1, 0, &why);
    return rc == -ENOTSUP ? 0 : err_set(e, rc, "%s", why.msg);
}
