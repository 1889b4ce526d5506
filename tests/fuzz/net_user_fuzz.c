/* User mode, given any frames: what comes out of the filter must not end libslirp, and so us. With `restrict`, so that
 * nothing gets out of the process. */
#include "irq_fuzz.h"

#include "../unit/fake_loop.h"
#include "dev/net_frame.h"
#include "dev/net_gso.h"

#define FRAME_MAX 4096u

struct box {
    struct ioloop loop;
    struct net *net;
    unsigned room; /* frames the guest takes */
};

static bool receive(void *opaque, const struct net_hdr *h, const struct iovec *iov, unsigned n)
{
    struct box *b = opaque;
    size_t len = net_iov_len(iov, n);
    ensure(len >= 14 && len <= NET_FRAME_MAX);
    ensure(!h || net_hdr_sane(h, len));
    return b->room && b->room--;
}

static void plug(struct box *b, unsigned offloads)
{
    struct net_peer p = {.receive = receive, .opaque = b, .offloads = offloads};
    net_set_peer(b->net, &p);
}

/* Headers that are nearly right, so that more than their first check is reached. */
static size_t dress(uint8_t *f, size_t len, unsigned how)
{
    static const uint8_t protos[] = {1, 6, 17, 58};
    memcpy(f, "\x52\x55\x0a\x00\x02\x02\x52\x54\x00\x12\x34\x56", 12);
    if (how & 1) {
        put16be(f + 12, 0x0800);
        f[14] = 0x45;
        put16be(f + 16, (uint16_t)(len - 14));
        f[23] = protos[how >> 1 & 3];
        put32be(f + 26, 0x0a00020f);
        put32be(f + 30, how & 8 ? 0xffffffff : 0x0a000202 + (how >> 4 & 1));
        if (!(how & 32))
            st16(f + 20, 0);
        st16(f + 24, 0);
        st16(f + 24, (uint16_t)~net_sum(f + 14, 20));
    } else {
        put16be(f + 12, 0x86dd);
        f[14] = 0x60;
        put16be(f + 18, (uint16_t)(len - 54));
        f[20] = protos[how >> 1 & 3];
        memcpy(f + 38, "\xfe\xc0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02", 16);
    }
    return len;
}

static void send(struct box *b, struct script *s)
{
    uint8_t frame[FRAME_MAX] = {0};
    uint8_t how = (uint8_t)script_get(s, 1);
    size_t len = 14 + script_get(s, 2) % (FRAME_MAX - 14), given = script_get(s, 1);
    struct net_hdr h = {0};
    for (size_t i = 0; i < given && i + 14 < len; i++)
        frame[14 + i] = (uint8_t)script_get(s, 1);
    put16be(frame + 12, how & 128 ? 0x0806 : (uint16_t)script_get(s, 2));
    if (how & 64 && len >= 14 + 40)
        dress(frame, len, how);
    uint8_t offload = (uint8_t)script_get(s, 1);
    h.flags = offload & 1;
    h.gso_type = offload >> 1 & 5;
    h.csum_start = offload & 16 ? (uint16_t)script_get(s, 1) : how & 1 ? 34 : 54;
    h.csum_offset = offload & 32 ? (uint16_t)script_get(s, 1) : offload & 64 ? 6 : 16;
    h.gso_size = (uint16_t)(offload & 128 ? script_get(s, 2) : 500);
    struct iovec iov[2] = {{frame, len / 2}, {frame + len / 2, len - len / 2}};
    net_send(b->net, offload ? &h : NULL, iov, 2);
}

static void one_step(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    switch (op & 7) {
    case 0:
        net_flush(b->net);
        break;
    case 1:
        fake_loop_run(&b->loop, op >> 3);
        break;
    case 2:
        fake_loop_timer(&b->loop, op >> 3);
        break;
    case 3:
        b->room = op >> 3;
        net_resume(b->net);
        break;
    case 4:
        plug(b, op >> 3);
        break;
    default:
        send(b, s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct box b;
    struct script s = {data, size};
    struct err e = {""};
    uint8_t options = (uint8_t)script_get(&s, 1);
    struct net_config c = {.id = "fuzz", .kind = NET_USER, .restricted = true, .ipv6_off = options & 1};
    memset(&b, 0, sizeof b);
    ensure(net_open(&c, &b.loop, &b.net, &e) == 0);
    plug(&b, options >> 1);
    b.room = 1000;
    while (s.left)
        one_step(&b, &s);
    net_set_peer(b.net, NULL);
    net_close(b.net);
    ensure(fake_loop_idle(&b.loop));
    return 0;
}
