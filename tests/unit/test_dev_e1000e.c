/* The 82574's registers: NVM, PHY, interrupts of every kind, statistics, resets, mastering. */
#include "e1000e_rig.h"

/* ---- NVM, PHY, ports ---- */

static uint16_t nvm(struct e1000e_rig *r, unsigned word)
{
    wr(r, R_EERD, word << 2 | 1);
    uint32_t v = rd(r, R_EERD);
    assert_true(v & 2);
    assert_int_equal(v >> 2 & 0x3fff, word);
    return (uint16_t)(v >> 16);
}

static void test_nvm(void **state)
{
    struct e1000e_rig *r = *state;
    uint16_t sum = 0;
    for (unsigned i = 0; i < 0x40; i++)
        sum = (uint16_t)(sum + nvm(r, i));
    assert_int_equal(sum, 0xbaba);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(nvm(r, i), ld16(rig_mac + 2 * i));
    assert_int_equal(nvm(r, 0x40), 0xffff);
    assert_int_equal(nvm(r, 0x3fff), 0xffff);
    assert_int_equal(rd(r, R_EECD) & 0x300, 0x300);
    assert_int_equal(rd(r, R_RA), ld32(rig_mac));
    assert_int_equal(rd(r, R_RA + 4), ld16(rig_mac + 4) | 1u << 31);
}

static uint32_t mdic(struct e1000e_rig *r, unsigned op, unsigned phy, unsigned reg, unsigned data)
{
    wr(r, R_MDIC, op << 26 | phy << 21 | reg << 16 | data);
    uint32_t v = rd(r, R_MDIC);
    assert_true(v & 1u << 28);
    return v;
}

static void test_phy(void **state)
{
    struct e1000e_rig *r = *state;
    assert_int_equal(mdic(r, 2, 1, 2, 0) & 0xffff, 0x0141);
    assert_int_equal(mdic(r, 2, 1, 3, 0) & 0xfff0, 0x0cb0);
    assert_int_equal(mdic(r, 2, 1, 1, 0) & 0x24, 0x24); /* link, and negotiation is over */
    assert_true(mdic(r, 2, 2, 1, 0) & 1u << 30);        /* nobody has that address */
    mdic(r, 1, 1, 4, 0x0121);
    assert_int_equal(mdic(r, 2, 1, 4, 0) & 0xffff, 0x0121);
    mdic(r, 1, 1, 1, 0); /* read only */
    assert_int_equal(mdic(r, 2, 1, 1, 0) & 0xffff, 0x796d);
    mdic(r, 1, 1, 0, 0x9340); /* reset is over at once */
    assert_int_equal(mdic(r, 2, 1, 0, 0) & 0x8200, 0);
    mdic(r, 1, 1, 22, 3); /* another page */
    assert_int_equal(mdic(r, 2, 1, 17, 0) & 0xffff, 0);
    assert_int_equal(mdic(r, 2, 1, 2, 0) & 0xffff, 0x0141);
    mdic(r, 1, 1, 22, 0);
    assert_int_equal(mdic(r, 2, 1, 17, 0) & 0xffff, 0xac08);
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_PHY_RST);
    assert_int_equal(mdic(r, 2, 1, 4, 0) & 0xffff, 0x0de1);
    assert_false(rd(r, R_CTRL) & CTRL_PHY_RST);
    wr(r, R_MDIC, 2u << 26 | 1u << 21 | 1u << 29 | 2u << 16);
    assert_true(rd(r, R_ICR) & C_MDAC);
}

static void test_ports(void **state)
{
    struct e1000e_rig *r = *state;
    outl(&r->pci.f, r->ports, R_VET);
    assert_int_equal(inl(&r->pci.f, r->ports), R_VET);
    assert_int_equal(inl(&r->pci.f, (uint16_t)(r->ports + 4)), 0x8100);
    outl(&r->pci.f, (uint16_t)(r->ports + 4), 0x9100);
    assert_int_equal(rd(r, R_VET), 0x9100);
    outl(&r->pci.f, r->ports, E1K_MMIO); /* past the end */
    outl(&r->pci.f, (uint16_t)(r->ports + 4), 0xffffffff);
    assert_int_equal(inl(&r->pci.f, (uint16_t)(r->ports + 4)), 0);
}

/* Narrow and wide accesses. */
static void test_access_sizes(void **state)
{
    struct e1000e_rig *r = *state;
    mem_wr(&r->pci, r->bar + R_MTA, 8, 0x1122334455667788);
    assert_int_equal(rd(r, R_MTA), 0x55667788);
    assert_int_equal(rd(r, R_MTA + 4), 0x11223344);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_MTA, 8), 0x1122334455667788);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_MTA + 1, 1), 0x77);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_MTA + 2, 2), 0x5566);
    mem_wr(&r->pci, r->bar + R_MTA, 1, 0xff);
    mem_wr(&r->pci, r->bar + R_MTA + 2, 4, 0);
    assert_int_equal(rd(r, R_MTA), 0x55667788);
    wr(r, R_RDLEN, 0xffffffff); /* what is no length's is not kept */
    assert_int_equal(rd(r, R_RDLEN), 0xfff80);
    wr(r, R_STATUS, 0);
    assert_int_equal(rd(r, R_STATUS) & 3, 3);
    mem_wr(&r->pci, r->bar + E1K_MMIO - 4, 4, 1);
    assert_int_equal(mem_rd(&r->pci, r->bar + E1K_MMIO - 4, 4), 0);
}

/* ---- interrupts ---- */

static void test_icr_read(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_ICS, C_TXDW | C_RXT0);
    assert_false(intx(r));
    assert_int_equal(rd(r, R_ICR), C_TXDW | C_RXT0); /* nothing is enabled: it clears, and was not asserted */
    assert_int_equal(rd(r, R_ICR), 0);
    wr(r, R_IMS, C_TXDW);
    wr(r, R_ICS, C_RXT0); /* enabled is another: it stays */
    assert_int_equal(rd(r, R_ICR), C_RXT0);
    assert_int_equal(rd(r, R_ICR), C_RXT0);
    wr(r, R_ICS, C_TXDW);
    assert_true(intx(r));
    assert_int_equal(rd(r, R_ICR), C_RXT0 | C_TXDW | C_ASSERTED);
    assert_false(intx(r));
    assert_int_equal(rd(r, R_ICR), 0);
    assert_int_equal(rd(r, R_IMS), C_TXDW);
    assert_int_equal(rd(r, R_IMC), 0);
}

static void test_icr_write(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_IMS, C_TXDW | C_RXT0);
    wr(r, R_ICS, C_TXDW | C_RXT0);
    wr(r, R_ICR, C_TXDW);
    assert_true(intx(r));
    assert_int_equal(rd(r, R_ICS), C_RXT0); /* reading the set register clears nothing */
    wr(r, R_ICR, C_RXT0);
    assert_false(intx(r));
    wr(r, R_ICS, C_LSC); /* one of the others is "other" */
    assert_int_equal(rd(r, R_ICS), C_LSC | C_OTHER);
}

static void test_intx_level(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_ICS, C_TXDW);
    wr(r, R_IMS, C_TXDW); /* the cause was there before */
    assert_true(intx(r));
    wr(r, R_IMC, C_TXDW);
    assert_false(intx(r));
    wr(r, R_IMS, C_TXDW);
    assert_true(intx(r));
    command_wr(r, PCI_CMD_MEMORY | PCI_CMD_MASTER | PCI_CMD_INTX_OFF);
    assert_false(intx(r));
    command_wr(r, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    assert_true(intx(r));
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_STATUS, 2) & PCI_STS_INTX, PCI_STS_INTX);
    rd(r, R_ICR);
    assert_false(intx(r));
    assert_int_equal(r->pci.sent, 0);
}

/* IAM masks what an acknowledgment was for, if IAME says so. */
static void test_auto_mask(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_IAM, C_TXDW);
    wr(r, R_IMS, C_TXDW | C_RXT0);
    wr(r, R_ICS, C_TXDW);
    rd(r, R_ICR);
    assert_int_equal(rd(r, R_IMS), C_TXDW | C_RXT0);
    wr(r, R_CTRL_EXT, CTRL_EXT_IAME);
    rd(r, R_ICR); /* nothing is asserted */
    assert_int_equal(rd(r, R_IMS), C_TXDW | C_RXT0);
    wr(r, R_ICS, C_TXDW);
    rd(r, R_ICR);
    assert_int_equal(rd(r, R_IMS), C_RXT0);
    wr(r, R_IMS, C_TXDW);
    wr(r, R_ICR, 0);
    assert_int_equal(rd(r, R_IMS), C_RXT0);
}

static void test_msi(void **state)
{
    struct e1000e_rig *r = *state;
    msi_on(r, true);
    wr(r, R_IMS, C_TXDW | C_RXT0);
    wr(r, R_ICS, C_TXDW);
    assert_int_equal(irqs(r, RIG_VECTOR), 1);
    wr(r, R_ICS, C_TXDW); /* told already */
    assert_int_equal(irqs(r, RIG_VECTOR), 1);
    wr(r, R_ICS, C_RXT0);
    assert_int_equal(irqs(r, RIG_VECTOR), 2);
    rd(r, R_ICR);
    wr(r, R_ICS, C_TXDW);
    assert_int_equal(irqs(r, RIG_VECTOR), 3);
    wr(r, R_IMC, C_TXDW);
    wr(r, R_IMS, C_TXDW); /* it is still there */
    assert_int_equal(irqs(r, RIG_VECTOR), 4);
    assert_int_equal(r->pci.sent, 4);
    assert_false(intx(r));
    assert_int_equal(r->pci.irq[0].dest, 0x6b);
}

#define IVAR(rx0, rx1, tx0, tx1, other)                                                                                \
    (8u | (rx0) | (8u | (rx1)) << 4 | (8u | (tx0)) << 8 | (8u | (tx1)) << 12 | (8u | (other)) << 16)

static void test_msix_routes(void **state)
{
    struct e1000e_rig *r = *state;
    static const uint32_t cause[] = {C_RXQ0, C_RXQ1, C_TXQ0, C_TXQ1, C_LSC};
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(3u, 1u, 4u, 0u, 2u));
    wr(r, R_IMS, C_VECTORS | C_LSC);
    static const unsigned vector[] = {3, 1, 4, 0, 2};
    for (unsigned i = 0; i < 5; i++) {
        wr(r, R_ICS, cause[i]);
        assert_int_equal(r->pci.sent, i + 1);
        assert_int_equal(r->pci.irq[i].vector, RIG_VECTOR + vector[i]);
    }
    wr(r, R_ICS, C_TXDW | C_RXT0); /* these have no vector */
    assert_int_equal(r->pci.sent, 5);
    wr(r, R_ICR, UINT32_MAX);
    wr(r, R_IVAR, 7u | 8u | IVAR(0u, 1u, 2u, 3u, 4u)); /* there is no vector 7 */
    wr(r, R_ICS, C_RXQ0);
    assert_int_equal(r->pci.sent, 5);
    wr(r, R_ICR, UINT32_MAX);
    wr(r, R_IVAR, IVAR(0u, 1u, 2u, 3u, 4u) & ~8u); /* not valid */
    wr(r, R_ICS, C_RXQ0);
    assert_int_equal(r->pci.sent, 5);
}

/* As Linux uses it: queues' causes clear and mask themselves; others are read. */
static void test_msix_auto_clear(void **state)
{
    struct e1000e_rig *r = *state;
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(0u, 0u, 1u, 1u, 2u) | 1u << 31);
    wr(r, R_CTRL_EXT, CTRL_EXT_PBA | CTRL_EXT_EIAME);
    wr(r, R_EIAC, UINT32_MAX);
    assert_int_equal(rd(r, R_EIAC), C_VECTORS);
    wr(r, R_EIAC, C_RXQ0 | C_TXQ0);
    wr(r, R_IMS, C_RXQ0 | C_TXQ0 | C_OTHER | C_LSC);
    wr(r, R_ICS, C_RXQ0);
    assert_int_equal(irqs(r, RIG_VECTOR), 1);
    assert_int_equal(rd(r, R_ICS), 0);
    assert_int_equal(rd(r, R_IMS), C_TXQ0 | C_OTHER | C_LSC);
    wr(r, R_ICS, C_RXQ0); /* while it is polled */
    assert_int_equal(r->pci.sent, 1);
    wr(r, R_IMS, C_RXQ0); /* polling is over */
    assert_int_equal(irqs(r, RIG_VECTOR), 2);
    wr(r, R_IMS, C_RXQ0);
    assert_int_equal(r->pci.sent, 2);
    wr(r, R_ICS, C_LSC);
    assert_int_equal(irqs(r, RIG_VECTOR + 2), 1);
    assert_int_equal(rd(r, R_ICR), C_LSC | C_OTHER | C_ASSERTED);
    assert_int_equal(rd(r, R_ICR), 0);
    wr(r, R_ICS, C_LSC);
    assert_int_equal(irqs(r, RIG_VECTOR + 2), 2);
    msix_on(r, false);
    assert_true(intx(r)); /* LSC is still there */
    rd(r, R_ICR);
    assert_false(intx(r));
}

/* A message takes its cause away, so nothing is left for the wire when MSI-X goes. */
static void test_msix_leaves_no_level(void **state)
{
    struct e1000e_rig *r = *state;
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(0u, 0u, 1u, 1u, 2u));
    wr(r, R_EIAC, C_RXQ0);
    wr(r, R_IMS, C_RXQ0);
    wr(r, R_ICS, C_RXQ0);
    assert_int_equal(r->pci.sent, 1);
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_STATUS, 2) & PCI_STS_INTX, 0);
    msix_on(r, false);
    assert_false(intx(r));
}

/* EIAME masks by IAM what a message was sent for; IAME keeps EIAC from masking. */
static void test_msix_auto_mask(void **state)
{
    struct e1000e_rig *r = *state;
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(0u, 0u, 1u, 1u, 2u));
    wr(r, R_IAM, C_TXQ0);
    wr(r, R_CTRL_EXT, CTRL_EXT_EIAME | CTRL_EXT_IAME);
    wr(r, R_EIAC, C_RXQ0);
    wr(r, R_IMS, C_RXQ0 | C_TXQ0);
    wr(r, R_ICS, C_RXQ0 | C_TXQ0);
    assert_int_equal(r->pci.sent, 2);
    assert_int_equal(rd(r, R_IMS), C_RXQ0);
    assert_int_equal(rd(r, R_ICS), C_TXQ0);
}

/* Two frames that leave soon after another share an interrupt, each vector on its own time. */
static void send_one(struct e1000e_rig *r, unsigned q)
{
    tx_put(r, q, RIG_DATA, 60 | T_EOP | T_RS);
    tx_kick(r, q);
}

static void test_throttle(void **state)
{
    struct e1000e_rig *r = *state;
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(0u, 0u, 1u, 2u, 3u));
    wr(r, R_EIAC, C_TXQ0 | C_TXQ1);
    wr(r, R_EITR + 4, 0xffff); /* 16 ms */
    tx_start(r);
    for (unsigned i = 0; i < 3; i++) {
        wr(r, R_IMS, C_TXQ0 | C_TXQ1);
        send_one(r, 0);
        send_one(r, 1);
    }
    assert_int_equal(irqs(r, RIG_VECTOR + 2), 3);
    unsigned now = irqs(r, RIG_VECTOR + 1);
    assert_in_range(now, 1, 3); /* 1, unless this test was stopped for that long */
    if (fake_loop_timers(&r->loop))
        assert_int_equal(irqs(r, RIG_VECTOR + 1), now + 1);
    assert_false(fake_loop_timers(&r->loop));
    assert_int_equal(r->net.sent, 6);
}

/* ---- statistics ---- */

static void test_statistics(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[200];
    rx_start(r, RCTL_MPE, 0);
    tx_start(r);
    rig_frame(frame, sizeof frame, 1);
    give(r, frame, sizeof frame);
    frame[0] |= 1;
    give(r, frame, sizeof frame);
    memset(frame, 0xff, 6);
    give(r, frame, sizeof frame);
    send_one(r, 0);
    assert_int_equal(rd(r, R_GPRC), 3);
    assert_int_equal(rd(r, R_GPRC), 0);
    assert_int_equal(rd(r, R_MPRC), 1);
    assert_int_equal(rd(r, R_BPRC), 1);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_GORCL, 8), 3 * 204);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_GORCL, 8), 0);
    assert_int_equal(rd(r, R_GPTC), 1);
    assert_int_equal(rd(r, R_GOTCL), 64);
    assert_int_equal(rd(r, R_GOTCL), 0);
    wr(r, R_TPR, 77);
    assert_int_equal(rd(r, R_TPR), 3);
}

static void test_statistics_carry(void **state)
{
    struct e1000e_rig *r = *state;
    e1k_set(r->card, R_TORL, UINT32_MAX - 1);
    e1k_count64(r->card, R_TORL, 5);
    assert_int_equal(mem_rd(&r->pci, r->bar + R_TORL, 8), 0x100000003);
    e1k_set(r->card, R_TPR, UINT32_MAX - 1);
    e1k_count(r->card, R_TPR, 5);
    assert_int_equal(rd(r, R_TPR), UINT32_MAX); /* they stop there */
}

/* ---- resets and mastering ---- */

static void dirty(struct e1000e_rig *r)
{
    wr(r, R_MTA, 1);
    wr(r, R_VET, 0x9100);
    wr(r, R_IMS, C_TXDW);
    wr(r, R_ICS, C_TXDW);
    rx_start(r, RCTL_UPE, 0);
    tx_start(r);
}

static void expect_clean(struct e1000e_rig *r)
{
    assert_int_equal(rd(r, R_EECD) & EECD_AUTO_RD, EECD_AUTO_RD);
    assert_int_equal(rd(r, R_CTRL) & CTRL_RST, 0);
    assert_int_equal(rd(r, R_MTA), 0);
    assert_int_equal(rd(r, R_VET), 0x8100);
    assert_int_equal(rd(r, R_IMS), 0);
    assert_int_equal(rd(r, R_ICR), 0);
    assert_int_equal(rd(r, R_RCTL) | rd(r, R_TCTL) | rd(r, R_RDT) | rd(r, R_RDLEN), 0);
    assert_int_equal(rd(r, R_STATUS) & STATUS_MASTER, STATUS_MASTER);
    assert_false(intx(r));
}

static void test_reset(void **state)
{
    struct e1000e_rig *r = *state;
    dirty(r);
    assert_true(intx(r));
    e1k_enter(r->card); /* the loop is at work, and does not come to it */
    wr(r, R_CTRL, rd(r, R_CTRL) | CTRL_RST | CTRL_MASTER_OFF);
    assert_int_equal(rd(r, R_EECD) & EECD_AUTO_RD, 0);
    assert_int_equal(rd(r, R_CTRL) & CTRL_RST, CTRL_RST);
    wr(r, R_MTA, 5); /* and what is written meanwhile is nowhere */
    wr(r, R_IMS, C_RXT0);
    wr(r, R_ICS, C_RXT0);
    uint8_t frame[60];
    rig_frame(frame, sizeof frame, 1);
    assert_true(fake_net_give(&r->net, frame, sizeof frame));
    assert_int_equal(r->net.lost, 1);
    e1k_leave(r->card);
    run(r);
    expect_clean(r);
    assert_int_equal(rd(r, R_CTRL) & CTRL_MASTER_OFF, 0);
    dirty(r);
    e1000e_reset(r->card);
    run(r);
    expect_clean(r);
}

static void test_flr(void **state)
{
    struct e1000e_rig *r = *state;
    unsigned at = cap_of(&r->pci, 0, RIG_DEVFN, PCI_CAP_EXPRESS);
    dirty(r);
    tx_put(r, 0, RIG_DATA, 60 | T_EOP | T_RS);
    wr(r, R_TDT, r->tdt[0]);
    cfg_wr(&r->pci, 0, RIG_DEVFN, at + 8, 2, 0x8000);
    assert_false(intx(r));
    run(r);
    assert_int_equal(r->net.sent, 0);
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_COMMAND, 2), 0);
    cfg_wr(&r->pci, 0, RIG_DEVFN, PCI_BAR0, 4, r->bar);
    command_wr(r, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    expect_clean(r);
}

/* A driver looks for 10 ms, then goes on: a loop that does not run in that time costs it nothing. */
static void test_reset_waits_for_no_loop(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[60];
    rig_frame(frame, sizeof frame, 1);
    dirty(r);
    wr(r, R_CTRL, CTRL_RST);
    assert_int_equal(rd(r, R_EECD) & EECD_AUTO_RD, EECD_AUTO_RD);
    expect_clean(r);
    wr(r, R_MTA, 5);
    wr(r, R_CTRL, CTRL_RST);
    wr(r, R_MTA, 7); /* without looking first */
    assert_int_equal(rd(r, R_MTA), 7);
    assert_non_null(r->loop.first); /* the loop has not run */
    run(r);
    assert_int_equal(rd(r, R_MTA), 7);
    rx_start(r, RCTL_UPE, 0);
    tx_start(r);
    assert_true(give(r, frame, sizeof frame));
    send_one(r, 0);
    assert_int_equal(r->net.sent, 1);
}

/* What waited for an interval to end is forgotten; what comes after the reset has its own time, though the old timer
 * may still end. */
static void test_reset_forgets_what_is_throttled(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[60];
    rig_frame(frame, sizeof frame, 1);
    for (unsigned i = 0; i < 2; i++) {
        wr(r, R_IMS, C_RXT0);
        rx_start(r, RCTL_UPE, 0);
        r->card->next[0] = UINT64_MAX - i; /* the interval does not end */
        give(r, frame, sizeof frame);
        assert_false(intx(r));
        assert_int_equal(r->card->throttle_at, UINT64_MAX - i);
        if (i == 1)
            break;
        wr(r, R_CTRL, CTRL_RST);
        expect_clean(r);
        assert_int_equal(fake_loop_timers(&r->loop), 1);
        expect_clean(r);
    }
    assert_int_equal(fake_loop_timers(&r->loop), 1);
    assert_int_equal(rd(r, R_ICR) & C_RXT0, C_RXT0);
}

/* A second reset that is asked for during the first is not lost. */
static void test_reset_twice(void **state)
{
    struct e1000e_rig *r = *state;
    wr(r, R_CTRL, CTRL_RST);
    atomic_fetch_add(&r->card->resets_wanted, 1);
    atomic_store(&r->card->resets_done, r->card->resets_wanted - 2);
    e1k_reset_now(r->card);
    assert_int_equal(rd(r, R_EECD) & EECD_AUTO_RD, EECD_AUTO_RD);
    run(r);
    expect_clean(r);
}

/* A frame begun before a reset is no part of one after it. */
static void test_reset_forgets_frames(void **state)
{
    struct e1000e_rig *r = *state;
    tx_start(r);
    tx_put(r, 0, RIG_DATA, 500);
    tx_kick(r, 0);
    assert_int_equal(rd(r, R_TDH), 1);
    wr(r, R_CTRL, CTRL_RST);
    run(r);
    tx_start(r);
    send_one(r, 0);
    assert_int_equal(r->net.sent, 1);
    assert_int_equal(sent(r, 0)->len, 60);
}

static void test_mastering(void **state)
{
    struct e1000e_rig *r = *state;
    uint32_t ctrl = rd(r, R_CTRL);
    uint8_t frame[60];
    rig_frame(frame, sizeof frame, 1);
    tx_start(r);
    rx_start(r, 0, 0);
    e1k_enter(r->card); /* the loop is at work */
    wr(r, R_CTRL, ctrl | CTRL_MASTER_OFF);
    assert_true(rd(r, R_STATUS) & STATUS_MASTER);
    e1k_leave(r->card);
    assert_false(rd(r, R_STATUS) & STATUS_MASTER);
    send_one(r, 0);
    give(r, frame, sizeof frame);
    assert_int_equal(r->net.sent, 0);
    assert_int_equal(rd(r, R_RDH), 0);
    wr(r, R_CTRL, ctrl);
    run(r);
    assert_true(rd(r, R_STATUS) & STATUS_MASTER);
    assert_int_equal(r->net.sent, 1); /* it waited */
}

static void test_no_bus_master(void **state)
{
    struct e1000e_rig *r = *state;
    uint8_t frame[60];
    rig_frame(frame, sizeof frame, 1);
    tx_start(r);
    rx_start(r, 0, 0);
    msix_on(r, true);
    wr(r, R_IVAR, IVAR(0u, 0u, 0u, 0u, 0u));
    wr(r, R_IMS, C_VECTORS);
    command_wr(r, PCI_CMD_MEMORY);
    send_one(r, 0);
    assert_true(give(r, frame, sizeof frame));
    wr(r, R_ICS, C_LSC);
    assert_int_equal(r->net.sent, 0);
    assert_int_equal(r->net.lost, 1);
    assert_int_equal(r->pci.sent, 0);
    assert_int_equal(rd(r, R_RDH) | rd(r, R_TDH), 0);
    assert_int_equal(rx_buffer(r, 0)[0], RIG_FILL);
    command_wr(r, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    assert_int_equal(r->net.sent, 1);
    assert_true(tx_done(r, 0, 0));
}

/* ---- identity ---- */

static void test_identity(void **state)
{
    struct e1000e_rig *r = *state;
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, 0, 4), 0x10d38086);
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, 8, 4) >> 8, 0x020000);
    unsigned at = cap_of(&r->pci, 0, RIG_DEVFN, PCI_CAP_MSIX);
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, at + 2, 2) & 0x7ff, 4);
    assert_int_equal(cfg_rd(&r->pci, 0, RIG_DEVFN, PCI_INTPIN, 1), 1);
    assert_non_null(r->net.peer.receive);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_nvm),
                                       T(test_phy),
                                       T(test_ports),
                                       T(test_access_sizes),
                                       T(test_icr_read),
                                       T(test_icr_write),
                                       T(test_intx_level),
                                       T(test_auto_mask),
                                       T(test_msi),
                                       T(test_msix_routes),
                                       T(test_msix_auto_clear),
                                       T(test_msix_leaves_no_level),
                                       T(test_msix_auto_mask),
                                       T(test_throttle),
                                       T(test_statistics),
                                       T(test_statistics_carry),
                                       T(test_reset),
                                       T(test_reset_waits_for_no_loop),
                                       T(test_reset_forgets_what_is_throttled),
                                       T(test_flr),
                                       T(test_reset_twice),
                                       T(test_reset_forgets_frames),
                                       T(test_mastering),
                                       T(test_no_bus_master),
                                       T(test_identity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
