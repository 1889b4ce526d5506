/* User mode: connections both ways, many of them, and such as end badly. */
#include "net_guest.h"

static struct guest *open_with_forward(char *text, size_t size, unsigned *port, unsigned offloads)
{
    *port = free_port(SOCK_STREAM);
    snprintf(text, size, "tcp:127.0.0.1:%u-:%u", *port, GUEST_SSH);
    struct net_config c = {.hostfwd = {text}, .hostfwds = 1};
    return guest_open_with(&c, offloads);
}

static void forwarded(void **state)
{
    char text[64], back[5] = {0};
    unsigned port;
    struct guest *g = open_with_forward(text, sizeof text, &port, NET_CSUM);
    g->echo = true;
    int fd = dial(port);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    getsockname(fd, (struct sockaddr *)&a, &len);
    struct conn *c = &g->conn[ntohs(a.sin_port)];
    while (c->got < 5)
        step(g);
    assert_int_equal(recv(fd, back, 5, MSG_WAITALL), 5);
    assert_memory_equal(back, "hello", 5);
    close(fd);
    while (!c->closed)
        step(g);
    guest_close(g);
}

/* A thousand at once, with a soft limit that would not do. */
static void thousand(void **state)
{
    enum { N = 1000 };
    static int fd[N];
    struct rlimit r;
    char text[64];
    unsigned port, done = 0;
    getrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_max < 4 * N)
        skip();
    r.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &r);
    struct guest *g = open_with_forward(text, sizeof text, &port, NET_CSUM);
    getrlimit(RLIMIT_NOFILE, &r);
    assert_true(r.rlim_cur == r.rlim_max);
    g->echo = true;
    for (unsigned i = 0; i < N; i++) {
        fd[i] = dial(port);
        assert_int_equal(send(fd[i], &i, sizeof i, 0), sizeof i);
    }
    while (done < N) {
        step(g);
        unsigned from = get16(g->last + L4);
        if (get16(g->last + 12) == 0x0800 && g->last_len == DATA + 4 && g->conn[from].got == 4)
            done++;
    }
    for (unsigned i = 0; i < N; i++) {
        unsigned back;
        assert_int_equal(recv(fd[i], &back, sizeof back, MSG_WAITALL), sizeof back);
        assert_int_equal(back, i);
    }
    for (unsigned i = 0; i < N; i++)
        close(fd[i]);
    struct net_stats st;
    net_stats(g->net, &st);
    assert_int_equal(st.dropped, 0);
    guest_close(g);
}

static unsigned served(struct guest *g, const int *fd, unsigned n)
{
    unsigned done = 0;
    for (unsigned i = 0; i < n; i++) {
        struct sockaddr_in a;
        socklen_t len = sizeof a;
        getsockname(fd[i], (struct sockaddr *)&a, &len);
        done += g->conn[ntohs(a.sin_port)].got == 4;
    }
    return done;
}

/* More connections than descriptors: some wait until others end. The limit can't be raised again: the last test. */
static void out_of_descriptors(void **state)
{
    enum { N = 110, FIRST = 60 };
    static int fd[N];
    struct rlimit r = {200, 200};
    char text[64];
    unsigned port;
    setrlimit(RLIMIT_NOFILE, &r);
    struct guest *g = open_with_forward(text, sizeof text, &port, NET_CSUM);
    for (unsigned i = 0; i < N; i++)
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
    for (unsigned i = 0; i < N; i++) {
        dial_by(fd[i], port);
        assert_int_equal(send(fd[i], &i, sizeof i, 0), sizeof i);
    }
    while (served(g, fd, FIRST) < FIRST)
        step(g);
    assert_true(served(g, fd + FIRST, N - FIRST) < N - FIRST);
    for (unsigned i = 0; i < FIRST; i++)
        hang_up(fd[i]);
    while (served(g, fd + FIRST, N - FIRST) < N - FIRST)
        step(g);
    for (unsigned i = FIRST; i < N; i++)
        close(fd[i]);
    guest_close(g);
}

struct writer {
    int fd;
    const uint8_t *data;
    size_t len;
};

static void *write_thread(void *opaque)
{
    struct writer *w = opaque;
    for (size_t at = 0; at < w->len;) {
        ssize_t n = send(w->fd, w->data + at, w->len - at, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return NULL;
}

/* A card without room for a while loses nothing. */
static void bulk_in(unsigned offloads)
{
    enum { BYTES = 1 << 20 };
    char text[64];
    unsigned port;
    struct guest *g = open_with_forward(text, sizeof text, &port, offloads);
    uint8_t *data = malloc(BYTES);
    g->sink = malloc(BYTES + 4096);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    struct writer w = {dial(port), data, BYTES};
    pthread_t t;
    pthread_create(&t, NULL, write_thread, &w);
    while (g->sunk < BYTES / 4)
        step(g);
    card_make_room(&g->card, 0);
    while (card_has(&g->card))
        step(g);
    card_wait_refusal(&g->card);
    card_make_room(&g->card, 1u << 30);
    while (g->sunk < BYTES)
        step(g);
    assert_memory_equal(g->sink, data, BYTES);
    assert_int_equal(g->large > 0, !!(offloads & NET_TSO4));
    struct net_stats st;
    net_stats(g->net, &st);
    assert_int_equal(st.dropped, 0);
    pthread_join(t, NULL);
    close(w.fd);
    free(data);
    free(g->sink);
    guest_close(g);
}

static void bulk(void **state)
{
    bulk_in(0);
    bulk_in(NET_CSUM);
    bulk_in(NET_CSUM | NET_TSO4); /* in large frames */
}

/* The guest's own connection to a program of the host, at the router's address. */
static struct conn *guest_connects(struct guest *g, unsigned port)
{
    struct conn *c = &g->conn[port];
    c->seq = 1000;
    tcp_send(g, 40000, port, SYN, NULL, 0);
    while (!c->open)
        step(g);
    return c;
}

/* One large frame is one segment to libslirp: one acknowledgment for all of it. */
static void large_out(void **state)
{
    enum { BYTES = 60000 };
    static uint8_t f[DATA + BYTES], got[BYTES];
    unsigned port;
    int l = listener(&port, 0);
    struct net_config cfg = {0};
    struct guest *g = guest_open(&cfg);
    struct conn *c = guest_connects(g, port);
    int fd = accept(l, NULL, NULL);
    for (size_t i = 0; i < BYTES; i++)
        f[DATA + i] = (uint8_t)(i * 3 + i / 253);
    tcp_header(g, f, 40000, port, ACK | PSH, c);
    size_t len = ipv4(f, 6, ROUTER_IP, 20 + BYTES);
    be16(f + L4 + 16, add_sum(f + 26, 8, 6 + 20 + BYTES));
    struct net_hdr h = {.flags = NET_HDR_NEEDS_CSUM,
                        .gso_type = NET_GSO_TCPV4,
                        .hdr_len = DATA,
                        .gso_size = 1460,
                        .csum_start = L4,
                        .csum_offset = 16};
    struct iovec iov[2] = {{f, 70}, {f + 70, len - 70}};
    uint32_t before = c->seq;
    card_send_iov(&g->card, &h, iov, 2);
    c->seq += BYTES;
    while (c->acked == before)
        step(g);
    assert_int_equal(c->acked, c->seq);
    assert_int_equal(recv(fd, got, BYTES, MSG_WAITALL), BYTES);
    assert_memory_equal(got, f + DATA, BYTES);
    close(fd);
    close(l);
    guest_close(g);
}

/* The guest reads nothing while its host peer sends all it can, does not read either, and then resets. */
static void reset_with_full_buffers(void **state)
{
    static uint8_t junk[1 << 20];
    unsigned port;
    int l = listener(&port, 4096);
    struct net_config cfg = {0};
    struct guest *g = guest_open(&cfg);
    g->mss = 512; /* a divisor of libslirp's buffer: it becomes full to the last byte */
    struct conn *c = guest_connects(g, port);
    int fd = accept(l, NULL, NULL);
    struct writer w = {fd, junk, sizeof junk};
    pthread_t t;
    pthread_create(&t, NULL, write_thread, &w);
    while (c->got < 300000)
        step(g);
    g->mute = true;
    for (unsigned i = 0; i < 5000 && c->seq - c->acked < 50000; i++) {
        tcp_send(g, 40000, port, ACK | PSH, junk, 1460);
        while (card_has(&g->card))
            step(g);
    }
    assert_true(c->seq - c->acked >= 50000); /* it takes no more: a socket waits to be writable */
    shutdown(fd, SHUT_WR);                   /* ends the writer */
    pthread_join(t, NULL);
    hang_up(fd);
    g->mute = false;
    while (!c->reset && !c->closed) {
        tcp_send(g, 40000, port, ACK, NULL, 0);
        step(g);
    }
    close(l);
    guest_close(g);
}

static void urgent_nonsense(void **state)
{
    unsigned port;
    uint8_t got[100];
    int l = listener(&port, 0);
    struct net_config cfg = {0};
    struct guest *g = guest_open(&cfg);
    guest_connects(g, port);
    int fd = accept(l, NULL, NULL);
    for (unsigned i = 0; i < 10; i++)
        tcp_send(g, 40000, port, ACK | PSH | URG, "0123456789", 10);
    assert_int_equal(recv(fd, got, sizeof got, MSG_WAITALL), sizeof got); /* all of it, and nothing else */
    assert_memory_equal(got + 90, "0123456789", 10);
    close(fd);
    close(l);
    guest_close(g);
}

static void ipv6_forward(void **state)
{
    char text[64];
    unsigned port = free_port(SOCK_STREAM);
    struct sockaddr_in6 a = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons((uint16_t)port)};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 probe = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (fd < 0 || bind(fd, (struct sockaddr *)&probe, sizeof probe))
        skip();
    snprintf(text, sizeof text, "tcp:[::1]:%u-[fec0::15]:22", port);
    struct net_config c = {.hostfwd = {text}, .hostfwds = 1};
    struct guest *g = guest_open(&c);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    while (!g->solicitations)
        step(g);
    close(fd);
    guest_close(g);
}

/* Frames that are nearly right. With `restrict`, so that none gets out of this test. */
static void mutated_frames(void **state)
{
    struct net_config cfg = {.restricted = true};
    struct guest *g = guest_open(&cfg);
    uint64_t seed = 42;
    uint8_t base[4][400];
    size_t len[4];
    memset(base, 0, sizeof base);
    tcp_header(g, base[0], 1000, 2000, SYN, &g->conn[1]);
    len[0] = ipv4(base[0], 6, ROUTER_IP, 20);
    len[1] = ipv4(base[1], 1, ROUTER_IP, 64);
    be16(base[2] + L4 + 2, 67);
    be16(base[2] + L4 + 4, 308);
    len[2] = ipv4(base[2], 17, 0xffffffff, 308);
    eth(base[3], 0x86dd);
    base[3][14] = 0x60;
    be16(base[3] + 18, 32);
    base[3][20] = 58;
    base[3][21] = 255;
    len[3] = 14 + 40 + 32;
    for (unsigned i = 0; i < 50000; i++) {
        uint8_t f[400];
        unsigned k = i & 3;
        memcpy(f, base[k], sizeof f);
        for (unsigned m = 0; m < 1 + i % 5; m++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            f[12 + (seed >> 33) % (len[k] - 12)] = (uint8_t)(seed >> 56);
        }
        if (get16(f + 12) == 0x0800 && i & 64)
            be16(f + 24, 0), be16(f + 24, ~add_sum(f + 14, (f[14] & 15u) * 4, 0));
        card_send(&g->card, f, len[k]);
    }
    guest_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forwarded),
        cmocka_unit_test(thousand),
        cmocka_unit_test(bulk),
        cmocka_unit_test(large_out),
        cmocka_unit_test(reset_with_full_buffers),
        cmocka_unit_test(urgent_nonsense),
        cmocka_unit_test(ipv6_forward),
        cmocka_unit_test(mutated_frames),
        cmocka_unit_test(out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
