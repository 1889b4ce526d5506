#include "cli/options.h"

#include "base/bits.h"
#include "base/suggest.h"
#include "cli/command.h"
#include "cli/options_priv.h"

#include <errno.h>

#define OPTIONS_MAX 64

static option_fn opt_help, opt_version;

#define STRING_OPTION(field)                                                                                           \
    static int opt_##field(struct options *o, const char *arg, struct err *e)                                          \
    {                                                                                                                  \
        o->cfg->field = arg;                                                                                           \
        return 0;                                                                                                      \
    }
#define FLAG_OPTION(field)                                                                                             \
    static int opt_##field(struct options *o, const char *arg, struct err *e)                                          \
    {                                                                                                                  \
        o->cfg->field = true;                                                                                          \
        return 0;                                                                                                      \
    }
STRING_OPTION(kernel)
STRING_OPTION(initrd)
STRING_OPTION(append)
FLAG_OPTION(no_reboot)
FLAG_OPTION(no_shutdown)
FLAG_OPTION(paused)

/* What a machine without displays and monitors is anyway. */
static int opt_nothing(struct options *o, const char *arg, struct err *e)
{
    return 0;
}

static int opt_only_none(struct options *o, const char *arg, struct err *e)
{
    if (!strcmp(arg, "none"))
        return 0;
    return err_set(e, -EINVAL, "-%s %s: this machine has no such thing: leave it out, or say none", o->option, arg);
}

static int opt_boot(struct options *o, const char *arg, struct err *e)
{
    return vm_devices_note(&o->cfg->dev, e, "-boot %s is ignored: no firmware chooses what to boot: -kernel does", arg);
}

static const struct option_def defs[] = {
    {"Machine", NULL, NULL, NULL},
    {"machine", "NAME[,PROP=..]", opt_machine, "the machine, q35; -machine help lists properties (also -M)"},
    {"M", "NAME[,PROP=..]", opt_machine, NULL},
    {"accel", "soft|kvm|kvm:soft", opt_accel, "what runs CPUs: the built-in engine or the host's KVM; -accel help"},
    {"enable-kvm", NULL, opt_enable_kvm, NULL},
    {"cpu", "MODEL[,FLAG=on|off]", opt_cpu, "the CPU model and its flags; -cpu help lists them (max)"},
    {"smp", "N[,PROP=N..]", opt_smp,
     "number of CPUs, up to 32768; also maxcpus=, sockets=, dies=, cores=, threads= (1)"},
    {"m", "SIZE", opt_memory, "memory, as 512M or 4G; without a suffix MiB (512M)"},
    {"name", "N[,debug-threads=on]", opt_name, "the machine's name; threads named after their job"},

    {"Boot", NULL, NULL, NULL},
    {"kernel", "FILE", opt_kernel, "a Linux bzImage or vmlinux, or a Multiboot image"},
    {"initrd", "FILE", opt_initrd, "initial RAM disk, or Multiboot modules: \"FILE ARGS,FILE\""},
    {"append", "LINE", opt_append, "kernel command line"},

    {"Devices", NULL, NULL, NULL},
    {"serial", "WHERE", opt_serial, "COM1: stdio, file:PATH, null, pty, or unix:PATH (null)"},
    {"nographic", NULL, opt_nographic, "as -serial stdio, unless -serial is given"},
    {"chardev", "KIND,id=ID[,..]", opt_chardev, "a place for -serial chardev:ID or a virtconsole; -chardev help"},
    {"device", "NAME[,PROP=..]", opt_device,
     "add virtio-blk-pci, ide-hd, e1000e, virtio-net-pci, intel-iommu, amd-iommu, ..; -device help lists them"},
    {"object", "iothread,id=ID", opt_object, "a thread that serves the disks with iothread=ID"},

    {"Disks", NULL, NULL, NULL},
    {"hda", "FILE", opt_hd, "the first SATA disk: an image, raw or qcow2 (also -hdb, -hdc, -hdd)"},
    {"hdb", "FILE", opt_hd, NULL},
    {"hdc", "FILE", opt_hd, NULL},
    {"hdd", "FILE", opt_hd, NULL},
    {"drive", "file=FILE[,PROP=..]", opt_drive, "an image in a disk: if=virtio, if=ide, or if=none; -drive help"},
    {"snapshot", NULL, opt_snapshot, "what is written is gone at the end"},
    {"blockdev", "..", opt_blockdev, NULL},
    {"cdrom", "FILE", opt_cdrom, NULL},

    {"Networks", NULL, NULL, NULL},
    {"net", "nic|user|..[,PROP=..]", opt_net, "a card (nic, e1000e), and what it is connected to; -net help"},
    {"nic", "user|..[,PROP=..]", opt_nic, "both in one: -nic user,hostfwd=tcp::5028-:22"},
    {"netdev", "user|tap|socket,id=ID", opt_netdev, "a network for a -device with netdev=ID; -netdev help"},

    {"When the guest ends", NULL, NULL, NULL},
    {"no-reboot", NULL, opt_no_reboot, "end when the guest resets, instead of starting again"},
    {"no-shutdown", NULL, opt_no_shutdown, "stay when the guest powers off"},

    {"Running it", NULL, NULL, NULL},
    {"S", NULL, opt_paused, "build the machine, and start no CPU before SIGCONT comes"},
    {"sandbox", "on|off", opt_sandbox, "seccomp once the machine is built (on, where the host's kernel can)"},

    {"Looking inside", NULL, NULL, NULL},
    {"d", "LIST", opt_trace, "trace categories, as irq,cpu; irq,json is a trace for ui.perfetto.dev; -d help"},
    {"D", "FILE", opt_trace_file, "trace to FILE instead of standard error"},
    {"h", NULL, opt_help, "this text (also -help)"},
    {"help", NULL, opt_help, NULL},
    {"version", NULL, opt_version, "the version"},

    {"Accepted from QEMU, changing nothing: this machine has none of these", NULL, NULL, NULL},
    {"display", "none", opt_only_none, "also -vga, -monitor, -parallel none"},
    {"vga", "none", opt_only_none, NULL},
    {"monitor", "none", opt_only_none, NULL},
    {"parallel", "none", opt_only_none, NULL},
    {"nodefaults", NULL, opt_nothing, "also -no-user-config, -no-hpet"},
    {"no-user-config", NULL, opt_nothing, NULL},
    {"no-hpet", NULL, opt_nothing, NULL},
    {"boot", "..", opt_boot, NULL},
};

static int opt_help(struct options *o, const char *arg, struct err *e)
{
    help_options(o->out, defs, ARRAY_SIZE(defs));
    return OPTION_DONE;
}

static int opt_version(struct options *o, const char *arg, struct err *e)
{
    fputs("hecaton " HEC_VERSION "\n", o->out);
    return OPTION_DONE;
}

static int unknown_word(const char *arg, struct err *e)
{
    const char *names[OPTIONS_MAX], *near = NULL;
    const struct command *c;
    size_t n = 0;
    for (unsigned i = 0; (c = command_at(i)) && n < OPTIONS_MAX; i++)
        names[n++] = c->name;
    near = suggest_nearest(arg, names, n);
    return err_set(e, -EINVAL,
                   "'%s' is neither a command nor an option: options begin with '-', and an argument with spaces needs "
                   "quotes; the nearest command is '%s'",
                   arg, near ? near : "none");
}

static int unknown_option(const char *arg, struct err *e)
{
    const char *names[OPTIONS_MAX];
    size_t n = 0;
    if (*arg != '-')
        return unknown_word(arg, e);
    for (size_t i = 0; i < ARRAY_SIZE(defs) && n < OPTIONS_MAX; i++)
        if (defs[i].fn)
            names[n++] = defs[i].name;
    return err_set(e, -EINVAL, "unknown option '%s'; the nearest one is '-%s' (-h lists all)", arg,
                   suggest_nearest(arg, names, n));
}

static const struct option_def *find(const char *arg)
{
    const char *name = arg + (*arg == '-') + (*arg == '-' && arg[1] == '-');
    for (size_t i = 0; *arg == '-' && i < ARRAY_SIZE(defs); i++)
        if (defs[i].fn && !strcmp(defs[i].name, name))
            return &defs[i];
    return NULL;
}

static int parse_all(struct options *o, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        const struct option_def *d = find(argv[i]);
        const char *arg = NULL;
        if (!d)
            return unknown_option(argv[i], e);
        if (d->arg && !(arg = argv[++i]))
            return err_set(e, -EINVAL, "-%s needs an argument: %s", d->name, d->arg);
        o->option = d->name;
        int rc = d->fn(o, arg, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* What follows from several options together. */
static int finish(struct options *o, struct err *e)
{
    struct vm_config *c = o->cfg;
    if (c->apic_ids && !o->smp_given) {
        c->smp = (struct vm_smp){.cpus = c->apic_ids_n};
        int rc = vm_config_topology(&c->smp, e);
        if (rc)
            return rc;
    }
    if (c->trace_json && !c->trace_file)
        return err_set(e, -EINVAL, "-d json: a JSON trace goes to a file: give -D FILE");
    if (c->trace_json && !c->trace_mask)
        return err_set(e, -EINVAL, "-d json: say what is to be traced too, as -d irq,json");
    int rc = config_devices_resolve(c, e);
    if (rc)
        return rc;
    if (!c->kernel && !c->dev.drives)
        return err_set(e, -EINVAL, "nothing to start: give -kernel FILE (-h lists the options)");
    if (!c->kernel)
        return err_set(e, -EINVAL,
                       "no firmware in this version starts what is on a disk: give -kernel and -initrd too "
                       "(virt-get-kernel -a %s copies them out of it; make guest-disk puts them beside its image)",
                       c->dev.drives->image.file);
    return c->nographic && !o->serials ? opt_serial(o, "stdio", e) : 0;
}

enum options_result options_parse(int argc, char **argv, struct vm_config *c, FILE *out, struct err *e)
{
    struct options o = {.cfg = c, .out = out};
    vm_config_init(c);
    int rc = parse_all(&o, argc, argv, e);
    if (!rc)
        rc = finish(&o, e);
    return rc == OPTION_DONE ? OPTIONS_DONE : rc ? OPTIONS_BAD : OPTIONS_RUN;
}
