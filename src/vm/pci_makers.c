/* Each kind of device, from its description. */
#include "dev/ahci.h"
#include "dev/e1000e.h"
#include "dev/irqtest_pci.h"
#include "dev/pvpanic.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_rng.h"
#include "pci/msi.h"
#include "pci/port.h"
#include "vm/pci_devices_priv.h"

#include "base/bits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int no_memory(const struct vm_device *v, struct err *e)
{
    return err_set(e, -ENOMEM, "%s: no host memory", v->option);
}

static struct pci_bus *bus_of(const struct pci_devices *d, const struct vm_device *v)
{
    return v->parent ? pci_host_bus(d->cfg.host, v->parent->id) : NULL;
}

static const char *serial_of(const struct vm_device *v)
{
    return v->serial ? v->serial : v->disk->serial;
}

/* Every destroy and reset takes the device's own type. */
#define ENDS(name, type)                                                                                               \
    static void reset_##name(void *dev)                                                                                \
    {                                                                                                                  \
        type##_reset(dev);                                                                                             \
    }                                                                                                                  \
    static void destroy_##name(void *dev)                                                                              \
    {                                                                                                                  \
        type##_destroy(dev);                                                                                           \
    }

/* ---- PCI ---- */

static int make_root_port(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct pci_port *p = calloc(1, sizeof *p);
    if (!p)
        return no_memory(v, e);
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

static int make_irq_test(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct irqtest_pci_config c = {.host = d->cfg.host,
                                   .bus = bus_of(d, v),
                                   .devfn = (uint8_t)v->addr,
                                   .msix = v->vectors == VM_ANY ? PCI_MSIX_MAX : v->vectors,
                                   .msi = v->msi == VM_ANY ? PCI_MSI_MAX : v->msi};
    struct irqtest_pci *t;
    int rc = irqtest_pci_create(&c, &t, e);
    *dev = t;
    return rc;
}
ENDS(irq_test, irqtest_pci)

/* ---- disks ---- */

static int make_ahci(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct ahci_config c = {.host = d->cfg.host, .bus = bus_of(d, v), .devfn = (uint8_t)v->addr, .trace = d->cfg.trace};
    struct ahci *a;
    int rc = device_loop(d, v, v->id ? v->id : "ahci", &c.loop, e);
    for (const struct vm_device *hd = d->cfg.cfg->dev.devices; hd && !rc; hd = hd->next) {
        if (hd->kind != VM_DEVICE_IDE_HD || hd->parent != v)
            continue;
        c.disk[hd->port].serial = serial_of(hd);
        c.disk[hd->port].model = hd->model;
        rc = device_block(d, hd->disk, c.loop, &c.disk[hd->port].block, e);
    }
    if (rc || (rc = ahci_create(&c, &a, e)))
        return rc;
    *dev = a;
    return 0;
}
ENDS(ahci, ahci)

/* ---- network cards ---- */

static int make_e1000e(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct e1000e_config c = {.host = d->cfg.host, .bus = bus_of(d, v), .devfn = (uint8_t)v->addr};
    struct ioloop *loop;
    struct e1000e *n;
    memcpy(c.mac, v->mac, sizeof c.mac);
    int rc = device_net_loop(d, &loop, e);
    if (rc || (rc = device_net(d, v->net, loop, &c.net, e)) || (rc = e1000e_create(&c, &n, e)))
        return rc;
    *dev = n;
    return 0;
}
ENDS(e1000e, e1000e)

/* ---- virtio ---- */

static struct virtio_options virtio_options(const struct vm_device *v)
{
    static const enum virtio_iommu iommu[] = {
        [VM_AUTO] = VIRTIO_IOMMU_AUTO, [VM_ON] = VIRTIO_IOMMU_ON, [VM_OFF] = VIRTIO_IOMMU_OFF};
    return (struct virtio_options){.iommu_platform = iommu[v->iommu_platform],
                                   .no_event_idx = v->no_event_idx,
                                   .no_indirect = v->no_indirect,
                                   .packed = v->packed,
                                   .vectors = v->vectors == VM_ANY ? 0 : v->vectors,
                                   .no_msix = v->vectors == 0};
}

static bool writethrough(const struct vm_device *v)
{
    enum block_cache c = v->disk->image.cache;
    return v->write_cache == VM_OFF ||
           (v->write_cache == VM_AUTO && (c == BLOCK_WRITETHROUGH || c == BLOCK_DIRECTSYNC));
}

static int make_blk(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    uint64_t cpus = d->cfg.cfg->smp.cpus;
    struct virtio_blk_config c = {.host = d->cfg.host,
                                  .bus = bus_of(d, v),
                                  .devfn = (uint8_t)v->addr,
                                  .serial = serial_of(v),
                                  .queues = (uint16_t)(v->queues ? v->queues : min_u64(cpus, VM_BLK_QUEUES_MAX)),
                                  .queue_size = (uint16_t)v->queue_size,
                                  .writethrough = writethrough(v),
                                  .no_config_wce = v->config_wce_off,
                                  .no_discard = v->discard_off,
                                  .no_write_zeroes = v->write_zeroes_off,
                                  .options = virtio_options(v)};
    struct ioloop *loop;
    struct virtio_blk *b;
    int rc = v->loop ? device_loop(d, v->loop, v->loop->id, &loop, e) : device_loop(d, v, v->disk->id, &loop, e);
    if (rc || (rc = device_block(d, v->disk, loop, &c.block, e)) || (rc = virtio_blk_create(&c, &b, e)))
        return rc;
    *dev = b;
    return 0;
}
ENDS(blk, virtio_blk)

static int make_net(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    uint64_t pairs = v->queues ? v->queues : d->cfg.cfg->smp.cpus;
    struct virtio_net_config c = {.host = d->cfg.host,
                                  .bus = bus_of(d, v),
                                  .devfn = (uint8_t)v->addr,
                                  .queue_pairs = (uint16_t)(v->mq || v->queues ? min_u64(pairs, VM_NET_PAIRS_MAX) : 1),
                                  .queue_size = (uint16_t)v->queue_size,
                                  .options = virtio_options(v)};
    struct ioloop *loop;
    struct virtio_net *n;
    memcpy(c.mac, v->mac, sizeof c.mac);
    int rc = device_net_loop(d, &loop, e);
    if (rc || (rc = device_net(d, v->net, loop, &c.net, e)) || (rc = virtio_net_create(&c, &n, e)))
        return rc;
    *dev = n;
    return 0;
}
ENDS(net, virtio_net)

static int make_rng(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct virtio_rng_config c = {
        .host = d->cfg.host, .bus = bus_of(d, v), .devfn = (uint8_t)v->addr, .options = virtio_options(v)};
    struct virtio_rng *r;
    int rc = device_common_loop(d, &c.loop, e);
    if (rc || (rc = virtio_rng_create(&c, &r, e)))
        return rc;
    *dev = r;
    return 0;
}
ENDS(rng, virtio_rng)

/* A controller and what its ports are connected to. */
struct consoles {
    struct virtio_console *console;
    struct chardev *chardev[VM_CONSOLES_MAX];
};

static void destroy_consoles(void *dev)
{
    struct consoles *s = dev;
    for (unsigned i = 0; i < VM_CONSOLES_MAX; i++)
        chardev_destroy(s->chardev[i]);
    if (s->console)
        virtio_console_destroy(s->console);
    free(s);
}

static void reset_consoles(void *dev)
{
    virtio_console_reset(((struct consoles *)dev)->console);
}

/* A port nobody has described leads nowhere: numbers have no holes for the guest. */
static int open_ports(struct pci_devices *d, const struct vm_device *v, struct consoles *s,
                      struct virtio_console_port *port, unsigned *n, struct err *e)
{
    const struct vm_device *at[VM_CONSOLES_MAX] = {NULL};
    int rc = 0;
    *n = 1;
    for (const struct vm_device *p = d->cfg.cfg->dev.devices; p; p = p->next)
        if (p->kind == VM_DEVICE_VIRTCONSOLE && p->parent == v) {
            at[p->nr] = p;
            *n = p->nr >= *n ? p->nr + 1 : *n;
        }
    for (unsigned i = 0; i < *n && !rc; i++) {
        struct chardev_config c = {
            .spec = at[i] ? at[i]->chr->spec : "null", .control = d->cfg.control, .notes = stderr};
        rc = chardev_create(&c, &s->chardev[i], e);
        port[i] = (struct virtio_console_port){.chardev = s->chardev[i]};
        if (at[i]) {
            port[i].name = at[i]->name;
            port[i].console = !at[i]->plain_port;
        }
    }
    return rc;
}

static int make_consoles(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct virtio_console_port port[VM_CONSOLES_MAX] = {0};
    struct virtio_console_config c = {.host = d->cfg.host,
                                      .bus = bus_of(d, v),
                                      .devfn = (uint8_t)v->addr,
                                      .ports = port,
                                      .options = virtio_options(v)};
    struct consoles *s = calloc(1, sizeof *s);
    if (!s)
        return no_memory(v, e);
    int rc = open_ports(d, v, s, port, &c.nports, e);
    if (!rc)
        rc = device_common_loop(d, &c.loop, e);
    if (!rc)
        rc = virtio_console_create(&c, &s->console, e);
    if (rc)
        destroy_consoles(s);
    else
        *dev = s;
    return rc;
}

/* ---- pvpanic ---- */

static int make_pvpanic(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e)
{
    struct pvpanic_config c = {.host = d->cfg.host,
                               .bus = bus_of(d, v),
                               .devfn = (uint8_t)v->addr,
                               .control = d->cfg.control,
                               .events = (uint8_t)v->events};
    struct pvpanic *p;
    int rc = pvpanic_create(&c, &p, e);
    *dev = p;
    return rc;
}

static void destroy_pvpanic(void *dev)
{
    pvpanic_destroy(dev);
}

const struct device_ops device_ops[VM_DEVICE_KINDS] = {
    [VM_DEVICE_ROOT_PORT] = {make_root_port, NULL, destroy_root_port},
    [VM_DEVICE_AHCI] = {make_ahci, reset_ahci, destroy_ahci},
    [VM_DEVICE_E1000E] = {make_e1000e, reset_e1000e, destroy_e1000e},
    [VM_DEVICE_VIRTIO_BLK] = {make_blk, reset_blk, destroy_blk},
    [VM_DEVICE_VIRTIO_NET] = {make_net, reset_net, destroy_net},
    [VM_DEVICE_VIRTIO_RNG] = {make_rng, reset_rng, destroy_rng},
    [VM_DEVICE_VIRTIO_SERIAL] = {make_consoles, reset_consoles, destroy_consoles},
    [VM_DEVICE_PVPANIC] = {make_pvpanic, NULL, destroy_pvpanic},
    [VM_DEVICE_IRQ_TEST] = {make_irq_test, reset_irq_test, destroy_irq_test},
};
