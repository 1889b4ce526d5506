/* -drive, -hda to -hdd, -snapshot. */
#include "cli/field.h"
#include "cli/options_priv.h"

#include "base/bits.h"

#include <errno.h>

static const char *const interfaces[] = {
    [VM_DRIVE_IDE] = "ide", [VM_DRIVE_VIRTIO] = "virtio", [VM_DRIVE_NONE] = "none", NULL};
static const char *const caches[] = {
    [BLOCK_WRITEBACK] = "writeback",   [BLOCK_NONE] = "none",     [BLOCK_WRITETHROUGH] = "writethrough",
    [BLOCK_DIRECTSYNC] = "directsync", [BLOCK_UNSAFE] = "unsafe", NULL};

static int drive_if(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    struct vm_drive *v = base;
    unsigned i = 0;
    if (k->val && !strcmp(k->val, "pflash"))
        return err_set(e, -EINVAL, "%s if=pflash: this version runs no firmware: give -kernel, and drop it", k->option);
    int rc = keyval_choice(k, interfaces, ARRAY_SIZE(interfaces) - 1, &i, e);
    v->iface = (enum vm_drive_if)i;
    return rc;
}

static int drive_discard(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {"ignore", "unmap", "off", "on"};
    unsigned i = 0;
    int rc = keyval_choice(k, names, ARRAY_SIZE(names), &i, e);
    ((struct vm_drive *)base)->image.discard = i & 1;
    return rc;
}

static int unknown_format(const struct keyval *k, struct err *e)
{
    char known[128];
    size_t n = 0;
    for (const char *const *f = block_formats + 1; *f; f++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *f);
    return err_set(
        e, -EINVAL,
        "%s: unknown format '%s': known are %s, and with qemu-nbd %s; leave format= out, and the file's first "
        "bytes tell",
        k->option, k->val ? k->val : "", block_formats[0], known);
}

static int drive_format(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    for (const char *const *f = block_formats; *f; f++)
        if (k->val && !strcmp(k->val, *f)) {
            ((struct vm_drive *)base)->image.format = *f;
            return 0;
        }
    return unknown_format(k, e);
}

#define AT(member) offsetof(struct vm_drive, member)
static const struct field drive_fields[] = {
    {"file", FIELD_TEXT, AT(image.file), .values = "FILE", .help = "an image's path, or nbd://HOST/NAME"},
    {"if", FIELD_CUSTOM, .set = drive_if, .values = "ide|virtio|none",
     .help = "the disk it is in; none: one of -device, with drive=ID (ide)"},
    {"id", FIELD_TEXT, AT(id), .help = "its name for -device"},
    {"index", FIELD_U32, AT(index), 0, VM_IDE_PORTS - 1, .help = "the port of if=ide (the next)"},
    {"format", FIELD_CUSTOM, .set = drive_format, .values = "raw|qcow2|..",
     .help = "of the image (by its first bytes)"},
    {"cache", FIELD_CHOICE, AT(image.cache), .choices = caches, .values = "MODE",
     .help = "writeback, none (past the host's page cache), writethrough, directsync (none and writethrough) or "
             "unsafe (flushes are not done) (writeback)"},
    {"readonly", FIELD_ONOFF, AT(image.readonly), .help = "the guest can't write (off)"},
    {"read-only", FIELD_ONOFF, .at = AT(image.readonly)},
    {"snapshot", FIELD_AUTO, AT(snapshot),
     .help = "writes go to a temporary file, and are gone at the end; auto: as -snapshot says (auto)"},
    {"discard", FIELD_CUSTOM, .set = drive_discard, .values = "unmap|ignore",
     .help = "of what the guest trims (ignore)"},
    {"serial", FIELD_TEXT, AT(serial), .values = "TEXT", .help = "the disk's serial number"},
    {"media", FIELD_NEUTRAL, .values = "disk",
     .help = "this machine has no CD drives: give the image as a disk, with readonly=on"},
    {.name = "aio", .type = FIELD_NEUTRAL},
    {.name = "auto-read-only", .type = FIELD_NEUTRAL},
    {"detect-zeroes", FIELD_NEUTRAL, .values = "off", .help = "zeroes are written as they are: drop it"},
    {"copy-on-read", FIELD_NEUTRAL, .values = "off", .help = "what is read is not copied: drop it"},
    {"werror", FIELD_NEUTRAL, .values = "report|enospc", .help = "the guest is told of errors: say report, or drop it"},
    {"rerror", FIELD_NEUTRAL, .values = "report", .help = "the guest is told of errors: say report, or drop it"},
};

static int no_memory(struct err *e)
{
    return err_set(e, -ENOMEM, "no host memory for the options");
}

int opt_drive(struct options *o, const char *arg, struct err *e)
{
    struct vm_devices *d = &o->cfg->dev;
    struct keyval k;
    if (!strcmp(arg, "help")) {
        fputs("-drive file=FILE[,property=value...]\n", o->out);
        fields_help(o->out, drive_fields, ARRAY_SIZE(drive_fields));
        return OPTION_DONE;
    }
    struct vm_drive *v = vm_devices_drive(d);
    if (!v)
        return no_memory(e);
    v->option = "-drive";
    const struct field_set set = {drive_fields, ARRAY_SIZE(drive_fields), v};
    keyval_init(&k, "-drive", arg);
    int rc = fields_apply(d, &k, &set, 1, e);
    if (!rc && !v->image.file)
        return err_set(e, -EINVAL, "-drive %s: give file=FILE", arg);
    return rc;
}

int opt_hd(struct options *o, const char *arg, struct err *e)
{
    static const char *const names[] = {"-hda", "-hdb", "-hdc", "-hdd"};
    unsigned i = (unsigned)(o->option[2] - 'a');
    struct vm_drive *v = vm_devices_drive(&o->cfg->dev);
    if (!v || !(v->image.file = vm_devices_text(&o->cfg->dev, "%s", arg)))
        return no_memory(e);
    v->option = names[i];
    v->index = i;
    return *arg ? 0 : err_set(e, -EINVAL, "%s: give a file", names[i]);
}

int opt_snapshot(struct options *o, const char *arg, struct err *e)
{
    o->cfg->dev.snapshot = true;
    return 0;
}

int opt_blockdev(struct options *o, const char *arg, struct err *e)
{
    return err_set(e, -EINVAL,
                   "-blockdev: chains of block drivers are not built here: give "
                   "-drive if=none,id=ID,file=FILE,format=FORMAT");
}

int opt_cdrom(struct options *o, const char *arg, struct err *e)
{
    return err_set(e, -EINVAL, "-cdrom: this machine has no CD drives: give -drive file=%s,format=raw,readonly=on",
                   arg);
}
