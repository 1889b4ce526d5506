#include "dev/pvpanic.h"

#include "pci/host.h"

#include <errno.h>
#include <stdlib.h>

#define VENDOR_ID  0x1b36u
#define DEVICE_ID  0x0011u
#define SUBVENDOR  0x1af4u
#define SUBSYSTEM  0x1100u
#define CLASS_CODE 0x088000u
#define BAR_SIZE   0x1000u
#define EVENTS     (PVPANIC_PANICKED | PVPANIC_CRASHLOADED | PVPANIC_SHUTDOWN)

struct pvpanic {
    struct pci_func func;
    const struct vm_control *control; /* (c) */
    const struct trace *trace;        /* (c) */
    uint8_t events;                   /* (c) */
};

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    const struct pvpanic *p = dev;
    return off ? 0 : p->events;
}

/* A guest that says several things at once means the worst of them. */
static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    const struct pvpanic *p = dev;
    if (off)
        return;
    trace(p->trace, TRACE_DEV, "pvpanic-pci: guest says %#llx", (unsigned long long)val);
    val &= p->events;
    if (val & PVPANIC_PANICKED)
        vm_request(p->control, VM_REQ_PANIC, 0);
    else if (val & PVPANIC_SHUTDOWN)
        vm_request(p->control, VM_REQ_POWEROFF, 0);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

int pvpanic_create(const struct pvpanic_config *c, struct pvpanic **out, struct err *e)
{
    struct pvpanic *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, -ENOMEM, "pvpanic-pci: no memory");
    p->control = c->control;
    p->trace = c->host->cfg.trace;
    p->events = c->events ? c->events & EVENTS : EVENTS;
    pci_func_setup(&p->func, c->devfn, VENDOR_ID, DEVICE_ID, CLASS_CODE, 1);
    pci_func_subsystem(&p->func, SUBVENDOR, SUBSYSTEM);
    p->func.name = "pvpanic-pci";
    pci_func_bar(
        &p->func, 0,
        &(struct pci_bar){.kind = PCI_BAR_MEM32, .size = BAR_SIZE, .ops = &bar_ops, .dev = p, .name = "pvpanic-pci"});
    int rc = pci_host_add(c->host, c->bus, &p->func, e);
    if (rc) {
        pvpanic_destroy(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pvpanic_destroy(struct pvpanic *p)
{
    if (!p)
        return;
    pci_func_fini(&p->func);
    free(p);
}
