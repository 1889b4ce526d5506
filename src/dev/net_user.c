/* User mode: the guest's frames end in libslirp, which speaks to the world through sockets of this process.
 *
 * libslirp is asked for its descriptors (fill) and told about them (poll) in pairs, poll first, each walking all of its
 * sockets. A pass is one such pair; it is made once for any number of events and frames, at the end of the loop's turn,
 * and not sooner than the last one took.
 *
 * What it is told is only what it asked for. It reads a socket for an error it did not ask about even if its buffer is
 * full, and then ends the process (4.7: soread()). So a hang-up is told as readable or, if it did not want to read, as
 * writable.
 */
#include "dev/net_gro.h"
#include "dev/net_user_priv.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#define QUEUE_HIGH   (1u << 20)  /* bytes that wait for the guest: nothing more is read from sockets */
#define QUEUE_MAX    (16u << 20) /* what is more is dropped */
#define SOCKETS_MAX  32768u
#define SPARE_FDS    256u                /* for the rest of the process */
#define CHEAP_PASS   UINT64_C(20000)     /* ns; one that took less is made whenever it is due */
#define ACCEPT_PAUSE UINT64_C(100000000) /* ns, after a connection could not be accepted */
#define NS_PER_MS    UINT64_C(1000000)
#define LISTEN_QUEUE 1024

struct net_user;

struct user_fd {
    struct ioloop_fd io;
    struct net_user *u;
    uint32_t gen;          /* of the fill that named it last */
    uint32_t want;         /* SLIRP_POLL_*, as of then */
    uint32_t ready, armed; /* EPOLL* */
    bool known, listener;  /* of this socket; unknown after it was closed */
    bool listed;           /* in u->live */
};

struct user_timer {
    struct ioloop_timer t;
    struct net_user *u;
    SlirpTimerId id;
    void *opaque;
};

struct waiting {
    struct waiting *next;
    struct net_hdr hdr;
    size_t len;
    uint8_t frame[];
};

struct net_user {
    struct net n;
    Slirp *slirp;
    struct user_setup *setup; /* (c) */
    struct user_filter filter;
    uint8_t *scratch;    /* a frame from the guest */
    struct user_fd **fd; /* by descriptor */
    int fds;             /* how long `fd` is */
    struct user_fd **live;
    int lives, live_max;          /* those that are armed, and some that were */
    unsigned sockets, socket_max; /* how many are registered, and may be */
    uint32_t gen;
    struct ioloop_bell pass;
    struct ioloop_timer due;
    uint64_t not_before;      /* host ns */
    uint64_t no_accept_until; /* host ns */
    bool accept_told, accept_done;
    struct net_gro *gro; /* (c) */
    struct waiting *first, **last;
    size_t waits; /* bytes */
};

static struct net_user *of(struct net *n)
{
    return container_of(n, struct net_user, n);
}

static void want_pass(struct net_user *u)
{
    ioloop_ring(u->n.loop, &u->pass);
}

/* ---- to the guest ---- */

static bool give(struct net_user *u, const struct net_hdr *hdr, const void *frame, size_t len)
{
    struct iovec iov = {(void *)frame, len};
    return net_deliver(&u->n, hdr, &iov, 1, len);
}

static void wait_for_room(struct net_user *u, const struct net_hdr *hdr, const void *frame, size_t len)
{
    struct waiting *w = u->waits < QUEUE_MAX ? malloc(sizeof *w + len) : NULL;
    if (!w) {
        net_drop(&u->n);
        return;
    }
    w->next = NULL;
    w->hdr = *hdr;
    w->len = len;
    memcpy(w->frame, frame, len);
    *u->last = w;
    u->last = &w->next;
    u->waits += len;
}

static void to_guest(void *opaque, const struct net_hdr *hdr, const uint8_t *frame, size_t len)
{
    struct net_user *u = opaque;
    if (u->first || !give(u, hdr, frame, len))
        wait_for_room(u, hdr, frame, len);
}

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
    static const struct net_hdr right = {.flags = NET_HDR_DATA_VALID};
    struct net_user *u = opaque;
    if ((u->n.peer.offloads & (NET_CSUM | NET_TSO4)) == (NET_CSUM | NET_TSO4))
        net_gro_add(u->gro, frame, len);
    else
        to_guest(u, &right, frame, len);
    return (ssize_t)len;
}

static void drop_first(struct net_user *u)
{
    struct waiting *w = u->first;
    u->first = w->next;
    if (!u->first)
        u->last = &u->first;
    u->waits -= w->len;
    free(w);
}

static bool crowded(const struct net_user *u)
{
    return u->waits >= QUEUE_HIGH;
}

static void user_resume(struct net *n)
{
    struct net_user *u = of(n);
    bool was = crowded(u);
    while (u->first && give(u, &u->first->hdr, u->first->frame, u->first->len))
        drop_first(u);
    if (was && !crowded(u))
        want_pass(u);
}

/* ---- from the guest ---- */

static void user_send(struct net *n, const struct net_hdr *hdr, const struct iovec *frame, unsigned iovs, size_t len)
{
    struct net_user *u = of(n);
    net_gather(frame, iovs, u->scratch, len);
    u->filter.full = u->sockets >= u->socket_max;
    if ((hdr && !net_complete_whole(hdr, u->scratch, len)) ||
        !net_user_filter(&u->filter, u->scratch, &len, clock_host_ns())) {
        net_drop(n);
        return;
    }
    if (!len)
        return;
    slirp_input(u->slirp, u->scratch, (int)len);
    want_pass(u);
}

/* Answers to what the guest has sent go out together. */
static void user_flush(struct net *n)
{
    net_gro_flush(of(n)->gro);
}

/* ---- descriptors ---- */

static void fd_event(void *opaque, uint32_t events)
{
    struct user_fd *f = opaque;
    f->ready |= events;
    want_pass(f->u);
}

static bool grow(struct net_user *u, int fd)
{
    int size = u->fds ? u->fds : 64;
    while (size <= fd)
        size *= 2;
    struct user_fd **more = realloc(u->fd, (size_t)size * sizeof *more);
    if (!more)
        return false;
    memset(more + u->fds, 0, (size_t)(size - u->fds) * sizeof *more);
    u->fd = more;
    u->fds = size;
    return true;
}

/* Whether a new entry fits into `live`, too. */
static bool grow_live(struct net_user *u)
{
    if (u->lives < u->live_max)
        return true;
    int size = u->live_max ? u->live_max * 2 : 64;
    struct user_fd **more = realloc(u->live, (size_t)size * sizeof *more);
    if (!more)
        return false;
    u->live = more;
    u->live_max = size;
    return true;
}

static struct user_fd *fd_entry(struct net_user *u, int fd)
{
    if (fd < 0 || (fd >= u->fds && !grow(u, fd)))
        return NULL;
    if (!u->fd[fd] && (u->fd[fd] = calloc(1, sizeof *u->fd[fd]))) {
        u->fd[fd]->io = (struct ioloop_fd){fd_event, u->fd[fd], fd};
        u->fd[fd]->u = u;
    }
    return u->fd[fd];
}

static void disarm(struct user_fd *f)
{
    if (f->armed)
        ioloop_fd_events(f->u->n.loop, &f->io, 0);
    f->armed = f->ready = 0;
}

/* libslirp listens for one connection at a time; a thousand may come at once. */
static void look_at(struct user_fd *f)
{
    int on = 0;
    socklen_t len = sizeof on;
    f->known = true;
    f->listener = !getsockopt(f->io.fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
    if (f->listener)
        listen(f->io.fd, LISTEN_QUEUE);
}

static uint32_t epoll_of(const struct net_user *u, const struct user_fd *f)
{
    bool read = f->want & SLIRP_POLL_IN && !crowded(u);
    if (f->listener && (u->sockets >= u->socket_max || u->no_accept_until))
        read = false;
    return (read ? EPOLLIN : 0u) | (read && f->want & SLIRP_POLL_PRI ? EPOLLPRI : 0u) |
           (f->want & SLIRP_POLL_OUT ? EPOLLOUT : 0u);
}

static int add_poll(int fd, int events, void *opaque)
{
    struct net_user *u = opaque;
    struct user_fd *f = fd_entry(u, fd);
    if (!f || (!f->listed && !grow_live(u)))
        return -1;
    if (!f->known)
        look_at(f);
    f->gen = u->gen;
    f->want = (uint32_t)events;
    uint32_t arm = epoll_of(u, f);
    if (arm != f->armed)
        ioloop_fd_events(u->n.loop, &f->io, arm);
    f->armed = arm;
    if (!f->listed)
        u->live[u->lives++] = f;
    f->listed = true;
    return fd;
}

/* Those which libslirp did not name are none of its business now. */
static void sweep(struct net_user *u)
{
    int kept = 0;
    for (int i = 0; i < u->lives; i++) {
        struct user_fd *f = u->live[i];
        f->listed = f->gen == u->gen;
        if (f->listed)
            u->live[kept++] = f;
        else
            disarm(f);
    }
    u->lives = kept;
}

static int told(struct user_fd *f)
{
    const uint32_t broken = EPOLLERR | EPOLLHUP;
    bool read = f->want & SLIRP_POLL_IN;
    int r = 0;
    if (read && f->ready & (EPOLLIN | broken))
        r |= SLIRP_POLL_IN;
    if (read && f->ready & EPOLLPRI && f->want & SLIRP_POLL_PRI)
        r |= SLIRP_POLL_PRI;
    if (f->want & SLIRP_POLL_OUT && f->ready & (EPOLLOUT | (read ? 0 : broken)))
        r |= SLIRP_POLL_OUT;
    return r;
}

static int get_revents(int fd, void *opaque)
{
    struct net_user *u = opaque;
    struct user_fd *f = u->fd[fd];
    int r = told(f);
    f->ready = 0;
    if (crowded(u) && !f->listener)
        r &= SLIRP_POLL_OUT; /* it is level-triggered: we are told again */
    if (f->listener && r)
        u->accept_told = true;
    return r;
}

static void register_fd(int fd, void *opaque)
{
    struct net_user *u = opaque;
    struct user_fd *f = fd_entry(u, fd);
    int off = 0;
    u->sockets++;
    u->accept_done = true;
    /* An ICMPv6 error of a type it does not know ends the process (4.7: icmp6_forward_error()). Fails for others. */
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &off, sizeof off);
    if (!f)
        return;
    disarm(f);
    f->known = false;
}

/* It also unregisters what it never registered, and -1. */
static void unregister_fd(int fd, void *opaque)
{
    struct net_user *u = opaque;
    if (u->sockets)
        u->sockets--;
    if (fd < 0 || fd >= u->fds || !u->fd[fd])
        return;
    disarm(u->fd[fd]);
    u->fd[fd]->known = false;
}

/* ---- a pass ---- */

/* A connection that can't be accepted for want of descriptors stays, and would be told for ever. */
static void pause_accepting(struct net_user *u, uint64_t now)
{
    if (u->no_accept_until && now >= u->no_accept_until)
        u->no_accept_until = 0;
    if (u->accept_told && !u->accept_done)
        u->no_accept_until = now + ACCEPT_PAUSE;
}

static void run_pass(struct net_user *u)
{
    uint64_t began = clock_host_ns();
    uint32_t timeout_ms = UINT32_MAX;
    u->accept_told = u->accept_done = false;
    slirp_pollfds_poll(u->slirp, 0, get_revents, u);
    pause_accepting(u, began);
    u->gen++;
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    sweep(u);
    net_gro_flush(u->gro);
    uint64_t now = clock_host_ns(), at = now + timeout_ms * NS_PER_MS;
    if (u->no_accept_until)
        at = min_u64(at, u->no_accept_until);
    ioloop_timer_arm(u->n.loop, &u->due, at);
    u->not_before = now - began > CHEAP_PASS ? now + (now - began) : 0;
}

static void pass_bell(void *opaque)
{
    struct net_user *u = opaque;
    if (u->not_before && clock_host_ns() < u->not_before)
        ioloop_timer_arm(u->n.loop, &u->due, u->not_before);
    else
        run_pass(u);
}

static void pass_due(void *opaque)
{
    run_pass(opaque);
}

/* ---- what libslirp asks for ---- */

static void guest_error(const char *msg, void *opaque)
{
    struct net_user *u = opaque;
    net_drop(&u->n);
}

static int64_t clock_ns(void *opaque)
{
    return (int64_t)clock_host_ns();
}

static void timer_fired(void *opaque)
{
    struct user_timer *t = opaque;
    slirp_handle_timer(t->u->slirp, t->id, t->opaque);
    net_gro_flush(t->u->gro);
    want_pass(t->u);
}

/* Without memory there are no router advertisements. */
static void *timer_new(SlirpTimerId id, void *timer_opaque, void *opaque)
{
    struct net_user *u = opaque;
    struct user_timer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->u = u;
    t->id = id;
    t->opaque = timer_opaque;
    ioloop_timer_init(&t->t, timer_fired, t);
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct net_user *u = opaque;
    struct user_timer *t = timer;
    if (t)
        ioloop_timer_cancel(u->n.loop, &t->t);
    free(t);
}

static void timer_mod(void *timer, int64_t ms, void *opaque)
{
    struct net_user *u = opaque;
    struct user_timer *t = timer;
    if (t)
        ioloop_timer_arm(u->n.loop, &t->t, (uint64_t)ms * NS_PER_MS);
}

static void notify(void *opaque)
{
    want_pass(opaque);
}

/* A timer may send at once. */
static void init_completed(Slirp *slirp, void *opaque)
{
    struct net_user *u = opaque;
    u->slirp = slirp;
}

static const SlirpCb callbacks = {.send_packet = send_packet,
                                  .guest_error = guest_error,
                                  .clock_get_ns = clock_ns,
                                  .timer_free = timer_free,
                                  .timer_mod = timer_mod,
                                  .register_poll_fd = register_fd,
                                  .unregister_poll_fd = unregister_fd,
                                  .notify = notify,
                                  .init_completed = init_completed,
                                  .timer_new_opaque = timer_new};

/* ---- lifecycle ---- */

static const char *forward_remedy(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "another program has it (ss -lntup names it); choose another host port";
    case EACCES:
        return "ports below 1024 are root's; choose a higher one";
    case EADDRNOTAVAIL:
        return "this host has no such address";
    default:
        return "choose another address or port";
    }
}

static int forward(struct net_user *u, unsigned i, struct err *e)
{
    const struct user_forward *f = &u->setup->forward[i];
    int flags = (f->udp ? SLIRP_HOSTFWD_UDP : 0) | (f->host.ss_family == AF_INET6 ? SLIRP_HOSTFWD_V6ONLY : 0);
    if (!slirp_add_hostxfwd(u->slirp, (const struct sockaddr *)&f->host, f->host_len,
                            (const struct sockaddr *)&f->guest, f->guest_len, flags))
        return 0;
    int error = errno;
    return err_set(e, -error, "network %s: hostfwd=%s: host port %u: %s: %s", u->n.id, u->setup->text[i], f->port,
                   strerror(error), forward_remedy(error));
}

static int user_attach(struct net *n, struct err *e)
{
    struct net_user *u = of(n);
    ioloop_bell_init(&u->pass, pass_bell, u);
    ioloop_timer_init(&u->due, pass_due, u);
    u->slirp = slirp_new(&u->setup->slirp, &callbacks, u);
    if (!u->slirp)
        return err_set(e, -EINVAL, "network %s: libslirp %s refuses its configuration", n->id, slirp_version_string());
    for (unsigned i = 0; i < u->setup->forwards; i++) {
        int rc = forward(u, i, e);
        if (rc)
            return rc;
    }
    run_pass(u);
    return 0;
}

static void free_parts(struct net_user *u)
{
    for (int i = 0; i < u->fds; i++)
        free(u->fd[i]);
    while (u->first)
        drop_first(u);
    free(u->fd);
    free(u->live);
    net_user_frags_destroy(u->filter.frags);
    net_gro_destroy(u->gro);
    free(u->scratch);
    free(u->setup);
}

static void user_close(struct net *n)
{
    struct net_user *u = of(n);
    if (u->pass.fn) {
        if (u->slirp)
            slirp_cleanup(u->slirp);
        ioloop_timer_cancel(n->loop, &u->due);
        u->gen++;
        sweep(u);
        ioloop_bell_remove(n->loop, &u->pass);
    }
    free_parts(u);
}

static const struct net_ops user_ops = {
    .attach = user_attach, .send = user_send, .flush = user_flush, .resume = user_resume, .close = user_close};

/* Each connection takes a descriptor, and the soft limit is often 1024. */
static unsigned raise_fd_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return SOCKETS_MAX;
    rlim_t had = r.rlim_cur;
    r.rlim_cur = r.rlim_max;
    if (had < r.rlim_max && setrlimit(RLIMIT_NOFILE, &r))
        r.rlim_cur = had;
    return (unsigned)min_u64(SOCKETS_MAX, r.rlim_cur > 2 * SPARE_FDS ? r.rlim_cur - SPARE_FDS : r.rlim_cur / 2);
}

static int check_tftp(const char *dir, struct err *e)
{
    struct stat st;
    if (!dir || (!stat(dir, &st) && S_ISDIR(st.st_mode)))
        return 0;
    return err_set(e, -ENOTDIR, "network user: tftp=%s is no directory: name the one with the guest's files", dir);
}

int net_user_open(const struct net_config *c, struct net **out, struct err *e)
{
    struct net_user *u = calloc(1, sizeof *u);
    if (!u)
        return err_set(e, -ENOMEM, "network user: no memory");
    u->n.ops = &user_ops;
    u->n.native = NET_CSUM | NET_TSO4 | NET_ECN;
    u->last = &u->first;
    u->setup = calloc(1, sizeof *u->setup);
    u->scratch = malloc(NET_FRAME_MAX);
    u->gro = net_gro_create(to_guest, u);
    u->filter = (struct user_filter){.restricted = c->restricted, .frags = net_user_frags_create()};
    int rc = u->setup && u->scratch && u->gro && u->filter.frags ? net_user_setup(c, u->setup, e)
                                                                 : err_set(e, -ENOMEM, "network user: no memory");
    if (!rc)
        rc = check_tftp(c->tftp, e);
    if (rc) {
        free_parts(u);
        free(u);
        return rc;
    }
    u->socket_max = raise_fd_limit();
    *out = &u->n;
    return 0;
}
