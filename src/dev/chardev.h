/* The host's end of a serial line: a bounded output ring, one I/O thread, and a backend.
 *
 * Backends (-serial): stdio, file:PATH, null (or none), pty, unix:PATH (listens; one client at a time; the next may
 * come after it left). While a pty or socket has no peer, output is dropped, as on a line nobody is connected to.
 *
 * Protocol: chardev_write() never enters the kernel except to wake a sleeping I/O thread, at most once every
 * CHARDEV_LINGER_MS; the thread gathers bytes for that long before it writes. When the ring is full, it refuses (the
 * device shows "transmitter busy") and client->room is called once there is room again. Nothing accepted is lost.
 *
 * On a terminal stdio is in raw mode and Ctrl-A is the escape: x quits, b sends a break, h helps, Ctrl-A is itself. The
 * terminal's modes come back however the process ends, SIGKILL included: a small child waits for our end.
 */
#ifndef HEC_DEV_CHARDEV_H
#define HEC_DEV_CHARDEV_H

#include "base/err.h"
#include "dev/control.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CHARDEV_RING      65536u
#define CHARDEV_LINGER_MS 2

struct chardev;

/* The device above. All three are called on the I/O thread with no chardev lock held. */
struct chardev_client {
    /* Take up to `n` bytes and return how many were taken. After taking fewer the device calls
     * chardev_input_ready() once it has room. */
    size_t (*input)(void *opaque, const uint8_t *buf, size_t n);
    void (*room)(void *opaque); /* a byte was refused before; now there is room */
    void (*brk)(void *opaque);  /* a break condition on the line; may be NULL */
    void *opaque;
};

struct chardev_config {
    const char *spec;                 /* as -serial has it */
    const struct vm_control *control; /* borrowed; for Ctrl-A x; may be NULL */
    FILE *notes;                      /* borrowed; one line for a pty's name or a broken output; NULL: silent */
};

/* ---- lifecycle ---- */
/* Open the backend. -EINVAL for an unknown spec, else -errno with the path in `e`. */
int chardev_create(const struct chardev_config *c, struct chardev **out, struct err *e);
/* Connect the device (copied) and start the I/O thread: from here on the client is called. 0 or -errno. */
int chardev_attach(struct chardev *c, const struct chardev_client *client, struct err *e);
/* Write out what is in the ring, stop the thread, restore the terminal, remove the socket. A peer of a pty or socket
 * that reads nothing for a second is given up; stdout and files are waited for unless chardev_discard() was called.
 * NULL is fine. Before the client's own _fini. */
void chardev_destroy(struct chardev *c);

/* ---- any thread ---- */
/* Bytes towards the host; how many of them were taken. The ring is full if that is not all, and client->room will be
 * called. */
size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t n);
static inline bool chardev_put(struct chardev *c, uint8_t byte)
{
    return chardev_write(c, &byte, 1);
}
/* Sleep until the ring has room, at most `ms` milliseconds (-1: no limit). Ends early after chardev_hurry(). */
void chardev_wait_room(struct chardev *c, int ms);
/* The client can take input again. */
void chardev_input_ready(struct chardev *c);
/* Nobody waits for room from now on; what finds the ring full is dropped. Call it when the machine is told to stop, so
 * that a reader that stopped reading cannot hold a vCPU thread. (Ctrl-A x does it by itself.) */
void chardev_hurry(struct chardev *c);
/* As chardev_hurry(), and drop what is unwritten too: the process is being ended by force. */
void chardev_discard(struct chardev *c);

#endif
