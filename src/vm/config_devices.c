#include "vm/config_devices.h"

#include "vm/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vm_text {
    struct vm_text *next;
    char text[];
};

/* ---- lists ---- */

/* Append a zeroed item to the list at `list`; every kind of item begins with its `next`. */
struct item {
    struct item *next;
};

static void *append(void *list, size_t size)
{
    struct item **at = list, *it = calloc(1, size);
    while (*at)
        at = &(*at)->next;
    *at = it;
    return it;
}

static void free_list(void *list)
{
    struct item **at = list, *it;
    while ((it = *at)) {
        *at = it->next;
        free(it);
    }
}

struct vm_drive *vm_devices_drive(struct vm_devices *d)
{
    struct vm_drive *n = append(&d->drives, sizeof *n);
    if (n)
        n->index = VM_ANY;
    return n;
}

struct vm_net *vm_devices_net(struct vm_devices *d)
{
    struct vm_net *n = append(&d->nets, sizeof *n);
    if (n)
        n->net.fd = -1;
    return n;
}

struct vm_iothread *vm_devices_iothread(struct vm_devices *d)
{
    return append(&d->iothreads, sizeof(struct vm_iothread));
}

struct vm_chardev *vm_devices_chardev(struct vm_devices *d)
{
    return append(&d->chardevs, sizeof(struct vm_chardev));
}

struct vm_device *vm_devices_device(struct vm_devices *d, enum vm_device_kind kind, enum vm_device_origin origin)
{
    struct vm_device *n = append(&d->devices, sizeof *n);
    if (!n)
        return NULL;
    n->kind = kind;
    n->origin = origin;
    n->addr = n->slot = n->nr = n->vectors = n->msi = VM_ANY;
    return n;
}

static const char *text(struct vm_devices *d, const char *fmt, va_list ap)
{
    char *s;
    int len = vasprintf(&s, fmt, ap);
    if (len < 0)
        return NULL;
    struct vm_text *t = append(&d->texts, sizeof *t + (size_t)len + 1);
    if (t)
        memcpy(t->text, s, (size_t)len + 1);
    free(s);
    return t ? t->text : NULL;
}

const char *vm_devices_text(struct vm_devices *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *s = text(d, fmt, ap);
    va_end(ap);
    return s;
}

int vm_devices_note(struct vm_devices *d, struct err *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *s = text(d, fmt, ap);
    va_end(ap);
    for (struct vm_note *n = d->notes; s && n; n = n->next)
        if (!strcmp(n->text, s))
            return 0;
    struct vm_note *n = s ? append(&d->notes, sizeof *n) : NULL;
    if (!n)
        return err_set(e, -ENOMEM, "no host memory for the options");
    n->text = s;
    return 0;
}

void vm_devices_fini(struct vm_devices *d)
{
    free_list(&d->drives);
    free_list(&d->nets);
    free_list(&d->iothreads);
    free_list(&d->chardevs);
    free_list(&d->devices);
    free_list(&d->notes);
    free_list(&d->texts);
}

struct vm_chardev *vm_devices_find_chardev(const struct vm_devices *d, const char *id)
{
    struct vm_chardev *c = d->chardevs;
    while (c && strcmp(c->id, id))
        c = c->next;
    return c;
}

/* ---- kinds ---- */

static const struct {
    const char *name;
    bool pci;
    bool host_time; /* what it tells the guest, and when, depends on the host's time */
} kinds[] = {
    [VM_DEVICE_ROOT_PORT] = {"pcie-root-port", true, false},
    [VM_DEVICE_AHCI] = {"ich9-ahci", true, true},
    [VM_DEVICE_IDE_HD] = {"ide-hd", false, true},
    [VM_DEVICE_VIRTIO_BLK] = {"virtio-blk-pci", true, true},
    [VM_DEVICE_VIRTIO_NET] = {"virtio-net-pci", true, true},
    [VM_DEVICE_E1000E] = {"e1000e", true, true},
    [VM_DEVICE_VIRTIO_RNG] = {"virtio-rng-pci", true, true},
    [VM_DEVICE_VIRTIO_SERIAL] = {"virtio-serial-pci", true, true},
    [VM_DEVICE_VIRTCONSOLE] = {"virtconsole", false, true},
    [VM_DEVICE_PVPANIC] = {"pvpanic-pci", true, false},
    [VM_DEVICE_IRQ_TEST] = {"irq-test-pci", true, false},
};

const char *vm_device_name(enum vm_device_kind kind)
{
    return kinds[kind].name;
}

bool vm_device_is_pci(enum vm_device_kind kind)
{
    return kinds[kind].pci;
}

/* ---- checks ---- */

static int check_deterministic(const struct vm_config *c, struct err *e)
{
    for (const struct vm_device *v = c->dev.devices; c->deterministic && v; v = v->next)
        if (kinds[v->kind].host_time)
            return err_set(
                e, -EINVAL,
                "-machine deterministic=on: %s answers in the host's time, so no two runs would be the same: "
                "drop one of them",
                v->disk ? v->disk->option : v->option);
    return 0;
}

/* A terminal has one reader. */
static int check_stdio(const struct vm_config *c, struct err *e)
{
    unsigned n = 0;
    for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
        n += c->serial[i].kind == VM_SERIAL_STDIO && !c->dev.serial_used;
    for (const struct vm_chardev *v = c->dev.chardevs; v; v = v->next)
        n += v->used_by && !strcmp(v->spec, "stdio");
    if (n > 1)
        return err_set(e, -EINVAL, "stdio is given to %u devices: give all but one another place, as pty or file:PATH",
                       n);
    return 0;
}

int config_devices_check(const struct vm_config *c, struct err *e)
{
    int rc = check_deterministic(c, e);
    return rc ? rc : check_stdio(c, e);
}
