/* Any registers, any guest memory and any frames from the wire: the 82574 stays within memory, its loop comes to rest,
 * and a reset leaves a card that sends and receives. */
#include "pci_box.h"

#include "../unit/fake_net.h"
#include "dev/e1000e_priv.h"

#define RAM_SIZE 0x40000u
#define DEVFN    PCI_DEVFN(3, 0)
#define RX       0x1000u /* rings of 16 descriptors */
#define TX       0x2000u
#define BUFFERS  0x10000u
#define RING     16u

struct box {
    struct pci_box pci;
    struct ioloop loop;
    struct net net;
    struct e1000e *card;
    uint64_t bar, io, table;
    bool line[24];
};

static void set_line(void *opaque, unsigned gsi, bool level)
{
    ensure(gsi < 24);
    ((struct box *)opaque)->line[gsi] = level;
}

static uint64_t config(unsigned off)
{
    return pci_box_config(DEVFN, off);
}

static void wire(struct box *b)
{
    struct err e = {""};
    ensure(ram_init(&b->pci.ram, RAM_SIZE, &e) == 0);
    pci_box_init(&b->pci, (struct pci_host_config){
                              .port = {.deliver = pci_box_deliver}, .intx = {set_line, b, 0}, .pic = {set_line, b, 0}});
    const struct e1000e_config ec = {
        .host = &b->pci.host, .devfn = DEVFN, .net = &b->net, .mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56}};
    ensure(e1000e_create(&ec, &b->card, &e) == 0);
    ensure(pci_host_assign(&b->pci.host, &e) == 0);
    b->bar = b->card->func.bar[0].at;
    b->io = b->card->func.bar[2].at;
    b->table = b->card->func.bar[3].at;
}

/* The cable keeps its memory from one run to the next. */
static void init(struct box *b)
{
    struct net net = b->net;
    memset(b, 0, sizeof *b);
    b->net = (struct net){.loop = &b->loop, .seen = net.seen, .wait = net.wait};
    if (!net.seen)
        fake_net_init(&b->net, &b->loop);
    wire(b);
    bus_write(&b->pci.mmio, config(PCI_COMMAND), 2, 7);
}

static void fini(struct box *b)
{
    e1000e_destroy(b->card);
    ensure(fake_loop_idle(&b->loop) && !b->net.plugged);
    pci_box_fini(&b->pci);
    ram_fini(&b->pci.ram);
}

static void wr(struct box *b, unsigned reg, uint32_t val)
{
    bus_write(&b->pci.mmio, b->bar + reg, 4, val);
}

static uint32_t rd(struct box *b, unsigned reg)
{
    return (uint32_t)bus_read(&b->pci.mmio, b->bar + reg, 4);
}

static void run(struct box *b)
{
    ensure(fake_loop_run(&b->loop, 1000000));
}

/* Rings that are right, with whatever is in RCTL and the like. */
static void start(struct box *b)
{
    for (unsigned i = 0; i < RING; i++)
        st64(b->pci.ram.low + RX + 16 * i, BUFFERS + 0x1000 * i);
    wr(b, R_RDBAL, RX);
    wr(b, R_RDBAH, 0);
    wr(b, R_RDLEN, RING * 16);
    wr(b, R_RDH, 0);
    wr(b, R_RDT, RING - 1);
    wr(b, R_RCTL, rd(b, R_RCTL) | RCTL_EN | RCTL_UPE | RCTL_MPE);
    wr(b, R_TDBAL, TX);
    wr(b, R_TDBAH, 0);
    wr(b, R_TDLEN, RING * 16);
    wr(b, R_TDH, 0);
    wr(b, R_TDT, 0);
    wr(b, R_TCTL, TCTL_EN);
}

/* A frame that is nearly right: IPv4 or IPv6 with TCP or UDP, some bytes of it the script's. */
static size_t make_frame(struct script *s, uint8_t *p)
{
    unsigned how = (unsigned)script_get(s, 1), l3 = how & 1 ? 18 : 14;
    size_t len = script_get(s, 2) & (how & 0x80 ? 0xffff : 0x7ff);
    memset(p, 0x11, NET_FRAME_MAX);
    st16(p + 12, how & 1 ? 0x0081 : 0);
    put16be(p + l3 - 2, how & 2 ? 0x86dd : 0x0800);
    p[l3] = how & 2 ? 0x60 : 0x45;
    put16be(p + l3 + (how & 2 ? 4 : 2), (uint16_t)(len - l3 - (how & 2 ? 40 : 0)));
    p[l3 + (how & 2 ? 6 : 9)] = how & 4 ? 17 : 6;
    for (unsigned i = 0; i < (how >> 3 & 7); i++) {
        unsigned at = (unsigned)script_get(s, 1) & 0x7f;
        p[at] = (uint8_t)script_get(s, 1);
    }
    return len;
}

static void frame_arrives(struct box *b, struct script *s)
{
    static uint8_t frame[NET_FRAME_MAX];
    size_t len = make_frame(s, frame);
    if (!b->net.held)
        fake_net_give(&b->net, frame, len);
}

/* A frame to send: a context, a head, a body. */
static void frame_leaves(struct box *b, struct script *s)
{
    static uint8_t frame[NET_FRAME_MAX];
    size_t len = min_u64(make_frame(s, frame), 0xfff);
    unsigned how = (unsigned)script_get(s, 1), at = rd(b, R_TDT) % RING, cut = how >> 4 << 4;
    uint8_t *d = b->pci.ram.low + TX;
    memcpy(b->pci.ram.low + 0x8000, frame, len);
    if (how & 1) {
        st64(d + 16 * at, script_get(s, 8));
        st64(d + 16 * at + 8, 1u << 29 | script_get(s, 2) << 48 | (script_get(s, 1) & 7) << 24);
        at = (at + 1) % RING;
    }
    uint64_t type = how & 2 ? 1u << 29 | 1u << 20 : 0, options = script_get(s, 4) << 32 | (how & 0xc) << 24;
    if (how & 8)
        options |= 1u << 30;
    if (cut < len) {
        st64(d + 16 * at, 0x8000);
        st64(d + 16 * at + 8, cut | type | options);
        at = (at + 1) % RING;
    } else {
        cut = 0;
    }
    st64(d + 16 * at, 0x8000 + cut);
    st64(d + 16 * at + 8, (len - cut) | type | options | 9u << 24);
    wr(b, R_TDT, (at + 1) % RING);
}

static void access_register(struct box *b, struct script *s, bool write)
{
    uint64_t what = script_get(s, 3), off = what & 0x1ffff;
    unsigned size = 1u << (what >> 17 & 3);
    if (write)
        bus_write(&b->pci.mmio, b->bar + off, size, script_get(s, size));
    else
        bus_read(&b->pci.mmio, b->bar + off, size);
}

/* The registers that matter, often. */
static void known_register(struct box *b, struct script *s)
{
    static const uint16_t regs[32] = {R_CTRL,     R_CTRL_EXT, R_EERD,        R_MDIC,         R_VET,   R_ICR,   R_ITR,
                                      R_ICS,      R_IMS,      R_IMC,         R_EIAC,         R_IAM,   R_IVAR,  R_EITR,
                                      R_EITR + 4, R_RCTL,     R_TCTL,        R_PSRCTL,       R_RDBAL, R_RDBAH, R_RDLEN,
                                      R_RDH,      R_RDT,      R_TDBAL,       R_TDLEN,        R_TDH,   R_TDT,   R_RXCSUM,
                                      R_RFCTL,    R_RA + 4,   R_TDT + 0x100, R_TDLEN + 0x100};
    unsigned reg = regs[script_get(s, 1) & 31];
    uint32_t val = (uint32_t)script_get(s, 4);
    wr(b, reg, reg == R_CTRL ? val & ~(script_get(s, 1) & 3 ? (uint32_t)CTRL_RST : 0) : val);
}

/* Whatever it was told before: after a reset it works. */
static void recover(struct box *b)
{
    static uint8_t frame[100];
    unsigned sent = b->net.sent;
    bus_write(&b->pci.mmio, config(PCI_COMMAND), 2, 7);
    wr(b, R_CTRL, CTRL_RST);
    run(b);
    ensure(!b->net.held && rd(b, R_EECD) & EECD_AUTO_RD);
    ensure(!rd(b, R_ICR) && !rd(b, R_IMS) && !b->line[pci_intx_gsi(3, 1)]);
    start(b);
    for (unsigned i = 0; i < sizeof frame; i++)
        frame[i] = (uint8_t)(i * 3);
    memcpy(b->pci.ram.low + 0x8000, frame, sizeof frame);
    st64(b->pci.ram.low + TX, 0x8000);
    st64(b->pci.ram.low + TX + 8, sizeof frame | 9u << 24);
    wr(b, R_TDT, 1);
    ensure(fake_net_give(&b->net, frame, sizeof frame));
    run(b);
    const struct fake_frame *f = &b->net.seen[sent % FAKE_SEEN];
    ensure(b->net.sent == sent + 1 && f->len == sizeof frame && !memcmp(f->bytes, frame, sizeof frame));
    ensure(b->pci.ram.low[TX + 12] == 1 && rd(b, R_TDH) == 1);
    ensure(rd(b, R_RDH) == 1 && (uint16_t)ld64(b->pci.ram.low + RX + 8) == sizeof frame + 4);
    ensure(!memcmp(b->pci.ram.low + BUFFERS, frame, sizeof frame));
}

static void config_write(struct box *b, struct script *s)
{
    uint64_t what = script_get(s, 2);
    unsigned off = what & 0xff;
    if (off >= PCI_BAR0 && off < PCI_BARS_END)
        off = PCI_COMMAND;
    uint64_t val = script_get(s, 2);
    bus_write(&b->pci.mmio, config(off & ~1u), 2, off < 6 ? val | 3 : val);
    bus_write(&b->pci.mmio, config(PCI_BAR0), 4, b->bar); /* a function level reset may have taken them away */
    bus_write(&b->pci.mmio, config(PCI_BAR0 + 8), 4, b->io);
    bus_write(&b->pci.mmio, config(PCI_BAR0 + 12), 4, b->table);
    if (what & 0x100)
        bus_write(&b->pci.mmio, config(PCI_COMMAND), 2, 7);
}

static void step(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    uint64_t at;
    switch (op & 15) {
    case 0:
        access_register(b, s, false);
        break;
    case 1:
        access_register(b, s, true);
        break;
    case 2:
    case 3:
        known_register(b, s);
        break;
    case 4:
        at = script_get(s, 3) % (RAM_SIZE - 8);
        st64(b->pci.ram.low + at, script_get(s, 8));
        break;
    case 5:
        bus_write(&b->pci.ports, b->io, 4, script_get(s, 2));
        bus_write(&b->pci.ports, b->io + 4, 4, script_get(s, 4));
        break;
    case 6:
        config_write(b, s);
        break;
    case 7:
        bus_write(&b->pci.mmio, b->table + (script_get(s, 1) & 0x7c), 4, op & 0x80 ? 0xfee00000 : script_get(s, 1));
        break;
    case 8:
        if (op & 0x80)
            e1000e_reset(b->card);
        start(b);
        break;
    case 9:
        fake_loop_timers(&b->loop);
        break;
    case 10:
        run(b);
        break;
    case 11:
    case 12:
        frame_arrives(b, s);
        break;
    case 13:
        wr(b, R_RDT, (rd(b, R_RDT) + (op >> 4)) % RING);
        break;
    default:
        frame_leaves(b, s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct box b;
    struct script s = {data, size};
    init(&b);
    start(&b);
    while (s.left)
        step(&b, &s);
    run(&b);
    recover(&b);
    fini(&b);
    return 0;
}
