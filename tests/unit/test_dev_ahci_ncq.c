/* Native command queuing. Serial ATA 3.1, 13.6; AHCI 1.3.1, 5.3.13 and 6.2.2 "Software Error Recovery". */
#include "ahci_rig.h"

static void setup(struct ahci_rig *r)
{
    ahci_rig_init(r);
    port_start(r, 0);
    msi_on(r, true);
    r->disk0.manual = true;
}

static void put_reads(struct ahci_rig *r, uint32_t slots)
{
    for (unsigned i = 0; i < 32; i++)
        if (slots >> i & 1)
            ncq_put(r, i, false, 10 * i, 8, RIG_DATA + i * 4096, false);
}

static void thirty_two_at_once_end_in_any_order(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, UINT32_MAX);
    ncq_issue(&r, UINT32_MAX);
    assert_int_equal(r.disk0.flights, 32);
    assert_int_equal(r.disk0.kicks, 1);           /* one system call */
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0); /* the disk has them all */
    assert_true(px_rd(&r, 0, AHCI_PxSACT) == UINT32_MAX);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_READY);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), 0);
    fake_block_end(&r.disk0, 31, 0);
    run(&r);
    assert_true(px_rd(&r, 0, AHCI_PxSACT) == 0x7fffffff);
    assert_int_equal(r.pci.sent, 1);
    assert_int_equal(ack(&r, 0), IS_SDBS);
    const uint8_t *fis = received(&r, 0, RFIS_SDB);
    assert_int_equal(ld16(fis), 0x40a1);
    assert_int_equal(fis[2], 0x50);
    assert_true(ld32(fis + 4) == 0x80000000);
    fake_block_end(&r.disk0, 7, 0); /* several: one frame, one interrupt */
    fake_block_end(&r.disk0, 0, 0);
    fake_block_end(&r.disk0, 20, 0);
    run(&r);
    assert_int_equal(r.pci.sent, 2);
    assert_int_equal(ld32(fis + 4), 1 << 7 | 1 << 0 | 1 << 22);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    for (unsigned i = 0; i < 32; i++)
        assert_memory_equal(guest(&r, RIG_DATA + i * 4096), r.image0 + 10 * i * 512, 4096);
    ahci_rig_fini(&r);
}

static void frames_of_a_queued_command(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 1 << 9);
    memset(received(&r, 0, 0), 0, 256);
    ncq_issue(&r, 1 << 9);
    assert_int_equal(received(&r, 0, RFIS_D2H)[0], 0x34); /* accepted, no interrupt */
    assert_int_equal(received(&r, 0, RFIS_D2H)[1], 0);
    const uint8_t *setup_fis = received(&r, 0, RFIS_DMA_SETUP);
    assert_int_equal(ld16(setup_fis), 0x2041);
    assert_int_equal(setup_fis[4], 9);
    assert_int_equal(ld32(setup_fis + 20), 4096);
    ahci_rig_fini(&r);
}

static void fua_goes_to_the_image(void **state)
{
    struct ahci_rig r;
    setup(&r);
    memset(guest(&r, RIG_DATA), 0x5a, 8192);
    ncq_put(&r, 3, true, 40, 8, RIG_DATA, true);
    ncq_put(&r, 4, true, 60, 8, RIG_DATA, false);
    ncq_issue(&r, 3 << 3);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(r.disk0.log[0].flags, BLOCK_FUA);
    assert_int_equal(r.disk0.log[1].flags, 0);
    assert_int_equal(r.image0[40 * 512], 0x5a);
    assert_int_equal(r.image0[68 * 512 - 1], 0x5a);
    ahci_rig_fini(&r);
}

static void read_log(struct ahci_rig *r)
{
    const struct ata_regs regs = {.command = 0x2f, .count = 1, .lba = 0x10};
    assert_int_equal(command(r, 0, regs, false, RIG_DATA + 0x80000, 512), ATA_READY);
}

static void a_failure_is_told_with_its_tag(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 0xf0);
    ncq_issue(&r, 0xf0);
    fake_block_end(&r.disk0, 1, -EIO); /* tag 5 */
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), 0); /* the others are waited for */
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_SDBS | IS_TFES);
    assert_int_equal(r.pci.sent, 1);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_UNC << 8 | ATA_READY | ATA_ERR);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 1 << 5);
    const uint8_t *fis = received(&r, 0, RFIS_SDB);
    assert_int_equal(fis[2], ATA_READY | ATA_ERR);
    assert_int_equal(fis[3], ATA_UNC);
    put_reads(&r, 1);
    ncq_issue(&r, 1); /* nothing goes on */
    assert_int_equal(r.disk0.flights, 0);
    port_restart(&r, 0);
    assert_int_equal(simple(&r, 0, 0xe5, 0, 0), ATA_READY | ATA_ERR); /* nor after that, but for the log */
    port_restart(&r, 0);
    read_log(&r);
    const uint8_t *log = guest(&r, RIG_DATA + 0x80000);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + log[i]);
    assert_int_equal(sum, 0);
    assert_int_equal(log[0], 5);
    assert_int_equal(log[2], ATA_READY | ATA_ERR);
    assert_int_equal(log[3], ATA_UNC);
    assert_int_equal(log[4], 50);
    put_reads(&r, 1);
    ncq_issue(&r, 1);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    ahci_rig_fini(&r);
}

static void a_failure_at_once_is_told_like_others(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 1);
    ncq_put(&r, 1, false, RIG_SECTORS, 1, RIG_DATA, false);
    ncq_put(&r, 2, false, 0, 1, RIG_DATA, false);
    ncq_issue(&r, 7);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 4); /* after the failing one nothing is issued */
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 6);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_IDNF << 8 | ATA_READY | ATA_ERR);
    port_restart(&r, 0);
    read_log(&r);
    assert_int_equal(guest(&r, RIG_DATA + 0x80000)[0], 1);
    ahci_rig_fini(&r);
}

static void a_plain_command_amid_the_queue_ends_it(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 1 << 3);
    ncq_issue(&r, 1 << 3);
    simple(&r, 0, 0xef, 0x82, 0); /* write cache off: it must not be done */
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), 0);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_SDBS | IS_DHRS | IS_TFES);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 1);
    assert_int_equal(error_of(&r, 0), ATA_ABRT);
    assert_true(r.ahci->port[0].disk.write_cache);
    port_restart(&r, 0);
    read_log(&r);
    assert_int_equal(guest(&r, RIG_DATA + 0x80000)[0], 0x80);
    assert_int_equal(simple(&r, 0, 0xe5, 0, 0), ATA_READY);
    ahci_rig_fini(&r);
}

static void a_tag_in_use_ends_the_queue(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 6);
    ncq_issue(&r, 6);
    px_wr(&r, 0, AHCI_PxCI, 2);
    run(&r);
    assert_int_equal(r.disk0.flights, 2);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_SDBS | IS_TFES);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 2);
    assert_int_equal(error_of(&r, 0), ATA_ABRT);
    ahci_rig_fini(&r);
}

static void a_tag_of_another_slot_is_refused(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 2);
    st16(table_of(&r, 1) + 12, 7 << 3);
    ncq_issue(&r, 2);
    assert_int_equal(r.disk0.flights, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_SDBS | IS_TFES);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 2);
    ahci_rig_fini(&r);
}

static void bad_tables_stop_the_port(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 3);
    put_prds(&r, 1, &(struct rig_prd){RIG_RAM, 4096}, 1);
    ncq_issue(&r, 3);
    assert_int_equal(px_rd(&r, 0, AHCI_PxIS), IS_HBFS);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 3); /* nothing is told any more */
    port_restart(&r, 0);
    put_reads(&r, 3);
    ncq_issue(&r, 3);
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    ahci_rig_fini(&r);
}

static void a_soft_reset_empties_the_queue(void **state)
{
    struct ahci_rig r;
    setup(&r);
    put_reads(&r, 1 << 4);
    ncq_issue(&r, 1 << 4);
    const struct ata_regs none = {0};
    for (unsigned i = 0; i < 2; i++) {
        put_command(&r, 0, 0, &none, false, NULL, 0);
        st32(list_of(&r, 0), i ? 5 : 0x505);
        table_of(&r, 0)[1] = 0;
        table_of(&r, 0)[15] = i ? 0 : 4;
        px_wr(&r, 0, AHCI_PxCI, 1);
        run(&r);
    }
    assert_true(px_rd(&r, 0, AHCI_PxTFD) & ATA_BSY); /* as long as it is in flight */
    fake_block_end_all(&r.disk0);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), 0x0150);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 1 << 4);
    port_restart(&r, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxSACT), 0);
    assert_int_equal(simple(&r, 0, 0xe5, 0, 0), ATA_READY);
    ahci_rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thirty_two_at_once_end_in_any_order),
        cmocka_unit_test(frames_of_a_queued_command),
        cmocka_unit_test(fua_goes_to_the_image),
        cmocka_unit_test(a_failure_is_told_with_its_tag),
        cmocka_unit_test(a_failure_at_once_is_told_like_others),
        cmocka_unit_test(a_plain_command_amid_the_queue_ends_it),
        cmocka_unit_test(a_tag_in_use_ends_the_queue),
        cmocka_unit_test(a_tag_of_another_slot_is_refused),
        cmocka_unit_test(bad_tables_stop_the_port),
        cmocka_unit_test(a_soft_reset_empties_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
