/* Where everything is: disks on controllers, ports on consoles, functions on buses. */
#include "irq/amdvi.h"
#include "irq/ioapic.h"
#include "vm/config_resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- AHCI and consoles ---- */

static struct vm_device *find_device(const struct vm_devices *d, enum vm_device_kind kind, const char *id)
{
    struct vm_device *v = d->devices;
    while (v && (v->kind != kind || (id && !same(v->id, id))))
        v = v->next;
    return v;
}

static void name_kind(struct names *s, const struct vm_devices *d, enum vm_device_kind kind)
{
    for (const struct vm_device *v = d->devices; v; v = v->next)
        if (v->kind == kind)
            resolve_name(s, v->id);
}

/* q35's own controller: what is at its address, or what was made for a disk. */
static struct vm_device *own_ahci(struct vm_devices *d)
{
    struct vm_device *v = d->devices;
    while (v && (v->kind != VM_DEVICE_AHCI || v->addr != VM_AHCI_DEVFN || (v->bus && strcmp(v->bus, "pcie.0"))))
        v = v->next;
    if (v)
        return v;
    v = vm_devices_device(d, VM_DEVICE_AHCI, VM_FROM_DEVICE);
    if (v) {
        v->option = "the AHCI controller";
        v->addr = VM_AHCI_DEVFN;
    }
    return v;
}

static struct vm_device *on_port(const struct vm_devices *d, const struct vm_device *ahci, uint32_t port)
{
    struct vm_device *v = d->devices;
    while (v && (v->kind != VM_DEVICE_IDE_HD || v->parent != ahci || v->port != port))
        v = v->next;
    return v;
}

/* "ID.PORT", or "ide.PORT" of the machine's own. NULL: not one of these. */
static struct vm_device *ahci_named(struct vm_devices *d, const char *bus, uint32_t *port)
{
    char id[64];
    const char *dot = strrchr(bus, '.');
    if (!dot || dot[1] < '0' || dot[1] >= '0' + (char)VM_IDE_PORTS || dot[2] || (size_t)(dot - bus) >= sizeof id)
        return NULL;
    snprintf(id, sizeof id, "%.*s", (int)(dot - bus), bus);
    *port = (uint32_t)(dot[1] - '0');
    return strcmp(id, "ide") ? find_device(d, VM_DEVICE_AHCI, id) : own_ahci(d);
}

static int no_ahci(struct vm_devices *d, const struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    char name[NAMES_MAX][72];
    resolve_name(&s, "ide.0");
    for (const struct vm_device *a = d->devices; a && s.n < NAMES_MAX; a = a->next)
        if (a->kind == VM_DEVICE_AHCI && a->id) {
            snprintf(name[s.n], sizeof name[0], "%.64s.0", a->id);
            resolve_name(&s, name[s.n]);
        }
    return resolve_unknown(v, "bus", v->bus, &s, "", e);
}

static bool free_port(struct vm_devices *d, struct vm_device *ahci, struct vm_device *v)
{
    for (uint32_t i = 0; i < VM_IDE_PORTS; i++)
        if (!on_port(d, ahci, i)) {
            v->parent = ahci;
            v->port = i;
            return true;
        }
    return false;
}

static int place_ide_disk(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    uint32_t port = 0;
    if (!v->bus) {
        struct vm_device *a = own_ahci(d);
        if (!a)
            return resolve_no_memory(e);
        if (free_port(d, a, v))
            return 0;
        for (a = d->devices; a; a = a->next)
            if (a->kind == VM_DEVICE_AHCI && free_port(d, a, v))
                return 0;
        return err_set(e, -EINVAL, "%s: all ports are taken: add -device ich9-ahci,id=ahci0", v->option);
    }
    struct vm_device *a = ahci_named(d, v->bus, &port);
    if (!a)
        return no_ahci(d, v, e);
    struct vm_device *there = on_port(d, a, port);
    if (there)
        return err_set(e, -EINVAL, "%s: %s is at '%s' already: give one of them another port", v->option, there->option,
                       v->bus);
    v->parent = a;
    v->port = port;
    return 0;
}

/* The virtio-serial-pci a console port goes to: "ID.0", or the first. */
static int place_console(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    char id[64];
    snprintf(id, sizeof id, "%.*s", v->bus ? (int)strcspn(v->bus, ".") : 0, v->bus ? v->bus : "");
    v->parent = find_device(d, VM_DEVICE_VIRTIO_SERIAL, v->bus ? id : NULL);
    name_kind(&s, d, VM_DEVICE_VIRTIO_SERIAL);
    if (!v->parent && !v->bus)
        return err_set(e, -EINVAL, "%s: it is a port of a controller: add -device virtio-serial-pci", v->option);
    if (!v->parent)
        return resolve_unknown(v, "virtio-serial-pci", id, &s, "add -device virtio-serial-pci,id=ID", e);
    bool taken[VM_CONSOLES_MAX] = {false};
    for (const struct vm_device *p = d->devices; p; p = p->next)
        if (p != v && p->kind == VM_DEVICE_VIRTCONSOLE && p->parent == v->parent && p->nr < VM_CONSOLES_MAX)
            taken[p->nr] = true;
    for (uint32_t i = 0; v->nr == VM_ANY && i < VM_CONSOLES_MAX; i++)
        if (!taken[i])
            v->nr = i;
    if (v->nr >= VM_CONSOLES_MAX)
        return err_set(e, -EINVAL, "%s: a virtio-serial-pci has ports 0 to %u: add another one", v->option,
                       VM_CONSOLES_MAX - 1);
    if (taken[v->nr])
        return err_set(e, -EINVAL, "%s: port nr=%u is taken: give each its own", v->option, v->nr);
    return 0;
}

static bool says_where(const struct vm_device *v)
{
    return v->kind == VM_DEVICE_IDE_HD ? v->bus != NULL : v->nr != VM_ANY;
}

/* Those that say where they want to be first: the others take what is left. */
static int place_kind(struct vm_devices *d, enum vm_device_kind kind,
                      int (*place)(struct vm_devices *d, struct vm_device *v, struct err *e), struct err *e)
{
    int rc = 0;
    for (unsigned pass = 0; pass < 2; pass++)
        for (struct vm_device *v = d->devices; v && !rc; v = v->next)
            if (v->kind == kind && says_where(v) == !pass)
                rc = place(d, v, e);
    return rc;
}

/* ---- PCI addresses ---- */

static int find_bus(struct vm_devices *d, struct vm_device *v, struct err *e)
{
    struct names s = {.n = 0};
    if (!v->bus || !strcmp(v->bus, "pcie.0"))
        return 0;
    v->parent = find_device(d, VM_DEVICE_ROOT_PORT, v->bus);
    resolve_name(&s, "pcie.0");
    name_kind(&s, d, VM_DEVICE_ROOT_PORT);
    if (!v->parent)
        return resolve_unknown(v, "bus", v->bus, &s, "", e);
    if (v->kind == VM_DEVICE_ROOT_PORT)
        return err_set(e, -EINVAL, "%s: a root port is on bus pcie.0: drop bus=%s", v->option, v->bus);
    return 0;
}

/* Who is at `devfn` of the bus behind `parent`; on bus 0 also those every machine has. */
static const char *who_is_at(const struct vm_config *c, const struct vm_device *parent, uint32_t devfn,
                             const struct vm_device *except)
{
    if (!parent && devfn == VM_DEVFN(0, 0))
        return "the host bridge";
    if (!parent && devfn == VM_DEVFN(31, 0))
        return "the ISA bridge";
    if (!parent && devfn >> 3 == IOAPIC_REQUESTER >> 3)
        return "the I/O APIC";
    if (!parent && devfn == AMDVI_RID && c->iommu.kind == VM_IOMMU_AMD)
        return "amd-iommu";
    for (const struct vm_device *v = c->dev.devices; v; v = v->next)
        if (v != except && vm_device_is_pci(v->kind) && v->parent == parent && v->addr == devfn)
            return v->option;
    return NULL;
}

static bool slot_is_free(const struct vm_config *c, const struct vm_device *parent, unsigned slot)
{
    for (unsigned f = 0; f < 8; f++)
        if (who_is_at(c, parent, VM_DEVFN(slot, f), NULL))
            return false;
    return true;
}

static int check_given_address(const struct vm_config *c, const struct vm_device *v, struct err *e)
{
    unsigned slot = v->addr >> 3, fn = v->addr & 7;
    const char *who = who_is_at(c, v->parent, v->addr, v);
    if (who)
        return err_set(e, -EINVAL, "%s: %s is at addr=%x.%u already: give another address, or none", v->option, who,
                       slot, fn);
    if (v->parent && slot)
        return err_set(e, -EINVAL, "%s: behind a root port there is one slot: addr=0 instead of addr=%x", v->option,
                       slot);
    return 0;
}

static int choose_address(struct vm_config *c, struct vm_device *v, struct err *e)
{
    if (v->parent) {
        if (who_is_at(c, v->parent, 0, NULL))
            return err_set(e, -EINVAL, "%s: root port '%s' has a device already: add another root port", v->option,
                           v->bus);
        v->addr = 0;
        return 0;
    }
    for (unsigned i = 0; i < 32; i++) {
        unsigned slot = (VM_FIRST_SLOT + i) % 32;
        if (!slot_is_free(c, NULL, slot))
            continue;
        v->addr = VM_DEVFN(slot, 0);
        return 0;
    }
    return err_set(e, -EINVAL,
                   "%s: no slot is left on pcie.0: put several devices into one with addr=2.0, addr=2.1 and so on, or "
                   "behind -device pcie-root-port,id=ID with bus=ID",
                   v->option);
}

static int check_function(const struct vm_config *c, const struct vm_device *v, struct err *e)
{
    unsigned slot = v->addr >> 3, fn = v->addr & 7;
    if (!fn || who_is_at(c, v->parent, VM_DEVFN(slot, 0), NULL))
        return 0;
    return err_set(e, -EINVAL, "%s: addr=%x.%u without a function %x.0 is never found: give addr=%x.0, or add one",
                   v->option, slot, fn, slot, slot);
}

static int place_functions(struct vm_config *c, struct err *e)
{
    int rc = 0;
    for (struct vm_device *v = c->dev.devices; v && !rc; v = v->next)
        if (vm_device_is_pci(v->kind))
            rc = find_bus(&c->dev, v, e);
    for (struct vm_device *v = c->dev.devices; v && !rc; v = v->next)
        if (vm_device_is_pci(v->kind) && v->addr != VM_ANY)
            rc = check_given_address(c, v, e);
    for (unsigned origin = VM_FROM_NET; origin <= VM_FROM_DRIVE; origin++)
        for (struct vm_device *v = c->dev.devices; v && !rc; v = v->next)
            if (vm_device_is_pci(v->kind) && v->addr == VM_ANY && v->origin == origin)
                rc = choose_address(c, v, e);
    for (struct vm_device *v = c->dev.devices; v && !rc; v = v->next)
        if (vm_device_is_pci(v->kind))
            rc = check_function(c, v, e);
    return rc;
}

/* ---- root ports' slots ---- */

static bool slot_taken(const struct vm_devices *d, const struct vm_device *except, uint32_t slot)
{
    for (const struct vm_device *v = d->devices; v; v = v->next)
        if (v != except && v->kind == VM_DEVICE_ROOT_PORT && v->slot == slot)
            return true;
    return false;
}

/* Slot numbers are what the guest tells users; 0 is none. */
static int number_slots(struct vm_devices *d, struct err *e)
{
    for (struct vm_device *v = d->devices; v; v = v->next)
        if (v->kind == VM_DEVICE_ROOT_PORT && v->slot != VM_ANY && slot_taken(d, v, v->slot))
            return err_set(e, -EINVAL, "%s: slot=%u is used twice: give each root port its own", v->option, v->slot);
    for (struct vm_device *v = d->devices; v; v = v->next)
        for (uint32_t i = 1; v->kind == VM_DEVICE_ROOT_PORT && v->slot == VM_ANY; i++)
            if (!slot_taken(d, v, i))
                v->slot = i;
    return 0;
}

int config_devices_place(struct vm_config *c, struct err *e)
{
    int rc = place_kind(&c->dev, VM_DEVICE_IDE_HD, place_ide_disk, e);
    if (rc || (rc = place_kind(&c->dev, VM_DEVICE_VIRTCONSOLE, place_console, e)) || (rc = place_functions(c, e)))
        return rc;
    return number_slots(&c->dev, e);
}
