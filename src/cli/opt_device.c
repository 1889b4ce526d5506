/* -device, -object. */
#include "cli/field.h"
#include "cli/options_priv.h"

#include "base/bits.h"

#include <errno.h>

static int no_memory(struct err *e)
{
    return err_set(e, -ENOMEM, "no host memory for the options");
}

/* ---- properties ---- */

static int power_of_two(struct vm_devices *d, const struct keyval *k, uint32_t *out, struct err *e)
{
    int rc = keyval_u32(k, 2, VM_QUEUE_SIZE_MAX, out, e);
    if (rc || !(*out & (*out - 1)))
        return rc;
    return err_set(e, -EINVAL, "%s %s=%s: give a power of two from 2 to %u", k->option, k->key, k->val,
                   VM_QUEUE_SIZE_MAX);
}

static int queue_size(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    return power_of_two(d, k, &((struct vm_device *)base)->queue_size, e);
}

static int serial_number(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    if (k->val && strlen(k->val) > 20)
        return err_set(e, -EINVAL, "%s serial=%s: at most 20 characters", k->option, k->val);
    return field_text(d, k, &((struct vm_device *)base)->serial, e);
}

#define AT(member)  offsetof(struct vm_device, member)
#define NO_FIRMWARE "no firmware chooses what to boot: -kernel does"

static const struct field id_fields[] = {
    {"id", FIELD_TEXT, AT(id), .help = "its name for others"},
    {"bus", FIELD_TEXT, AT(bus), .values = "BUS", .help = "where it is"},
    {"bootindex", FIELD_IGNORED, .help = NO_FIRMWARE},
};

static const struct field pci_fields[] = {
    {"addr", FIELD_ADDR, AT(addr), .help = "device number and function on its bus, hexadecimal (the next from 2 on)"},
    {.name = "multifunction", .type = FIELD_NEUTRAL},
    {.name = "romfile", .type = FIELD_NEUTRAL},
    {.name = "rombar", .type = FIELD_NEUTRAL},
    {"acpi-index", FIELD_IGNORED, .help = "names of network interfaces follow addresses"},
};

static const struct field virtio_fields[] = {
    {"iommu_platform", FIELD_AUTO, AT(iommu_platform), .help = "it is behind the IOMMU; auto: if there is one (auto)"},
    {"vectors", FIELD_U32, AT(vectors), 0, VM_VECTORS_MAX, .help = "MSI-X vectors; 0: INTx (one a queue, and one)"},
    {"packed", FIELD_ONOFF, AT(packed), .help = "offer packed rings (off)"},
    {"event_idx", FIELD_OFFON, AT(no_event_idx), .help = "offer event indices (on)"},
    {"indirect_desc", FIELD_OFFON, AT(no_indirect), .help = "offer indirect descriptors (on)"},
    {"disable-modern", FIELD_NEUTRAL, .values = "off|false", .help = "there is no other interface: drop it"},
    {"disable-legacy", FIELD_NEUTRAL, .values = "on|true|auto", .help = "there is no legacy interface: drop it"},
    {"ats", FIELD_NEUTRAL, .values = "off", .help = "there are no translation caches in devices: drop it"},
    {"page-per-vq", FIELD_NEUTRAL, .values = "off", .help = "notifications cost no exit to a lock anyway: drop it"},
    {.name = "ioeventfd", .type = FIELD_NEUTRAL},
};

static const struct field blk_fields[] = {
    {"drive", FIELD_TEXT, AT(drive), .help = "the -drive if=none,id=ID it has"},
    {"iothread", FIELD_TEXT, AT(iothread), .help = "the -object iothread,id=ID that serves it (one of its own)"},
    {"num-queues", FIELD_U32, AT(queues), 1, VM_BLK_QUEUES_MAX, .help = "request queues (one a CPU)"},
    {"queue-size", FIELD_CUSTOM, .set = queue_size, .values = "N", .help = "descriptors in each (256)"},
    {"serial", FIELD_CUSTOM, .set = serial_number, .values = "TEXT", .help = "serial number"},
    {"discard", FIELD_OFFON, AT(discard_off), .help = "offer discard (on)"},
    {"write-zeroes", FIELD_OFFON, AT(write_zeroes_off), .help = "offer write-zeroes (on)"},
    {"logical_block_size", FIELD_NEUTRAL, .values = "512", .help = "sectors have 512 bytes: drop it"},
    {"physical_block_size", FIELD_IGNORED, .help = "it follows from the image"},
    {"write-cache", FIELD_AUTO, AT(write_cache),
     .help = "the guest sees a cache; auto: unless cache=writethrough (auto)"},
    {"config-wce", FIELD_OFFON, AT(config_wce_off), .help = "the guest may switch it (on)"},
    {"share-rw", FIELD_NEUTRAL, .values = "off", .help = "an image is one machine's: drop it"},
    {"scsi", FIELD_NEUTRAL, .values = "off", .help = "it takes no SCSI commands: drop it"},
};

static const struct field ide_fields[] = {
    {"drive", FIELD_TEXT, AT(drive), .help = "the -drive if=none,id=ID it has"},
    {"serial", FIELD_CUSTOM, .set = serial_number, .values = "TEXT", .help = "serial number"},
    {"model", FIELD_TEXT, AT(model), .values = "TEXT", .help = "what it calls itself"},
    {"unit", FIELD_NEUTRAL, .values = "0", .help = "a port has one disk: drop it"},
    {"logical_block_size", FIELD_NEUTRAL, .values = "512", .help = "sectors have 512 bytes: drop it"},
    {"physical_block_size", FIELD_IGNORED, .help = "it follows from the image"},
    {"rotation_rate", FIELD_NEUTRAL, .values = "1", .help = "it is a solid state disk: drop it"},
    {"write-cache", FIELD_NEUTRAL, .values = "auto|on", .help = "say cache=writethrough to -drive instead"},
    {"share-rw", FIELD_NEUTRAL, .values = "off", .help = "an image is one machine's: drop it"},
};

static const struct field card_fields[] = {
    {"netdev", FIELD_TEXT, AT(netdev), .help = "the -netdev it is connected to"},
    {"mac", FIELD_MAC, AT(mac), .help = "its address (52:54:00:12:34:56 and up)"},
};

static int rx_size(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    return power_of_two(d, k, &((struct vm_device *)base)->queue_size, e);
}

static const struct field net_fields[] = {
    {"mq", FIELD_ONOFF, AT(mq), .help = "several pairs of queues (off)"},
    {"num-queues", FIELD_U32, AT(queues), 1, VM_NET_PAIRS_MAX, .help = "pairs (one, or with mq=on one a CPU)"},
    {"queue-size", FIELD_CUSTOM, .set = queue_size, .values = "N", .help = "descriptors in each (256)"},
    {"rx_queue_size", FIELD_CUSTOM, .set = rx_size, .values = "N"},
    {"tx_queue_size", FIELD_CUSTOM, .set = rx_size, .values = "N"},
};

static const struct field rng_fields[] = {
    {"max-bytes", FIELD_IGNORED, .help = "it gives what is asked for"},
    {"period", FIELD_IGNORED, .help = "it gives what is asked for"},
    {.name = "rng", .type = FIELD_NEUTRAL},
};

static const struct field serial_fields[] = {
    {.name = "max_ports", .type = FIELD_NEUTRAL},
};

static const struct field console_fields[] = {
    {"chardev", FIELD_TEXT, AT(chardev), .help = "the -chardev behind it"},
    {"name", FIELD_TEXT, AT(name), .values = "TEXT", .help = "what the guest calls the port"},
    {"nr", FIELD_U32, AT(nr), 0, VM_CONSOLES_MAX - 1, .help = "which port of its controller (the next)"},
};

static const struct field root_port_fields[] = {
    {"slot", FIELD_U32, AT(slot), 0, 255, .help = "slot number (the next)"},
    {.name = "chassis", .type = FIELD_NEUTRAL},
    {.name = "port", .type = FIELD_NEUTRAL},
    {"hotplug", FIELD_NEUTRAL, .values = "off", .help = "nothing is plugged in a running machine: drop it"},
};

static const struct field pvpanic_fields[] = {
    {"events", FIELD_U32, AT(events), 1, 7,
     .help = "what the guest may report: 1 panic, 2 crash dump, 4 shutdown (all)"},
};

static const struct field irq_test_fields[] = {
    {"vectors", FIELD_U32, AT(vectors), 0, VM_VECTORS_MAX, .help = "MSI-X vectors (2048)"},
    {"msi", FIELD_U32, AT(msi), 0, 32, .help = "MSI vectors: 0, or a power of two (32)"},
};
#undef AT

/* ---- devices with addresses ---- */

struct device_def {
    const char *name;
    enum vm_device_kind kind;
    const char *help;
    const struct field *fields;
    size_t n;
    bool virtio;
};

#define DEVICE(name, kind, help, fields, virtio)                                                                       \
    {                                                                                                                  \
        name, kind, help, fields, ARRAY_SIZE(fields), virtio                                                           \
    }
static const struct device_def devices[] = {
    DEVICE("virtio-blk-pci", VM_DEVICE_VIRTIO_BLK, "a disk with many queues", blk_fields, true),
    {"ich9-ahci", VM_DEVICE_AHCI, "a SATA controller; ports ID.0 to ID.5, or ide.0 to ide.5 at addr=1f.2", NULL, 0,
     false},
    DEVICE("ide-hd", VM_DEVICE_IDE_HD, "a disk at a port of a SATA controller", ide_fields, false),
    DEVICE("virtio-net-pci", VM_DEVICE_VIRTIO_NET, "a network card with many queues", card_fields, true),
    DEVICE("e1000e", VM_DEVICE_E1000E, "Intel's 82574 network card", card_fields, false),
    DEVICE("virtio-rng-pci", VM_DEVICE_VIRTIO_RNG, "random numbers", rng_fields, true),
    DEVICE("virtio-serial-pci", VM_DEVICE_VIRTIO_SERIAL, "a controller for consoles", serial_fields, true),
    DEVICE("virtconsole", VM_DEVICE_VIRTCONSOLE, "a console on it, hvc0 and up", console_fields, false),
    DEVICE("virtserialport", VM_DEVICE_VIRTCONSOLE, "a port on it, /dev/virtio-ports/NAME", console_fields, false),
    DEVICE("pcie-root-port", VM_DEVICE_ROOT_PORT, "a bridge; its id= names the bus behind it", root_port_fields, false),
    DEVICE("pvpanic-pci", VM_DEVICE_PVPANIC, "tells hecaton when the guest panics", pvpanic_fields, false),
    DEVICE("irq-test-pci", VM_DEVICE_IRQ_TEST, "vectors that fire on command, for tests", irq_test_fields, false),
};

static const struct {
    const char *other, *name;
} aliases[] = {
    {"virtio-blk", "virtio-blk-pci"},
    {"virtio-net", "virtio-net-pci"},
    {"virtio-rng", "virtio-rng-pci"},
    {"virtio-serial", "virtio-serial-pci"},
    {"ahci", "ich9-ahci"},
};

/* Its own properties, then those of its sort. */
static unsigned sets_of(const struct device_def *def, void *base, struct field_set sets[5])
{
    unsigned n = 0;
    sets[n++] = (struct field_set){def->fields, def->n, base};
    if (def->kind == VM_DEVICE_VIRTIO_NET)
        sets[n++] = (struct field_set){net_fields, ARRAY_SIZE(net_fields), base};
    if (def->virtio)
        sets[n++] = (struct field_set){virtio_fields, ARRAY_SIZE(virtio_fields), base};
    if (vm_device_is_pci(def->kind))
        sets[n++] = (struct field_set){pci_fields, ARRAY_SIZE(pci_fields), base};
    sets[n++] = (struct field_set){id_fields, ARRAY_SIZE(id_fields), base};
    return n;
}

static int add_device(struct options *o, const struct device_def *def, struct keyval *k, struct err *e)
{
    struct vm_devices *d = &o->cfg->dev;
    struct field_set sets[5];
    struct vm_device *v = vm_devices_device(d, def->kind, VM_FROM_DEVICE);
    if (!v || !(v->option = vm_devices_text(d, "-device %s", def->name)))
        return no_memory(e);
    k->option = v->option;
    v->plain_port = !strcmp(def->name, "virtserialport");
    int rc = fields_apply(d, k, sets, sets_of(def, v, sets), e);
    if (rc || !v->id)
        return rc;
    v->option = vm_devices_text(d, "-device %s,id=%s", def->name, v->id);
    return v->option ? 0 : no_memory(e);
}

static void device_help(FILE *out, const struct device_def *def)
{
    struct field_set sets[5];
    unsigned n = sets_of(def, NULL, sets);
    help_item(out, def->name, def->help);
    for (unsigned i = 0; i < n; i++)
        fields_help(out, sets[i].field, sets[i].n);
}

/* ---- the others ---- */

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

static void help_debug_exit(FILE *out)
{
    help_item(out, "isa-debug-exit", "a write of N ends hecaton with status (N << 1) | 1");
    help_props(out, exit_props, ARRAY_SIZE(exit_props));
}

static int opt_debug_exit(struct vm_config *c, struct keyval *k, struct err *e)
{
    c->debug_exit = true;
    k->option = "-device isa-debug-exit";
    return keyval_apply(k, exit_props, ARRAY_SIZE(exit_props), c, e);
}

static void help_testdev(FILE *out)
{
    help_item(out, "pc-testdev", "ports and memory that test programs use");
}

static int opt_testdev(struct vm_config *c, struct keyval *k, struct err *e)
{
    c->pc_testdev = true;
    int rc = keyval_next(k, e);
    return rc <= 0 ? rc : err_set(e, -EINVAL, "-device pc-testdev: it has no properties, drop '%s'", k->key);
}

static const struct {
    const char *name;
    int (*parse)(struct vm_config *c, struct keyval *k, struct err *e);
    void (*help)(FILE *out);
} others[] = {
    {"intel-iommu", opt_intel_iommu, help_intel_iommu},
    {"amd-iommu", opt_amd_iommu, help_amd_iommu},
    {"isa-debug-exit", opt_debug_exit, help_debug_exit},
    {"pc-testdev", opt_testdev, help_testdev},
};

/* ---- -device ---- */

static void all_devices_help(FILE *out)
{
    fputs("-device NAME[,property=value...]; -device NAME,help lists its properties:\n", out);
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
        help_item(out, devices[i].name, devices[i].help);
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        others[i].help(out);
}

static int unknown_device(const char *name, struct err *e)
{
    const char *names[ARRAY_SIZE(devices) + ARRAY_SIZE(others)];
    size_t n = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
        names[n++] = devices[i].name;
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        names[n++] = others[i].name;
    if (!strcmp(name, "ide-cd"))
        return err_set(e, -EINVAL,
                       "-device ide-cd: this machine has no CD drives: give the image as a disk, with "
                       "readonly=on");
    return unknown_name("-device", "device", name, names, n, e);
}

static const struct device_def *find_device(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(aliases); i++)
        if (!strcmp(aliases[i].other, name))
            name = aliases[i].name;
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
        if (!strcmp(devices[i].name, name))
            return &devices[i];
    return NULL;
}

int opt_device(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    if (!strcmp(arg, "help")) {
        all_devices_help(o->out);
        return OPTION_DONE;
    }
    keyval_init(&k, "-device", arg);
    int rc = keyval_next(&k, e);
    if (rc <= 0)
        return rc ? rc : err_set(e, -EINVAL, "-device: give a device; -device help lists them");
    const char *name = k.val && !strcmp(k.key, "driver") ? k.val : k.key;
    const struct device_def *def = find_device(name);
    bool help = !strcmp(k.rest, "help");
    if (def && !help)
        return add_device(o, def, &k, e);
    if (def) {
        device_help(o->out, def);
        return OPTION_DONE;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        if (strcmp(others[i].name, name))
            continue;
        if (!help)
            return others[i].parse(o->cfg, &k, e);
        others[i].help(o->out);
        return OPTION_DONE;
    }
    return unknown_device(name, e);
}

/* ---- -object ---- */

static int object_iothread(struct options *o, struct keyval *k, struct err *e)
{
    static const struct field fields[] = {
        {"id", FIELD_TEXT, .at = offsetof(struct vm_iothread, id)},
        {.name = "poll-max-ns", .type = FIELD_NEUTRAL},
        {.name = "poll-grow", .type = FIELD_NEUTRAL},
        {.name = "poll-shrink", .type = FIELD_NEUTRAL},
        {.name = "aio-max-batch", .type = FIELD_NEUTRAL},
    };
    struct vm_iothread *t = vm_devices_iothread(&o->cfg->dev);
    if (!t)
        return no_memory(e);
    const struct field_set set = {fields, ARRAY_SIZE(fields), t};
    k->option = "-object iothread";
    int rc = fields_apply(&o->cfg->dev, k, &set, 1, e);
    return rc || t->id ? rc : err_set(e, -EINVAL, "-object iothread: give id=ID");
}

int opt_object(struct options *o, const char *arg, struct err *e)
{
    static const char *const names[] = {"iothread", "rng-random", "rng-builtin"};
    struct keyval k;
    if (!strcmp(arg, "help")) {
        help_item(o->out, "iothread,id=ID", "a thread for disks, by iothread=ID");
        help_item(o->out, "rng-random, rng-builtin", "accepted: virtio-rng-pci takes the host's random numbers anyway");
        return OPTION_DONE;
    }
    keyval_init(&k, "-object", arg);
    int rc = keyval_next(&k, e);
    if (rc < 0)
        return rc;
    const char *name = !rc ? "" : k.val && !strcmp(k.key, "qom-type") ? k.val : k.key;
    if (!strcmp(name, "iothread"))
        return object_iothread(o, &k, e);
    if (!strcmp(name, "filter-dump"))
        return err_set(e, -EINVAL, "-object filter-dump: give pcap=FILE to the -netdev instead");
    if (!strcmp(name, "rng-random") || !strcmp(name, "rng-builtin"))
        return 0;
    return unknown_name("-object", "object", name, names, ARRAY_SIZE(names), e);
}
