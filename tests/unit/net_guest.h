/* A guest on a user-mode network that knows just enough ARP, DHCP, ICMP and TCP, and a host's programs. */
#ifndef HEC_TESTS_NET_GUEST_H
#define HEC_TESTS_NET_GUEST_H

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

static inline void be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void be32(uint8_t *p, uint32_t v)
{
    be16(p, v >> 16);
    be16(p + 2, v & 0xffff);
}

static inline unsigned get16(const uint8_t *p)
{
    return p[0] * 256u + p[1];
}

static inline uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static inline uint32_t add_sum(const uint8_t *p, size_t len, uint32_t sum)
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

static inline void eth(uint8_t *f, unsigned type)
{
    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    be16(f + 12, type);
}

/* Ethernet and IPv4 around `len` bytes of payload that are already at f + L4. */
static inline size_t ipv4(uint8_t *f, unsigned proto, uint32_t to, size_t len)
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

static inline void tcp_header(struct guest *g, uint8_t *f, unsigned sport, unsigned dport, unsigned flags,
                              struct conn *c)
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

static inline void tcp_send(struct guest *g, unsigned sport, unsigned dport, unsigned flags, const void *data,
                            size_t len)
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

static inline void arp_reply(struct guest *g, const uint8_t *f)
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

static inline void tcp_data(struct guest *g, struct conn *c, unsigned sport, unsigned dport, const uint8_t *data,
                            size_t len)
{
    if (g->sink)
        memcpy(g->sink + g->sunk, data, len);
    g->sunk += g->sink ? len : 0;
    c->got += len;
    c->ack += (uint32_t)len;
    if (!g->mute)
        tcp_send(g, dport, sport, ACK | PSH, data, g->echo ? len : 0);
}

static inline void tcp_frame(struct guest *g, const uint8_t *f, size_t len, bool large)
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

static inline void step(struct guest *g)
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

static inline struct guest *guest_open_with(struct net_config *c, unsigned offloads)
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

static inline struct guest *guest_open(struct net_config *c)
{
    return guest_open_with(c, NET_CSUM);
}

static inline void guest_close(struct guest *g)
{
    card_fini(&g->card);
    net_close(g->net);
    rig_fini(&g->r);
    free(g);
}

/* ---- the host's programs ---- */

static inline unsigned free_port(int type)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, type, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static inline void dial_by(int fd, unsigned port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
}

static inline int dial(unsigned port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    dial_by(fd, port);
    return fd;
}

/* Close so that the other side sees a reset. */
static inline void hang_up(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static inline int listener(unsigned *port, int buffer)
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

#endif
