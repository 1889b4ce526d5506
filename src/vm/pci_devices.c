#include "vm/pci_devices.h"

#include "pci/port.h"

#include <errno.h>
#include <stdlib.h>

/* A device that was made. */
struct made {
    struct made *next; /* the one made before */
    const struct vm_device *v;
    const struct device_ops *ops;
    void *dev;
};

struct pci_devices {
    struct pci_devices_config cfg; /* (c) */
    struct made *made;             /* the last one first */
};

struct device_ops {
    int (*make)(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e);
    void (*reset)(void *dev); /* NULL: nothing but configuration space */
    void (*destroy)(void *dev);
};

/* ---- root ports ---- */

static int make_root_port(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct pci_port *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, -ENOMEM, "%s: no host memory", v->option);
    int rc = pci_port_init(p, d->cfg.host, (uint8_t)v->addr, v->id, (uint8_t)v->slot, e);
    if (rc)
        free(p);
    else
        *dev = p;
    return rc;
}

static void destroy_root_port(void *dev)
{
    pci_port_fini(dev);
    free(dev);
}

/* ---- all of them ---- */

static const struct device_ops ops[] = {
    [VM_DEVICE_ROOT_PORT] = {make_root_port, NULL, destroy_root_port},
    [VM_DEVICE_IRQ_TEST] = {NULL, NULL, NULL},
};

static int make_device(struct pci_devices *d, const struct vm_device *v, struct err *e)
{
    const struct device_ops *o = &ops[v->kind];
    if (!o->make)
        return err_set(e, -ENOTSUP, "%s: this version has no such device: drop it", v->option);
    struct made *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, -ENOMEM, "%s: no host memory", v->option);
    int rc = o->make(d, v, &m->dev, e);
    if (rc) {
        free(m);
        return rc;
    }
    *m = (struct made){.next = d->made, .v = v, .ops = o, .dev = m->dev};
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
        return err_set(e, -ENOMEM, "out of memory for the machine");
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
    for (struct made *m = d->made; m; m = m->next)
        if (m->ops->reset)
            m->ops->reset(m->dev);
}

void pci_devices_destroy(struct pci_devices *d)
{
    struct made *m;
    if (!d)
        return;
    while ((m = d->made)) {
        d->made = m->next;
        m->ops->destroy(m->dev);
        free(m);
    }
    free(d);
}
