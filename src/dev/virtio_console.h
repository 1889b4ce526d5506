/* Consoles and serial ports: VIRTIO 1.2, 5.3 "Console Device". Port 0 is what a driver without
 * VIRTIO_CONSOLE_F_MULTIPORT sees (Linux' hvc0); others, and names, are there with it.
 *
 * Each port is connected to a chardev, whose thread rings the port's bell. Output that the chardev has no room for
 * stays in the queue, and input that the driver has no room for stays in the chardev.
 */
#ifndef HEC_DEV_VIRTIO_CONSOLE_H
#define HEC_DEV_VIRTIO_CONSOLE_H

#include "dev/chardev.h"
#include "dev/virtio_pci.h"

#define VIRTIO_CONSOLE_PORTS 31u

struct virtio_console;

struct virtio_console_port {
    struct chardev *chardev; /* borrowed, attached here; destroyed before the device is */
    const char *name;        /* borrowed; how the guest finds it (virtio-ports/NAME); NULL: none */
    bool console;            /* a terminal (hvc), not a plain port */
};

struct virtio_console_config {
    struct pci_host *host;
    struct pci_bus *bus; /* NULL: the root */
    uint8_t devfn;
    struct ioloop *loop;                     /* borrowed */
    const struct virtio_console_port *ports; /* copied */
    unsigned nports;                         /* 1 .. VIRTIO_CONSOLE_PORTS */
    struct virtio_options options;
};

/* ---- lifecycle ---- */
/* -errno. If a chardev cannot be attached, *out is there nevertheless (else NULL), and is destroyed after the chardevs:
 * others may be attached to it already. */
int virtio_console_create(const struct virtio_console_config *c, struct virtio_console **out, struct err *e);
void virtio_console_reset(struct virtio_console *c);
void virtio_console_destroy(struct virtio_console *c);

#endif
