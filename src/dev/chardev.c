#include "dev/chardev_priv.h"

#include "base/bits.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CTRL_A         1
#define PTY_POLL_MS    200        /* how often to look whether somebody opened the pty: no event tells */
#define GIVE_UP_NS     NS_PER_SEC /* at the end, for a peer that reads nothing */
#define LINGER_NS      (CHARDEV_LINGER_MS * UINT64_C(1000000))
#define WRITE_CHUNK    4096u              /* PIPE_BUF: POLLOUT promises that much without blocking */
#define ROOM_THRESHOLD (CHARDEV_RING / 4) /* hysteresis: don't wake the guest for each freed byte */

static void wake(struct chardev *c)
{
    uint64_t one = 1;
    ssize_t n = write(c->wake_fd, &one, sizeof one);
    (void)n; /* only EAGAIN is possible: it is awake then */
}

/* ---- any thread ---- */

/* Under the lock: append `n` bytes, for which there is room. Whether the thread has to look. */
static bool ring_append(struct chardev *c, const uint8_t *buf, size_t n)
{
    size_t at = (c->head + c->n) % CHARDEV_RING, first = min_u64(n, CHARDEV_RING - at);
    bool was_low = c->n < CHARDEV_RING / 2, was_asleep = c->asleep;
    memcpy(c->ring + at, buf, first);
    memcpy(c->ring, buf + first, n - first);
    c->n += n;
    c->asleep = false;
    return was_asleep || (was_low && c->n >= CHARDEV_RING / 2);
}

size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t n)
{
    if (c->kind == CHARDEV_NULL || !n)
        return n;
    pthread_mutex_lock(&c->lock);
    size_t room = CHARDEV_RING - c->n, taken = min_u64(n, room);
    bool need_wake = taken && ring_append(c, buf, taken);
    if (c->hurry)
        taken = n;
    c->refused |= taken < n;
    pthread_mutex_unlock(&c->lock);
    if (need_wake)
        wake(c);
    return taken;
}

void chardev_wait_room(struct chardev *c, int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_nsec + (ms < 0 ? 0 : (uint64_t)ms * 1000000);
    t.tv_sec += (time_t)(ns / NS_PER_SEC);
    t.tv_nsec = (long)(ns % NS_PER_SEC);
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    while (rc == 0 && c->n == CHARDEV_RING && !c->hurry)
        rc = ms < 0 ? pthread_cond_wait(&c->room, &c->lock) : pthread_cond_timedwait(&c->room, &c->lock, &t);
    pthread_mutex_unlock(&c->lock);
}

void chardev_input_ready(struct chardev *c)
{
    if (!atomic_load_explicit(&c->held, memory_order_acquire))
        return;
    atomic_store_explicit(&c->retry, true, memory_order_release);
    wake(c);
}

static void stop_waiting(struct chardev *c, bool discard)
{
    pthread_mutex_lock(&c->lock);
    c->hurry = true;
    c->discard |= discard;
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void chardev_hurry(struct chardev *c)
{
    stop_waiting(c, false);
}

void chardev_discard(struct chardev *c)
{
    stop_waiting(c, true);
}

/* ---- the I/O thread: output ---- */

/* Drop `n` bytes from the ring's head and tell whoever waits for room. */
static void ring_consume(struct chardev *c, size_t n)
{
    bool tell = false;
    pthread_mutex_lock(&c->lock);
    c->head = (c->head + n) % CHARDEV_RING;
    c->n -= n;
    if (CHARDEV_RING - c->n >= ROOM_THRESHOLD) {
        tell = c->refused;
        c->refused = false;
        pthread_cond_broadcast(&c->room);
    }
    pthread_mutex_unlock(&c->lock);
    if (tell && c->client.room)
        c->client.room(c->client.opaque);
}

static size_t ring_used(struct chardev *c)
{
    pthread_mutex_lock(&c->lock);
    size_t n = c->n;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void disconnect(struct chardev *c)
{
    c->connected = false;
    if (c->kind == CHARDEV_UNIX && c->in_fd >= 0) {
        close(c->in_fd);
        c->in_fd = c->out_fd = -1;
    }
}

/* The output is gone for good: say so once (a reader that left knows it), drop the rest. A pty or socket merely
 * lost its peer. */
static void output_broken(struct chardev *c, int error)
{
    if (c->kind == CHARDEV_PTY || c->kind == CHARDEV_UNIX) {
        disconnect(c);
        return;
    }
    if (c->notes && error != EPIPE)
        fprintf(c->notes, "hecaton: serial output lost: %s\n",
                error == EBADF ? "it is not open for writing" : strerror(error));
    c->connected = false;
}

/* Write what is contiguous at the ring's head. `head` and the bytes behind it change only here, so no lock is needed to
 * read them. Returns whether anything moved. */
static bool write_some(struct chardev *c)
{
    size_t n = min_u64(min_u64(ring_used(c), CHARDEV_RING - c->head), WRITE_CHUNK);
    ssize_t w = c->kind == CHARDEV_UNIX ? send(c->out_fd, c->ring + c->head, n, MSG_NOSIGNAL | MSG_DONTWAIT)
                                        : write(c->out_fd, c->ring + c->head, n);
    if (w < 0 && errno != EINTR && errno != EAGAIN)
        output_broken(c, errno);
    if (w > 0)
        ring_consume(c, (size_t)w);
    return w > 0;
}

/* ---- the I/O thread: input ---- */

static void put_text(struct chardev *c, const char *text)
{
    chardev_write(c, (const uint8_t *)text, strlen(text));
}

/* The key after Ctrl-A. Returns true if it is to go to the guest as it is. */
static bool escape_key(struct chardev *c, uint8_t key)
{
    switch (key) {
    case CTRL_A:
        return true;
    case 'x':
        chardev_hurry(c);
        vm_request(c->control, VM_REQ_EXIT, 0);
        break;
    case 'b':
        if (c->client.brk)
            c->client.brk(c->client.opaque);
        break;
    case 'c':
        put_text(c, "\r\n(there is no monitor; C-a h helps)\r\n");
        break;
    case 'h':
    case '?':
        put_text(c, "\r\nC-a h    this help\r\nC-a x    quit\r\nC-a b    send a break\r\nC-a C-a  send C-a\r\n");
        break;
    }
    return false;
}

/* Act on escapes and keep in c->in what is for the guest. */
static void filter_escapes(struct chardev *c, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t key = c->in[i];
        bool pass = c->escaped ? escape_key(c, key) : key != CTRL_A;
        c->escaped = !c->escaped && key == CTRL_A;
        if (pass)
            c->in[kept++] = key;
    }
    c->in_n = kept;
}

static void input_offer(struct chardev *c)
{
    while (c->in_n) {
        /* held is set before the offer: a client that drains itself right after refusing must see it. */
        atomic_store_explicit(&c->held, true, memory_order_seq_cst);
        size_t took = c->client.input ? c->client.input(c->client.opaque, c->in + c->in_at, c->in_n) : c->in_n;
        c->in_at += took;
        c->in_n -= took;
        if (!took && !atomic_exchange_explicit(&c->retry, false, memory_order_acquire))
            return;
    }
    atomic_store_explicit(&c->held, false, memory_order_release);
}

static void input_read(struct chardev *c)
{
    ssize_t n = read(c->in_fd, c->in, sizeof c->in);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        if (c->kind == CHARDEV_STDIO)
            c->in_fd = -1; /* end of input, or not ours to read: output goes on */
        else
            disconnect(c);
        return;
    }
    c->in_at = 0;
    c->in_n = (size_t)n;
    if (c->tty.on)
        filter_escapes(c, (size_t)n);
    input_offer(c);
}

/* ---- the I/O thread: connection and loop ---- */

static void unix_accept(struct chardev *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    c->in_fd = c->out_fd = fd;
    c->connected = true;
}

static void pty_look(struct chardev *c)
{
    struct pollfd p = {.fd = c->in_fd, .events = POLLIN};
    if (poll(&p, 1, 0) >= 0)
        c->connected = !(p.revents & POLLHUP);
}

/* What the thread should do with the ring now. */
struct out_plan {
    bool write, stop;
    int timeout_ms; /* how long to sleep at most, -1 without end */
};

/* Drop output nobody can get; gather for LINGER_NS after the first byte; then write until the ring is empty. `since` is
 * when the first byte was seen, 0 while the ring is empty. */
static struct out_plan plan_output(struct chardev *c, uint64_t *since)
{
    struct out_plan p = {.timeout_ms = -1};
    pthread_mutex_lock(&c->lock);
    size_t n = c->n;
    bool drop = !c->connected || c->discard;
    p.stop = c->stop;
    c->asleep = n == 0;
    pthread_mutex_unlock(&c->lock);
    if (n && drop) {
        ring_consume(c, n);
        *since = 0;
        p.timeout_ms = 0;
        return p;
    }
    if (!n) {
        *since = 0;
        return p;
    }
    uint64_t now = clock_host_ns();
    if (!*since)
        *since = now;
    p.write = p.stop || now - *since >= LINGER_NS || n >= CHARDEV_RING / 2;
    p.timeout_ms = p.write ? -1 : CHARDEV_LINGER_MS;
    return p;
}

static void handle_events(struct chardev *c, const struct pollfd p[4])
{
    uint64_t count;
    if (p[0].revents && read(c->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return;
    if (p[1].revents & POLLIN)
        input_read(c);
    else if (p[1].revents & (POLLHUP | POLLERR | POLLNVAL) && c->kind == CHARDEV_STDIO)
        c->in_fd = -1;
    else if (p[1].revents & (POLLHUP | POLLERR))
        disconnect(c);
    if (p[3].revents & POLLIN)
        unix_accept(c);
    if (c->in_n && atomic_exchange_explicit(&c->retry, false, memory_order_acquire))
        input_offer(c);
}

/* One round: sleep until something is to be done, do it. Returns whether output moved. */
static bool io_round(struct chardev *c, const struct out_plan *plan)
{
    bool may_read = c->connected && !c->in_n && !plan->stop;
    struct pollfd p[4] = {
        {.fd = c->wake_fd, .events = POLLIN},
        {.fd = may_read ? c->in_fd : -1, .events = POLLIN},
        {.fd = plan->write ? c->out_fd : -1, .events = POLLOUT},
        {.fd = c->kind == CHARDEV_UNIX && !c->connected ? c->listen_fd : -1, .events = POLLIN},
    };
    int timeout = plan->timeout_ms;
    if (c->kind == CHARDEV_PTY && !c->connected)
        timeout = timeout < 0 ? PTY_POLL_MS : timeout;
    if (plan->stop)
        timeout = PTY_POLL_MS;
    if (poll(p, 4, timeout) < 0)
        return false;
    handle_events(c, p);
    if (c->kind == CHARDEV_PTY && !c->connected)
        pty_look(c);
    return p[2].revents && c->connected && write_some(c);
}

/* While held input keeps us from polling in_fd, a peer that leaves is noticed by the next write. */
static void *io_thread(void *opaque)
{
    struct chardev *c = opaque;
    uint64_t since = 0, moved_at = 0;
    for (;;) {
        struct out_plan plan = plan_output(c, &since);
        if (plan.stop && ring_used(c) == 0)
            return NULL;
        uint64_t now = clock_host_ns();
        if (!plan.stop || !moved_at)
            moved_at = now;
        bool patient = c->kind == CHARDEV_STDIO || c->kind == CHARDEV_FILE;
        if (plan.stop && !patient && now - moved_at > GIVE_UP_NS)
            return NULL;
        if (io_round(c, &plan))
            moved_at = now;
    }
}

/* ---- lifecycle ---- */

int chardev_create(const struct chardev_config *cfg, struct chardev **out, struct err *e)
{
    struct chardev *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, -ENOMEM, "out of memory for a serial line");
    c->in_fd = c->out_fd = c->listen_fd = -1;
    c->control = cfg->control;
    c->notes = cfg->notes;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->room, &attr);
    pthread_condattr_destroy(&attr);
    c->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc =
        c->wake_fd < 0 ? err_set(e, -errno, "eventfd: %s", strerror(errno)) : chardev_open_backend(c, cfg->spec, e);
    if (rc < 0) {
        chardev_destroy(c);
        return rc;
    }
    *out = c;
    return 0;
}

/* The thread takes no signals: those are for cli/, and a blocked SIGPIPE or SIGTTIN makes the call fail instead. */
int chardev_attach(struct chardev *c, const struct chardev_client *client, struct err *e)
{
    c->client = *client;
    if (c->kind == CHARDEV_NULL)
        return 0;
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* how a sandbox tells of a refusal; blocked, it would end the process */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&c->thread, NULL, io_thread, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return err_set(e, -rc, "cannot start the serial I/O thread: %s", strerror(rc));
    c->started = true;
    pthread_setname_np(c->thread, "serial");
    return 0;
}

void chardev_destroy(struct chardev *c)
{
    if (!c)
        return;
    if (c->started) {
        pthread_mutex_lock(&c->lock);
        c->stop = true;
        pthread_mutex_unlock(&c->lock);
        wake(c);
        pthread_join(c->thread, NULL);
    }
    chardev_close_backend(c);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
