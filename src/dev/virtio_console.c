#include "dev/virtio_console.h"

#include <errno.h>
#include <stdlib.h>

#define CLASS_CODE 0x078000u
#define QUEUE_SIZE 128u
#define INPUT      4096u /* bytes on their way from the chardev, a power of 2 */
#define BUDGET     64u   /* chains in one go */

/* 5.3.3 "Feature bits", 5.3.4 "Device configuration layout". */
enum console_feature { F_MULTIPORT = 1, F_EMERG_WRITE = 2 };
enum console_config { C_PORTS = 4, C_EMERG = 8, C_LEN = 12 };

/* 5.3.6.2 "Multiport Device Operation": {u32 port, u16 event, u16 value}. */
enum control_event {
    DEVICE_READY = 0,
    PORT_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    PORT_OPEN = 6,
    PORT_NAME = 7,
    CONTROL_EVENTS
};
enum { CONTROL_LEN = 8 };

/* 5.3.2 "Virtqueues". */
enum queue { CONTROL_RX = 2, CONTROL_TX = 3 };

struct port {
    struct virtio_console *c;       /* (c) */
    struct virtio_console_port cfg; /* (c) */
    unsigned index;                 /* (c) */
    struct ioloop_bell bell;        /* input has come, or there is room for output */
    pthread_mutex_t lock;           /* the chardev's thread and the loop's */
    uint8_t input[INPUT];           /* (l) a ring */
    unsigned head, count;           /* (l) of it */
    bool refused;                   /* (l) the chardev holds more */
    /* the loop's thread */
    bool open;       /* the guest has it open, or it is a console, or the driver knows only this one */
    unsigned to_say; /* bits: control events for the driver */
    uint64_t sent;   /* bytes of the first chain of output that were taken already */
};

struct virtio_console {
    struct virtio_pci pci;
    bool multiport; /* the loop's thread: as negotiated */
    unsigned nports;
    struct port *ports; /* (c) owned */
    struct iovec iov[VIRTQ_SIZE_MAX];
};

static struct virtio_console *console_of(struct virtio *v)
{
    return container_of(v, struct virtio_console, pci.v);
}

static struct virtq *port_queue(struct port *p, bool tx)
{
    return &p->c->pci.v.q[(p->index ? 2 * p->index + 2 : 0) + tx];
}

/* ---- the chardev's thread ---- */

static size_t port_input(void *opaque, const uint8_t *buf, size_t n)
{
    struct port *p = opaque;
    pthread_mutex_lock(&p->lock);
    size_t room = min_u64(INPUT - p->count, n);
    for (size_t i = 0; i < room; i++)
        p->input[(p->head + p->count++) % INPUT] = buf[i];
    p->refused |= room < n;
    pthread_mutex_unlock(&p->lock);
    ioloop_ring(p->c->pci.v.loop, &p->bell);
    return room;
}

static void port_room(void *opaque)
{
    struct port *p = opaque;
    ioloop_ring(p->c->pci.v.loop, &p->bell);
}

/* ---- the loop's thread: data ---- */

static bool has_input(struct port *p)
{
    pthread_mutex_lock(&p->lock);
    bool has = p->count;
    pthread_mutex_unlock(&p->lock);
    return has;
}

/* Move input into one buffer; returns how much. */
static uint32_t take_input(struct port *p, const struct iovec *in, unsigned n, uint64_t room)
{
    uint8_t bytes[INPUT];
    pthread_mutex_lock(&p->lock);
    unsigned k = (unsigned)min_u64(p->count, room);
    for (unsigned i = 0; i < k; i++)
        bytes[i] = p->input[(p->head + i) % INPUT];
    p->head = (p->head + k) % INPUT;
    p->count -= k;
    bool more = k && p->refused;
    p->refused = p->refused && !more;
    pthread_mutex_unlock(&p->lock);
    virtq_copy_to(in, n, 0, bytes, k);
    if (more)
        chardev_input_ready(p->cfg.chardev);
    return k;
}

/* Input to the driver; what it has no buffers for waits, and so does the chardev. */
static void port_receive(struct port *p)
{
    struct virtq *q = port_queue(p, false);
    struct virtq_chain c;
    unsigned budget = BUDGET;
    if (!p->open)
        return;
    do {
        virtq_disarm(q);
        while (budget && has_input(p) && virtq_pop(q, &c, p->c->iov, VIRTQ_SIZE_MAX)) {
            const struct iovec *in = p->c->iov + c.outs;
            virtq_push(q, &c, in, take_input(p, in, c.ins, c.in_len));
            budget--;
        }
        virtq_flush(q);
        if (!budget)
            ioloop_ring(p->c->pci.v.loop, &p->bell);
    } while (budget && has_input(p) && virtq_arm(q));
}

/* False: the chardev is full before the chain's end. */
static bool put_bytes(struct port *p, const struct iovec *out, unsigned n)
{
    uint64_t skip = p->sent;
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = min_u64(skip, out[i].iov_len), left = out[i].iov_len - at;
        uint64_t taken = chardev_write(p->cfg.chardev, (const uint8_t *)out[i].iov_base + at, left);
        skip -= at;
        p->sent += taken;
        if (taken < left)
            return false;
    }
    p->sent = 0;
    return true;
}

/* Output from the driver. A chain that is not wholly taken goes back, and comes again when there is room. */
static void port_send(struct port *p)
{
    struct virtq *q = port_queue(p, true);
    struct virtq_chain c;
    unsigned budget = BUDGET;
    bool full = false;
    do {
        virtq_disarm(q);
        while (budget && !full && virtq_pop(q, &c, p->c->iov, VIRTQ_SIZE_MAX)) {
            full = !put_bytes(p, p->c->iov, c.outs);
            if (full)
                virtq_unpop(q, &c);
            else
                virtq_push(q, &c, NULL, 0);
            budget--;
        }
        virtq_flush(q);
        if (!budget)
            ioloop_ring(p->c->pci.v.loop, &q->bell);
    } while (budget && !full && virtq_arm(q));
}

static void port_bell(void *opaque)
{
    struct port *p = opaque;
    if (p->c->pci.v.phase != VIRTIO_RUNNING)
        return;
    port_receive(p);
    port_send(p);
}

/* ---- the loop's thread: control ---- */

static unsigned control_message(const struct port *p, enum control_event event, uint8_t *m, unsigned room)
{
    unsigned len = CONTROL_LEN;
    st32(m, p->index);
    st16(m + 4, (uint16_t)event);
    st16(m + 6, 1);
    if (event == PORT_NAME) {
        size_t name = min_u64(strlen(p->cfg.name), room - len);
        memcpy(m + len, p->cfg.name, name);
        len += (unsigned)name;
    }
    return len;
}

/* False: the driver has no buffer now. */
static bool say(struct virtio_console *c, const struct port *p, enum control_event event)
{
    struct virtq *q = &c->pci.v.q[CONTROL_RX];
    struct virtq_chain chain;
    uint8_t m[CONTROL_LEN + 128];
    if (!virtq_pop(q, &chain, c->iov, VIRTQ_SIZE_MAX))
        return false;
    const struct iovec *in = c->iov + chain.outs;
    unsigned len = control_message(p, event, m, sizeof m);
    virtq_push(q, &chain, in, (uint32_t)virtq_copy_to(in, chain.ins, 0, m, len));
    return true;
}

/* In the order of events' numbers, which is the order drivers want: a port is added before it is named. */
static void say_all(struct virtio_console *c)
{
    struct virtq *q = &c->pci.v.q[CONTROL_RX];
    bool room = true;
    do {
        for (struct port *p = c->ports; room && p < c->ports + c->nports; p++)
            for (unsigned event = 0; room && event < CONTROL_EVENTS; event++)
                if (p->to_say & 1u << event && (room = say(c, p, event)))
                    p->to_say &= ~(1u << event);
        virtq_flush(q);
    } while (!room && (room = virtq_arm(q)));
}

static void port_ready(struct port *p)
{
    p->to_say |= 1u << PORT_OPEN | (p->cfg.console ? 1u << CONSOLE_PORT : 0) | (p->cfg.name ? 1u << PORT_NAME : 0);
    p->open |= p->cfg.console;
}

static void control_heard(struct virtio_console *c, const uint8_t *m)
{
    uint32_t id = ld32(m);
    uint16_t event = ld16(m + 4), value = ld16(m + 6);
    if (event == DEVICE_READY && value) {
        for (unsigned i = 0; i < c->nports; i++)
            c->ports[i].to_say |= 1u << PORT_ADD;
    } else if (id >= c->nports) {
        trace(c->pci.v.trace, TRACE_DEV, "virtio-serial-pci: no port %u", id);
    } else if (event == PORT_READY && value) {
        port_ready(&c->ports[id]);
    } else if (event == PORT_OPEN) {
        c->ports[id].open = value || c->ports[id].cfg.console;
        port_receive(&c->ports[id]);
    }
}

static void control_serve(struct virtio_console *c)
{
    struct virtq *q = &c->pci.v.q[CONTROL_TX];
    struct virtq_chain chain;
    unsigned budget = BUDGET;
    do {
        virtq_disarm(q);
        while (budget && virtq_pop(q, &chain, c->iov, VIRTQ_SIZE_MAX)) {
            uint8_t m[CONTROL_LEN];
            size_t len = virtq_copy_from(c->iov, chain.outs, 0, m, CONTROL_LEN);
            virtq_push(q, &chain, NULL, 0);
            if (len == CONTROL_LEN)
                control_heard(c, m);
            budget--;
        }
        virtq_flush(q);
        if (!budget)
            ioloop_ring(c->pci.v.loop, &q->bell);
    } while (budget && virtq_arm(q));
    say_all(c);
}

/* ---- the device ---- */

static void serve(struct virtio *v, struct virtq *q)
{
    struct virtio_console *c = console_of(v);
    bool control = q->index == CONTROL_RX || q->index == CONTROL_TX;
    if (control && c->multiport) {
        control_serve(c);
        return;
    }
    struct port *p = &c->ports[q->index < CONTROL_RX ? 0 : (q->index - CONTROL_RX) / 2u];
    if (q->index & 1)
        port_send(p);
    else
        port_receive(p);
}

static void start(struct virtio *v)
{
    struct virtio_console *c = console_of(v);
    c->multiport = virtio_has(v, BIT(F_MULTIPORT));
    for (unsigned i = 0; i < c->nports; i++) {
        c->ports[i].open = !c->multiport;
        c->ports[i].to_say = 0;
        c->ports[i].sent = 0;
    }
}

/* 5.3.4: "emergency write": a byte of output before, or without, any queue. */
static void config_write(struct virtio *v, unsigned off, unsigned size, uint32_t val)
{
    if (off == C_EMERG)
        chardev_put(console_of(v)->ports[0].cfg.chardev, (uint8_t)val);
}

static const struct virtio_ops ops = {.serve = serve, .start = start, .config_write = config_write};

/* ---- lifecycle ---- */

static void init_ports(struct virtio_console *c, const struct virtio_console_config *config)
{
    for (unsigned i = 0; i < c->nports; i++) {
        struct port *p = &c->ports[i];
        *p = (struct port){.c = c, .cfg = config->ports[i], .index = i};
        ioloop_bell_init(&p->bell, port_bell, p);
        pthread_mutex_init(&p->lock, NULL);
    }
}

static void free_console(struct virtio_console *c)
{
    for (unsigned i = 0; i < c->nports; i++)
        pthread_mutex_destroy(&c->ports[i].lock);
    free(c->ports);
    free(c);
}

static int init_pci(struct virtio_console *c, const struct virtio_console_config *config, struct err *e)
{
    const struct virtio_console_port *first = config->ports;
    bool multiport = c->nports > 1 || first->name || !first->console;
    uint8_t bytes[C_LEN] = {0};
    st32(bytes + C_PORTS, c->nports);
    struct virtio_pci_setup s = {.host = config->host,
                                 .bus = config->bus,
                                 .devfn = config->devfn,
                                 .loop = config->loop,
                                 .ops = &ops,
                                 .options = config->options,
                                 .name = "virtio-serial-pci",
                                 .type = VIRTIO_CONSOLE,
                                 .class_code = CLASS_CODE,
                                 .features = BIT(F_EMERG_WRITE) | (multiport ? BIT(F_MULTIPORT) : 0),
                                 .queues = (uint16_t)(multiport ? 2 * (c->nports + 1) : 2),
                                 .queue_size = QUEUE_SIZE,
                                 .config = bytes,
                                 .config_len = C_LEN};
    return virtio_pci_init(&c->pci, &s, e);
}

static int attach(struct virtio_console *c, struct err *e)
{
    for (unsigned i = 0; i < c->nports; i++) {
        struct chardev_client client = {.input = port_input, .room = port_room, .opaque = &c->ports[i]};
        int rc = chardev_attach(c->ports[i].cfg.chardev, &client, e);
        if (rc)
            return rc;
    }
    return 0;
}

int virtio_console_create(const struct virtio_console_config *config, struct virtio_console **out, struct err *e)
{
    *out = NULL;
    if (!config->nports || config->nports > VIRTIO_CONSOLE_PORTS)
        return err_set(e, -EINVAL, "virtio-serial-pci: it has 1 to %u ports, not %u", VIRTIO_CONSOLE_PORTS,
                       config->nports);
    struct virtio_console *c = calloc(1, sizeof *c);
    if (c)
        c->ports = calloc(config->nports, sizeof *c->ports);
    if (!c || !c->ports) {
        free(c);
        return err_set(e, -ENOMEM, "virtio-serial-pci: no memory");
    }
    c->nports = config->nports;
    init_ports(c, config);
    int rc = init_pci(c, config, e);
    if (rc) {
        free_console(c);
        return rc;
    }
    *out = c; /* chardevs that were attached know it: it is not freed here if another cannot be */
    return attach(c, e);
}

void virtio_console_reset(struct virtio_console *c)
{
    virtio_pci_reset(&c->pci);
    for (unsigned i = 0; i < c->nports; i++) {
        struct port *p = &c->ports[i];
        pthread_mutex_lock(&p->lock);
        bool refused = p->refused;
        p->head = p->count = 0;
        p->refused = false;
        pthread_mutex_unlock(&p->lock);
        if (refused)
            chardev_input_ready(p->cfg.chardev);
    }
}

static void remove_bells(void *opaque)
{
    struct virtio_console *c = opaque;
    for (unsigned i = 0; i < c->nports; i++)
        ioloop_bell_remove(c->pci.v.loop, &c->ports[i].bell);
}

void virtio_console_destroy(struct virtio_console *c)
{
    if (!c)
        return;
    virtio_pci_reset(&c->pci);
    ioloop_call(c->pci.v.loop, remove_bells, c);
    virtio_pci_fini(&c->pci);
    free_console(c);
}
