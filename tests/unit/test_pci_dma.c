/* What a function reads and writes: directly, through VT-d, through AMD-Vi. Both units get tables that map the same
 * pages, so that most is asked of both. */
#include "pci_rig.h"

#include "irq/amdvi_priv.h"
#include "irq/vtd_priv.h"

#define DEV    PCI_DEVFN(6, 3)
#define ROOT   UINT64_C(0x100000) /* VT-d: root table, then the context table */
#define DEVTAB UINT64_C(0x110000) /* AMD-Vi: 2048 devices */
#define TABLES UINT64_C(0x130000) /* three levels of page tables */
#define QUEUE  UINT64_C(0x140000)
#define STATUS UINT64_C(0x150000)
#define IOVA   UINT64_C(0x40000000)
#define DOMAIN 9
#define READ   1u
#define WRITE  2u
#define ENTRY  8u

enum unit { NONE, INTEL, AMD };

struct rig {
    struct pci_rig r;
    struct pci_func f0, f;
    enum unit unit;
    struct vtd *vtd;
    struct amdvi *amd;
    uint32_t tail;
};

static void st(struct rig *s, gpa_t at, uint64_t val)
{
    st64(s->r.ram.low + at, val);
}

/* ---- tables ---- */

static uint64_t pte(struct rig *s, uint64_t to, unsigned rights, unsigned next)
{
    if (s->unit == INTEL)
        return to | rights;
    return to | 1 | (uint64_t)next << 9 | (rights & READ ? BIT(61) : 0) | (rights & WRITE ? BIT(62) : 0);
}

static gpa_t slot(uint64_t iova, unsigned level)
{
    return TABLES + (2 - level) * 0x1000 + bits(iova, 20 + 9 * level, 12 + 9 * level) * ENTRY;
}

/* One page of 4 KiB; rights 0: none. All iovas of a test share 2 MiB. */
static void map(struct rig *s, uint64_t iova, gpa_t gpa, unsigned rights)
{
    st(s, slot(iova, 2), pte(s, TABLES + 0x1000, READ | WRITE, 2));
    st(s, slot(iova, 1), pte(s, TABLES + 0x2000, READ | WRITE, 1));
    st(s, slot(iova, 0), rights ? pte(s, gpa, rights, 0) : 0);
}

/* 2 MiB at once. */
static void map_large(struct rig *s, uint64_t iova, gpa_t gpa)
{
    st(s, slot(iova, 2), pte(s, TABLES + 0x1000, READ | WRITE, 2));
    st(s, slot(iova, 1), pte(s, gpa, READ | WRITE, 0) | (s->unit == INTEL ? BIT(7) : 0));
}

/* ---- units ---- */

static void vtd_cmd(struct rig *s, uint32_t bit)
{
    uint32_t now = (uint32_t)vtd_bus_ops.read(s->vtd, VTD_GSTS, 4) & 0x96ffffff;
    vtd_bus_ops.write(s->vtd, VTD_GCMD, 4, now | bit);
}

static void vtd_open(struct rig *s, bool scoped)
{
    const struct vtd_config c = {.intremap = true,
                                 .dma_translation = true,
                                 .aw_bits = 39,
                                 .phys_bits = 46,
                                 .scoped = scoped,
                                 .scope = REQUESTER_ID(0xa0),
                                 .ram = &s->r.ram,
                                 .port = {rig_deliver, &s->r, NULL}};
    assert_int_equal(vtd_create(&c, &s->vtd, &s->r.f.err), 0);
    s->r.remap.vtd = s->vtd;
}

static void vtd_start(struct rig *s)
{
    st(s, ROOT, (ROOT + 0x1000) | 1);
    st(s, ROOT + 0x1000 + DEV * 16u, TABLES | 1);
    st(s, ROOT + 0x1000 + DEV * 16u + 8, 1 | DOMAIN << 8);
    vtd_bus_ops.write(s->vtd, VTD_RTADDR, 8, ROOT);
    vtd_cmd(s, VTD_G_SRTP);
    vtd_cmd(s, VTD_G_TE);
    vtd_bus_ops.write(s->vtd, VTD_IQA, 8, QUEUE);
    vtd_cmd(s, VTD_G_QIE);
}

static void amd_open(struct rig *s, bool scoped)
{
    const struct amdvi_config c = {.intremap = true,
                                   .dma_translation = true,
                                   .requester = REQUESTER_ID(AMDVI_RID),
                                   .scoped = scoped,
                                   .scope = REQUESTER_ID(0xa0),
                                   .ram = &s->r.ram,
                                   .remap = &s->r.remap,
                                   .port = {rig_deliver, &s->r, NULL}};
    assert_int_equal(amdvi_create(&c, &s->amd, &s->r.f.err), 0);
    s->r.remap.amdvi = s->amd;
}

static void amd_start(struct rig *s)
{
    gpa_t at = DEVTAB + DEV * UINT64_C(32);
    st(s, at, DTE0_V | DTE0_TV | DTE0_IR | DTE0_IW | 3 << 9 | TABLES);
    st(s, at + 8, DOMAIN);
    amdvi_bus_ops.write(s->amd, AMDVI_DEVTAB, 8, DEVTAB | 15);
    amdvi_bus_ops.write(s->amd, AMDVI_CMD_BASE, 8, QUEUE | UINT64_C(8) << 56);
    amdvi_bus_ops.write(s->amd, AMDVI_CONTROL, 8, CTL_IOMMU_EN | CTL_CMD_BUF_EN);
}

static void command(struct rig *s, uint64_t lo, uint64_t hi)
{
    st(s, QUEUE + s->tail, lo);
    st(s, QUEUE + s->tail + 8, hi);
    s->tail += 16;
    if (s->unit == INTEL)
        vtd_bus_ops.write(s->vtd, VTD_IQT, 8, s->tail);
    else
        amdvi_bus_ops.write(s->amd, AMDVI_CMD_TAIL, 4, s->tail);
}

enum grain { PAGE, WHOLE_DOMAIN, ALL };

/* And wait for it, by the guest's means. */
static void invalidate(struct rig *s, enum grain grain, uint64_t iova, unsigned domain)
{
    st(s, STATUS, 0);
    if (s->unit == INTEL) {
        command(s, 2 | (grain == PAGE ? 3u : grain == WHOLE_DOMAIN ? 2u : 1u) << 4 | domain << 16, iova);
        command(s, UINT64_C(0x55) << 32 | 5 | 1 << 5, STATUS);
    } else {
        uint64_t whole = UINT64_C(0x7ffffffffffff000) | 1;
        if (grain == ALL)
            command(s, UINT64_C(8) << 60, 0);
        else
            command(s, UINT64_C(3) << 60 | (uint64_t)domain << 32, grain == PAGE ? iova : whole);
        command(s, UINT64_C(1) << 60 | STATUS | 1, 0x55);
    }
    assert_int_equal(ld64(s->r.ram.low + STATUS) & 0xff, 0x55);
}

static void open_scoped(struct rig *s, enum unit unit, bool scoped)
{
    memset(s, 0, sizeof *s);
    rig_init(&s->r);
    s->unit = unit;
    if (unit == INTEL)
        vtd_open(s, scoped);
    if (unit == AMD)
        amd_open(s, scoped);
    pci_func_setup(&s->f0, PCI_DEVFN(6, 0), 1, 2, 3, 4);
    pci_func_setup(&s->f, DEV, 1, 2, 3, 4);
    assert_int_equal(pci_host_add(&s->r.host, NULL, &s->f0, &s->r.f.err), 0);
    assert_int_equal(pci_host_add(&s->r.host, NULL, &s->f, &s->r.f.err), 0);
    cfg_wr(&s->r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MASTER);
}

static void open(struct rig *s, enum unit unit)
{
    open_scoped(s, unit, false);
}

static void start(struct rig *s)
{
    if (s->unit == INTEL)
        vtd_start(s);
    else
        amd_start(s);
}

static void close(struct rig *s)
{
    if (s->vtd)
        vtd_destroy(s->vtd);
    if (s->amd)
        amdvi_destroy(s->amd);
    rig_fini(&s->r);
}

/* ---- no unit ---- */

static void bytes_go_where_the_address_says(void **state)
{
    struct rig s;
    uint8_t in[100], out[100] = {0};
    open(&s, NONE);
    for (unsigned i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 7 + 1);
    assert_true(pci_dma_write(&s.f, 0x1fe1, in, sizeof in));
    assert_memory_equal(s.r.ram.low + 0x1fe1, in, sizeof in);
    assert_int_equal(s.r.told, sizeof in);
    assert_true(pci_dma_read(&s.f, 0x1fe1, out, sizeof out));
    assert_memory_equal(out, in, sizeof in);
    assert_true(pci_dma_read(&s.f, UINT64_MAX, out, 0));
    assert_false(pci_dma_read(&s.f, RIG_RAM - 1, out, 2));
    assert_false(pci_dma_write(&s.f, RIG_RAM, in, 1));
    assert_false(pci_dma_write(&s.f, UINT64_MAX - 3, in, 8)); /* no wrapping round to 0 */
    assert_int_not_equal(s.r.ram.low[0], in[4]);
    uint64_t len = 5 << 20;
    assert_ptr_equal(pci_dma_map(&s.f, 0x3001, &len, true), s.r.ram.low + 0x3001);
    assert_int_equal(len, 5 << 20);
    assert_non_null(pci_dma_map(&s.f, RIG_RAM - 16, &len, false));
    assert_int_equal(len, 16);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    assert_false(pci_dma_read(&s.f, 0x1000, out, 1));
    assert_null(pci_dma_map(&s.f, 0x1000, &len, false));
    close(&s);
}

static void a_write_to_fee00000_is_a_message(void **state)
{
    struct rig s;
    uint32_t data = 0x41;
    for (enum unit u = NONE; u <= AMD; u++) {
        open(&s, u);
        assert_true(pci_dma_write(&s.f, 0xfee07000, &data, 4));
        assert_int_equal(s.r.sent, 1);
        assert_int_equal(s.r.irq[0].dest, 7);
        assert_int_equal(s.r.irq[0].vector, 0x41);
        assert_false(pci_dma_write(&s.f, 0xfee07000, &data, 2));
        assert_false(pci_dma_write(&s.f, 0xfee07002, &data, 4));
        assert_false(pci_dma_read(&s.f, 0xfee07000, &data, 4));
        cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, 0);
        assert_false(pci_dma_write(&s.f, 0xfee07000, &data, 4));
        assert_int_equal(s.r.sent, 1);
        close(&s);
    }
}

/* Windows' form of messages has addresses above 4 GiB: what is RAM there stays RAM. */
static void messages_above_4_gib_are_not_in_ram(void **state)
{
    struct pci_rig r;
    struct pci_func f;
    uint32_t data = 0x61;
    rig_init(&r);
    r.remap.windows_high = true;
    r.ram.high = r.ram.low; /* RAM at 4 GiB, up to 1FEE01000h */
    r.ram.high_size = 0xfee01000;
    pci_func_setup(&f, DEV & ~7u, 1, 2, 3, 4);
    assert_int_equal(pci_host_add(&r.host, NULL, &f, &r.f.err), 0);
    cfg_wr(&r, 0, f.devfn, PCI_COMMAND, 2, PCI_CMD_MASTER);
    uint64_t len = 4;
    assert_non_null(pci_dma_map(&f, UINT64_C(0x1fee00000), &len, true));
    assert_null(pci_dma_map(&f, UINT64_C(0x1fee01000), &len, true));
    assert_true(pci_dma_write(&f, UINT64_C(0x1fee01000), &data, 4));
    assert_int_equal(r.sent, 1);
    assert_int_equal(r.irq[0].dest, 0x101);
    r.ram.high = NULL;
    rig_fini(&r);
}

static void pieces_are_joined(void **state)
{
    struct rig s;
    struct iovec iov[4];
    unsigned n = 1;
    open(&s, NONE);
    assert_true(pci_dma_iov(&s.f, 0x1000, 0x5000, false, iov, &n, 4));
    assert_int_equal(n, 2);
    assert_ptr_equal(iov[1].iov_base, s.r.ram.low + 0x1000);
    assert_int_equal(iov[1].iov_len, 0x5000);
    assert_true(pci_dma_iov(&s.f, 0x6000, 0x10, false, iov, &n, 4)); /* another range is another piece */
    assert_int_equal(n, 3);
    assert_true(pci_dma_iov(&s.f, 0x9000, 0, false, iov, &n, 4));
    assert_int_equal(n, 3);
    assert_false(pci_dma_iov(&s.f, RIG_RAM - 8, 16, true, iov, &n, 4));
    close(&s);
}

/* ---- both units ---- */

static void a_unit_that_is_off_is_not_there(void **state)
{
    struct rig s;
    for (enum unit u = INTEL; u <= AMD; u++) {
        uint64_t word = 0x1122334455667788, len = 0x10000;
        open(&s, u);
        assert_true(pci_dma_write(&s.f, 0x2ffc, &word, 8));
        assert_true(ld64(s.r.ram.low + 0x2ffc) == word);
        assert_non_null(pci_dma_map(&s.f, 0x2ffc, &len, true));
        assert_int_equal(len, 0x10000); /* nobody cuts it up */
        close(&s);
    }
}

static void pages_go_where_the_tables_say(void **state)
{
    struct rig s;
    uint8_t in[0x1800], out[0x1800];
    for (unsigned i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 13 + i / 256);
    for (enum unit u = INTEL; u <= AMD; u++) {
        open(&s, u);
        start(&s);
        map(&s, IOVA, 0x300000, READ | WRITE);
        map(&s, IOVA + 0x1000, 0x480000, READ | WRITE);
        map(&s, IOVA + 0x2000, 0x200000, READ);
        map(&s, IOVA + 0x3000, 0x201000, WRITE);
        for (unsigned i = 0; i < 2; i++) { /* cached, the second time */
            memset(out, 0, sizeof out);
            assert_true(pci_dma_write(&s.f, IOVA + 0x404, in, sizeof in));
            assert_memory_equal(s.r.ram.low + 0x300404, in, 0xbfc);
            assert_memory_equal(s.r.ram.low + 0x480000, in + 0xbfc, 0xc04);
            assert_true(pci_dma_read(&s.f, IOVA + 0x404, out, sizeof out));
            assert_memory_equal(in, out, sizeof in);
            assert_true(pci_dma_read(&s.f, IOVA + 0x2000, out, 8));
            assert_false(pci_dma_write(&s.f, IOVA + 0x2000, in, 8));
            assert_true(pci_dma_write(&s.f, IOVA + 0x3000, in, 8));
            assert_false(pci_dma_read(&s.f, IOVA + 0x3000, out, 8));
            assert_false(pci_dma_write(&s.f, IOVA + 0x1ff8, in, 16)); /* its first half arrives */
            assert_false(pci_dma_write(&s.f, IOVA + 0x4000, in, 1));
            assert_false(pci_dma_write(&s.f, 0x300000, in, 1)); /* a gpa is no iova */
        }
        struct iovec iov[4];
        unsigned n = 0;
        assert_true(pci_dma_iov(&s.f, IOVA, 0x2000, true, iov, &n, 4));
        assert_int_equal(n, 2);
        assert_ptr_equal(iov[1].iov_base, s.r.ram.low + 0x480000);
        n = 3;
        assert_false(pci_dma_iov(&s.f, IOVA, 0x2000, true, iov, &n, 4)); /* one more than there is room for */
        close(&s);
    }
}

static void a_large_page_is_one_piece(void **state)
{
    struct rig s;
    struct iovec iov[2];
    unsigned n = 0;
    open(&s, INTEL);
    start(&s);
    map_large(&s, IOVA, 0x400000);
    assert_true(pci_dma_iov(&s.f, IOVA + 0x123, 0x1f0000, true, iov, &n, 2));
    assert_int_equal(n, 1);
    assert_ptr_equal(iov[0].iov_base, s.r.ram.low + 0x400123);
    uint64_t len = UINT64_MAX;
    assert_non_null(pci_dma_map(&s.f, IOVA + 0x1fff00, &len, true));
    assert_int_equal(len, 0x100);
    close(&s);
}

static void others_are_not_let_in(void **state)
{
    struct rig s;
    uint32_t word = 1;
    for (enum unit u = INTEL; u <= AMD; u++) {
        open(&s, u);
        start(&s);
        map(&s, IOVA, 0x300000, READ | WRITE);
        cfg_wr(&s.r, 0, PCI_DEVFN(6, 0), PCI_COMMAND, 2, PCI_CMD_MASTER);
        assert_true(pci_dma_write(&s.f, IOVA, &word, 4));
        if (u == INTEL)
            assert_false(pci_dma_write(&s.f0, IOVA, &word, 4)); /* no context entry */
        else
            assert_true(pci_dma_write(&s.f0, 0x5000, &word, 4)); /* an entry that is not valid: it passes */
        close(&s);
    }
}

static void outside_the_scope_it_goes_direct(void **state)
{
    struct rig s;
    uint32_t word = 0x77;
    for (enum unit u = INTEL; u <= AMD; u++) {
        open_scoped(&s, u, true);
        start(&s);
        assert_true(pci_dma_write(&s.f, 0x300000, &word, 4));
        assert_int_equal(s.r.ram.low[0x300000], 0x77);
        assert_false(pci_dma_write(&s.f, IOVA, &word, 4));
        assert_true(pci_dma_write(&s.f, 0xfee03000, &word, 4));
        assert_int_equal(s.r.sent, 1);
        close(&s);
    }
}

/* ---- invalidation ---- */

static bool goes_to(struct rig *s, uint64_t iova, gpa_t gpa)
{
    uint64_t len = 1;
    return pci_dma_map(&s->f, iova, &len, true) == s->r.ram.low + gpa;
}

static void what_is_invalidated_is_looked_up_anew(void **state)
{
    struct rig s;
    for (enum unit u = INTEL; u <= AMD; u++) {
        open(&s, u);
        start(&s);
        for (unsigned i = 0; i < 8; i++)
            map(&s, IOVA + i * 0x1000, 0x300000 + i * 0x1000, READ | WRITE);
        for (unsigned i = 0; i < 8; i++)
            assert_true(goes_to(&s, IOVA + i * 0x1000, 0x300000 + i * 0x1000));
        for (unsigned i = 0; i < 8; i++)
            map(&s, IOVA + i * 0x1000, 0x500000 + i * 0x1000, READ | WRITE);
        assert_true(goes_to(&s, IOVA + 0x3000, 0x303000)); /* nothing said so far */
        invalidate(&s, PAGE, IOVA + 0x3000, DOMAIN);
        assert_true(goes_to(&s, IOVA + 0x3000, 0x503000));
        assert_true(goes_to(&s, IOVA + 0x4000, 0x304000));
        invalidate(&s, WHOLE_DOMAIN, 0, DOMAIN + 1); /* another's */
        assert_true(goes_to(&s, IOVA + 0x4000, 0x304000));
        invalidate(&s, WHOLE_DOMAIN, 0, DOMAIN);
        assert_true(goes_to(&s, IOVA + 0x4000, 0x504000));
        map(&s, IOVA + 0x5000, 0, 0);
        invalidate(&s, ALL, 0, 0);
        assert_false(goes_to(&s, IOVA + 0x5000, 0x505000));
        map(&s, IOVA + 0x5000, 0x600000, READ | WRITE); /* what is not there is not remembered */
        assert_true(goes_to(&s, IOVA + 0x5000, 0x600000));
        close(&s);
    }
}

/* The same by VT-d's registers. */
static void registers_invalidate_too(void **state)
{
    struct rig s;
    open(&s, INTEL);
    start(&s);
    map(&s, IOVA, 0x300000, READ | WRITE);
    assert_true(goes_to(&s, IOVA, 0x300000));
    map(&s, IOVA, 0x400000, READ | WRITE);
    assert_true(goes_to(&s, IOVA, 0x300000));
    vtd_cmd(&s, 0); /* status bits stay */
    uint32_t on = (uint32_t)vtd_bus_ops.read(s.vtd, VTD_GSTS, 4);
    vtd_bus_ops.write(s.vtd, VTD_GCMD, 4, (on & 0x96ffffff) & ~VTD_G_QIE);
    vtd_bus_ops.write(s.vtd, VTD_IVA, 8, IOVA);
    vtd_bus_ops.write(s.vtd, VTD_IOTLB, 8, BIT(63) | UINT64_C(3) << 60 | (uint64_t)DOMAIN << 32);
    assert_false(vtd_bus_ops.read(s.vtd, VTD_IOTLB, 8) & BIT(63));
    assert_true(goes_to(&s, IOVA, 0x400000));
    close(&s);
}

/* Pages by the thousand: more than any cache holds. */
static void more_pages_than_are_cached(void **state)
{
    struct rig s;
    for (enum unit u = INTEL; u <= AMD; u++) {
        open(&s, u);
        start(&s);
        for (unsigned i = 0; i < 512; i++)
            map(&s, IOVA + i * 0x1000, 0x200000 + (i * 37 % 512) * 0x1000, READ | WRITE);
        for (unsigned round = 0; round < 3; round++)
            for (unsigned i = 0; i < 512; i++)
                assert_true(goes_to(&s, IOVA + i * 0x1000, 0x200000 + (i * 37 % 512) * 0x1000));
        close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_where_the_address_says),
        cmocka_unit_test(a_write_to_fee00000_is_a_message),
        cmocka_unit_test(messages_above_4_gib_are_not_in_ram),
        cmocka_unit_test(pieces_are_joined),
        cmocka_unit_test(a_unit_that_is_off_is_not_there),
        cmocka_unit_test(pages_go_where_the_tables_say),
        cmocka_unit_test(a_large_page_is_one_piece),
        cmocka_unit_test(others_are_not_let_in),
        cmocka_unit_test(outside_the_scope_it_goes_direct),
        cmocka_unit_test(what_is_invalidated_is_looked_up_anew),
        cmocka_unit_test(registers_invalidate_too),
        cmocka_unit_test(more_pages_than_are_cached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
