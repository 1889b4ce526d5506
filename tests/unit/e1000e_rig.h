/* A small driver of the 82574 over a card in a machine without CPUs, on a cable whose other end is the test. */
#ifndef HEC_TESTS_E1000E_RIG_H
#define HEC_TESTS_E1000E_RIG_H

#include "fake_net.h"
#include "pci_rig.h"

#include "dev/e1000e_priv.h"

#define RIG_DEVFN    PCI_DEVFN(7, 0)
#define RIG_GSI      (pci_intx_gsi(7, 1))
#define RIG_RX       0x10000u /* rings, of RIG_N descriptors */
#define RIG_TX       0x20000u
#define RIG_TX1      0x28000u
#define RIG_N        16u
#define RIG_BUFFERS  0x100000u /* receive buffers, RIG_BUFFER apart */
#define RIG_BUFFER   0x4000u
#define RIG_DATA     0x200000u /* what is sent */
#define RIG_VECTOR   0x60u     /* of MSI-X entry 0, and of MSI */
#define RIG_MSI_ADDR 0xfee6b000u
#define RIG_FILL     0xa5

static const uint8_t rig_mac[6] = {0x52, 0x54, 0, 0xab, 0xcd, 0xef};

struct e1000e_rig {
    struct pci_rig pci;
    struct ioloop loop;
    struct net net;
    struct e1000e *card;
    uint64_t bar;
    uint16_t ports;
    uint32_t rdt, tdt[2];
};

/* ---- registers and memory ---- */
static inline uint32_t rd(struct e1000e_rig *r, unsigned reg)
{
    return (uint32_t)mem_rd(&r->pci, r->bar + reg, 4);
}

static inline void wr(struct e1000e_rig *r, unsigned reg, uint32_t val)
{
    mem_wr(&r->pci, r->bar + reg, 4, val);
}

static inline uint8_t *guest(struct e1000e_rig *r, uint64_t gpa)
{
    return r->pci.ram.low + gpa;
}

static inline void run(struct e1000e_rig *r)
{
    assert_true(fake_loop_run(&r->loop, 100000));
}

static inline void command_wr(struct e1000e_rig *r, unsigned val)
{
    cfg_wr(&r->pci, 0, RIG_DEVFN, PCI_COMMAND, 2, val);
    run(r);
}

/* ---- life ---- */
static inline void e1000e_rig_init(struct e1000e_rig *r)
{
    memset(r, 0, sizeof *r);
    rig_init(&r->pci);
    fake_net_init(&r->net, &r->loop);
    struct e1000e_config c = {.host = &r->pci.host, .devfn = RIG_DEVFN, .net = &r->net};
    memcpy(c.mac, rig_mac, 6);
    assert_int_equal(e1000e_create(&c, &r->card, &r->pci.f.err), 0);
    assert_int_equal(pci_host_assign(&r->pci.host, &r->pci.f.err), 0);
    r->bar = cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_BAR0, 4) & ~0xfull;
    r->ports = (uint16_t)(cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_BAR0 + 8, 4) & ~3ull);
    command_wr(r, PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER);
}

static inline void e1000e_rig_fini(struct e1000e_rig *r)
{
    e1000e_destroy(r->card);
    assert_true(fake_loop_idle(&r->loop));
    fake_net_fini(&r->net);
    rig_fini(&r->pci);
}

/* ---- interrupts ---- */
static inline void msi_on(struct e1000e_rig *r, bool on)
{
    unsigned at = cap_of(&r->pci, 0, RIG_DEVFN, PCI_CAP_MSI);
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 4, 4, RIG_MSI_ADDR);
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 8, 4, 0);
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 12, 2, RIG_VECTOR);
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 2, 2, on);
}

static inline void msix_on(struct e1000e_rig *r, bool on)
{
    unsigned at = cap_of(&r->pci, 0, RIG_DEVFN, PCI_CAP_MSIX);
    uint64_t table = cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_BAR0 + 12, 4) & ~0xfull;
    for (unsigned v = 0; v < E1K_VECTORS; v++) {
        mem_wr(&r->pci, table + 16 * v, 4, RIG_MSI_ADDR);
        mem_wr(&r->pci, table + 16 * v + 4, 4, 0);
        mem_wr(&r->pci, table + 16 * v + 8, 4, RIG_VECTOR + v);
        mem_wr(&r->pci, table + 16 * v + 12, 4, 0);
    }
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 2, 2, on ? 0x8000 : 0);
}

/* Messages with this vector so far. */
static inline unsigned irqs(struct e1000e_rig *r, unsigned vector)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->pci.sent && i < RIG_LOG; i++)
        n += r->pci.irq[i].vector == vector;
    return n;
}

static inline bool intx(struct e1000e_rig *r)
{
    return r->pci.f.level >> RIG_GSI & 1;
}

/* ---- receiving ---- */
static inline void rx_buffers(struct e1000e_rig *r, unsigned desc_len)
{
    memset(guest(r, RIG_RX), 0, RIG_N * 32);
    memset(guest(r, RIG_BUFFERS), RIG_FILL, RIG_N * RIG_BUFFER);
    for (unsigned i = 0; i < RIG_N; i++)
        for (unsigned k = 0; k < (desc_len == 32 ? 4 : 1); k++)
            st64(guest(r, RIG_RX + i * desc_len + 8 * k), RIG_BUFFERS + i * RIG_BUFFER + k * 0x1000);
}

/* Buffers of 2048 bytes, no CRC; `rctl` and `rfctl` are added. All but one descriptor are the card's. */
static inline void rx_start(struct e1000e_rig *r, uint32_t rctl, uint32_t rfctl)
{
    unsigned desc_len = rctl & RCTL_DTYP_SPLIT ? 32 : 16;
    wr(r, R_RCTL, 0);
    rx_buffers(r, desc_len);
    wr(r, R_RDBAL, RIG_RX);
    wr(r, R_RDBAH, 0);
    wr(r, R_RDLEN, RIG_N * desc_len);
    wr(r, R_RDH, 0);
    wr(r, R_RDT, r->rdt = RIG_N - 1);
    wr(r, R_RFCTL, rfctl);
    wr(r, R_RCTL, RCTL_EN | RCTL_SECRC | RCTL_BAM | rctl);
    run(r);
}

static inline uint8_t *rx_buffer(struct e1000e_rig *r, unsigned i)
{
    return guest(r, RIG_BUFFERS + i * RIG_BUFFER);
}

/* Word `k` of descriptor `i` that is `desc_len` long. */
static inline uint64_t rx_word(struct e1000e_rig *r, unsigned desc_len, unsigned i, unsigned k)
{
    return ld64(guest(r, RIG_RX + i * desc_len + 8 * k));
}

/* Give the card back what was received. */
static inline void rx_post(struct e1000e_rig *r, unsigned n)
{
    r->rdt = (r->rdt + n) % RIG_N;
    wr(r, R_RDT, r->rdt);
    run(r);
}

static inline bool give(struct e1000e_rig *r, const void *frame, size_t len)
{
    bool taken = fake_net_give(&r->net, frame, len);
    run(r);
    return taken;
}

/* A frame for us whose content tells its number, of no known protocol. */
static inline void rig_frame(uint8_t *p, size_t len, unsigned number)
{
    static const uint8_t from[8] = {2, 0, 0, 0, 0, 9, 0x88, 0xb5};
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(number * 31 + i + i / 256);
    memcpy(p, rig_mac, 6);
    memcpy(p + 6, from, 8);
}

/* ---- sending ---- */
enum tx_bits {
    T_EOP = 1 << 24,
    T_IFCS = 1 << 25,
    T_IC = 1 << 26,
    T_TSE = 1 << 26,
    T_RS = 1 << 27,
    T_DEXT = 1 << 29,
    T_VLE = 1 << 30,
    T_DATA = 1 << 20 | T_DEXT
};
#define T_IXSM (1ull << 40)
#define T_TXSM (1ull << 41)

static inline void tx_start(struct e1000e_rig *r)
{
    for (unsigned q = 0; q < 2; q++) {
        memset(guest(r, RIG_TX + q * (RIG_TX1 - RIG_TX)), 0, RIG_N * 16);
        wr(r, R_TDBAL + q * E1K_QUEUE, RIG_TX + q * (RIG_TX1 - RIG_TX));
        wr(r, R_TDBAH + q * E1K_QUEUE, 0);
        wr(r, R_TDLEN + q * E1K_QUEUE, RIG_N * 16);
        wr(r, R_TDH + q * E1K_QUEUE, 0);
        wr(r, R_TDT + q * E1K_QUEUE, 0);
        r->tdt[q] = 0;
    }
    wr(r, R_TCTL, TCTL_EN);
    run(r);
}

static inline uint8_t *tx_desc(struct e1000e_rig *r, unsigned q, unsigned i)
{
    return guest(r, RIG_TX + q * (RIG_TX1 - RIG_TX) + 16 * i);
}

/* Put a descriptor in, without telling; its number. */
static inline unsigned tx_put(struct e1000e_rig *r, unsigned q, uint64_t low, uint64_t high)
{
    unsigned i = r->tdt[q];
    st64(tx_desc(r, q, i), low);
    st64(tx_desc(r, q, i) + 8, high);
    r->tdt[q] = (i + 1) % RIG_N;
    return i;
}

static inline void tx_kick(struct e1000e_rig *r, unsigned q)
{
    wr(r, R_TDT + q * E1K_QUEUE, r->tdt[q]);
    run(r);
}

static inline bool tx_done(struct e1000e_rig *r, unsigned q, unsigned i)
{
    return tx_desc(r, q, i)[12] & 1;
}

static inline uint64_t tx_context(unsigned ipcss, unsigned ipcso, unsigned ipcse, unsigned tucss, unsigned tucso,
                                  unsigned tucse)
{
    return ipcss | ipcso << 8 | (uint64_t)ipcse << 16 | (uint64_t)tucss << 32 | (uint64_t)tucso << 40 |
           (uint64_t)tucse << 48;
}

/* The k-th of the frames that were sent. */
static inline struct fake_frame *sent(struct e1000e_rig *r, unsigned k)
{
    assert_true(k < r->net.sent && r->net.sent - k <= FAKE_SEEN);
    return &r->net.seen[k % FAKE_SEEN];
}

/* ---- Internet packets, summed a byte pair at a time ---- */
static inline uint16_t ref_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* The sum of the pseudo header of what begins at `l4`. */
static inline uint16_t ref_pseudo(const uint8_t *ip, unsigned proto, size_t len)
{
    bool v4 = ip[0] >> 4 == 4;
    return ref_sum(v4 ? ip + 12 : ip + 8, v4 ? 8 : 32, (uint32_t)(proto + len));
}

static inline bool ref_l4_good(const uint8_t *ip, const uint8_t *l4, unsigned proto, size_t len)
{
    return ref_sum(l4, len, ref_pseudo(ip, proto, len)) == 0xffff;
}

/* A frame with `payload` bytes of TCP (6) or UDP (17) by IPv4 or IPv6 at `p`, behind `l2` bytes that are there already;
 * sums are complete. Its length. */
static inline size_t rig_packet(uint8_t *p, size_t l2, bool v6, unsigned proto, size_t payload, unsigned number)
{
    size_t ip_len = v6 ? 40 : 20, l4_len = proto == 6 ? 20 : 8, len = l4_len + payload;
    uint8_t *ip = p + l2, *l4 = ip + ip_len;
    put16be(p + l2 - 2, v6 ? 0x86dd : 0x0800);
    memset(ip, 0, ip_len + l4_len);
    for (size_t i = 0; i < payload; i++)
        l4[l4_len + i] = (uint8_t)(number * 17 + i + i / 256);
    ip[0] = v6 ? 0x60 : 0x45;
    put16be(ip + (v6 ? 4 : 2), (uint16_t)(v6 ? len : 20 + len));
    ip[v6 ? 7 : 8] = 64;
    ip[v6 ? 6 : 9] = (uint8_t)proto;
    for (unsigned i = 0; i < (v6 ? 32u : 8u); i++)
        ip[(v6 ? 8 : 12) + i] = (uint8_t)(0x0a + 3 * i);
    put16be(l4, 1234);
    put16be(l4 + 2, 80);
    if (proto == 6) {
        put32be(l4 + 4, 0xfffff000u); /* it wraps */
        l4[12] = 0x50;
        l4[13] = 0x19; /* FIN, PSH, ACK */
    } else {
        put16be(l4 + 4, (uint16_t)len);
    }
    if (!v6) {
        put16be(ip + 4, 0xfffe);
        put16be(ip + 10, (uint16_t)~ref_sum(ip, 20, 0));
    }
    put16be(l4 + (proto == 6 ? 16 : 6), (uint16_t)~ref_sum(l4, len, ref_pseudo(ip, proto, len)));
    return l2 + ip_len + len;
}

/* ---- the card of a file whose tests each have a new one, in *state ---- */
static struct e1000e_rig rig;

static inline int setup(void **state)
{
    e1000e_rig_init(&rig);
    *state = &rig;
    return 0;
}

static inline int teardown(void **state)
{
    e1000e_rig_fini(*state);
    return 0;
}

#endif
