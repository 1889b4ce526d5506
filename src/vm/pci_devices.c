#include "vm/pci_devices.h"

#include "vm/pci_devices_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define THREAD_NAME 16

/* ---- what is behind devices ---- */

static int no_memory(struct err *e)
{
    return err_set(e, -ENOMEM, "out of memory for the machine's devices");
}

static int open_loop(struct pci_devices *d, const char *name, struct ioloop **out, struct err *e)
{
    const struct vm_config *c = d->cfg.cfg;
    char thread[THREAD_NAME];
    snprintf(thread, sizeof thread, "%.7s/%s", c->debug_threads && c->name[0] ? c->name : "hecaton", name);
    struct ioloop_config l = {.name = thread, .epoch = d->cfg.epoch};
    return ioloop_create(&l, out, e);
}

int device_loop(struct pci_devices *d, const void *owner, const char *name, struct ioloop **out, struct err *e)
{
    struct device_loop *l = d->loops;
    while (l && l->owner != owner)
        l = l->next;
    if (l) {
        *out = l->loop;
        return 0;
    }
    l = calloc(1, sizeof *l);
    if (!l)
        return no_memory(e);
    int rc = open_loop(d, name, &l->loop, e);
    if (rc) {
        free(l);
        return rc;
    }
    l->owner = owner;
    l->next = d->loops;
    d->loops = l;
    *out = l->loop;
    return 0;
}

int device_net_loop(struct pci_devices *d, struct ioloop **out, struct err *e)
{
    return device_loop(d, &d->nets, "net", out, e);
}

int device_common_loop(struct pci_devices *d, struct ioloop **out, struct err *e)
{
    return device_loop(d, &d->made, "io", out, e);
}

int device_block(struct pci_devices *d, const struct vm_drive *drive, struct ioloop *loop, struct block **out,
                 struct err *e)
{
    struct device_block *b = calloc(1, sizeof *b);
    if (!b)
        return no_memory(e);
    int rc = block_open(&drive->image, loop, &b->block, e);
    if (rc) {
        free(b);
        return rc;
    }
    b->next = d->blocks;
    d->blocks = b;
    *out = b->block;
    return 0;
}

int device_net(struct pci_devices *d, const struct vm_net *net, struct ioloop *loop, struct net **out, struct err *e)
{
    struct net_config c = net->net;
    struct device_net *n = calloc(1, sizeof *n);
    if (!n)
        return no_memory(e);
    c.notes = stderr;
    int rc = net_open(&c, loop, &n->net, e);
    if (rc) {
        free(n);
        return rc;
    }
    n->next = d->nets;
    d->nets = n;
    *out = n->net;
    return 0;
}

/* ---- lifecycle ---- */

static int make_device(struct pci_devices *d, const struct vm_device *v, struct err *e)
{
    if (!device_ops[v->kind].make)
        return err_set(e, -ENOTSUP, "%s: this version has no such device: drop it", v->option);
    struct device_made *m = calloc(1, sizeof *m);
    if (!m)
        return no_memory(e);
    m->ops = &device_ops[v->kind];
    int rc = m->ops->make(d, v, &m->dev, e);
    if (rc) {
        free(m);
        return rc;
    }
    m->next = d->made;
    d->made = m;
    return 0;
}

/* Buses before what is on them, and function 0 of a device before its others. */
static unsigned turn(const struct vm_device *v)
{
    return v->kind == VM_DEVICE_ROOT_PORT ? v->addr & 7 : 8 + (v->addr & 7);
}

static int make_devices(struct pci_devices *d, struct err *e)
{
    int rc = 0;
    for (unsigned t = 0; t < 16; t++)
        for (const struct vm_device *v = d->cfg.cfg->dev.devices; v && !rc; v = v->next)
            if (vm_device_is_pci(v->kind) && turn(v) == t)
                rc = make_device(d, v, e);
    return rc;
}

int pci_devices_create(const struct pci_devices_config *c, struct pci_devices **out, struct err *e)
{
    struct pci_devices *d = calloc(1, sizeof *d);
    if (!d)
        return no_memory(e);
    d->cfg = *c;
    int rc = make_devices(d, e);
    if (rc)
        pci_devices_destroy(d);
    else
        *out = d;
    return rc;
}

void pci_devices_reset(struct pci_devices *d)
{
    for (struct device_made *m = d->made; m; m = m->next)
        if (m->ops->reset)
            m->ops->reset(m->dev);
}

/* Take the first item off a list. */
#define POP(list)                                                                                                      \
    ({                                                                                                                 \
        __typeof__(list) first_ = (list);                                                                              \
        if (first_)                                                                                                    \
            (list) = first_->next;                                                                                     \
        first_;                                                                                                        \
    })

void pci_devices_destroy(struct pci_devices *d)
{
    struct device_made *m;
    struct device_net *n;
    struct device_block *b;
    struct device_loop *l;
    if (!d)
        return;
    for (; (m = POP(d->made)); free(m))
        m->ops->destroy(m->dev);
    for (; (n = POP(d->nets)); free(n))
        net_close(n->net);
    for (; (b = POP(d->blocks)); free(b))
        block_close(b->block);
    for (; (l = POP(d->loops)); free(l))
        ioloop_destroy(l->loop);
    free(d);
}
