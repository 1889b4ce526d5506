/* User mode, with a guest in the test that knows just enough ARP, DHCP, ICMP and TCP. */
#include "net_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define GUEST_IP  0x0a00020fu
#define ROUTER_IP 0x0a000202u
#define GUEST_SSH 22
#define L4        34 /* behind Ethernet and IPv4 without options */
#define DATA      54

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32 };

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static void be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void be32(uint8_t *p, uint32_t v)
{
    be16(p, v >> 16);
    be16(p + 2, v & 0xffff);
}

static unsigned get16(const uint8_t *p)
{
    return p[0] * 256u + p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static uint32_t add_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i += 2)
        sum += p[i] * 256u + (i + 1 < len ? p[i + 1] : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* ---- the guest ---- */

struct conn { /* one TCP connection, by the host side's port as the guest sees it */
    bool open, closed, reset;
    uint32_t seq, ack; /* the next byte we send, the next we want */
    size_t got;
    uint32_t acked;
};

struct guest {
    struct rig r;
    struct net *net;
    struct card card;
    struct conn conn[65536];
    bool echo, mute;      /* mute: nothing is acknowledged */
    uint16_t window, mss; /* mss 0: not said */
    unsigned large, arp_replies, offers, pings, solicitations;
    uint8_t last[1600];
    size_t last_len;
    uint8_t *sink; /* received bytes go there */
    size_t sunk;
};

static void eth(uint8_t *f, unsigned type)
{
    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    be16(f + 12, type);
}

/* Ethernet and IPv4 around `len` bytes of payload that are already at f + L4. */
static size_t ipv4(uint8_t *f, unsigned proto, uint32_t to, size_t len)
{
    eth(f, 0x0800);
    memset(f + 14, 0, 20);
    f[14] = 0x45;
    be16(f + 16, (unsigned)(20 + len));
    f[22] = 64;
    f[23] = (uint8_t)proto;
    be32(f + 26, GUEST_IP);
    be32(f + 30, to);
    be16(f + 24, ~add_sum(f + 14, 20, 0));
    return L4 + len;
}

static void tcp_header(struct guest *g, uint8_t *f, unsigned sport, unsigned dport, unsigned flags, struct conn *c)
{
    memset(f + L4, 0, 20);
    be16(f + L4, sport);
    be16(f + L4 + 2, dport);
    be32(f + L4 + 4, c->seq);
    be32(f + L4 + 8, c->ack);
    f[L4 + 12] = 0x50;
    f[L4 + 13] = (uint8_t)flags;
    be16(f + L4 + 14, g->window);
}

static void tcp_send(struct guest *g, unsigned sport, unsigned dport, unsigned flags, const void *data, size_t len)
{
    uint8_t f[DATA + 1460];
    struct conn *c = &g->conn[dport];
    tcp_header(g, f, sport, dport, flags, c);
    if (flags & URG)
        be16(f + L4 + 18, 60000);
    const uint8_t option[4] = {2, 4, (uint8_t)(g->mss >> 8), (uint8_t)g->mss};
    uint32_t sequence = (uint32_t)len + (flags & (SYN | FIN) ? 1 : 0);
    if (flags & SYN && g->mss) {
        f[L4 + 12] = 0x60;
        data = option;
        len = sizeof option;
    }
    if (len)
        memcpy(f + DATA, data, len);
    size_t all = ipv4(f, 6, ROUTER_IP, 20 + len);
    uint32_t pseudo = add_sum(f + 26, 8, 6 + 20 + (uint32_t)len);
    be16(f + L4 + 16, ~add_sum(f + L4, 20 + len, pseudo));
    c->seq += sequence;
    card_send(&g->card, f, all);
}

static void arp_reply(struct guest *g, const uint8_t *f)
{
    uint8_t r[42];
    if (get16(f + 20) != 1 || get32(f + 38) != GUEST_IP) {
        g->arp_replies += get16(f + 20) == 2;
        return;
    }
    eth(r, 0x0806);
    memcpy(r + 14, f + 14, 6);
    be16(r + 20, 2);
    memcpy(r + 22, guest_mac, 6);
    be32(r + 28, GUEST_IP);
    memcpy(r + 32, f + 22, 10);
    card_send(&g->card, r, sizeof r);
}

static void tcp_data(struct guest *g, struct conn *c, unsigned sport, unsigned dport, const uint8_t *data, size_t len)
{
    if (g->sink)
        memcpy(g->sink + g->sunk, data, len);
    g->sunk += g->sink ? len : 0;
    c->got += len;
    c->ack += (uint32_t)len;
    if (!g->mute)
        tcp_send(g, dport, sport, ACK | PSH, data, g->echo ? len : 0);
}

static void tcp_frame(struct guest *g, const uint8_t *f, size_t len, bool large)
{
    unsigned sport = get16(f + L4), dport = get16(f + L4 + 2), flags = f[L4 + 13];
    size_t head = L4 + (f[L4 + 12] >> 4) * 4u, n = 14 + get16(f + 16) - head;
    struct conn *c = &g->conn[sport];
    assert_true(head + n <= len);
    if (!large)
        assert_int_equal(add_sum(f + L4, head + n - L4, add_sum(f + 26, 8, 6 + (uint32_t)(head + n - L4))), 0xffff);
    if (flags & ACK)
        c->acked = get32(f + L4 + 8);
    if (flags & RST) {
        c->reset = true;
        return;
    }
    if (flags & SYN) {
        c->ack = get32(f + L4 + 4) + 1;
        c->open = true;
        tcp_send(g, dport, sport, flags & ACK ? ACK : SYN | ACK, NULL, 0);
        return;
    }
    if (get32(f + L4 + 4) != c->ack)
        return; /* again, or too early */
    if (n)
        tcp_data(g, c, sport, dport, f + head, n);
    if (flags & FIN && !c->closed) {
        c->ack++;
        c->closed = true;
        tcp_send(g, dport, sport, FIN | ACK, NULL, 0);
    }
}

static void step(struct guest *g)
{
    struct rig_frame *f = card_take(&g->card);
    unsigned type = get16(f->bytes + 12);
    if (f->has_hdr)
        assert_int_equal(f->hdr.flags, f->hdr.gso_type ? NET_HDR_NEEDS_CSUM : NET_HDR_DATA_VALID);
    g->large += f->hdr.gso_type != 0;
    g->last_len = f->len < sizeof g->last ? f->len : sizeof g->last;
    memcpy(g->last, f->bytes, g->last_len);
    if (type == 0x0806)
        arp_reply(g, f->bytes);
    else if (type == 0x0800 && f->bytes[23] == 6)
        tcp_frame(g, f->bytes, f->len, f->hdr.gso_type);
    else if (type == 0x0800 && f->bytes[23] == 17)
        g->offers += get16(f->bytes + L4 + 2) == 68;
    else if (type == 0x0800 && f->bytes[23] == 1)
        g->pings += f->bytes[L4] == 0;
    else if (type == 0x86dd && f->bytes[20] == 58)
        g->solicitations += f->bytes[54] == 135;
    free(f);
}

static struct guest *guest_open_with(struct net_config *c, unsigned offloads)
{
    struct guest *g = calloc(1, sizeof *g);
    rig_init(&g->r);
    c->id = "net0";
    c->kind = NET_USER;
    if (net_open(c, g->r.loop, &g->net, &g->r.err))
        fail_msg("%s", g->r.err.msg);
    g->window = 65535;
    card_init(&g->card, g->net, offloads);
    return g;
}

static struct guest *guest_open(struct net_config *c)
{
    return guest_open_with(c, NET_CSUM);
}

static void guest_close(struct guest *g)
{
    card_fini(&g->card);
    net_close(g->net);
    rig_fini(&g->r);
    free(g);
}

/* ---- the host's programs ---- */

static unsigned free_port(int type)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, type, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int dial(unsigned port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static int listener(unsigned *port, int buffer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

/* ---- tests ---- */

static void addresses(void **state)
{
    struct net_config c = {0};
    struct guest *g = guest_open(&c);
    uint8_t arp[42] = {0};
    eth(arp, 0x0806);
    be16(arp + 14, 1);
    be16(arp + 16, 0x0800);
    arp[18] = 6;
    arp[19] = 4;
    be16(arp + 20, 1);
    memcpy(arp + 22, guest_mac, 6);
    be32(arp + 28, GUEST_IP);
    be32(arp + 38, ROUTER_IP);
    card_send(&g->card, arp, sizeof arp);
    while (!g->arp_replies)
        step(g);
    assert_int_equal(get32(g->last + 28), ROUTER_IP);
    assert_int_equal(get32(g->last + 24), ROUTER_IP); /* 52:55 and the address */
    uint8_t ping[L4 + 16] = {0};
    ping[L4] = 8;
    be16(ping + L4 + 2, ~add_sum(ping + L4, 16, 0));
    card_send(&g->card, ping, ipv4(ping, 1, ROUTER_IP, 16));
    while (!g->pings)
        step(g);
    guest_close(g);
}

static const uint8_t *dhcp_option(const uint8_t *p, unsigned want)
{
    for (p += L4 + 8 + 240; *p != 255; p += 2 + p[1])
        if (*p == want)
            return p + 2;
    return NULL;
}

static void discover(struct guest *g)
{
    static uint8_t f[L4 + 8 + 300];
    memset(f, 0, sizeof f);
    be16(f + L4, 68);
    be16(f + L4 + 2, 67);
    be16(f + L4 + 4, 308);
    uint8_t *b = f + L4 + 8;
    b[0] = b[1] = 1;
    b[2] = 6;
    memcpy(b + 28, guest_mac, 6);
    be32(b + 236, 0x63825363);
    memcpy(b + 240, "\x35\x01\x01\xff", 4);
    size_t len = ipv4(f, 17, 0xffffffff, 308);
    card_send(&g->card, f, len);
    while (!g->offers)
        step(g);
}

static void dhcp(void **state)
{
    struct net_config c = {.hostname = "many", .domain = "example.org"};
    struct guest *g = guest_open(&c);
    discover(g);
    assert_int_equal(get32(g->last + L4 + 8 + 16), GUEST_IP);
    assert_int_equal(get32(dhcp_option(g->last, 3)), ROUTER_IP);
    assert_int_equal(get32(dhcp_option(g->last, 6)), ROUTER_IP + 1);
    assert_memory_equal(dhcp_option(g->last, 12), "many", 4);
    assert_memory_equal(dhcp_option(g->last, 15), "example.org", 11);
    guest_close(g);
    c = (struct net_config){.net = "192.168.77.0/24", .dhcpstart = "192.168.77.100", .dns = "192.168.77.9"};
    g = guest_open(&c);
    discover(g);
    assert_int_equal(get32(g->last + L4 + 8 + 16), 0xc0a84d64);
    assert_int_equal(get32(dhcp_option(g->last, 3)), 0xc0a84d02);
    assert_int_equal(get32(dhcp_option(g->last, 6)), 0xc0a84d09);
    guest_close(g);
}

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
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    shutdown(fd, SHUT_WR); /* ends the writer */
    pthread_join(t, NULL);
    close(fd);
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

static void port_in_use(void **state)
{
    char text[64], number[16];
    unsigned port;
    int l = listener(&port, 0);
    struct rig r;
    struct net *n;
    rig_init(&r);
    snprintf(text, sizeof text, "tcp:127.0.0.1:%u-:22", port);
    snprintf(number, sizeof number, "port %u", port);
    struct net_config c = {.id = "net7", .kind = NET_USER, .hostfwd = {text}, .hostfwds = 1};
    assert_int_equal(net_open(&c, r.loop, &n, &r.err), -EADDRINUSE);
    assert_non_null(strstr(r.err.msg, number));
    assert_non_null(strstr(r.err.msg, "net7"));
    assert_non_null(strstr(r.err.msg, "choose another"));
    close(l);
    assert_int_equal(net_open(&c, r.loop, &n, &r.err), 0); /* and nothing is left of the failure */
    net_close(n);
    rig_fini(&r);
}

static void refuse(struct rig *r, struct net_config *c, const char *says)
{
    struct net *n;
    struct err e = {0};
    c->id = "net0";
    c->kind = NET_USER;
    assert_int_equal(net_open(c, r->loop, &n, &e), -EINVAL);
    if (!strstr(e.msg, says))
        fail_msg("'%s' does not say '%s'", e.msg, says);
}

static void bad_options(void **state)
{
    static const struct {
        const char *text, *says;
    } fwd[] = {
        {"", "missing"},
        {"tcp", "missing"},
        {"tcp::5028", "missing"},
        {"tcp::5028-22", "missing"},
        {"5028-:22", "missing"},
        {"sctp::5028-:22", "only tcp and udp"},
        {"tcp::70000-:22", "host's port"},
        {"tcp::x-:22", "host's port"},
        {"tcp::-1-:22", "host's port"},
        {"tcp::5028-:0", "guest's port"},
        {"tcp::5028-:22x", "guest's port"},
        {"tcp:1.2.3:5028-:22", "host's address"},
        {"tcp::5028-1.2.3.4.5:22", "guest's address"},
        {"tcp:[::1:5028-:22", "missing"},
        {"tcp:[::g]:5028-:22", "host's address"},
        {"tcp:127.0.0.1:5028-[fec0::5]:22", "IPv6 to IPv6"},
        {"udp:[::1]:5028-[fec0::5]:22", "IPv4 only"},
    };
    struct rig r;
    rig_init(&r);
    for (unsigned i = 0; i < sizeof fwd / sizeof *fwd; i++)
        refuse(&r, &(struct net_config){.hostfwd = {fwd[i].text}, .hostfwds = 1}, fwd[i].says);
    refuse(&r, &(struct net_config){.net = "10.0.2"}, "net=10.0.2");
    refuse(&r, &(struct net_config){.net = "10.0.2.0/33"}, "prefix length");
    refuse(&r, &(struct net_config){.net = "10.0.2.0/"}, "prefix length");
    refuse(&r, &(struct net_config){.host = "10.0.3.2"}, "host=10.0.3.2");
    refuse(&r, &(struct net_config){.dns = "10.0.2.255"}, "dns=10.0.2.255");
    refuse(&r, &(struct net_config){.dhcpstart = "here"}, "dhcpstart=here");
    refuse(&r, &(struct net_config){.dhcpstart = "10.0.2.2"}, "three different");
    refuse(&r, &(struct net_config){.ipv4_off = true, .ipv6_off = true}, "nothing");
    refuse(&r, &(struct net_config){.hostname = "a-name-of-more-than-thirty-two-characters"}, "hostname");
    refuse(&r, &(struct net_config){.ipv4_off = true, .hostfwd = {"::5028-:22"}, .hostfwds = 1}, "switched off");
    rig_fini(&r);
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
        cmocka_unit_test(addresses),
        cmocka_unit_test(dhcp),
        cmocka_unit_test(forwarded),
        cmocka_unit_test(thousand),
        cmocka_unit_test(bulk),
        cmocka_unit_test(large_out),
        cmocka_unit_test(reset_with_full_buffers),
        cmocka_unit_test(urgent_nonsense),
        cmocka_unit_test(ipv6_forward),
        cmocka_unit_test(port_in_use),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(mutated_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
