#include "dev/debugexit.h"

#include <errno.h>

static uint64_t read_zero(void *dev, uint64_t off, unsigned size)
{
    return 0;
}

static void exit_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    const struct debugexit *d = dev;
    vm_request(d->control, VM_REQ_EXIT, (int)((uint32_t)val << 1 & 0x7fffffff) | 1);
}

static const struct bus_ops exit_ops = {read_zero, exit_write};

int debugexit_init(struct debugexit *d, struct bus *ports, const struct vm_control *control, uint32_t iobase,
                   uint32_t iosize, struct err *e)
{
    if (!iosize || iobase > 0xffff || iosize > 0x10000 - iobase)
        return err_set(e, -EINVAL, "isa-debug-exit: iobase=0x%x,iosize=0x%x is not a range of ports", iobase, iosize);
    *d = (struct debugexit){ports, control, (uint16_t)iobase};
    const struct bus_region r = {iobase, iosize, &exit_ops, d, "isa-debug-exit"};
    return bus_map(ports, &r, e);
}

void debugexit_fini(struct debugexit *d)
{
    bus_unmap(d->ports, d->iobase);
}

static void letter(struct shutdown_port *s, uint8_t c)
{
    static const char word[] = "Shutdown";
    unsigned n = atomic_load_explicit(&s->matched, memory_order_relaxed);
    n = c == (uint8_t)word[n] ? n + 1 : c == (uint8_t)word[0];
    bool whole = !word[n];
    atomic_store_explicit(&s->matched, whole ? 0 : n, memory_order_relaxed);
    if (whole)
        vm_request(s->control, VM_REQ_POWEROFF, 0);
}

static void shutdown_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    letter(dev, (uint8_t)val);
}

static const struct bus_ops shutdown_ops = {read_zero, shutdown_write};

int shutdown_port_init(struct shutdown_port *s, struct bus *ports, const struct vm_control *control, struct err *e)
{
    s->ports = ports;
    s->control = control;
    atomic_init(&s->matched, 0);
    const struct bus_region r = {SHUTDOWN_PORT, 1, &shutdown_ops, s, "shutdown port"};
    return bus_map(ports, &r, e);
}

void shutdown_port_fini(struct shutdown_port *s)
{
    bus_unmap(s->ports, SHUTDOWN_PORT);
}

void shutdown_port_reset(struct shutdown_port *s)
{
    atomic_store_explicit(&s->matched, 0, memory_order_relaxed);
}
