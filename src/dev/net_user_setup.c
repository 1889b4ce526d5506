#include "dev/net_user_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#define HOSTNAME_MAX 32u
#define DOMAIN_MAX   200u /* what is left in a DHCP answer */
#define BOOTFILE_MAX 127u

/* 10.0.2.0/24: the router .2, the name server .3, the guest .15 (QEMU, "Using the user mode network stack"). */
#define DEFAULT_NET  0x0a000200u
#define DEFAULT_MASK 0xffffff00u
#define ROUTER       0x0202u
#define NAME_SERVER  0x0203u
#define GUEST        0x020fu

#define FORWARD_FORM "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport, as in hostfwd=tcp::5028-:22"

/* ---- addresses ---- */

static int read_net(const char *text, uint32_t *net, uint32_t *mask, struct err *e)
{
    char addr[32];
    struct in_addr a;
    unsigned len = 24;
    *net = DEFAULT_NET;
    *mask = DEFAULT_MASK;
    if (!text)
        return 0;
    snprintf(addr, sizeof addr, "%s", text);
    char *slash = strchr(addr, '/'), *end = NULL;
    if (slash) {
        *slash++ = 0;
        len = (unsigned)strtoul(slash, &end, 10);
        if (!*slash || *end || len < 4 || len > 30)
            return err_set(e, -EINVAL, "network user: net=%s: the prefix length is 4 to 30, as in net=10.0.2.0/24",
                           text);
    }
    if (inet_pton(AF_INET, addr, &a) != 1)
        return err_set(e, -EINVAL, "network user: net=%s is no IPv4 network; say net=10.0.2.0/24", text);
    *mask = ~0u << (32 - len);
    *net = ntohl(a.s_addr) & *mask;
    return 0;
}

/* An address inside the network; the default's low bits if `text` is NULL. */
static int read_inside(const char *what, const char *text, uint32_t net, uint32_t mask, uint32_t low,
                       struct in_addr *out, struct err *e)
{
    out->s_addr = htonl(net | (low & ~mask));
    if (!text)
        return 0;
    if (inet_pton(AF_INET, text, out) != 1)
        return err_set(e, -EINVAL, "network user: %s=%s is no IPv4 address", what, text);
    uint32_t a = ntohl(out->s_addr);
    if ((a & mask) != net || a == net || a == (net | ~mask))
        return err_set(e, -EINVAL, "network user: %s=%s is not an address of the guest's network; see net=", what,
                       text);
    return 0;
}

static int read_ipv4(const struct net_config *c, SlirpConfig *s, struct err *e)
{
    uint32_t net, mask;
    int rc = read_net(c->net, &net, &mask, e);
    if (!rc)
        rc = read_inside("host", c->host, net, mask, ROUTER, &s->vhost, e);
    if (!rc)
        rc = read_inside("dns", c->dns, net, mask, NAME_SERVER, &s->vnameserver, e);
    if (!rc)
        rc = read_inside("dhcpstart", c->dhcpstart, net, mask, GUEST, &s->vdhcp_start, e);
    if (rc)
        return rc;
    if (s->vhost.s_addr == s->vnameserver.s_addr || s->vhost.s_addr == s->vdhcp_start.s_addr ||
        s->vnameserver.s_addr == s->vdhcp_start.s_addr)
        return err_set(e, -EINVAL, "network user: host, dns and dhcpstart are not three different addresses of net=%s",
                       c->net ? c->net : "10.0.2.0/24");
    s->vnetwork.s_addr = htonl(net);
    s->vnetmask.s_addr = htonl(mask);
    return 0;
}

static int check_length(const char *what, const char *text, size_t max, struct err *e)
{
    if (text && strlen(text) > max)
        return err_set(e, -EINVAL, "network user: %s=%s is longer than %zu characters", what, text, max);
    return 0;
}

static int read_slirp(const struct net_config *c, SlirpConfig *s, struct err *e)
{
    *s = (SlirpConfig){.version = 4,
                       .restricted = c->restricted,
                       .in_enabled = !c->ipv4_off,
                       .in6_enabled = !c->ipv6_off,
                       .vprefix_len = 64,
                       .vhostname = c->hostname,
                       .vdomainname = c->domain,
                       .tftp_path = c->tftp,
                       .bootfile = c->bootfile};
    if (c->ipv4_off && c->ipv6_off)
        return err_set(e, -EINVAL, "network user: ipv4=off and ipv6=off leave nothing");
    inet_pton(AF_INET6, "fec0::", &s->vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &s->vhost6);
    inet_pton(AF_INET6, "fec0::3", &s->vnameserver6);
    int rc = read_ipv4(c, s, e);
    if (!rc)
        rc = check_length("hostname", c->hostname, HOSTNAME_MAX, e);
    if (!rc)
        rc = check_length("domainname", c->domain, DOMAIN_MAX, e);
    if (!rc)
        rc = check_length("bootfile", c->bootfile, BOOTFILE_MAX, e);
    return rc;
}

/* ---- hostfwd ---- */

struct reader {
    char text[256];
    char *at;
};

/* Up to `stop` (not inside brackets), which is skipped. NULL: there is none. */
static char *field(struct reader *r, char stop)
{
    char *from = r->at, *p = from;
    if (*p == '[') {
        p = strchr(p, ']');
        if (!p)
            return NULL;
    }
    p = strchr(p, stop);
    if (!p)
        return NULL;
    *p = 0;
    r->at = p + 1;
    return from;
}

static bool read_port(const char *text, unsigned *port, unsigned least)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    *port = (unsigned)v;
    return *text >= '0' && *text <= '9' && !*end && v >= least && v <= 65535;
}

/* "a.b.c.d", "[v6]", or empty: any, in `family`. */
static bool read_addr(char *text, int family, unsigned port, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    size_t n = strlen(text);
    memset(out, 0, sizeof *out);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text[n - 1] = 0;
        *len = sizeof *v6;
        *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        return inet_pton(AF_INET6, text + 1, &v6->sin6_addr) == 1;
    }
    if (!n && family == AF_INET6) {
        *len = sizeof *v6;
        *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        return true;
    }
    *len = sizeof *v4;
    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return !n || inet_pton(AF_INET, text, &v4->sin_addr) == 1;
}

static int bad_forward(const char *text, const char *what, struct err *e)
{
    return err_set(e, -EINVAL, "network user: hostfwd=%s: %s; it is " FORWARD_FORM, text, what);
}

/* IPv6 is for TCP only: libslirp 4.7 uses a packet that is not there if a forwarded UDP socket has an error. */
static int read_forward(const char *text, const SlirpConfig *s, struct user_forward *f, struct err *e)
{
    struct reader r;
    unsigned guest_port;
    r.at = r.text;
    if ((size_t)snprintf(r.text, sizeof r.text, "%s", text) >= sizeof r.text)
        return bad_forward(text, "too long", e);
    char *proto = field(&r, ':'), *host = proto ? field(&r, ':') : NULL, *port = host ? field(&r, '-') : NULL;
    char *guest = port ? field(&r, ':') : NULL;
    if (!guest)
        return bad_forward(text, "a part is missing", e);
    f->udp = !strcmp(proto, "udp");
    if (!f->udp && *proto && strcmp(proto, "tcp"))
        return bad_forward(text, "only tcp and udp are forwarded", e);
    if (!read_port(port, &f->port, 0))
        return bad_forward(text, "the host's port is not a number up to 65535", e);
    if (!read_port(r.at, &guest_port, 1))
        return bad_forward(text, "the guest's port is not a number from 1 to 65535", e);
    int family = *guest == '[' ? AF_INET6 : AF_INET;
    if (!read_addr(host, family, f->port, &f->host, &f->host_len))
        return bad_forward(text, "the host's address is not one", e);
    if (!read_addr(guest, f->host.ss_family, guest_port, &f->guest, &f->guest_len))
        return bad_forward(text, "the guest's address is not one", e);
    if (f->host.ss_family != f->guest.ss_family)
        return bad_forward(text, "IPv4 is forwarded to IPv4 and IPv6 to IPv6", e);
    if (f->udp && family == AF_INET6)
        return bad_forward(text, "UDP is forwarded over IPv4 only", e);
    if (f->host.ss_family == AF_INET ? !s->in_enabled : !s->in6_enabled)
        return bad_forward(text, "its IP version is switched off", e);
    return 0;
}

int net_user_setup(const struct net_config *c, struct user_setup *s, struct err *e)
{
    int rc = read_slirp(c, &s->slirp, e);
    if (!rc && c->hostfwds > NET_FORWARDS)
        rc = err_set(e, -EINVAL, "network user: more than %d hostfwd", NET_FORWARDS);
    for (s->forwards = 0; !rc && s->forwards < c->hostfwds; s->forwards++) {
        s->text[s->forwards] = c->hostfwd[s->forwards];
        rc = read_forward(s->text[s->forwards], &s->slirp, &s->forward[s->forwards], e);
    }
    return rc;
}
