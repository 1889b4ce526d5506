/* A cable to another machine: a TCP connection, each frame after its length (4 bytes, big-endian), as QEMU's
 * -netdev socket has it. One peer at a time. It may go and come back: the side that listens takes the next one, the
 * side that connects tries once a second. */
#include "dev/net_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_BYTES  (256u << 10)
#define OUT_BYTES (1u << 20)
#define READS     16u /* for one event: others want the loop, too */
#define RETRY_NS  NS_PER_SEC
#define LENGTH    4u

struct net_socket {
    struct net n;
    bool listens;                 /* (c) */
    struct sockaddr_storage addr; /* (c) */
    socklen_t addr_len;           /* (c) */
    char name[128];               /* (c) the option's text */
    struct ioloop_fd listen, io;  /* fd -1: none */
    struct ioloop_timer retry;
    uint32_t watched; /* events of io */
    bool connecting, complained, held;
    uint8_t *in, *out;
    size_t in_at, in_n, out_at, out_n;
};

static struct net_socket *of(struct net *n)
{
    return container_of(n, struct net_socket, n);
}

static void watch(struct net_socket *s, uint32_t events)
{
    if (s->io.fd < 0 || events == s->watched)
        return;
    s->watched = events;
    ioloop_fd_events(s->n.loop, &s->io, events);
}

static void watch_as_needed(struct net_socket *s)
{
    watch(s, (s->held ? 0u : EPOLLIN) | (s->out_n || s->connecting ? EPOLLOUT : 0u));
}

/* ---- the peer comes and goes ---- */

static void close_peer(struct net_socket *s)
{
    if (s->io.fd < 0)
        return;
    ioloop_fd_remove(s->n.loop, &s->io);
    close(s->io.fd);
    s->io.fd = -1;
    s->watched = 0;
    s->connecting = s->held = false;
    s->in_at = s->in_n = s->out_at = s->out_n = 0;
}

static void lose_peer(struct net_socket *s, const char *why)
{
    bool was_connected = !s->connecting;
    close_peer(s);
    if (was_connected || !s->complained)
        net_note(&s->n, was_connected ? "the machine at %s is gone: %s" : "cannot connect to %s yet: %s", s->name, why);
    s->complained = true;
    if (s->listens)
        ioloop_fd_events(s->n.loop, &s->listen, EPOLLIN);
    else
        ioloop_timer_arm(s->n.loop, &s->retry, clock_host_ns() + RETRY_NS);
}

static void peer_there(struct net_socket *s)
{
    int on = 1;
    setsockopt(s->io.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(s->io.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    s->connecting = false;
    if (s->complained)
        net_note(&s->n, "the machine at %s is there", s->name);
    s->complained = false;
    watch_as_needed(s);
    net_moved(&s->n);
}

static void try_connect(void *opaque)
{
    struct net_socket *s = opaque;
    s->io.fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    s->connecting = true;
    if (s->io.fd < 0) {
        ioloop_timer_arm(s->n.loop, &s->retry, clock_host_ns() + RETRY_NS);
        return;
    }
    int rc = connect(s->io.fd, (struct sockaddr *)&s->addr, s->addr_len);
    if (rc && errno != EINPROGRESS)
        lose_peer(s, strerror(errno));
    else if (rc)
        watch(s, EPOLLOUT);
    else
        peer_there(s);
}

static void connected(struct net_socket *s)
{
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(s->io.fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error)
        lose_peer(s, strerror(error));
    else
        peer_there(s);
}

static void accept_peer(void *opaque, uint32_t events)
{
    struct net_socket *s = opaque;
    int fd = accept4(s->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    ioloop_fd_events(s->n.loop, &s->listen, 0);
    s->io.fd = fd;
    peer_there(s);
}

/* ---- in ---- */

/* Hand over what is whole. False: the peer is gone, or the guest has no room. */
static bool deliver_frames(struct net_socket *s)
{
    while (s->in_n >= LENGTH) {
        uint32_t len = get32be(s->in + s->in_at);
        if (!len || len > NET_FRAME_MAX) {
            lose_peer(s, "it sent a frame of an impossible length");
            return false;
        }
        if (s->in_n < LENGTH + len)
            break;
        struct iovec frame = {s->in + s->in_at + LENGTH, len};
        if (!net_deliver(&s->n, NULL, &frame, 1, len)) {
            s->held = true;
            watch_as_needed(s);
            return false;
        }
        s->in_at += LENGTH + len;
        s->in_n -= LENGTH + len;
    }
    memmove(s->in, s->in + s->in_at, s->in_n);
    s->in_at = 0;
    return true;
}

static void receive(struct net_socket *s)
{
    for (unsigned i = 0; i < READS; i++) {
        ssize_t n = recv(s->io.fd, s->in + s->in_at + s->in_n, IN_BYTES - s->in_at - s->in_n, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            lose_peer(s, n ? strerror(errno) : "it closed the connection");
            return;
        }
        s->in_n += (size_t)n;
        if (!deliver_frames(s))
            return;
    }
}

static void socket_resume(struct net *n)
{
    struct net_socket *s = of(n);
    if (!s->held)
        return;
    s->held = false;
    if (deliver_frames(s))
        watch_as_needed(s);
}

/* ---- out ---- */

static void socket_flush(struct net *n)
{
    struct net_socket *s = of(n);
    while (s->out_n && s->io.fd >= 0 && !s->connecting) {
        ssize_t w = send(s->io.fd, s->out + s->out_at, s->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w < 0 && errno != EAGAIN && errno != EINTR) {
            lose_peer(s, strerror(errno));
            return;
        }
        if (w < 0)
            break;
        s->out_at += (size_t)w;
        s->out_n -= (size_t)w;
    }
    if (!s->out_n)
        s->out_at = 0;
    watch_as_needed(s);
}

static void make_room(struct net_socket *s, size_t need)
{
    if (s->out_at + s->out_n + need <= OUT_BYTES)
        return;
    socket_flush(&s->n);
    memmove(s->out, s->out + s->out_at, s->out_n);
    s->out_at = 0;
}

static void socket_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct net_socket *s = of(n);
    if (s->io.fd >= 0 && !s->connecting)
        make_room(s, LENGTH + len);
    if (s->io.fd < 0 || s->connecting || s->out_at + s->out_n + LENGTH + len > OUT_BYTES) {
        net_drop(n);
        return;
    }
    uint8_t *to = s->out + s->out_at + s->out_n;
    put32be(to, (uint32_t)len);
    net_gather(frame, iovs, to + LENGTH, len);
    s->out_n += LENGTH + len;
}

static void socket_event(void *opaque, uint32_t events)
{
    struct net_socket *s = opaque;
    if (s->connecting) {
        connected(s);
        return;
    }
    if (events & EPOLLOUT)
        socket_flush(&s->n);
    if (s->io.fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (s->held)
            lose_peer(s, "it closed the connection"); /* only a hang-up is told while it is held */
        else
            receive(s);
    }
}

/* ---- lifecycle ---- */

static int socket_attach(struct net *n, struct err *e)
{
    struct net_socket *s = of(n);
    s->io.fn = socket_event;
    s->io.opaque = s;
    ioloop_timer_init(&s->retry, try_connect, s);
    if (!s->listens) {
        try_connect(s);
        return 0;
    }
    s->listen.fn = accept_peer;
    s->listen.opaque = s;
    return ioloop_fd_add(n->loop, &s->listen, EPOLLIN, e);
}

static void socket_close(struct net *n)
{
    struct net_socket *s = of(n);
    close_peer(s);
    if (s->retry.fn)
        ioloop_timer_cancel(n->loop, &s->retry);
    if (s->listen.fd >= 0) {
        ioloop_fd_remove(n->loop, &s->listen);
        close(s->listen.fd);
    }
    free(s->in);
    free(s->out);
}

static const struct net_ops socket_ops = {.attach = socket_attach,
                                          .send = socket_send,
                                          .flush = socket_flush,
                                          .resume = socket_resume,
                                          .close = socket_close};

/* "host:port", "[v6]:port", ":port". */
static int resolve(struct net_socket *s, const char *what, struct err *e)
{
    char host[sizeof s->name];
    char *port = strrchr(strcpy(host, s->name), ':'), *name = host;
    if (!port)
        return err_set(e, -EINVAL, "network socket: %s=%s has no port: say %s=host:port", what, s->name, what);
    *port++ = 0;
    size_t len = strlen(name);
    if (len >= 2 && name[0] == '[' && name[len - 1] == ']') {
        name[len - 1] = 0;
        name++;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = s->listens ? AI_PASSIVE : 0}, *found;
    hints.ai_family = *name ? AF_UNSPEC : AF_INET;
    int rc = getaddrinfo(*name ? name : NULL, port, &hints, &found);
    if (rc)
        return err_set(e, -EINVAL, "network socket: %s=%s: %s", what, s->name, gai_strerror(rc));
    memcpy(&s->addr, found->ai_addr, found->ai_addrlen);
    s->addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int start_listening(struct net_socket *s, struct err *e)
{
    int on = 1;
    s->listen.fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->listen.fd >= 0)
        setsockopt(s->listen.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (s->listen.fd >= 0 && !bind(s->listen.fd, (struct sockaddr *)&s->addr, s->addr_len) && !listen(s->listen.fd, 8))
        return 0;
    return err_set(e, -errno, "network socket: cannot listen at %s: %s; choose another port", s->name, strerror(errno));
}

int net_socket_open(const struct net_config *c, struct net **out, struct err *e)
{
    if (!c->listen == !c->connect)
        return err_set(e, -EINVAL, "network socket: say either listen=[host]:port or connect=host:port");
    struct net_socket *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, -ENOMEM, "network socket: no memory");
    s->n.ops = &socket_ops;
    s->listens = c->listen != NULL;
    s->listen.fd = s->io.fd = -1;
    snprintf(s->name, sizeof s->name, "%s", c->listen ? c->listen : c->connect);
    s->in = malloc(IN_BYTES);
    s->out = malloc(OUT_BYTES);
    int rc = s->in && s->out ? resolve(s, s->listens ? "listen" : "connect", e)
                             : err_set(e, -ENOMEM, "network socket: no memory");
    if (!rc && s->listens)
        rc = start_listening(s, e);
    if (rc) {
        free(s->in);
        free(s->out);
        free(s);
        return rc;
    }
    *out = &s->n;
    return 0;
}
