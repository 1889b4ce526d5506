/* The host bus adapter: registers, ports, resets, interrupts, errors of the guest's. */
#include "ahci_rig.h"

static void setup(struct ahci_rig *r)
{
    ahci_rig_init(r);
    port_start(r, 0);
}

/* ---- what is there ---- */
static void it_is_an_ich9(void **state)
{
    struct ahci_rig r;
    ahci_rig_init(&r);
    unsigned d = AHCI_DEVFN;
    assert_int_equal(cfg_rd(&r.pci, 0, d, 0, 4), 0x29228086);
    assert_int_equal(cfg_rd(&r.pci, 0, d, 8, 4), 0x01060102);
    assert_int_equal(cfg_rd(&r.pci, 0, d, PCI_INTPIN, 1), 1);
    assert_int_equal(cfg_rd(&r.pci, 0, d, 0x90, 4), 0x093f0040); /* AHCI mode; enabled, present */
    unsigned sata = cap_of(&r.pci, 0, d, 0x12), msi = cap_of(&r.pci, 0, d, 5);
    assert_int_equal(sata, 0xa8);
    assert_true(cfg_rd(&r.pci, 0, d, sata + 4, 4) == 0x48);
    assert_int_equal(cfg_rd(&r.pci, 0, d, msi + 2, 2) & 0x0e, 0); /* one vector */
    assert_true(hba_rd(&r, AHCI_CAP) == (5u | 31u << 8 | 7u << 13 | 1u << 18 | 3u << 20 | 1u << 24 | 3u << 30));
    assert_int_equal(hba_rd(&r, AHCI_PI), 0x3f);
    assert_int_equal(hba_rd(&r, AHCI_VS), 0x10300);
    assert_true(hba_rd(&r, AHCI_GHC) == GHC_AE);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSSTS), 0x133);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSIG), 0x101);
    assert_int_equal(px_rd(&r, 1, AHCI_PxSSTS), 0);
    assert_int_equal(px_rd(&r, 1, AHCI_PxTFD), 0x7f);
    assert_true(px_rd(&r, 1, AHCI_PxSIG) == UINT32_MAX);
    ahci_rig_fini(&r);
}

static void registers_that_are_not_there_are_zero(void **state)
{
    struct ahci_rig r;
    setup(&r);
    for (unsigned reg = 0x14; reg < 0x100; reg += 4) {
        hba_wr(&r, reg, UINT32_MAX);
        assert_int_equal(hba_rd(&r, reg), 0);
    }
    for (unsigned reg = AHCI_PORT0 + AHCI_PORTS * AHCI_PORT_LEN; reg < 0x1000; reg += 4) {
        hba_wr(&r, reg, UINT32_MAX);
        assert_int_equal(hba_rd(&r, reg), 0);
    }
    run(&r);
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void accesses_of_every_size_meet_their_bytes(void **state)
{
    struct ahci_rig r;
    ahci_rig_init(&r);
    uint64_t p0 = r.abar + AHCI_PORT0;
    mem_wr(&r.pci, p0 + AHCI_PxCLB, 8, 0x1122334455667788);
    assert_true(mem_rd(&r.pci, p0 + AHCI_PxCLB, 8) == 0x1122334455667400);
    assert_int_equal(mem_rd(&r.pci, p0 + 3, 4), 0x22334455); /* across two registers, as it lies */
    mem_wr(&r.pci, p0 + AHCI_PxCLB + 3, 1, 0xaa);
    assert_true(mem_rd(&r.pci, p0 + AHCI_PxCLB, 4) == 0xaa667400);
    mem_wr(&r.pci, p0 + AHCI_PxCLB + 2, 4, 0x99887766);
    assert_true(mem_rd(&r.pci, p0 + AHCI_PxCLB, 8) == 0x1122998877667400);
    mem_wr(&r.pci, p0 + AHCI_PxFB, 4, UINT32_MAX);
    assert_true(mem_rd(&r.pci, p0 + AHCI_PxFB, 4) == 0xffffff00);
    mem_wr(&r.pci, p0 + AHCI_PxIE, 4, UINT32_MAX);
    assert_int_equal(mem_rd(&r.pci, p0 + AHCI_PxIE, 4), 0x7dc000ff);
    assert_int_equal(mem_rd(&r.pci, p0 + AHCI_PxSERR + 2, 2), 0x0401);
    mem_wr(&r.pci, p0 + AHCI_PxSERR + 3, 1, 4); /* a written 1 clears its own bit only */
    assert_int_equal(mem_rd(&r.pci, p0 + AHCI_PxSERR, 4), SERR_N);
    mem_wr(&r.pci, p0 + AHCI_PxCMD, 1, CMD_FRE);
    run(&r);
    assert_int_equal(mem_rd(&r.pci, p0 + AHCI_PxCMD, 4), CMD_FRE | CMD_FR | CMD_SUD | CMD_POD);
    ahci_rig_fini(&r);
}

static void the_index_data_pair_reaches_the_registers(void **state)
{
    struct ahci_rig r;
    ahci_rig_init(&r);
    outl(&r.pci.f, r.index_port + 0x10u, AHCI_VS | 3);
    assert_int_equal(inl(&r.pci.f, r.index_port + 0x10u), AHCI_VS);
    assert_int_equal(inl(&r.pci.f, r.index_port + 0x14u), 0x10300);
    outl(&r.pci.f, r.index_port + 0x10u, AHCI_PORT0 + AHCI_PxCLB);
    outl(&r.pci.f, r.index_port + 0x14u, 0x12345400);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCLB), 0x12345400);
    outl(&r.pci.f, r.index_port + 0x10u, UINT32_MAX);
    assert_int_equal(inl(&r.pci.f, r.index_port + 0x14u), 0);
    assert_int_equal(inl(&r.pci.f, r.index_port), 0);
    ahci_rig_fini(&r);
}

/* ---- ports ---- */
static void a_stopped_port_takes_no_commands(void **state)
{
    struct ahci_rig r;
    ahci_rig_init(&r);
    px_wr(&r, 0, AHCI_PxCI, 1);
    px_wr(&r, 0, AHCI_PxSACT, 1);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI) | px_rd(&r, 0, AHCI_PxSACT), 0);
    port_start(&r, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & (CMD_CR | CMD_FR | CMD_ST), CMD_CR | CMD_FR | CMD_ST);
    assert_int_equal(received(&r, 0, RFIS_D2H)[0], 0x34); /* the reset's, which had waited for FRE */
    assert_int_equal(received(&r, 0, RFIS_D2H)[3], 1);
    px_wr(&r, 2, AHCI_PxCMD, CMD_FRE); /* a frame may be on its way until the loop has seen both */
    px_wr(&r, 2, AHCI_PxCMD, 0);
    assert_int_equal(px_rd(&r, 2, AHCI_PxCMD) & CMD_FR, CMD_FR);
    run(&r);
    assert_int_equal(px_rd(&r, 2, AHCI_PxCMD) & CMD_FR, 0);
    port_start(&r, 1); /* nobody is there */
    assert_int_equal(px_rd(&r, 1, AHCI_PxCMD) & CMD_CR, 0);
    px_wr(&r, 1, AHCI_PxCI, 1);
    run(&r);
    port_stop(&r, 1);
    assert_int_equal(px_rd(&r, 1, AHCI_PxCI), 0);
    ahci_rig_fini(&r);
}

static void stopping_waits_for_what_is_in_flight(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.manual = true;
    dma(&r, false, 0, 1, RIG_DATA);
    px_wr(&r, 0, AHCI_PxCMD, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & (CMD_CR | CMD_FR), CMD_CR | CMD_FR); /* even before the loop knows */
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & (CMD_CR | CMD_FR), CMD_CR);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 1);
    memset(received(&r, 0, 0), 0, 256);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & (CMD_CR | CMD_FR), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_int_equal(received(&r, 0, RFIS_D2H)[0], 0);
    r.disk0.manual = false;
    px_wr(&r, 0, AHCI_PxCMD, CMD_FRE | CMD_ST); /* the disk is busy with it: not without a reset */
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & CMD_CR, 0);
    port_stop(&r, 0);
    px_wr(&r, 0, AHCI_PxCMD, CMD_FRE | CMD_CLO);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & CMD_CLO, CMD_CLO);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) & CMD_CLO, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD) & ATA_BSY, 0);
    port_restart(&r, 0);
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void comreset_takes_the_link_down_and_up(void **state)
{
    struct ahci_rig r;
    setup(&r);
    port_stop(&r, 0);
    memset(received(&r, 0, 0), 0, 256);
    px_wr(&r, 0, AHCI_PxSCTL, 0x301);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSSTS), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x7f);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x7f);
    px_wr(&r, 0, AHCI_PxSCTL, 0x320);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSSTS), 0x123);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_BSY); /* at once: the old status is not the new disk's */
    assert_true(px_rd(&r, 0, AHCI_PxSIG) == UINT32_MAX);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSIG), 0x101);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSERR), SERR_X | SERR_N);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_PCS | IS_PRCS);
    px_wr(&r, 0, AHCI_PxIS, UINT32_MAX); /* only PxSERR's bits clear these */
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_PCS | IS_PRCS);
    px_wr(&r, 0, AHCI_PxSERR, SERR_X);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_PRCS);
    assert_int_equal(received(&r, 0, RFIS_D2H)[4], 1);
    port_restart(&r, 0);
    command(&r, 0, (struct ata_regs){.command = 0xec}, false, RIG_DATA, 512);
    assert_int_equal(ld16(guest(&r, RIG_DATA) + 2 * 77), 4); /* the limit of PxSCTL.SPD */
    px_wr(&r, 0, AHCI_PxSCTL, 4);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSSTS), 4);
    ahci_rig_fini(&r);
}

static void comreset_waits_for_what_is_in_flight(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.manual = true;
    ncq_put(&r, 1, false, 0, 1, RIG_DATA, false);
    ncq_put(&r, 2, false, 8, 1, RIG_DATA + 512, false);
    ncq_issue(&r, 6);
    px_wr(&r, 0, AHCI_PxCMD, CMD_FRE);
    px_wr(&r, 0, AHCI_PxSCTL, 1);
    run(&r);
    px_wr(&r, 0, AHCI_PxSCTL, 0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSSTS), 0x133);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_BSY);
    fake_block_end(&r.disk0, 1, 0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_BSY);
    fake_block_end(&r.disk0, 0, -EIO);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    r.disk0.manual = false;
    port_restart(&r, 0);
    assert_int_equal(dma(&r, false, 9, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void comreset_of_a_running_port_loses_its_commands(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.manual = true;
    dma(&r, true, 0, 1, RIG_DATA);
    px_wr(&r, 0, AHCI_PxSCTL, 1);
    px_wr(&r, 0, AHCI_PxSCTL, 0);
    run(&r);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 1);
    assert_int_equal(r.disk0.flights, 0); /* and nothing is tried again */
    r.disk0.manual = false;
    port_restart(&r, 0);
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void send_control(struct ahci_rig *r, uint8_t control, uint32_t header)
{
    const struct ata_regs none = {0};
    put_command(r, 0, 0, &none, false, NULL, 0);
    st32(list_of(r, 0), 5 | header);
    table_of(r, 0)[1] = 0;
    table_of(r, 0)[15] = control;
    px_wr(r, 0, AHCI_PxCI, 1);
    run(r);
}

static void a_soft_reset_is_two_control_frames(void **state)
{
    struct ahci_rig r;
    setup(&r);
    simple(&r, 0, 0xe1, 0, 0);
    memset(received(&r, 0, 0), 0, 256);
    send_control(&r, 4, 0x500); /* reset, and clear BSY */
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_int_equal(received(&r, 0, RFIS_D2H)[0], 0);
    send_control(&r, 0, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(received(&r, 0, RFIS_D2H)[3], 1);
    simple(&r, 0, 0xe5, 0, 0);
    assert_int_equal(received(&r, 0, RFIS_D2H)[12], 0xff);
    send_control(&r, 2, 0); /* without SRST and without C: no answer ever comes */
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 1);
    assert_true(px_rd(&r, 0, AHCI_PxTFD) & ATA_BSY);
    ahci_rig_fini(&r);
}

static void an_hba_reset_of_an_idle_hba_waits_for_no_loop(void **state)
{
    struct ahci_rig r;
    setup(&r);
    hba_wr(&r, AHCI_GHC, GHC_HR);
    assert_true(hba_rd(&r, AHCI_GHC) == GHC_AE); /* the loop did not run */
    assert_false(px_rd(&r, 0, AHCI_PxCMD) & (CMD_ST | CMD_CR | CMD_FRE | CMD_FR));
    run(&r);
    port_start(&r, 0);
    assert_true(px_rd(&r, 0, AHCI_PxCMD) & CMD_CR);
    ahci_rig_fini(&r);
}

/* ---- resets of all ---- */
static void an_hba_reset_waits_and_keeps_the_lists(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.manual = true;
    dma(&r, true, 0, 1, RIG_DATA);
    hba_wr(&r, AHCI_GHC, GHC_HR);
    assert_true(hba_rd(&r, AHCI_GHC) == (GHC_AE | GHC_HR));
    run(&r);
    assert_true(hba_rd(&r, AHCI_GHC) == (GHC_AE | GHC_HR));
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_true(hba_rd(&r, AHCI_GHC) == GHC_AE);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCLB), RIG_LISTS);
    assert_int_equal(px_rd(&r, 0, AHCI_PxFB), RIG_LISTS + 0x400);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD), CMD_SUD | CMD_POD);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIE) | px_rd(&r, 0, AHCI_PxCI) | hba_rd(&r, AHCI_IS), 0);
    assert_int_equal(r.pci.f.level, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    r.disk0.manual = false;
    port_start(&r, 0);
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void the_machines_reset_waits_and_forgets_all(void **state)
{
    struct ahci_rig r;
    setup(&r);
    simple(&r, 0, 0xef, 0x82, 0);
    r.disk0.manual = true;
    dma(&r, false, 0, 4, RIG_DATA);
    assert_int_equal(r.disk0.flights, 1);
    ahci_reset(r.ahci);
    assert_int_equal(r.disk0.flights, 0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCLB) | px_rd(&r, 0, AHCI_PxFB) | px_rd(&r, 0, AHCI_PxCI), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD), CMD_SUD | CMD_POD);
    assert_int_equal(r.pci.f.level, 0);
    r.disk0.manual = false;
    r.disk0.logged = 0;
    port_start(&r, 0);
    assert_int_equal(dma(&r, true, 0, 1, RIG_DATA), ATA_READY);
    assert_int_equal(r.disk0.log[0].flags, 0); /* the write cache is on again */
    ahci_rig_fini(&r);
}

/* ---- interrupts ---- */

static bool line(struct ahci_rig *r)
{
    unsigned gsi = pci_intx_gsi(AHCI_DEVFN >> 3, 1);
    return r->pci.f.level >> gsi & 1;
}

static void the_line_follows_is(void **state)
{
    struct ahci_rig r;
    setup(&r);
    assert_false(line(&r));
    dma(&r, false, 0, 1, RIG_DATA);
    assert_true(line(&r));
    assert_int_equal(hba_rd(&r, AHCI_IS), 1);
    hba_wr(&r, AHCI_IS, 1); /* in the wrong order: PxIS makes it again */
    assert_true(line(&r));
    px_wr(&r, 0, AHCI_PxIS, IS_DHRS);
    assert_true(line(&r));
    hba_wr(&r, AHCI_IS, 1);
    assert_false(line(&r));
    dma(&r, false, 0, 1, RIG_DATA);
    hba_wr(&r, AHCI_GHC, 0);
    assert_false(line(&r));
    hba_wr(&r, AHCI_GHC, GHC_IE);
    assert_true(line(&r));
    ack(&r, 0);
    px_wr(&r, 0, AHCI_PxIE, 0);
    dma(&r, false, 0, 1, RIG_DATA);
    assert_false(line(&r));
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_DHRS);
    px_wr(&r, 0, AHCI_PxIE, IS_DHRS);
    assert_true(line(&r));
    msi_on(&r, true);
    assert_false(line(&r));
    msi_on(&r, false);
    assert_true(line(&r));
    ahci_rig_fini(&r);
}

static void a_message_for_each_that_is_new_or_left(void **state)
{
    struct ahci_rig r;
    setup(&r);
    port_start(&r, 3);
    msi_on(&r, true);
    assert_int_equal(r.pci.sent, 0);
    dma(&r, false, 0, 1, RIG_DATA);
    assert_int_equal(r.pci.sent, 1);
    assert_int_equal(r.pci.irq[0].vector, RIG_VECTOR);
    assert_int_equal(r.pci.irq[0].dest, 5);
    dma(&r, false, 0, 1, RIG_DATA); /* IS is set already */
    assert_int_equal(r.pci.sent, 1);
    simple(&r, 3, 0xe1, 0, 0); /* another port's bit is new */
    assert_int_equal(r.pci.sent, 2);
    px_wr(&r, 0, AHCI_PxIS, UINT32_MAX);
    assert_int_equal(r.pci.sent, 2);
    hba_wr(&r, AHCI_IS, 1); /* some, but not all are cleared: port 3 is left */
    assert_int_equal(r.pci.sent, 3);
    hba_wr(&r, AHCI_IS, 8); /* comes again at once: PxIS was not cleared */
    assert_int_equal(r.pci.sent, 4);
    assert_int_equal(hba_rd(&r, AHCI_IS), 8);
    px_wr(&r, 3, AHCI_PxIS, UINT32_MAX);
    hba_wr(&r, AHCI_IS, 8);
    assert_int_equal(r.pci.sent, 4);
    hba_wr(&r, AHCI_IS, UINT32_MAX);
    hba_wr(&r, AHCI_GHC, GHC_IE);
    assert_int_equal(r.pci.sent, 4);
    hba_wr(&r, AHCI_GHC, 0);
    dma(&r, false, 0, 1, RIG_DATA);
    assert_int_equal(r.pci.sent, 4);
    hba_wr(&r, AHCI_GHC, GHC_IE);
    assert_int_equal(r.pci.sent, 5);
    assert_false(line(&r));
    ahci_rig_fini(&r);
}

/* ---- mistakes ---- */
static void put_read(struct ahci_rig *r)
{
    const struct ata_regs regs = {.command = 0x25, .device = 0x40, .count = 8};
    const struct rig_prd prd = {RIG_DATA, 4096};
    put_command(r, 0, 0, &regs, false, &prd, 1);
}

/* Slot 0 ends in an error that stops the port; and the port recovers. */
static void expect_fatal(struct ahci_rig *r, uint32_t is, uint32_t serr)
{
    px_wr(r, 0, AHCI_PxCI, 1);
    run(r);
    assert_int_equal(px_rd(r, 0, AHCI_PxIS), is);
    assert_int_equal(px_rd(r, 0, AHCI_PxSERR), serr);
    assert_int_equal(px_rd(r, 0, AHCI_PxCI), 1);
    put_read(r);
    px_wr(r, 0, AHCI_PxCI, 1 << 5); /* nothing is issued any more */
    run(r);
    assert_int_equal(px_rd(r, 0, AHCI_PxCI), 1 | 1 << 5);
    assert_int_equal(r->disk0.flights, 0);
    cfg_wr(&r->pci, 0, AHCI_DEVFN, PCI_COMMAND, 2, PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER);
    port_stop(r, 0);
    px_wr(r, 0, AHCI_PxSCTL, 1);
    px_wr(r, 0, AHCI_PxSCTL, 0);
    run(r);
    px_wr(r, 0, AHCI_PxCLB, RIG_LISTS);
    px_wr(r, 0, AHCI_PxFB, RIG_LISTS + 0x400);
    port_restart(r, 0);
    assert_int_equal(dma(r, false, 3, 1, RIG_DATA), ATA_READY);
    ack(r, 0);
}

static void what_cannot_be_a_command_is_an_interface_error(void **state)
{
    struct ahci_rig r;
    setup(&r);
    for (unsigned cfl = 0; cfl < 32; cfl++) {
        if (cfl >= 5 && cfl <= 16)
            continue;
        put_read(&r);
        st32(list_of(&r, 0), cfl | 1 << 16);
        expect_fatal(&r, IS_IFS, SERR_H | SERR_P);
    }
    put_read(&r);
    table_of(&r, 0)[0] = 0x46;
    expect_fatal(&r, IS_IFS, SERR_H | SERR_P);
    ahci_rig_fini(&r);
}

static void what_is_not_memory_is_a_host_bus_error(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_read(&r);
    st64(list_of(&r, 0) + 8, RIG_RAM); /* command table */
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    st64(list_of(&r, 0) + 8, RIG_RAM - 0x80); /* the FIS is there, the table is not */
    memcpy(guest(&r, RIG_RAM - 0x80), table_of(&r, 0), 0x80);
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    put_prds(&r, 0, &(struct rig_prd){RIG_RAM - 2048, 4096}, 1);
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    put_prds(&r, 0, &(struct rig_prd){UINT64_MAX - 1, 4096}, 1);
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    put_prds(&r, 0, &(struct rig_prd){0xfee00000, 4096}, 1); /* interrupt addresses */
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    px_wr(&r, 0, AHCI_PxCLB, RIG_RAM);
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    px_wr(&r, 0, AHCI_PxFB, RIG_RAM);
    expect_fatal(&r, IS_HBFS, SERR_E);
    put_read(&r);
    cfg_wr(&r.pci, 0, AHCI_DEVFN, PCI_COMMAND, 2, PCI_CMD_IO | PCI_CMD_MEMORY);
    expect_fatal(&r, IS_HBFS, SERR_E);
    ahci_rig_fini(&r);
}

static void a_table_that_is_too_short_overflows(void **state)
{
    struct ahci_rig r;
    setup(&r);
    memset(guest(&r, RIG_DATA), 0xcc, 4096);
    put_read(&r);
    put_prds(&r, 0, &(struct rig_prd){RIG_DATA, 1536}, 1);
    px_wr(&r, 0, AHCI_PxCI, 1);
    run(&r);
    assert_int_equal(ack(&r, 0), IS_OFS | IS_DHRS); /* a read goes on as well as it can */
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_memory_equal(guest(&r, RIG_DATA), r.image0, 1536);
    assert_int_equal(guest(&r, RIG_DATA)[1536], 0xcc);
    assert_int_equal(ld32(list_of(&r, 0) + 4), 1536);
    command(&r, 0, (struct ata_regs){.command = 0xec}, false, RIG_DATA, 100);
    assert_int_equal(ack(&r, 0), IS_OFS | IS_PSS);
    assert_int_equal(ld32(list_of(&r, 0) + 4), 100);
    const struct ata_regs write = {.command = 0x35, .device = 0x40, .lba = 5, .count = 8};
    put_command(&r, 0, 0, &write, true, &(struct rig_prd){RIG_DATA, 1536}, 1);
    expect_fatal(&r, IS_OFS, 0); /* a write waits for data that never comes */
    put_command(&r, 0, 0, &write, true, NULL, 0);
    expect_fatal(&r, IS_OFS, 0);
    const struct ata_regs trim = {.command = 0x06, .feature = 1, .count = 1, .device = 0x40};
    put_command(&r, 0, 0, &trim, true, NULL, 0);
    expect_fatal(&r, IS_OFS, 0);
    ahci_rig_fini(&r);
}

static void a_table_that_is_too_long_does_no_harm(void **state)
{
    struct ahci_rig r;
    setup(&r);
    const struct ata_regs regs = {.command = 0x25, .device = 0x40, .count = 1};
    const struct rig_prd prd[] = {{RIG_DATA, 1024}, {RIG_RAM, 1024}};
    guest(&r, RIG_DATA)[512] = 0xcc;
    put_command(&r, 0, 0, &regs, false, prd, 2);
    px_wr(&r, 0, AHCI_PxCI, 1);
    run(&r);
    assert_int_equal(ack(&r, 0), IS_DHRS);
    assert_int_equal(guest(&r, RIG_DATA)[512], 0xcc);
    assert_int_equal(ld32(list_of(&r, 0) + 4), 512);
    ahci_rig_fini(&r);
}

/* 2 bytes a PRD is the finest there is: one sector fills a request's pieces. */
static void tiny_and_odd_descriptors(void **state)
{
    static struct rig_prd prd[700];
    struct ahci_rig r;
    setup(&r);
    for (unsigned i = 0; i < 700; i++)
        prd[i] = (struct rig_prd){RIG_DATA + i * 4, i < 600 ? 2 : 1024};
    for (unsigned i = 600; i < 700; i++)
        prd[i].at = RIG_DATA + 0x2000 + (i - 600) * 1024;
    const struct ata_regs regs = {.command = 0x25, .device = 0x40, .lba = 7, .count = 4};
    put_command(&r, 0, 0, &regs, false, prd, 700);
    table_of(&r, 0)[0x80]++;          /* bit 0 of an address is not looked at */
    table_of(&r, 0)[0x80 + 12] &= ~1; /* nor that of a length */
    st32(table_of(&r, 0) + 0x80 + 599 * 16 + 12, 1 | 0x80000000u);
    px_wr(&r, 0, AHCI_PxCI, 1);
    run(&r);
    assert_int_equal(ack(&r, 0), IS_DHRS | IS_DPS);
    for (unsigned i = 0; i < 1200; i++)
        assert_int_equal(guest(&r, RIG_DATA)[i / 2 * 4 + i % 2], r.image0[7 * 512 + i]);
    assert_memory_equal(guest(&r, RIG_DATA + 0x2000), r.image0 + 7 * 512 + 1200, 2048 - 1200);
    ahci_rig_fini(&r);
}

static void stores_are_told_to_who_watches(void **state)
{
    struct ahci_rig r;
    setup(&r);
    uint64_t told = r.pci.told;
    dma(&r, false, 0, 8, RIG_DATA);
    assert_true(r.pci.told == told + 4096 + 20 + 4); /* data, FIS, PRDBC */
    told = r.pci.told;
    dma(&r, true, 0, 8, RIG_DATA);
    assert_true(r.pci.told == told + 20 + 4);
    ahci_rig_fini(&r);
}

static void slots_are_served_in_turn(void **state)
{
    struct ahci_rig r;
    setup(&r);
    for (unsigned slot = 0; slot < 32; slot++) {
        const struct ata_regs regs = {.command = 0x25, .device = 0x40, .lba = slot, .count = 1};
        const struct rig_prd prd = {RIG_DATA + slot * 512, 512};
        put_command(&r, 0, slot, &regs, false, &prd, 1);
    }
    px_wr(&r, 0, AHCI_PxCI, UINT32_MAX);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_memory_equal(guest(&r, RIG_DATA), r.image0, 32 * 512);
    for (unsigned slot = 0; slot < 32; slot++)
        assert_true(r.disk0.log[slot].offset == slot * 512);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCMD) >> 8 & 31, 31);
    r.disk0.logged = 0;
    px_wr(&r, 0, AHCI_PxCI, 1 << 4); /* 5 and later come after it, then the rest */
    run(&r);
    px_wr(&r, 0, AHCI_PxCI, 1 << 2 | 1 << 9);
    run(&r);
    assert_true(r.disk0.log[1].offset == 9 * 512 && r.disk0.log[2].offset == 2 * 512);
    ahci_rig_fini(&r);
}

static void a_disk_of_another_loop_is_refused(void **state)
{
    struct ahci_rig r;
    struct ioloop other = {0};
    struct ahci *a;
    ahci_rig_init(&r);
    const struct ahci_config c = {
        .host = &r.pci.host, .devfn = PCI_DEVFN(5, 0), .loop = &other, .disk = {[5] = {.block = &r.disk0}}};
    assert_int_equal(ahci_create(&c, &a, &r.pci.f.err), -EINVAL);
    assert_non_null(strstr(r.pci.f.err.msg, "port 5"));
    const struct ahci_config twice = {.host = &r.pci.host, .devfn = AHCI_DEVFN, .loop = &r.loop};
    assert_int_equal(ahci_create(&twice, &a, NULL), -EEXIST);
    ahci_rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_an_ich9),
        cmocka_unit_test(registers_that_are_not_there_are_zero),
        cmocka_unit_test(accesses_of_every_size_meet_their_bytes),
        cmocka_unit_test(the_index_data_pair_reaches_the_registers),
        cmocka_unit_test(a_stopped_port_takes_no_commands),
        cmocka_unit_test(stopping_waits_for_what_is_in_flight),
        cmocka_unit_test(comreset_takes_the_link_down_and_up),
        cmocka_unit_test(comreset_waits_for_what_is_in_flight),
        cmocka_unit_test(comreset_of_a_running_port_loses_its_commands),
        cmocka_unit_test(a_soft_reset_is_two_control_frames),
        cmocka_unit_test(an_hba_reset_of_an_idle_hba_waits_for_no_loop),
        cmocka_unit_test(an_hba_reset_waits_and_keeps_the_lists),
        cmocka_unit_test(the_machines_reset_waits_and_forgets_all),
        cmocka_unit_test(the_line_follows_is),
        cmocka_unit_test(a_message_for_each_that_is_new_or_left),
        cmocka_unit_test(what_cannot_be_a_command_is_an_interface_error),
        cmocka_unit_test(what_is_not_memory_is_a_host_bus_error),
        cmocka_unit_test(a_table_that_is_too_short_overflows),
        cmocka_unit_test(a_table_that_is_too_long_does_no_harm),
        cmocka_unit_test(tiny_and_odd_descriptors),
        cmocka_unit_test(stores_are_told_to_who_watches),
        cmocka_unit_test(slots_are_served_in_turn),
        cmocka_unit_test(a_disk_of_another_loop_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
