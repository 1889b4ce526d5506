/* -netdev, -net, -nic. */
#include "cli/field.h"
#include "cli/options_priv.h"

#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>

static int no_memory(struct err *e)
{
    return err_set(e, -ENOMEM, "no host memory for the options");
}

/* ---- the other end of the cable ---- */

static int user_hostfwd(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    struct net_config *n = &((struct vm_net *)base)->net;
    if (n->hostfwds == NET_FORWARDS)
        return err_set(e, -EINVAL, "%s: more than %u forwarded ports", k->option, NET_FORWARDS);
    return field_text(d, k, &n->hostfwd[n->hostfwds++], e);
}

static int tap_fd(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    uint32_t fd = 0;
    int rc = keyval_u32(k, 3, 1u << 20, &fd, e);
    if (!rc)
        ((struct vm_net *)base)->net.fd = (int)fd;
    return rc;
}

#define AT(member) offsetof(struct vm_net, net.member)
static const struct field user_fields[] = {
    {"hostfwd", FIELD_CUSTOM, .set = user_hostfwd, .values = "tcp|udp:[ADDR]:PORT-[ADDR]:PORT",
     .help = "a port of the host that leads to one of the guest, as tcp::5028-:22; as often as needed"},
    {"restrict", FIELD_ONOFF, AT(restricted), .help = "the guest reaches nothing outside (off)"},
    {"net", FIELD_TEXT, AT(net), .values = "ADDR/BITS", .help = "the guest's network (10.0.2.0/24)"},
    {"host", FIELD_TEXT, AT(host), .values = "ADDR", .help = "the host in it (10.0.2.2)"},
    {"dns", FIELD_TEXT, AT(dns), .values = "ADDR", .help = "the name server in it (10.0.2.3)"},
    {"dhcpstart", FIELD_TEXT, AT(dhcpstart), .values = "ADDR", .help = "the first address given out (10.0.2.15)"},
    {"hostname", FIELD_TEXT, AT(hostname), .values = "NAME", .help = "what DHCP calls the guest"},
    {"domainname", FIELD_TEXT, AT(domain), .values = "NAME", .help = "what DHCP calls its domain"},
    {"tftp", FIELD_TEXT, AT(tftp), .values = "DIR", .help = "files for the guest by TFTP"},
    {"bootfile", FIELD_TEXT, AT(bootfile), .values = "FILE", .help = "what DHCP says to boot"},
    {"ipv4", FIELD_OFFON, AT(ipv4_off), .help = "IPv4 is there (on)"},
    {"ipv6", FIELD_OFFON, AT(ipv6_off), .help = "IPv6 is there (on)"},
    {"smb", FIELD_NEUTRAL, .values = "-", .help = "no file server is started here: drop it"},
    {"guestfwd", FIELD_NEUTRAL, .values = "-", .help = "only hostfwd= is done here: drop it"},
};
static const struct field tap_fields[] = {
    {"ifname", FIELD_TEXT, AT(ifname), .values = "NAME", .help = "the host's interface (the kernel chooses)"},
    {"fd", FIELD_CUSTOM, .set = tap_fd, .values = "N", .help = "an open tap, inherited"},
    {"vnet_hdr", FIELD_OFFON, AT(vnet_hdr_off), .help = "checksums and segmentation are offloaded (on)"},
    {"script", FIELD_NEUTRAL, .values = "no",
     .help = "no scripts are run here: set the interface up before, and say no"},
    {"downscript", FIELD_NEUTRAL, .values = "no", .help = "no scripts are run here: say no"},
    {"vhost", FIELD_NEUTRAL, .values = "off", .help = "frames go through hecaton's own thread: say off, or drop it"},
    {"queues", FIELD_NEUTRAL, .values = "1", .help = "a tap has one queue here: drop it"},
    {.name = "sndbuf", .type = FIELD_NEUTRAL},
};
static const struct field socket_fields[] = {
    {"listen", FIELD_TEXT, AT(listen), .values = "[HOST]:PORT", .help = "wait there for the other machine"},
    {"connect", FIELD_TEXT, AT(connect), .values = "HOST:PORT", .help = "the other machine that listens"},
    {"mcast", FIELD_NEUTRAL, .values = "-", .help = "only listen= and connect= are done here: give one of them"},
    {"udp", FIELD_NEUTRAL, .values = "-", .help = "only listen= and connect= are done here: give one of them"},
};
static const struct field net_fields[] = {
    {"id", FIELD_TEXT, AT(id), .help = "its name for -device"},
    {"pcap", FIELD_TEXT, AT(pcap), .values = "FILE", .help = "write every frame there, for wireshark"},
};
#undef AT

static const struct backend {
    const char *name;
    enum net_kind kind;
    const char *help;
    const struct field *fields;
    size_t n;
} backends[] = {
    {"user", NET_USER, "the host's network without privileges, behind address translation", user_fields,
     ARRAY_SIZE(user_fields)},
    {"tap", NET_TAP, "an interface of the host", tap_fields, ARRAY_SIZE(tap_fields)},
    {"socket", NET_SOCKET, "another machine, through TCP", socket_fields, ARRAY_SIZE(socket_fields)},
};

static const struct backend *backend(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(backends); i++)
        if (!strcmp(backends[i].name, name))
            return &backends[i];
    return NULL;
}

static int unknown_backend(const char *option, const char *name, const char *more, struct err *e)
{
    const char *names[ARRAY_SIZE(backends) + 2];
    size_t n = 0;
    for (; n < ARRAY_SIZE(backends); n++)
        names[n] = backends[n].name;
    if (more)
        names[n++] = more;
    if (more)
        names[n++] = "none";
    return unknown_name(option, "network", name, names, n, e);
}

static void net_help(FILE *out)
{
    fputs("-netdev user|tap|socket,id=ID[,property=value...]\n", out);
    fields_help(out, net_fields, ARRAY_SIZE(net_fields));
    for (unsigned i = 0; i < ARRAY_SIZE(backends); i++) {
        help_item(out, backends[i].name, backends[i].help);
        fields_help(out, backends[i].fields, backends[i].n);
    }
}

static int check_net(const struct vm_net *n, struct err *e)
{
    if (n->net.kind == NET_SOCKET && !n->net.listen == !n->net.connect)
        return err_set(e, -EINVAL, "%s: give either listen=[HOST]:PORT or connect=HOST:PORT", n->option);
    if (n->net.kind == NET_TAP && n->net.fd >= 0 && n->net.ifname)
        return err_set(e, -EINVAL, "%s: fd= is an open tap already: drop ifname=", n->option);
    return net_config_check(&n->net, e);
}

/* What is left in `k`, for the network `n` and perhaps its card. */
static int net_apply(struct options *o, struct keyval *k, const struct backend *b, struct vm_net *n,
                     const struct field_set *card, struct err *e)
{
    struct field_set sets[3] = {{b->fields, b->n, n}, {net_fields, ARRAY_SIZE(net_fields), n}};
    if (card)
        sets[2] = *card;
    n->net.kind = b->kind;
    n->option = vm_devices_text(&o->cfg->dev, "-%s %s", o->option, b->name);
    if (!n->option)
        return no_memory(e);
    k->option = n->option;
    int rc = fields_apply(&o->cfg->dev, k, sets, card ? 3 : 2, e);
    return rc ? rc : check_net(n, e);
}

/* The first word of the list: "user", or "type=user". 0, or -EINVAL. */
static int first_word(struct keyval *k, const char *option, const char *arg, const char **word, struct err *e)
{
    keyval_init(k, option, arg);
    int rc = keyval_next(k, e);
    if (rc < 0)
        return rc;
    *word = !rc ? "" : k->val && !strcmp(k->key, "type") ? k->val : k->key;
    return 0;
}

int opt_netdev(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    const char *word;
    if (!strcmp(arg, "help")) {
        net_help(o->out);
        return OPTION_DONE;
    }
    int rc = first_word(&k, "-netdev", arg, &word, e);
    if (rc)
        return rc;
    const struct backend *b = backend(word);
    if (!b)
        return unknown_backend("-netdev", word, NULL, e);
    struct vm_net *n = vm_devices_net(&o->cfg->dev);
    if (!n)
        return no_memory(e);
    rc = net_apply(o, &k, b, n, NULL, e);
    if (!rc && !n->net.id)
        return err_set(e, -EINVAL, "-netdev %s: give id=ID, for -device e1000e,netdev=ID", arg);
    return rc;
}

/* ---- cards of -net nic and -nic ---- */

static const struct {
    const char *name;
    enum vm_device_kind kind;
} models[] = {
    {"e1000e", VM_DEVICE_E1000E},
    {"virtio-net-pci", VM_DEVICE_VIRTIO_NET},
    {"virtio", VM_DEVICE_VIRTIO_NET},
    {"virtio-net", VM_DEVICE_VIRTIO_NET},
};

static int nic_model(struct vm_devices *d, void *base, const struct keyval *k, struct err *e)
{
    const char *names[ARRAY_SIZE(models)], *want = k->val ? k->val : "";
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++) {
        names[i] = models[i].name;
        if (strcmp(models[i].name, want))
            continue;
        ((struct vm_device *)base)->kind = models[i].kind;
        return 0;
    }
    return unknown_name(k->option, "model", want, names, ARRAY_SIZE(names), e);
}

#define AT(member) offsetof(struct vm_device, member)
static const struct field card_fields[] = {
    {"model", FIELD_CUSTOM, .set = nic_model, .values = "e1000e|virtio-net-pci", .help = "the card (e1000e)"},
    {"mac", FIELD_MAC, AT(mac), .help = "its address (52:54:00:12:34:56 and up)"},
    {"macaddr", FIELD_MAC, .at = AT(mac)},
    {"addr", FIELD_ADDR, AT(addr), .help = "device number and function (from 2 on)"},
    {"vectors", FIELD_U32, .at = AT(vectors), .max = VM_VECTORS_MAX},
};
/* Only of -net nic: of -nic they are the network's. */
static const struct field nic_fields[] = {
    {"netdev", FIELD_TEXT, AT(netdev), .help = "the -netdev it is connected to (what -net says)"},
    {"id", FIELD_TEXT, .at = AT(id)},
    {"name", FIELD_TEXT, .at = AT(id)},
};
#undef AT

static struct vm_device *new_card(struct options *o, const char *option)
{
    struct vm_device *v = vm_devices_device(&o->cfg->dev, VM_DEVICE_E1000E, VM_FROM_NET);
    if (v)
        v->option = option;
    return v;
}

static int check_card(const struct vm_device *v, struct err *e)
{
    if (v->kind != VM_DEVICE_E1000E || v->vectors == VM_ANY)
        return 0;
    return err_set(e, -EINVAL, "%s: an e1000e has five vectors: drop vectors=, or say model=virtio-net-pci", v->option);
}

static int net_nic(struct options *o, struct keyval *k, struct err *e)
{
    struct vm_device *v = new_card(o, "-net nic");
    if (!v)
        return no_memory(e);
    const struct field_set sets[] = {{card_fields, ARRAY_SIZE(card_fields), v},
                                     {nic_fields, ARRAY_SIZE(nic_fields), v}};
    k->option = v->option;
    int rc = fields_apply(&o->cfg->dev, k, sets, ARRAY_SIZE(sets), e);
    return rc ? rc : check_card(v, e);
}

static void card_help(struct options *o)
{
    fprintf(o->out, "-%s\n",
            strcmp(o->option, "nic") ? "net nic[,property=value...]" : "nic user|tap|socket[,property=value...]");
    fields_help(o->out, card_fields, ARRAY_SIZE(card_fields));
    fputs("and what -netdev help lists for a network.\n", o->out);
}

int opt_net(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    const char *word;
    if (!strcmp(arg, "help") || !strcmp(arg, "nic,model=help") || !strcmp(arg, "nic,help")) {
        card_help(o);
        return OPTION_DONE;
    }
    int rc = first_word(&k, "-net", arg, &word, e);
    if (rc || !strcmp(word, "none"))
        return rc;
    if (!strcmp(word, "nic"))
        return net_nic(o, &k, e);
    const struct backend *b = backend(word);
    if (!b)
        return unknown_backend("-net", word, "nic", e);
    struct vm_net *n = vm_devices_net(&o->cfg->dev);
    if (!n)
        return no_memory(e);
    n->hub = true;
    return net_apply(o, &k, b, n, NULL, e);
}

int opt_nic(struct options *o, const char *arg, struct err *e)
{
    struct keyval k;
    const char *word;
    if (!strcmp(arg, "help") || strstr(arg, "model=help")) {
        card_help(o);
        return OPTION_DONE;
    }
    int rc = first_word(&k, "-nic", arg, &word, e);
    if (rc || !strcmp(word, "none"))
        return rc;
    const struct backend *b = backend(word);
    if (!b)
        return unknown_backend("-nic", word, "none", e);
    struct vm_net *n = vm_devices_net(&o->cfg->dev);
    struct vm_device *v = new_card(o, "-nic");
    if (!n || !v)
        return no_memory(e);
    const struct field_set card = {card_fields, ARRAY_SIZE(card_fields), v};
    v->net = n;
    n->user = v;
    rc = net_apply(o, &k, b, n, &card, e);
    return rc ? rc : check_card(v, e);
}
