/* The disk's command set, through a port. */
#include "ahci_rig.h"

static unsigned id_word(struct ahci_rig *r, unsigned w)
{
    return ld16(guest(r, RIG_DATA) + 2 * w);
}

static void identify(struct ahci_rig *r, unsigned port)
{
    memset(guest(r, RIG_DATA), 0xee, 1024);
    assert_int_equal(command(r, port, (struct ata_regs){.command = 0xec}, false, RIG_DATA, 512), ATA_READY);
    assert_int_equal(guest(r, RIG_DATA)[512], 0xee);
}

static void setup(struct ahci_rig *r)
{
    ahci_rig_init(r);
    port_start(r, 0);
    port_start(r, 3);
}

static void identify_says_what_the_disk_is(void **state)
{
    struct ahci_rig r;
    uint8_t sum = 0;
    setup(&r);
    identify(&r, 0);
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + guest(&r, RIG_DATA)[i]);
    assert_int_equal(sum, 0);
    assert_int_equal(id_word(&r, 0), 0x0040);
    assert_memory_equal(guest(&r, RIG_DATA) + 20, "NS 0                ", 20);
    assert_memory_equal(guest(&r, RIG_DATA) + 54, "eHacot n", 8);
    assert_int_equal(ld32(guest(&r, RIG_DATA) + 120), RIG_SECTORS);
    assert_true(ld64(guest(&r, RIG_DATA) + 200) == RIG_SECTORS);
    assert_int_equal(id_word(&r, 75), 31);
    assert_int_equal(id_word(&r, 76), 0x010e);
    assert_int_equal(id_word(&r, 83) & 0xf400, 0x7400);
    assert_int_equal(id_word(&r, 84) & 0xc040, 0x4040); /* FUA */
    assert_int_equal(id_word(&r, 85) & 0x60, 0x60);
    assert_int_equal(id_word(&r, 106), 0x4000);
    assert_int_equal(id_word(&r, 169), 1);
    identify(&r, 3);
    assert_int_equal(id_word(&r, 106), 0x6003);
    assert_int_equal(id_word(&r, 169), 0);
    assert_memory_equal(guest(&r, RIG_DATA) + 20, "EH0C00", 6);
    ahci_rig_fini(&r);
}

static void identify_is_pio(void **state)
{
    struct ahci_rig r;
    setup(&r);
    ack(&r, 0);
    identify(&r, 0);
    assert_int_equal(ack(&r, 0), IS_PSS);
    const uint8_t *fis = received(&r, 0, RFIS_PIO_SETUP);
    assert_int_equal(fis[0], 0x5f);
    assert_int_equal(fis[1], 0x60);
    assert_int_equal(fis[2], 0x58);
    assert_int_equal(fis[15], 0x50);
    assert_int_equal(ld16(fis + 16), 512);
    assert_int_equal(ld32(list_of(&r, 0) + 4), 512); /* PRDBC */
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    ahci_rig_fini(&r);
}

struct rw_case {
    uint8_t code;
    bool write, ext;
};

/* Every plain read and write, at two places, against the image. */
static void every_read_and_write_moves_its_sectors(void **state)
{
    static const struct rw_case cases[] = {
        {0x20, false, false}, {0x24, false, true}, {0x25, false, true}, {0x29, false, true}, {0xc4, false, false},
        {0xc8, false, false}, {0x30, true, false}, {0x34, true, true},  {0x35, true, true},  {0x39, true, true},
        {0x3d, true, true},   {0xc5, true, false}, {0xca, true, false}, {0xce, true, true}};
    struct ahci_rig r;
    setup(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct rw_case *c = &cases[i];
        uint64_t lba = 100 + 50 * i;
        uint8_t *mem = guest(&r, RIG_DATA), *disk = r.image0 + lba * 512;
        memset(mem, (int)(0x30 + i), 7 * 512);
        const struct ata_regs regs = {.command = c->code, .device = 0x40, .lba = lba, .count = 7};
        uint8_t next = disk[7 * 512];
        assert_int_equal(command(&r, 0, regs, c->write, RIG_DATA, 7 * 512), ATA_READY);
        assert_memory_equal(mem, disk, 7 * 512);
        assert_int_equal(mem[0], c->write ? 0x30 + i : (uint8_t)(lba * 7));
        assert_int_equal(disk[7 * 512], next);
        assert_int_equal(ld32(list_of(&r, 0) + 4), 7 * 512);
        bool fua = c->code == 0x3d || c->code == 0xce;
        assert_int_equal(r.disk0.log[r.disk0.logged - 1].flags, fua ? BLOCK_FUA : 0);
    }
    ahci_rig_fini(&r);
}

static void a_28_bit_address_has_four_bits_in_the_device_register(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.data = NULL;
    r.disk0.size = UINT64_C(512) << 30;
    ahci_destroy(r.ahci);
    rig_fini(&r.pci);
    rig_init(&r.pci);
    ahci_rig_wire(&r);
    port_start(&r, 0);
    struct ata_regs regs = {.command = 0xc8, .device = 0x4a, .lba = 0x112233, .count = 1};
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 512), ATA_READY);
    assert_true(r.disk0.log[r.disk0.logged - 1].offset == 0xa112233ull * 512);
    regs.lba = 0xff000000112233; /* what it does not have is not looked at */
    regs.count = 0xff01;
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 512), ATA_READY);
    assert_true(r.disk0.log[r.disk0.logged - 1].offset == 0xa112233ull * 512);
    assert_true(r.disk0.log[r.disk0.logged - 1].len == 512);
    regs = (struct ata_regs){.command = 0xf8, .device = 0x40};
    assert_int_equal(command(&r, 0, regs, false, 0, 0), ATA_READY);
    const uint8_t *fis = received(&r, 0, RFIS_D2H);
    assert_int_equal(fis[7] & 0xf, 0xf);
    assert_int_equal(ld32(fis + 4) & 0xffffff, 0xfffffe);
    regs = (struct ata_regs){.command = 0x27, .device = 0x40};
    assert_int_equal(command(&r, 0, regs, false, 0, 0), ATA_READY);
    assert_int_equal(ld32(fis + 4) & 0xffffff, 0xffffff);
    assert_int_equal(ld32(fis + 8), 0x3f);
    ahci_rig_fini(&r);
}

static void counts_of_zero_are_the_most(void **state)
{
    struct ahci_rig r;
    static struct rig_prd prd[8];
    setup(&r);
    const struct ata_regs small = {.command = 0xc8, .device = 0x40, .lba = 5};
    assert_int_equal(command(&r, 0, small, false, RIG_DATA, 256 * 512), ATA_READY);
    assert_memory_equal(guest(&r, RIG_DATA), r.image0 + 5 * 512, 256 * 512);
    r.disk0.data = NULL;
    r.disk0.size = UINT64_C(512) << 20;
    ahci_destroy(r.ahci);
    rig_fini(&r.pci);
    rig_init(&r.pci);
    ahci_rig_wire(&r);
    port_start(&r, 0);
    for (unsigned i = 0; i < 8; i++)
        prd[i] = (struct rig_prd){0x400000, 0x400000};
    const struct ata_regs all = {.command = 0x25, .device = 0x40, .lba = 5};
    put_command(&r, 0, 0, &all, false, prd, 8);
    px_wr(&r, 0, AHCI_PxCI, 1);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD), ATA_READY);
    assert_int_equal(ld32(list_of(&r, 0) + 4), 65536 * 512);
    ahci_rig_fini(&r);
}

static void what_is_past_the_end_is_not_found(void **state)
{
    struct ahci_rig r;
    setup(&r);
    assert_int_equal(dma(&r, false, RIG_SECTORS - 2, 2, RIG_DATA), ATA_READY);
    assert_int_equal(dma(&r, false, RIG_SECTORS - 2, 3, RIG_DATA), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_IDNF);
    port_restart(&r, 0);
    assert_int_equal(dma(&r, true, 0xffffffffffff, 1, RIG_DATA), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_IDNF);
    assert_int_equal(ld32(received(&r, 0, RFIS_D2H) + 8), 0xffffff); /* the address comes back */
    port_restart(&r, 0);
    const struct ata_regs chs = {.command = 0xc8, .device = 0, .lba = 1, .count = 1};
    assert_int_equal(command(&r, 0, chs, false, RIG_DATA, 512), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_ABRT);
    ahci_rig_fini(&r);
}

static void unknown_commands_are_aborted(void **state)
{
    static const uint8_t unknown[] = {0x00, 0x01, 0x10, 0x32, 0x63, 0xa0, 0xa1, 0xb0, 0xb1, 0xf5, 0xf9, 0xff};
    struct ahci_rig r;
    setup(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        ack(&r, 0);
        assert_int_equal(simple(&r, 0, unknown[i], 0, 1), ATA_READY | ATA_ERR);
        assert_int_equal(error_of(&r, 0), ATA_ABRT);
        assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 1); /* the failed command's bit stays */
        assert_true(ack(&r, 0) & IS_TFES);
        port_restart(&r, 0);
    }
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void a_disk_without_write_cache_writes_through(void **state)
{
    struct ahci_rig r;
    setup(&r);
    assert_int_equal(dma(&r, true, 1, 1, RIG_DATA), ATA_READY);
    assert_int_equal(r.disk0.log[0].flags, 0);
    assert_int_equal(simple(&r, 0, 0xef, 0x82, 0), ATA_READY);
    assert_int_equal(r.disk0.logged, 2);
    assert_int_equal(r.disk0.log[1].op, BLOCK_FLUSH); /* what was cached */
    assert_int_equal(dma(&r, true, 1, 1, RIG_DATA), ATA_READY);
    assert_int_equal(r.disk0.log[2].flags, BLOCK_FUA);
    assert_int_equal(dma(&r, false, 1, 1, RIG_DATA), ATA_READY);
    assert_int_equal(r.disk0.log[3].flags, 0);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 85) & 0x20, 0);
    assert_int_equal(simple(&r, 0, 0xef, 0x02, 0), ATA_READY);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 85) & 0x20, 0x20);
    ahci_rig_fini(&r);
}

static void flushes_reach_the_image(void **state)
{
    static const uint8_t codes[] = {0xe7, 0xea, 0xe0, 0xe2};
    struct ahci_rig r;
    setup(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        assert_int_equal(simple(&r, 0, codes[i], 0, 0), ATA_READY);
        assert_int_equal(r.disk0.logged, i + 1);
        assert_int_equal(r.disk0.log[i].op, BLOCK_FLUSH);
    }
    r.disk0.manual = true;
    simple(&r, 0, 0xea, 0, 0);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD) & ATA_BSY, ATA_BSY);
    fake_block_end(&r.disk0, 0, -EIO);
    run(&r);
    assert_int_equal(px_rd(&r, 0, AHCI_PxTFD) & 0xff, ATA_READY | ATA_ERR | ATA_DF);
    ahci_rig_fini(&r);
}

static void settings(void **state)
{
    struct ahci_rig r;
    setup(&r);
    assert_int_equal(simple(&r, 0, 0xef, 0x03, 0x45), ATA_READY);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 88), 0x207f);
    assert_int_equal(simple(&r, 0, 0xef, 0x03, 0x22), ATA_READY);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 63), 0x0407);
    assert_int_equal(id_word(&r, 88), 0x007f);
    assert_int_equal(simple(&r, 0, 0xef, 0x03, 0x47), ATA_READY | ATA_ERR);
    port_restart(&r, 0);
    assert_int_equal(simple(&r, 0, 0xef, 0x55, 0), ATA_READY);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 85) & 0x40, 0);
    assert_int_equal(simple(&r, 0, 0xc6, 0, 8), ATA_READY);
    identify(&r, 0);
    assert_int_equal(id_word(&r, 59), 0x108);
    assert_int_equal(simple(&r, 0, 0xc6, 0, 3), ATA_READY | ATA_ERR);
    port_restart(&r, 0);
    assert_int_equal(simple(&r, 0, 0xc6, 0, 0), ATA_READY);
    const struct ata_regs multi = {.command = 0xc4, .device = 0x40, .count = 1};
    assert_int_equal(command(&r, 0, multi, false, RIG_DATA, 512), ATA_READY | ATA_ERR);
    ahci_rig_fini(&r);
}

static void power_modes(void **state)
{
    struct ahci_rig r;
    setup(&r);
    const uint8_t *fis = received(&r, 0, RFIS_D2H);
    simple(&r, 0, 0xe5, 0, 0);
    assert_int_equal(fis[12], 0xff);
    simple(&r, 0, 0xe1, 0, 0);
    simple(&r, 0, 0xe5, 0, 0);
    assert_int_equal(fis[12], 0x80);
    simple(&r, 0, 0xe0, 0, 0);
    simple(&r, 0, 0xe5, 0, 0);
    assert_int_equal(fis[12], 0x00);
    dma(&r, false, 0, 1, RIG_DATA);
    simple(&r, 0, 0xe5, 0, 0);
    assert_int_equal(fis[12], 0xff);
    assert_true(simple(&r, 0, 0xe6, 0, 0) & ATA_BSY); /* asleep until a reset */
    port_stop(&r, 0);
    px_wr(&r, 0, AHCI_PxSCTL, 1);
    px_wr(&r, 0, AHCI_PxSCTL, 0);
    run(&r);
    port_restart(&r, 0);
    assert_int_equal(dma(&r, false, 0, 1, RIG_DATA), ATA_READY);
    ahci_rig_fini(&r);
}

static void verify_reads_without_data(void **state)
{
    struct ahci_rig r;
    setup(&r);
    struct ata_regs regs = {.command = 0x42, .device = 0x40, .lba = 3, .count = 300};
    assert_int_equal(command(&r, 0, regs, false, 0, 0), ATA_READY);
    uint64_t len = 0;
    for (unsigned i = 0; i < r.disk0.logged; i++)
        len += r.disk0.log[i].len;
    assert_true(len == 300 * 512);
    r.disk0.bad_at = 200 * 512;
    r.disk0.bad_len = 512;
    r.disk0.bad_result = -EIO;
    assert_int_equal(command(&r, 0, regs, false, 0, 0), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_UNC);
    ahci_rig_fini(&r);
}

static void trim_discards_its_ranges(void **state)
{
    struct ahci_rig r;
    setup(&r);
    uint8_t *mem = guest(&r, RIG_DATA);
    memset(mem, 0, 1024);
    st64(mem + 8, 100 | UINT64_C(8) << 48);
    st64(mem + 512, 200 | UINT64_C(1) << 48);
    st64(mem + 1016, 300 | UINT64_C(2) << 48);
    const struct ata_regs regs = {.command = 0x06, .feature = 1, .count = 2, .device = 0x40};
    assert_int_equal(command(&r, 0, regs, true, RIG_DATA, 1024), ATA_READY);
    assert_int_equal(r.disk0.logged, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(r.disk0.log[i].op, BLOCK_DISCARD);
    assert_true(r.disk0.log[0].offset == 100 * 512 && r.disk0.log[0].len == 8 * 512);
    assert_true(r.disk0.log[2].offset == 300 * 512 && r.disk0.log[2].len == 2 * 512);
    assert_int_equal(r.image0[100 * 512] + r.image0[107 * 512 + 511], 0);
    assert_int_equal(r.image0[108 * 512], (uint8_t)(108 * 7));
    st64(mem + 1016, (RIG_SECTORS - 1) | UINT64_C(2) << 48); /* one is beyond the end: none is done */
    assert_int_equal(command(&r, 0, regs, true, RIG_DATA, 1024), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_ABRT);
    assert_int_equal(r.disk0.logged, 3);
    const struct ata_regs none = {.command = 0x06, .feature = 1, .count = 1, .device = 0x40};
    assert_int_equal(command(&r, 3, none, true, RIG_DATA, 512), ATA_READY | ATA_ERR);
    ahci_rig_fini(&r);
}

static void logs_can_be_read(void **state)
{
    struct ahci_rig r;
    setup(&r);
    struct ata_regs regs = {.command = 0x2f, .count = 1, .lba = 0};
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 512), ATA_READY);
    assert_int_equal(id_word(&r, 0), 1);
    assert_int_equal(id_word(&r, 0x10), 1);
    assert_int_equal(id_word(&r, 0x30), 2);
    assert_int_equal(id_word(&r, 0x04), 0);
    regs = (struct ata_regs){.command = 0x47, .count = 2, .lba = 0x30};
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 1024), ATA_READY);
    assert_memory_equal(guest(&r, RIG_DATA) + 8, "\2\0\1", 3);
    assert_int_equal(id_word(&r, 256), 0x0040);
    regs.lba = 0x130; /* from page 1 on */
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 1024), ATA_READY | ATA_ERR);
    port_restart(&r, 0);
    regs.lba = 0x04;
    assert_int_equal(command(&r, 0, regs, false, RIG_DATA, 1024), ATA_READY | ATA_ERR);
    ahci_rig_fini(&r);
}

static void bad_sectors_and_failing_writes(void **state)
{
    struct ahci_rig r;
    setup(&r);
    r.disk0.bad_at = 50 * 512;
    r.disk0.bad_len = 512;
    r.disk0.bad_result = -EIO;
    assert_int_equal(dma(&r, false, 49, 1, RIG_DATA), ATA_READY);
    assert_int_equal(dma(&r, false, 50, 4, RIG_DATA), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_UNC);
    assert_int_equal(received(&r, 0, RFIS_D2H)[4], 50);
    port_restart(&r, 0);
    assert_int_equal(dma(&r, true, 50, 4, RIG_DATA), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_IDNF);
    port_restart(&r, 0);
    r.disk0.readonly = true;
    assert_int_equal(dma(&r, true, 60, 1, RIG_DATA), ATA_READY | ATA_ERR);
    assert_int_equal(error_of(&r, 0), ATA_ABRT);
    ahci_rig_fini(&r);
}

static void diagnostics_pass(void **state)
{
    struct ahci_rig r;
    setup(&r);
    assert_int_equal(simple(&r, 0, 0x90, 0, 0), ATA_READY);
    assert_int_equal(error_of(&r, 0), 1);
    assert_int_equal(px_rd(&r, 0, AHCI_PxCI), 0);
    ahci_rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identify_says_what_the_disk_is),
        cmocka_unit_test(identify_is_pio),
        cmocka_unit_test(every_read_and_write_moves_its_sectors),
        cmocka_unit_test(a_28_bit_address_has_four_bits_in_the_device_register),
        cmocka_unit_test(counts_of_zero_are_the_most),
        cmocka_unit_test(what_is_past_the_end_is_not_found),
        cmocka_unit_test(unknown_commands_are_aborted),
        cmocka_unit_test(a_disk_without_write_cache_writes_through),
        cmocka_unit_test(flushes_reach_the_image),
        cmocka_unit_test(settings),
        cmocka_unit_test(power_modes),
        cmocka_unit_test(verify_reads_without_data),
        cmocka_unit_test(trim_discards_its_ranges),
        cmocka_unit_test(logs_can_be_read),
        cmocka_unit_test(bad_sectors_and_failing_writes),
        cmocka_unit_test(diagnostics_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
