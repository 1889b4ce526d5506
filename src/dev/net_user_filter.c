#include "dev/net_user_priv.h"

#include <net/ethernet.h>
#include <netinet/in.h>

enum { L3 = 14, IPV4_MIN = 20, IPV6_BYTES = 40, TCP_MIN = 20, TCP_SYN = 2, TCP_ACK = 0x10, TCP_URG = 0x20 };
enum { RESERVED = 0x8000, FRAGMENT = 0x3fff, ICMP6_ECHO = 128, DHCP6_SERVER = 547 };

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). */
static void change16(uint8_t *at, uint16_t to, uint8_t *sum)
{
    uint64_t s = (uint16_t)~ld16(sum) + (uint64_t)(uint16_t)~ld16(at) + to;
    st16(at, to);
    st16(sum, (uint16_t)~net_fold(s));
}

/* libslirp sends as many bytes out of band as the urgent pointer says, even such as have not come yet. Then they go in
 * band. */
static bool tcp_passes(const struct user_filter *f, uint8_t *tcp, size_t len)
{
    if (len < TCP_MIN)
        return false;
    size_t head = (tcp[12] >> 4) * 4u;
    if (head < TCP_MIN || head > len)
        return false;
    if (tcp[13] & TCP_URG && get16be(tcp + 18) > len - head) {
        uint8_t word[2] = {tcp[12], (uint8_t)(tcp[13] & ~TCP_URG)};
        change16(tcp + 12, ld16(word), tcp + 16);
    }
    return !f->full || (tcp[13] & (TCP_SYN | TCP_ACK)) != TCP_SYN;
}

/* `len`: of the IP packet, as much as came. */
static bool ipv4_sound(const uint8_t *ip, size_t len)
{
    if (len < IPV4_MIN || ip[0] >> 4 != 4)
        return false;
    size_t head = (ip[0] & 15u) * 4, total = get16be(ip + 2);
    return head >= IPV4_MIN && total >= head && total <= len;
}

static bool ipv4_passes(struct user_filter *f, uint8_t *frame, size_t *len, uint64_t now)
{
    uint8_t *ip = frame + L3;
    if (!ipv4_sound(ip, *len - L3) || get16be(ip + 6) & RESERVED)
        return false;
    *len = L3 + get16be(ip + 2);
    if (get16be(ip + 6) & FRAGMENT) {
        enum user_fragment r = net_user_reassemble(f->frags, frame, len, now);
        if (r != FRAGMENT_LAST) {
            *len = 0;
            return r == FRAGMENT_KEPT;
        }
    }
    size_t head = (ip[0] & 15u) * 4;
    if (ip[9] == IPPROTO_TCP)
        return tcp_passes(f, ip + head, *len - L3 - head);
    return !f->full;
}

/* The router's and the name server's addresses: ::2 and ::3 of the prefix and of the link. */
static bool is_router6(const uint8_t *addr)
{
    static const uint8_t zero[13];
    return addr[0] == 0xfe && (addr[1] == 0xc0 || addr[1] == 0x80) && !memcmp(addr + 2, zero, sizeof zero) &&
           (addr[15] == 2 || addr[15] == 3);
}

/* An echo request for anybody but the router makes libslirp log a line; a socket for IPv6 UDP is made whatever
 * `restrict` says. */
static bool ipv6_passes(const struct user_filter *f, uint8_t *frame, size_t *len)
{
    uint8_t *ip = frame + L3, *l4 = ip + IPV6_BYTES;
    if (*len < L3 + IPV6_BYTES || ip[0] >> 4 != 6)
        return false;
    size_t payload = get16be(ip + 4);
    if (payload > *len - L3 - IPV6_BYTES)
        return false;
    *len = L3 + IPV6_BYTES + payload;
    if (ip[6] == IPPROTO_TCP)
        return tcp_passes(f, l4, payload);
    if (payload < 8)
        return false;
    if (ip[6] == IPPROTO_UDP)
        return get16be(l4 + 2) == DHCP6_SERVER || (!f->full && !f->restricted);
    if (ip[6] != IPPROTO_ICMPV6)
        return false;
    return l4[0] != ICMP6_ECHO || is_router6(ip + 24);
}

bool net_user_filter(struct user_filter *f, uint8_t *frame, size_t *len, uint64_t now)
{
    switch (get16be(frame + 12)) {
    case ETHERTYPE_ARP:
        return *len >= L3 + 28;
    case ETHERTYPE_IP:
        return ipv4_passes(f, frame, len, now);
    case ETHERTYPE_IPV6:
        return ipv6_passes(f, frame, len);
    default:
        return false;
    }
}
