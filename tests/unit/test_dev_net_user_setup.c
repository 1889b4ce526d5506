/* User mode: its addresses, what DHCP says of them, fragments, and options that are refused. */
#include "net_guest.h"

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

enum { PIECES = 3, PIECE = 1000, PING = 2500 };

/* A piece of a ping of PING bytes. */
static void send_piece(struct guest *g, unsigned id, unsigned from, unsigned to, bool more)
{
    uint8_t whole[PING], f[L4 + PING];
    memset(whole, 0xaa, sizeof whole);
    whole[0] = 8;
    whole[1] = 0;
    be16(whole + 2, 0);
    be16(whole + 2, ~add_sum(whole, sizeof whole, 0));
    memcpy(f + L4, whole + from, to - from);
    size_t len = ipv4(f, 1, ROUTER_IP, to - from);
    be16(f + 18, id);
    be16(f + 20, from / 8 | (more ? 0x2000 : 0));
    be16(f + 24, 0);
    be16(f + 24, ~add_sum(f + 14, 20, 0));
    card_send(&g->card, f, len);
}

/* In any order; what overlaps, lies or never ends is no datagram. */
static void fragments(void **state)
{
    static const unsigned order[6][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}, {0, 2, 1}, {1, 2, 0}};
    struct net_config c = {0};
    struct guest *g = guest_open(&c);
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned k = 0; k < PIECES; k++) {
            unsigned p = order[i][k], from = p * PIECE, to = p == 2 ? PING : from + PIECE;
            send_piece(g, 100 + i, from, to, p != 2);
        }
        while (g->pings <= i)
            step(g);
    }
    for (unsigned i = 0; i < 100; i++)
        send_piece(g, 200 + i, 0, PIECE, true); /* more than it keeps */
    send_piece(g, 400, 0, PIECE, true);
    send_piece(g, 400, 504, PING, false); /* overlaps */
    send_piece(g, 400, PIECE, PING, false);
    send_piece(g, 401, 2000, PING, false);
    send_piece(g, 401, 2504 - 8, 2500, false); /* a second end */
    send_piece(g, 402, 0, 1001, true);         /* not a multiple of 8 */
    send_piece(g, 403, 0, PIECE, true);
    send_piece(g, 403, PIECE, PIECE, false); /* nothing in it */
    while (card_has(&g->card))
        step(g);
    assert_int_equal(g->pings, 6);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),   cmocka_unit_test(dhcp),        cmocka_unit_test(fragments),
        cmocka_unit_test(port_in_use), cmocka_unit_test(bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
