/* Ways out for test payloads: isa-debug-exit, and the "Shutdown" port (8900h). */
#ifndef HEC_DEV_DEBUGEXIT_H
#define HEC_DEV_DEBUGEXIT_H

#include "dev/control.h"
#include "mem/bus.h"

#include <stdatomic.h>

#define DEBUGEXIT_IOBASE 0xf4u
#define DEBUGEXIT_IOSIZE 4u
#define SHUTDOWN_PORT    0x8900u

struct debugexit {
    struct bus *ports;                /* (c) borrowed */
    const struct vm_control *control; /* (c) borrowed */
    uint16_t iobase;                  /* (c) */
};

struct shutdown_port {
    struct bus *ports;                /* (c) borrowed */
    const struct vm_control *control; /* (c) borrowed */
    _Atomic unsigned matched;         /* (a) letters of "Shutdown" seen in a row */
};

/* ---- lifecycle ---- */
/* A write of `code` to any of `iosize` ports from `iobase` asks for VM_REQ_EXIT with (code << 1) | 1, of which the
 * process can show the low 8 bits. -EINVAL if the ports don't fit below 10000h, -EEXIST if they are taken. */
int debugexit_init(struct debugexit *d, struct bus *ports, const struct vm_control *control, uint32_t iobase,
                   uint32_t iosize, struct err *e);
void debugexit_fini(struct debugexit *d);
/* The letters of "Shutdown", a byte each, ask for VM_REQ_POWEROFF. */
int shutdown_port_init(struct shutdown_port *s, struct bus *ports, const struct vm_control *control, struct err *e);
void shutdown_port_fini(struct shutdown_port *s);
void shutdown_port_reset(struct shutdown_port *s);

#endif
