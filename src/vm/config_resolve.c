/* Who refers to whom, and where everything is: config_devices_resolve(). */
#include "vm/config_resolve.h"

#include "base/suggest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int resolve_no_memory(struct err *e)
{
    return err_set(e, -ENOMEM, "no host memory for the options");
}

void resolve_name(struct names *s, const char *name)
{
    if (name && s->n < NAMES_MAX)
        s->name[s->n++] = name;
}

int resolve_unknown(const struct vm_device *who, const char *what, const char *id, const struct names *s,
                    const char *none, struct err *e)
{
    const char *near = suggest_nearest(id, s->name, s->n);
    if (!near)
        return err_set(e, -EINVAL, "%s: there is no %s '%s': %s", who->option, what, id, none);
    return err_set(e, -EINVAL, "%s: there is no %s '%s'; the nearest one is '%s'", who->option, what, id, near);
}

static int twice(const char *option, const char *id, struct err *e)
{
    return err_set(e, -EINVAL, "%s: id '%s' is used twice: give each its own", option, id);
}

/* ---- names ---- */

static int name_drives(struct vm_devices *d, struct err *e)
{
    static const char *const format[] = {
        [VM_DRIVE_IDE] = "ide%u-hd0", [VM_DRIVE_VIRTIO] = "virtio%u", [VM_DRIVE_NONE] = "none%u"};
    unsigned count[3] = {0};
    for (struct vm_drive *v = d->drives; v; v = v->next) {
        unsigned n = v->iface == VM_DRIVE_IDE ? v->index : count[v->iface]++;
        v->image.option = v->id ? vm_devices_text(d, "%s id=%s", v->option, v->id) : v->option;
        if (!v->id)
            v->id = vm_devices_text(d, format[v->iface], n);
        if (!v->id || !v->image.option)
            return resolve_no_memory(e);
        for (struct vm_drive *o = d->drives; o != v; o = o->next)
            if (same(o->id, v->id))
                return twice(v->option, v->id, e);
    }
    return 0;
}

static int name_nets(struct vm_devices *d, struct err *e)
{
    unsigned n = 0;
    for (struct vm_net *v = d->nets; v; v = v->next) {
        if (!v->net.id && !(v->net.id = vm_devices_text(d, "net%u", n++)))
            return resolve_no_memory(e);
        for (struct vm_net *o = d->nets; o != v; o = o->next)
            if (same(o->net.id, v->net.id))
                return twice(v->option, v->net.id, e);
    }
    return 0;
}

static int name_devices(struct vm_devices *d, struct err *e)
{
    for (struct vm_device *v = d->devices; v; v = v->next)
        for (struct vm_device *o = d->devices; o != v; o = o->next)
            if (same(o->id, v->id))
                return twice(v->option, v->id, e);
    for (struct vm_iothread *v = d->iothreads; v; v = v->next)
        for (struct vm_iothread *o = d->iothreads; o != v; o = o->next)
            if (same(o->id, v->id))
                return twice("-object iothread", v->id, e);
    for (struct vm_chardev *v = d->chardevs; v; v = v->next)
        if (vm_devices_find_chardev(d, v->id) != v)
            return twice("-chardev", v->id, e);
    return 0;
}

/* Root ports name buses, so each has an id. */
static int name_ports(struct vm_devices *d, struct err *e)
{
    unsigned n = 0;
    for (struct vm_device *v = d->devices; v; v = v->next)
        if (v->kind == VM_DEVICE_ROOT_PORT && !v->id && !(v->id = vm_devices_text(d, "root-port%u", n++)))
            return resolve_no_memory(e);
    return 0;
}

/* ---- drives ---- */

static struct vm_drive *ide_drive(struct vm_devices *d, uint32_t index)
{
    struct vm_drive *v = d->drives;
    while (v && (v->iface != VM_DRIVE_IDE || v->index != index))
        v = v->next;
    return v;
}

static int place_ide_drive(struct vm_devices *d, struct vm_drive *v, struct err *e)
{
    uint32_t i = 0;
    while (i < VM_IDE_PORTS && ide_drive(d, i))
        i++;
    if (i == VM_IDE_PORTS)
        return err_set(e, -EINVAL, "%s file=%s: the controller has %u ports: use if=virtio for more disks", v->option,
                       v->image.file, VM_IDE_PORTS);
    v->index = i;
    return 0;
}

/* Those with an index first: the others take what is left. */
static int place_ide_drives(struct vm_devices *d, struct err *e)
{
    int rc = 0;
    for (struct vm_drive *v = d->drives; v; v = v->next) {
        if (v->iface != VM_DRIVE_IDE || v->index == VM_ANY)
            continue;
        if (v->index >= VM_IDE_PORTS)
            return err_set(e, -EINVAL, "%s index=%u: the controller has ports 0 to %u", v->option, v->index,
                           VM_IDE_PORTS - 1);
        if (ide_drive(d, v->index) != v)
            return err_set(e, -EINVAL, "%s index=%u: %s has that port: give one of them another", v->option, v->index,
                           ide_drive(d, v->index)->option);
    }
    for (struct vm_drive *v = d->drives; v && !rc; v = v->next)
        if (v->iface == VM_DRIVE_IDE && v->index == VM_ANY)
            rc = place_ide_drive(d, v, e);
    return rc;
}

/* The disk that -drive if=ide or if=virtio and -hda imply. */
static int imply_disk(struct vm_devices *d, const struct vm_drive *v, struct err *e)
{
    bool ide = v->iface == VM_DRIVE_IDE;
    struct vm_device *n = vm_devices_device(d, ide ? VM_DEVICE_IDE_HD : VM_DEVICE_VIRTIO_BLK, VM_FROM_DRIVE);
    if (!n)
        return resolve_no_memory(e);
    n->option = v->option;
    n->drive = v->id;
    if (ide && !(n->bus = vm_devices_text(d, "ide.%u", v->index)))
        return resolve_no_memory(e);
    return 0;
}

static int imply_disks(struct vm_devices *d, struct err *e)
{
    int rc = 0;
    for (struct vm_drive *v = d->drives; v && !rc; v = v->next) {
        v->image.snapshot = v->snapshot == VM_ON || (v->snapshot == VM_AUTO && d->snapshot);
        if (v->iface != VM_DRIVE_NONE)
            rc = imply_disk(d, v, e);
    }
    return rc;
}

/* ---- references ---- */

static int find_drive(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    struct vm_drive *at = d->drives;
    if (!v->drive)
        return err_set(e, -EINVAL, "%s: a disk needs an image: give -drive if=none,id=ID,file=FILE, and drive=ID",
                       v->option);
    for (; at && !same(at->id, v->drive); at = at->next)
        resolve_name(&s, at->id);
    if (!at)
        return resolve_unknown(v, "drive", v->drive, &s, "give -drive if=none,id=ID,file=FILE", e);
    if (v->origin == VM_FROM_DEVICE && at->iface != VM_DRIVE_NONE)
        return err_set(e, -EINVAL, "%s: drive '%s' is in a disk of its own already: give its -drive if=none", v->option,
                       v->drive);
    if (at->user)
        return err_set(e, -EINVAL, "%s: drive '%s' is in %s already: give each disk its own", v->option, v->drive,
                       at->user->option);
    at->user = v;
    v->disk = at;
    return 0;
}

static struct vm_net *hub_net(struct vm_devices *d)
{
    struct vm_net *n = d->nets;
    while (n && !n->hub)
        n = n->next;
    return n;
}

static int find_hub(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    static const char need[] = "%s: nothing is at the other end of its cable: %s";
    struct vm_net *n = v->origin == VM_FROM_NET ? hub_net(d) : NULL;
    if (!n)
        return err_set(e, -EINVAL, need, v->option,
                       v->origin == VM_FROM_NET ? "add -net user"
                                                : "give -netdev user,id=ID, and netdev=ID to the device");
    if (n->user)
        return err_set(e, -EINVAL,
                       "%s: %s is connected already: for more cards give each a -netdev, and -device with netdev=",
                       v->option, n->option);
    n->user = v;
    v->net = n;
    return 0;
}

static int find_net(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    struct vm_net *n = d->nets;
    if (v->net) /* of -nic */
        return 0;
    if (!v->netdev)
        return find_hub(d, v, e);
    for (; n && !same(n->net.id, v->netdev); n = n->next)
        resolve_name(&s, n->net.id);
    if (!n)
        return resolve_unknown(v, "network", v->netdev, &s, "give -netdev user,id=ID", e);
    if (n->user)
        return err_set(e, -EINVAL, "%s: network '%s' is connected to %s already: give each card its own -netdev",
                       v->option, v->netdev, n->user->option);
    n->user = v;
    v->net = n;
    return 0;
}

static int find_iothread(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    struct vm_iothread *t = d->iothreads;
    for (; t && !same(t->id, v->iothread); t = t->next)
        resolve_name(&s, t->id);
    v->loop = t;
    return t ? 0 : resolve_unknown(v, "iothread", v->iothread, &s, "give -object iothread,id=ID", e);
}

static int use_chardev(struct vm_devices *d, const char *option, const char *id, struct vm_chardev **out, struct err *e)
{
    struct names s = {.n = 0};
    const struct vm_device who = {.option = option};
    for (struct vm_chardev *c = d->chardevs; c; c = c->next)
        resolve_name(&s, c->id);
    *out = vm_devices_find_chardev(d, id);
    if (!*out)
        return resolve_unknown(&who, "character device", id, &s, "give -chardev pty,id=ID", e);
    if ((*out)->used_by)
        return err_set(e, -EINVAL, "%s: character device '%s' is %s's already: give each its own", option, id,
                       (*out)->used_by);
    (*out)->used_by = option;
    return 0;
}

static int find_chardev(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    if (!v->chardev)
        return err_set(e, -EINVAL, "%s: give -chardev pty,id=ID, and chardev=ID", v->option);
    return use_chardev(d, v->option, v->chardev, &v->chr, e);
}

static int find_references(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    int rc = 0;
    if (v->kind == VM_DEVICE_IDE_HD || v->kind == VM_DEVICE_VIRTIO_BLK)
        rc = find_drive(d, v, e);
    else if (v->kind == VM_DEVICE_VIRTIO_NET || v->kind == VM_DEVICE_E1000E)
        rc = find_net(d, v, e);
    else if (v->kind == VM_DEVICE_VIRTCONSOLE)
        rc = find_chardev(d, v, e);
    return rc || !v->iothread ? rc : find_iothread(d, v, e);
}

/* -serial chardev:ID. */
static int connect_serial(struct vm_config *c, struct err *e)
{
    static const char prefix[] = "chardev:";
    struct vm_chardev *chr;
    char *spec = c->serial[0].spec;
    if (!spec || strncmp(spec, prefix, strlen(prefix)))
        return 0;
    int rc = use_chardev(&c->dev, "-serial", spec + strlen(prefix), &chr, e);
    if (rc)
        return rc;
    spec = strdup(chr->spec);
    if (!spec)
        return resolve_no_memory(e);
    free(c->serial[0].spec);
    c->serial[0].spec = spec;
    c->dev.serial_used = true;
    return 0;
}

/* What was described and nobody uses is most likely a slip. */
static int check_used(const struct vm_devices *d, struct err *e)
{
    for (const struct vm_drive *v = d->drives; v; v = v->next)
        if (!v->user)
            return err_set(e, -EINVAL, "%s: no disk uses %s: add -device virtio-blk-pci,drive=%s, or say if=virtio",
                           v->image.option, v->image.file, v->id);
    for (const struct vm_chardev *v = d->chardevs; v; v = v->next)
        if (!v->used_by)
            return err_set(e, -EINVAL, "-chardev id=%s: nothing uses it: say -serial chardev:%s", v->id, v->id);
    for (const struct vm_net *v = d->nets; v; v = v->next)
        if (!v->user && v->hub)
            return err_set(e, -EINVAL, "%s: no card is connected to it: add -net nic", v->option);
        else if (!v->user)
            return err_set(e, -EINVAL, "%s: no card is connected to '%s': add -device e1000e,netdev=%s", v->option,
                           v->net.id, v->net.id);
    return 0;
}

/* ---- cards' addresses ---- */

static bool is_card(const struct vm_device *v)
{
    return v->kind == VM_DEVICE_VIRTIO_NET || v->kind == VM_DEVICE_E1000E;
}

static bool mac_taken(const struct vm_devices *d, const uint8_t mac[6])
{
    for (const struct vm_device *v = d->devices; v; v = v->next)
        if (is_card(v) && !memcmp(v->mac, mac, 6))
            return true;
    return false;
}

static void choose_macs(struct vm_devices *d)
{
    static const uint8_t none[6];
    uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    for (struct vm_device *v = d->devices; v; v = v->next) {
        if (!is_card(v) || memcmp(v->mac, none, 6))
            continue;
        while (mac_taken(d, mac))
            mac[5]++;
        memcpy(v->mac, mac, 6);
    }
}

int config_devices_resolve(struct vm_config *c, struct err *e)
{
    static int (*const step[])(struct vm_devices *, struct err *) = {place_ide_drives, name_drives,  name_nets,
                                                                     name_ports,       name_devices, imply_disks};
    struct vm_devices *d = &c->dev;
    int rc = 0;
    for (unsigned i = 0; i < sizeof step / sizeof step[0] && !rc; i++)
        rc = step[i](d, e);
    for (struct vm_device *v = d->devices; v && !rc; v = v->next)
        rc = find_references(d, v, e);
    if (rc || (rc = connect_serial(c, e)) || (rc = check_used(d, e)) || (rc = config_devices_place(c, e)))
        return rc;
    choose_macs(d);
    return 0;
}
