/* Streams and many connections at once, between a guest and its host. Static, so that a guest needs nothing else.
 *
 * netload serve PORT: for ever.
 * netload send HOST PORT MIB: a stream to a server, which compares every byte with what it should be, and says so.
 * netload receive HOST PORT MIB: a stream from a server, compared here.
 * netload storm HOST PORT N BYTES: N connections that are all open at once; only when the server has greeted each of
 * them does any of them send, all at the same time, BYTES that must come back. netload greet HOST PORT N: N connections
 * open at once, whose server (sshd) greets each. netload stamp: standard input to standard output, with the host's
 * clock in seconds before each line.
 *
 * A client's first bytes are a struct head. A stream's bytes follow from its seed, so both ends know them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATTERN   65521u /* bytes, a prime */
#define PIECE     (64u << 10)
#define EVENTS    64
#define GIVE_UP_S 600 /* without any progress */

enum op { OP_SINK = 1, OP_SOURCE, OP_ECHO };

struct head {
    uint32_t op, seed;
    uint64_t bytes;
};

static uint8_t pattern[PATTERN + PIECE];

static void make_pattern(void)
{
    uint64_t x = 88172645463325252;
    for (unsigned i = 0; i < sizeof pattern; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pattern[i] = i < PATTERN ? (uint8_t)x : pattern[i - PATTERN];
    }
}

/* Bytes from `off` on of the stream with that seed; as many as PIECE. */
static const uint8_t *stream(uint32_t seed, uint64_t off)
{
    return pattern + (off + seed * 7919ull) % PATTERN;
}

static size_t at_most(uint64_t left)
{
    return left < PIECE ? (size_t)left : PIECE;
}

/* ---- one stream, blocking ---- */

static struct sockaddr_in address(const char *host, const char *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        fprintf(stderr, "netload: %s is no address\n", host);
        exit(2);
    }
    return a;
}

static bool write_all(int fd, const void *from, size_t len)
{
    const uint8_t *p = from;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool send_stream(int fd, uint32_t seed, uint64_t bytes)
{
    for (uint64_t off = 0; off < bytes; off += at_most(bytes - off))
        if (!write_all(fd, stream(seed, off), at_most(bytes - off)))
            return false;
    return true;
}

static uint64_t receive_stream(int fd, uint32_t seed, uint64_t bytes)
{
    static uint8_t piece[PIECE];
    uint64_t off = 0;
    while (off < bytes) {
        ssize_t n = read(fd, piece, at_most(bytes - off));
        if (n <= 0 || memcmp(piece, stream(seed, off), (size_t)n) != 0)
            break;
        off += (uint64_t)n;
    }
    return off;
}

static int transfer(enum op op, char **arg)
{
    struct sockaddr_in a = address(arg[0], arg[1]);
    struct head h = {.op = op, .seed = (uint32_t)time(NULL), .bytes = strtoull(arg[2], NULL, 0) << 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    uint64_t good = 0;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) || read(fd, &(char){0}, 1) != 1 || !write_all(fd, &h, sizeof h)) {
        perror("netload");
        return 1;
    }
    if (op == OP_SOURCE)
        good = receive_stream(fd, h.seed, h.bytes);
    else if (!send_stream(fd, h.seed, h.bytes) || recv(fd, &good, sizeof good, MSG_WAITALL) != sizeof good)
        good = 0;
    printf("netload: %llu of %llu bytes are right\n", (unsigned long long)good, (unsigned long long)h.bytes);
    return good == h.bytes ? 0 : 1;
}

/* ---- the server ---- */

struct conn {
    int fd;
    bool ended; /* what was to be said has been said */
    size_t has;
    struct head h;
    uint64_t done, good; /* bytes received or sent; received and right */
    size_t held, given;  /* of `piece`: to be echoed */
    uint8_t *piece;
};

static void conn_close(struct conn *c)
{
    close(c->fd);
    free(c->piece);
    free(c);
}

/* Each returns what read() or write() did: 0 ends the connection, -1 with EAGAIN waits. */
static ssize_t take_head(struct conn *c)
{
    ssize_t n = read(c->fd, (uint8_t *)&c->h + c->has, sizeof c->h - c->has);
    c->has += n > 0 ? (size_t)n : 0;
    return n;
}

static ssize_t sink(struct conn *c)
{
    if (c->done == c->h.bytes) {
        c->ended = true;
        return write(c->fd, &c->good, sizeof c->good);
    }
    ssize_t n = read(c->fd, c->piece, at_most(c->h.bytes - c->done));
    if (n > 0 && c->good == c->done && !memcmp(c->piece, stream(c->h.seed, c->done), (size_t)n))
        c->good += (uint64_t)n;
    c->done += n > 0 ? (uint64_t)n : 0;
    return n;
}

static ssize_t source(struct conn *c)
{
    ssize_t n = write(c->fd, stream(c->h.seed, c->done), at_most(c->h.bytes - c->done));
    c->done += n > 0 ? (uint64_t)n : 0;
    c->ended = c->done == c->h.bytes;
    return n;
}

static ssize_t echo(struct conn *c)
{
    ssize_t n;
    if (c->given == c->held) {
        n = read(c->fd, c->piece, PIECE);
        c->held = n > 0 ? (size_t)n : 0;
        c->given = 0;
        return n;
    }
    n = write(c->fd, c->piece + c->given, c->held - c->given);
    c->given += n > 0 ? (size_t)n : 0;
    return n;
}

static ssize_t step(struct conn *c)
{
    if (c->has < sizeof c->h)
        return take_head(c);
    if (c->ended)
        return read(c->fd, c->piece, PIECE); /* until the client closes */
    if (c->h.op == OP_SINK)
        return sink(c);
    return c->h.op == OP_SOURCE ? source(c) : echo(c);
}

static bool would_write(const struct conn *c)
{
    if (c->has < sizeof c->h || c->ended)
        return false;
    return c->h.op == OP_SOURCE || (c->h.op == OP_SINK && c->done == c->h.bytes) || c->given < c->held;
}

/* At most so many steps that others get their turn. */
static void serve_conn(int ep, struct conn *c)
{
    ssize_t n = 1;
    for (unsigned i = 0; i < 16 && n > 0; i++)
        n = step(c);
    if (!n || (n < 0 && errno != EAGAIN)) {
        conn_close(c);
        return;
    }
    struct epoll_event ev = {.events = would_write(c) ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static void greet_new(int ep, int listener)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct conn *c = calloc(1, sizeof *c);
        uint8_t *piece = malloc(PIECE);
        if (!c || !piece || write(fd, "", 1) != 1) {
            close(fd);
            free(c);
            free(piece);
            continue;
        }
        c->fd = fd;
        c->piece = piece;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    }
}

static int serve(const char *port)
{
    struct sockaddr_in a = address("0.0.0.0", port);
    int on = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, event[EVENTS];
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 4096) || epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev)) {
        perror("netload: serve");
        return 1;
    }
    printf("netload: serving\n");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, event, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (event[i].data.ptr)
                serve_conn(ep, event[i].data.ptr);
            else
                greet_new(ep, l);
    }
}

/* ---- many clients ---- */

struct client {
    int fd;
    bool greeted;
    uint32_t seed;
    uint64_t sent, received; /* with the head */
};

struct storm {
    int ep;
    unsigned n, window, opened, greeted, finished;
    struct sockaddr_in to;
    uint64_t bytes; /* 0: the greeting is all */
    struct client *c;
};

static bool broken(const struct storm *s, const struct client *c, const char *what)
{
    fprintf(stderr, "netload: connection %u: %s: %s; %u of %u greeted, %u done\n", (unsigned)(c - s->c), what,
            strerror(errno), s->greeted, s->n, s->finished);
    return false;
}

static void watch(const struct storm *s, struct client *c, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};
    epoll_ctl(s->ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static bool open_more(struct storm *s)
{
    while (s->opened < s->n && s->opened - s->greeted < s->window) {
        struct client *c = &s->c[s->opened];
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .seed = s->opened++ * 31 + 1};
        if (connect(c->fd, (const struct sockaddr *)&s->to, sizeof s->to) && errno != EINPROGRESS)
            return broken(s, c, "connect");
        if (epoll_ctl(s->ep, EPOLL_CTL_ADD, c->fd, &ev))
            return broken(s, c, "epoll");
    }
    return true;
}

static bool take_greeting(struct storm *s, struct client *c)
{
    char line[256];
    errno = 0;
    if (read(c->fd, line, s->bytes ? 1 : sizeof line) <= 0)
        return errno == EAGAIN || broken(s, c, "no greeting");
    c->greeted = true;
    s->greeted++;
    watch(s, c, 0);
    return open_more(s);
}

static bool give(struct storm *s, struct client *c)
{
    uint8_t buf[sizeof(struct head) + PIECE];
    struct head h = {.op = OP_ECHO, .seed = c->seed, .bytes = s->bytes};
    uint64_t whole = sizeof h + s->bytes;
    memcpy(buf, &h, sizeof h);
    memcpy(buf + sizeof h, stream(c->seed, 0), s->bytes);
    ssize_t n = write(c->fd, buf + c->sent, whole - c->sent);
    if (n < 0)
        return errno == EAGAIN || broken(s, c, "cannot send");
    c->sent += (uint64_t)n;
    if (c->sent == whole)
        watch(s, c, EPOLLIN);
    return true;
}

static bool get_back(struct storm *s, struct client *c)
{
    uint8_t buf[PIECE];
    errno = 0;
    ssize_t n = read(c->fd, buf, at_most(s->bytes - c->received));
    if (n <= 0)
        return errno == EAGAIN || broken(s, c, "ended early");
    if (memcmp(buf, stream(c->seed, c->received), (size_t)n) != 0)
        return broken(s, c, "another byte came back");
    c->received += (uint64_t)n;
    if (c->received == s->bytes) {
        s->finished++;
        watch(s, c, 0);
    }
    return true;
}

static bool client_event(struct storm *s, struct client *c)
{
    if (!c->greeted)
        return take_greeting(s, c);
    return c->sent < sizeof(struct head) + s->bytes ? give(s, c) : get_back(s, c);
}

static bool run_until(struct storm *s, const unsigned *count)
{
    struct epoll_event event[EVENTS];
    while (*count < s->n) {
        int n = epoll_wait(s->ep, event, EVENTS, GIVE_UP_S * 1000);
        if (!n) {
            fprintf(stderr, "netload: nothing happens any more: %u of %u greeted, %u done\n", s->greeted, s->n,
                    s->finished);
            return false;
        }
        for (int i = 0; i < n; i++)
            if (!client_event(s, event[i].data.ptr))
                return false;
    }
    return true;
}

static int storm(const char *host, const char *port, unsigned n, uint64_t bytes, unsigned window)
{
    struct storm s = {.n = n, .window = window, .bytes = bytes, .to = address(host, port), .ep = epoll_create1(0)};
    s.c = calloc(n, sizeof *s.c);
    if (!s.c || bytes > PIECE || !open_more(&s) || !run_until(&s, &s.greeted))
        return 1;
    printf("netload: %u connections open at once\n", s.greeted);
    if (!bytes)
        return 0;
    for (unsigned i = 0; i < n; i++)
        watch(&s, &s.c[i], EPOLLOUT);
    if (!run_until(&s, &s.finished))
        return 1;
    printf("netload: %u times %llu bytes went and came back\n", n, (unsigned long long)bytes);
    return 0;
}

/* ---- the host's clock ---- */

static int stamp(void)
{
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        printf("%lld.%06ld %s", (long long)t.tv_sec, t.tv_nsec / 1000, line);
        fflush(stdout);
    }
    return 0;
}

static void raise_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    raise_limit();
    make_pattern();
    if (argc == 3 && !strcmp(what, "serve"))
        return serve(argv[2]);
    if (argc == 5 && !strcmp(what, "send"))
        return transfer(OP_SINK, argv + 2);
    if (argc == 5 && !strcmp(what, "receive"))
        return transfer(OP_SOURCE, argv + 2);
    if ((argc == 6 || argc == 7) && !strcmp(what, "storm"))
        return storm(argv[2], argv[3], (unsigned)atoi(argv[4]), strtoull(argv[5], NULL, 0),
                     (unsigned)atoi(argv[argc - 1 == 6 ? 6 : 4]));
    if (argc == 6 && !strcmp(what, "greet"))
        return storm(argv[2], argv[3], (unsigned)atoi(argv[4]), 0, (unsigned)atoi(argv[5]));
    if (argc == 2 && !strcmp(what, "stamp"))
        return stamp();
    fprintf(stderr, "usage: netload serve PORT | send|receive HOST PORT MIB | storm HOST PORT N BYTES [WINDOW] |"
                    " greet HOST PORT N WINDOW | stamp\n");
    return 2;
}
