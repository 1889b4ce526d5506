/* Two machines on a cable of TCP, peers that come and go, and peers that talk nonsense. */
#include "net_rig.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    return fd;
}

/* A port nobody listens at. */
static unsigned free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = tcp_socket();
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int dial(unsigned port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = tcp_socket();
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static struct net *open_socket(struct rig *r, const char *listens, const char *connects, FILE *notes)
{
    struct net_config c = {.id = "net0", .kind = NET_SOCKET, .listen = listens, .connect = connects, .notes = notes};
    struct net *n = NULL;
    if (net_open(&c, r->loop, &n, &r->err))
        fail_msg("%s", r->err.msg);
    return n;
}

/* A machine at an end of the cable. */
struct node {
    struct rig r;
    struct net *net;
    struct card card;
};

static void node_open(struct node *m, const char *listens, const char *connects, FILE *notes)
{
    rig_init(&m->r);
    m->net = open_socket(&m->r, listens, connects, notes);
    card_init(&m->card, m->net, 0);
}

/* The port it listens at. */
static unsigned node_listen(struct node *m, const char *host, FILE *notes)
{
    char text[32];
    unsigned port = free_port();
    snprintf(text, sizeof text, "%s%u", host, port);
    node_open(m, text, NULL, notes);
    return port;
}

static void node_fini(struct node *m)
{
    card_fini(&m->card);
    net_close(m->net);
    rig_fini(&m->r);
}

static void write_all(int fd, const void *p, size_t len)
{
    assert_int_equal(send(fd, p, len, MSG_NOSIGNAL), len);
}

static void read_all(int fd, void *p, size_t len)
{
    assert_int_equal(recv(fd, p, len, MSG_WAITALL), len);
}

static void put_frame(int fd, const void *p, uint32_t len)
{
    uint32_t be = htonl(len);
    write_all(fd, &be, 4);
    write_all(fd, p, len);
}

static void two_machines(void **state)
{
    struct rig r;
    struct card a, b;
    char text[32];
    uint8_t frame[1514];
    rig_init(&r);
    snprintf(text, sizeof text, "127.0.0.1:%u", free_port());
    struct net *na = open_socket(&r, text, NULL, NULL), *nb = open_socket(&r, NULL, text, NULL);
    card_init(&a, na, 0);
    card_init(&b, nb, 0);
    /* Nobody knows when the connection is there: until then frames are lost, as on a wire. */
    struct net_stats st = {0};
    for (frame[0] = 0; !st.rx_frames; frame[0]++) {
        card_send(&b, frame, 60);
        net_stats(na, &st);
        sched_yield();
    }
    free(card_take(&a));
    memset(frame, 0xee, sizeof frame);
    card_send(&b, frame, sizeof frame);
    for (struct rig_frame *f = NULL; !f || f->len == 60;) {
        free(f);
        f = card_take(&a);
        if (f->len == 60)
            continue;
        assert_int_equal(f->len, sizeof frame);
        assert_memory_equal(f->bytes, frame, sizeof frame);
        assert_false(f->has_hdr);
        free(f);
        break;
    }
    for (unsigned i = 0; i < 500; i++) {
        memset(frame, (int)i, sizeof frame);
        card_send(&a, frame, 60 + i);
        struct rig_frame *f = card_take(&b);
        assert_int_equal(f->len, 60 + i);
        assert_memory_equal(f->bytes, frame, f->len);
        free(f);
    }
    card_fini(&a);
    card_fini(&b);
    net_close(na);
    net_close(nb);
    rig_fini(&r);
}

/* Bytes on the wire are a length and the frame; a frame may come in any pieces. */
static void wire_format(void **state)
{
    struct node m;
    uint8_t frame[100] = {1, 2, 3}, got[104];
    unsigned port = node_listen(&m, ":", NULL);
    int fd = dial(port);
    uint8_t raw[104] = {0, 0, 0, 100, 1, 2, 3};
    for (unsigned i = 0; i < sizeof raw; i++)
        write_all(fd, raw + i, 1);
    struct rig_frame *f = card_take(&m.card);
    assert_int_equal(f->len, 100);
    assert_memory_equal(f->bytes, frame, 100);
    free(f);
    struct iovec iov[3] = {{frame, 1}, {frame + 1, 50}, {frame + 51, 49}};
    card_send_iov(&m.card, NULL, iov, 3);
    read_all(fd, got, sizeof got);
    assert_memory_equal(got, raw, sizeof raw);
    close(fd);
    node_fini(&m);
}

/* Large frames and missing checksums are made good: the wire knows no offloads. */
static void offloads_are_done(void **state)
{
    static uint8_t frame[54 + 3000];
    struct node m;
    unsigned port = node_listen(&m, ":", NULL);
    int fd = dial(port);
    uint8_t hello[64] = {0};
    put_frame(fd, hello, 60);
    free(card_take(&m.card)); /* it is connected */
    frame[12] = 8;
    frame[14] = 0x45;
    frame[14 + 9] = 6;
    frame[34 + 12] = 0x50;
    struct net_hdr h = {
        .flags = NET_HDR_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .gso_size = 1000, .csum_start = 34, .csum_offset = 16};
    struct iovec iov = {frame, sizeof frame};
    card_send_iov(&m.card, &h, &iov, 1);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t got[4 + 1054];
        read_all(fd, got, sizeof got);
        assert_int_equal(got[2] * 256 + got[3], 1054);
        assert_int_equal(got[4 + 16] * 256 + got[4 + 17], 1040);
    }
    h.csum_start = 60000;
    card_send_iov(&m.card, &h, &iov, 1);
    struct net_stats st;
    net_stats(m.net, &st);
    assert_int_equal(st.dropped, 1);
    close(fd);
    node_fini(&m);
}

static void expect_eof(int fd)
{
    char byte;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, 0);
    while (n > 0);
    close(fd);
}

static void nonsense_drops_the_peer(void **state)
{
    static const uint32_t lengths[] = {0, NET_FRAME_MAX + 1, 0x80000000u, 0xffffffffu};
    struct node m;
    char *notes = NULL;
    size_t notes_len;
    uint8_t frame[60] = {7};
    FILE *out = open_memstream(&notes, &notes_len);
    unsigned port = node_listen(&m, "localhost:", out);
    for (unsigned i = 0; i < 4; i++) {
        int fd = dial(port);
        uint32_t be = htonl(lengths[i]);
        put_frame(fd, frame, sizeof frame);
        free(card_take(&m.card));
        assert_int_equal(card_moves(&m.card), i + 1);
        write_all(fd, &be, 4);
        expect_eof(fd);
    }
    int fd = dial(port); /* and the next one is taken */
    put_frame(fd, frame, sizeof frame);
    free(card_take(&m.card));
    close(fd);
    node_fini(&m);
    fclose(out);
    assert_non_null(strstr(notes, "network net0"));
    assert_non_null(strstr(notes, "impossible length"));
    free(notes);
}

static void guest_without_room(void **state)
{
    struct node m;
    uint8_t frame[1500];
    unsigned port = node_listen(&m, ":", NULL);
    card_make_room(&m.card, 0);
    int fd = dial(port);
    for (unsigned i = 0; i < 50; i++) {
        memset(frame, (int)i, sizeof frame);
        put_frame(fd, frame, sizeof frame);
    }
    for (unsigned i = 0; i < 50; i++) {
        card_wait_refusal(&m.card);
        card_make_room(&m.card, 1); /* takes one, and refuses the next if it is there already */
        struct rig_frame *f = card_take(&m.card);
        assert_int_equal(f->bytes[0], i);
        free(f);
    }
    close(fd);
    node_fini(&m);
}

/* Who connects comes back when the other side does, and each time the card is told. */
static void comes_back(void **state)
{
    struct node m;
    char text[32];
    uint8_t frame[60] = {9};
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int l = tcp_socket();
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(l, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(l, 4), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &len), 0);
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(a.sin_port));
    node_open(&m, NULL, text, NULL);
    for (unsigned i = 0; i < 2; i++) {
        int fd = accept(l, NULL, NULL);
        assert_true(fd >= 0);
        put_frame(fd, frame, sizeof frame);
        free(card_take(&m.card));
        assert_true(card_moves(&m.card) >= i && card_moves(&m.card) <= i + 1); /* the first may come before the card */
        close(fd);
    }
    close(l);
    node_fini(&m);
}

static void bad_options(void **state)
{
    struct rig r;
    struct net *n;
    rig_init(&r);
    static const struct {
        const char *listen, *connect, *says;
    } bad[] = {
        {NULL, NULL, "either"},
        {":1", ":2", "either"},
        {"nonsense", NULL, "no port"},
        {NULL, "localhost:nosuchport", "connect=localhost"},
        {"256.1.1.1:5", NULL, "listen=256.1.1.1:5"},
        {"203.0.113.9:5", NULL, "cannot listen"},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct net_config c = {.id = "x", .kind = NET_SOCKET, .listen = bad[i].listen, .connect = bad[i].connect};
        struct err e = {0};
        assert_true(net_open(&c, r.loop, &n, &e) < 0);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s does not say %s", e.msg, bad[i].says);
    }
    rig_fini(&r);
}

/* What went over the cable is in the file, whole. */
static void pcap_file(void **state)
{
    struct rig r;
    struct card c;
    char text[32], path[] = "/tmp/hec-pcap-XXXXXX";
    uint8_t frame[60] = {5}, file[24 + 2 * 76 + 1];
    unsigned port = free_port();
    close(mkstemp(path));
    rig_init(&r);
    snprintf(text, sizeof text, ":%u", port);
    struct net_config cfg = {.id = "net0", .kind = NET_SOCKET, .listen = text, .pcap = path};
    struct net *n;
    assert_int_equal(net_open(&cfg, r.loop, &n, &r.err), 0);
    card_init(&c, n, 0);
    int fd = dial(port);
    put_frame(fd, frame, sizeof frame);
    free(card_take(&c));
    frame[0] = 6;
    card_send(&c, frame, sizeof frame);
    FILE *f = fopen(path, "r");
    assert_int_equal(fread(file, 1, sizeof file, f), sizeof file - 1);
    fclose(f);
    unlink(path);
    static const uint8_t magic[] = {0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0};
    assert_memory_equal(file, magic, sizeof magic);
    assert_int_equal(file[24 + 8], 60);
    assert_int_equal(file[24 + 16], 5);
    assert_int_equal(file[24 + 76 + 16], 6);
    close(fd);
    card_fini(&c);
    net_close(n);
    cfg.pcap = "/nonexistent/x";
    assert_true(net_open(&cfg, r.loop, &n, &r.err) < 0);
    assert_non_null(strstr(r.err.msg, "/nonexistent/x"));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_machines),       cmocka_unit_test(wire_format),
        cmocka_unit_test(offloads_are_done),  cmocka_unit_test(nonsense_drops_the_peer),
        cmocka_unit_test(guest_without_room), cmocka_unit_test(comes_back),
        cmocka_unit_test(bad_options),        cmocka_unit_test(pcap_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
