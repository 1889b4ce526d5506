/* A tap interface, if this host lets us make one; else only what is refused. */
#include "net_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "hec-test%d"

static bool may_tap(void)
{
    int fd = open("/dev/net/tun", O_RDWR);
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    bool may = fd >= 0 && !ioctl(fd, TUNSETIFF, &r);
    close(fd);
    return may;
}

/* The host's side: the interface is set up, and a packet socket on it. */
static int host_side(const char *name)
{
    struct ifreq r = {0};
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    assert_true(fd >= 0);
    strcpy(r.ifr_name, name);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &r), 0);
    r.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &r), 0);
    assert_int_equal(ioctl(fd, SIOCGIFINDEX, &r), 0);
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = r.ifr_ifindex};
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* A card on a tap, and the host's side of it. */
struct tap {
    struct rig r;
    struct net *net;
    struct card card;
    int host;
};

static void tap_init(struct tap *t, struct net_config *c, unsigned offloads)
{
    c->id = "net0";
    c->kind = NET_TAP;
    rig_init(&t->r);
    if (net_open(c, t->r.loop, &t->net, &t->r.err))
        fail_msg("%s", t->r.err.msg);
    card_init(&t->card, t->net, offloads);
    t->host = host_side(c->ifname);
}

/* One that we make. */
static void own_tap(struct tap *t, unsigned offloads)
{
    char name[IFNAMSIZ];
    struct net_config c = {.fd = -1, .ifname = name};
    snprintf(name, sizeof name, NAME, (int)(getpid() % 100000));
    tap_init(t, &c, offloads);
}

static void tap_fini(struct tap *t)
{
    close(t->host);
    card_fini(&t->card);
    net_close(t->net);
    rig_fini(&t->r);
}

static const uint8_t mine[14] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};

/* The host talks of its own accord, too (router solicitations); ours are of an experimental type. */
static size_t from_guest(int fd, uint8_t *buf, size_t max)
{
    ssize_t n;
    do {
        n = recv(fd, buf, max, 0);
        assert_true(n > 0);
    } while (memcmp(buf + 12, mine + 12, 2));
    return (size_t)n;
}

static struct rig_frame *to_guest(struct card *c)
{
    for (;;) {
        struct rig_frame *f = card_take(c);
        if (!memcmp(f->bytes + 12, mine + 12, 2))
            return f;
        free(f);
    }
}

static void both_ways(struct net_config *c)
{
    struct tap t;
    uint8_t frame[1000] = {0}, got[2000];
    tap_init(&t, c, 0);
    memcpy(frame, mine, sizeof mine);
    frame[20] = 1;
    struct iovec iov[2] = {{frame, 10}, {frame + 10, sizeof frame - 10}};
    card_send_iov(&t.card, NULL, iov, 2);
    assert_int_equal(from_guest(t.host, got, sizeof got), sizeof frame);
    assert_memory_equal(got, frame, sizeof frame);
    frame[20] = 2;
    assert_int_equal(send(t.host, frame, sizeof frame, 0), sizeof frame);
    struct rig_frame *f = to_guest(&t.card);
    assert_int_equal(f->len, sizeof frame);
    assert_memory_equal(f->bytes, frame, sizeof frame);
    assert_false(f->has_hdr);
    free(f);
    tap_fini(&t);
}

static void frames(void **state)
{
    char name[IFNAMSIZ];
    if (!may_tap())
        skip();
    snprintf(name, sizeof name, NAME, (int)(getpid() % 100000));
    struct net_config c = {.fd = -1, .ifname = name};
    both_ways(&c);
    c.vnet_hdr_off = true;
    both_ways(&c);
}

static void handed_over(void **state)
{
    if (!may_tap())
        skip();
    for (int vnet = 0; vnet < 2; vnet++) {
        struct ifreq r = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0))};
        int fd = open("/dev/net/tun", O_RDWR);
        assert_int_equal(ioctl(fd, TUNSETIFF, &r), 0);
        struct net_config c = {.fd = fd, .ifname = r.ifr_name};
        both_ways(&c);
    }
}

/* The host's kernel cuts what the guest sends too large. */
static void large_frame(void **state)
{
    static uint8_t frame[54 + 4000], got[70000];
    struct tap t;
    if (!may_tap())
        skip();
    own_tap(&t, NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN);
    memcpy(frame, mine, 12);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[16] = (uint8_t)((sizeof frame - 14) >> 8);
    frame[17] = (uint8_t)(sizeof frame - 14);
    frame[22] = 64;
    frame[23] = 6;
    frame[34 + 12] = 0x50;
    struct net_hdr h = {.flags = NET_HDR_NEEDS_CSUM,
                        .gso_type = NET_GSO_TCPV4,
                        .hdr_len = 54,
                        .gso_size = 1000,
                        .csum_start = 34,
                        .csum_offset = 16};
    struct iovec iov = {frame, sizeof frame};
    card_send_iov(&t.card, &h, &iov, 1);
    ssize_t len;
    do
        len = recv(t.host, got, sizeof got, 0);
    while (got[12] != 8);
    assert_true(len > 54);
    struct net_stats st;
    net_stats(t.net, &st);
    assert_int_equal(st.dropped, 0);
    h.csum_start = 20000;
    card_send_iov(&t.card, &h, &iov, 1);
    net_stats(t.net, &st);
    assert_int_equal(st.dropped, 1);
    tap_fini(&t);
}

static void no_room(void **state)
{
    uint8_t frame[100] = {0};
    struct tap t;
    if (!may_tap())
        skip();
    own_tap(&t, 0);
    card_make_room(&t.card, 0);
    memcpy(frame, mine, sizeof mine);
    for (unsigned i = 0; i < 20; i++) {
        frame[20] = (uint8_t)i;
        assert_int_equal(send(t.host, frame, sizeof frame, 0), sizeof frame);
    }
    card_wait_refusal(&t.card);
    card_make_room(&t.card, 1000);
    for (unsigned i = 0; i < 20; i++) {
        struct rig_frame *f = to_guest(&t.card);
        assert_int_equal(f->bytes[20], i);
        free(f);
    }
    tap_fini(&t);
}

static void refused(void **state)
{
    struct rig r;
    struct net *n;
    rig_init(&r);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    struct net_config c = {.kind = NET_TAP, .fd = pipes[0]};
    struct err e = {0};
    assert_true(net_open(&c, r.loop, &n, &e) < 0);
    assert_non_null(strstr(e.msg, "not an open tap"));
    close(pipes[1]);
    c = (struct net_config){.kind = NET_TAP, .fd = -1, .ifname = "a-name-that-is-too-long"};
    e.msg[0] = 0;
    assert_true(net_open(&c, r.loop, &n, &e) < 0);
    assert_true(strstr(e.msg, "longer than") || strstr(e.msg, "/dev/net/tun"));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),  cmocka_unit_test(handed_over), cmocka_unit_test(large_frame),
        cmocka_unit_test(no_room), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
