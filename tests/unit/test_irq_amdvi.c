/* The AMD-Vi unit: registers, commands, events, interrupt remapping by example and against a model. */
#include "amdvi_rig.h"
#include "irq_rig.h"

/* ---- registers ---- */

static void registers_keep_what_they_have(void **state)
{
    static const struct {
        unsigned reg;
        uint64_t kept;
    } regs[] = {{AMDVI_DEVTAB, UINT64_C(0x000ffffffffff1ff)},
                {AMDVI_CMD_BASE, UINT64_C(0x0f0ffffffffff000)},
                {AMDVI_EVT_BASE, UINT64_C(0x0f0ffffffffff000)},
                {AMDVI_EXCL_BASE, UINT64_C(0x000ffffffffff003)},
                {AMDVI_EXCL_LIMIT, UINT64_C(0x000ffffffffff000)},
                {AMDVI_XT_GEN, UINT64_C(0xff0001ffffffff04)},
                {AMDVI_CMD_HEAD, 0x7fff0},
                {AMDVI_EVT_HEAD, 0x7fff0},
                {AMDVI_EFR, 0x8c5},
                {AMDVI_EFR2, 0x100},
                {0x0038, 0},
                {0x1ff8, 0},
                {0x3ff8, 0}};
    struct arig r;
    arig_init(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        arig_wr(&r, regs[i].reg, UINT64_MAX);
        assert_int_equal(arig_rd(&r, regs[i].reg), regs[i].kept);
    }
    amdvi_reset(r.a);
    for (unsigned reg = 0; reg < AMDVI_SIZE; reg += 8)
        assert_int_equal(arig_rd(&r, reg), reg == AMDVI_EFR ? 0x8c5 : reg == AMDVI_EFR2 ? 0x100 : 0);
    arig_fini(&r);
}

static void features_follow_the_options(void **state)
{
    struct arig r;
    assert_int_equal(amdvi_efr(false, true), 0x8c1);
    assert_int_equal(amdvi_efr(true, false), 0xcc5);
    arig_init_as(&r, true, false, false);
    assert_int_equal(arig_rd(&r, AMDVI_EFR), 0xcc1);
    arig_wr(&r, AMDVI_CONTROL, CTL_XT_EN | CTL_INTCAPXT_EN | CTL_GA_EN);
    assert_int_equal(arig_rd(&r, AMDVI_CONTROL), CTL_GA_EN);
    arig_wr(&r, AMDVI_XT_GEN, UINT64_MAX);
    assert_int_equal(arig_rd(&r, AMDVI_XT_GEN), 0);
    arig_fini(&r);
}

static void any_bytes_of_a_register(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_wr(&r, AMDVI_DEVTAB, UINT64_C(0x0001234567890011));
    assert_int_equal(amdvi_bus_ops.read(r.a, 4, 4), 0x00012345);
    assert_int_equal(amdvi_bus_ops.read(r.a, 3, 1), 0x67);
    amdvi_bus_ops.write(r.a, 2, 2, 0xabcd);
    assert_int_equal(arig_rd(&r, AMDVI_DEVTAB), UINT64_C(0x00012345abcd0011));
    arig_wr(&r, AMDVI_CMD_BASE, UINT64_C(0x0800000077777000));
    assert_int_equal(amdvi_bus_ops.read(r.a, 4, 8), UINT64_C(0x7777700000012345));
    amdvi_bus_ops.write(r.a, 6, 4, 0xa0000002);
    assert_int_equal(arig_rd(&r, AMDVI_DEVTAB), UINT64_C(0x00022345abcd0011));
    assert_int_equal(arig_rd(&r, AMDVI_CMD_BASE), UINT64_C(0x080000007777a000));
    arig_fini(&r);
}

static void a_new_base_empties_the_buffer(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_wr(&r, AMDVI_CMD_TAIL, 0x40);
    arig_wr(&r, AMDVI_EVT_HEAD, 0x40);
    arig_wr(&r, AMDVI_CMD_BASE, ARIG_CMD);
    arig_wr(&r, AMDVI_EVT_BASE, ARIG_EVT);
    assert_int_equal(arig_rd(&r, AMDVI_CMD_TAIL), 0);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_HEAD), 0);
    arig_fini(&r);
}

static void running_needs_both_enables(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_wr(&r, AMDVI_CONTROL, CTL_CMD_BUF_EN | CTL_EVT_LOG_EN);
    assert_int_equal(arig_rd(&r, AMDVI_STATUS), 0);
    arig_wr(&r, AMDVI_CONTROL, CTL_CMD_BUF_EN | CTL_EVT_LOG_EN | CTL_IOMMU_EN);
    assert_int_equal(arig_rd(&r, AMDVI_STATUS), ST_CMD_RUN | ST_EVT_RUN);
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN | CTL_EVT_LOG_EN);
    assert_int_equal(arig_rd(&r, AMDVI_STATUS), ST_EVT_RUN);
    arig_fini(&r);
}

/* ---- commands ---- */

static void completion_wait_stores_and_interrupts(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, CTL_COM_WAIT_EN);
    amdvi_set_msi(r.a, true, (struct msi_msg){0xfee23000, 0x51});
    arig_command(&r, arig_op(1, 0x200000 | 1), UINT64_C(0x1122334455667788));
    assert_int_equal(arig_ld(&r, 0x200000), UINT64_C(0x1122334455667788));
    assert_int_equal(arig_rd(&r, AMDVI_CMD_HEAD), 16);
    assert_int_equal(r.irqs, 0);
    arig_command(&r, arig_op(1, 2), 0);
    assert_int_equal(r.irqs, 1);
    assert_int_equal(r.irq.dest, 0x23);
    assert_int_equal(r.irq.vector, 0x51);
    assert_true(arig_rd(&r, AMDVI_STATUS) & ST_COM_WAIT);
    arig_command(&r, arig_op(1, 2), 0); /* the bit is set already: no edge */
    assert_int_equal(r.irqs, 1);
    amdvi_bus_ops.write(r.a, AMDVI_STATUS + 1, 1, 0xff);
    assert_true(arig_rd(&r, AMDVI_STATUS) & ST_COM_WAIT);
    arig_wr(&r, AMDVI_STATUS, ST_COM_WAIT);
    arig_command(&r, arig_op(1, 2), 0);
    assert_int_equal(r.irqs, 2);
    arig_fini(&r);
}

static void the_buffer_wraps(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (uint64_t i = 0; i < 600; i++) {
        arig_command(&r, arig_op(1, 0x200000 | 1), i);
        assert_int_equal(arig_ld(&r, 0x200000), i);
    }
    assert_int_equal(arig_rd(&r, AMDVI_CMD_HEAD), 600 * 16 % 4096);
    arig_fini(&r);
}

static void commands_wait_until_the_buffer_runs(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN);
    arig_command(&r, arig_op(1, 0x200000 | 1), 7);
    assert_int_equal(arig_ld(&r, 0x200000), 0);
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN | CTL_CMD_BUF_EN);
    assert_int_equal(arig_ld(&r, 0x200000), 7);
    arig_fini(&r);
}

static void legal_commands(void **state)
{
    static const uint64_t legal[][2] = {
        {UINT64_C(0x20000000000000a5), 0},
        {UINT64_C(0x3000000700000000), UINT64_C(0x7ffffffffffff003)},
        {UINT64_C(0x40000001ff0000a5), UINT64_C(0x7ffffffffffff001)},
        {UINT64_C(0x50000000000000a5), 0},
        {UINT64_C(0x60000000010000a5), 0x1000},
        {UINT64_C(0x8000000000000000), 0},
    };
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(legal); i++)
        arig_command(&r, legal[i][0], legal[i][1]);
    arig_quiet(&r);
    assert_int_equal(arig_rd(&r, AMDVI_CMD_HEAD), ARRAY_SIZE(legal) * 16);
    arig_fini(&r);
}

static void illegal_commands_stop_the_buffer(void **state)
{
    static const uint64_t illegal[][2] = {
        {0, 0},
        {UINT64_C(0x7) << 60, 0},
        {UINT64_C(0x9) << 60, 0},
        {UINT64_C(0xf) << 60, 0},
        {UINT64_C(0x1010000000000000), 0},
        {UINT64_C(0x20000000000100a5), 0},
        {UINT64_C(0x20000000000000a5), 1},
        {UINT64_C(0x3001000000000000), 0},
        {UINT64_C(0x3000000000000000), 0x800},
        {UINT64_C(0x50000001000000a5), 0},
        {UINT64_C(0x8000000000000001), 0},
        {UINT64_C(0x8000000000000000), 1},
    };
    struct arig r;
    arig_init(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(illegal); i++) {
        arig_start(&r, 0);
        arig_command(&r, arig_op(1, 0), 0);
        arig_command(&r, illegal[i][0], illegal[i][1]);
        arig_expect(&r, EVT_ILLEGAL_CMD, 0, 0, 0, ARIG_CMD + 16);
        assert_int_equal(arig_rd(&r, AMDVI_CMD_HEAD), 16);
        assert_false(arig_rd(&r, AMDVI_STATUS) & ST_CMD_RUN);
        arig_command(&r, arig_op(1, 0x200000 | 1), i + 1);
        assert_int_not_equal(arig_ld(&r, 0x200000), i + 1);
    }
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN);
    arig_wr(&r, AMDVI_CMD_HEAD, 32);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON);
    assert_int_equal(arig_ld(&r, 0x200000), ARRAY_SIZE(illegal));
    arig_fini(&r);
}

static void memory_that_is_not_there(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    arig_wr(&r, AMDVI_CMD_BASE, UINT64_C(0x700000000) | UINT64_C(8) << 56);
    arig_wr(&r, AMDVI_CMD_TAIL, 16);
    arig_expect(&r, EVT_CMD_HW, 0, 0, EVT_MASTER, UINT64_C(0x700000000));
    arig_start(&r, 0);
    arig_command(&r, arig_op(1, UINT64_C(0xfffffffff0000) | 1), 0);
    arig_expect(&r, EVT_CMD_HW, 0, 0, EVT_MASTER, ARIG_CMD);
    arig_start(&r, 0);
    arig_wr(&r, AMDVI_EVT_BASE, UINT64_C(0x700000000));
    arig_command(&r, 0, 0);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0);
    arig_fini(&r);
}

static void invalidations_name_stale_routes(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    r.stales = 0;
    for (unsigned op = 2; op <= 5; op += 3) {
        arig_command(&r, arig_op(op, 0xa5), 0);
        assert_int_equal(r.stale_first, amdvi_cookie(REQUESTER_ID(0xa5), 0));
        assert_int_equal(r.stale_last, amdvi_cookie(REQUESTER_ID(0xa5), 2047));
    }
    arig_command(&r, arig_op(8, 0), 0);
    assert_int_equal(r.stale_first, 0);
    assert_int_equal(r.stale_last, UINT32_MAX);
    assert_int_equal(r.stales, 3);
    arig_wr(&r, AMDVI_DEVTAB, ARIG_DEVTAB);
    assert_int_equal(r.stales, 4);
    arig_wr(&r, AMDVI_CONTROL, 0);
    assert_int_equal(r.stales, 5);
    arig_fini(&r);
}

/* ---- events ---- */

static void fault(struct arig *r)
{
    arig_remap(r, 0x5a, 0x20);
}

static void the_log_overflows_and_starts_again(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, CTL_EVT_INT_EN);
    amdvi_set_msi(r.a, true, (struct msi_msg){0xfee23000, 0x52});
    arig_dte(&r, 0x5a, 0, 0, DTE2_IV);
    for (unsigned i = 0; i < 255; i++)
        fault(&r);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0xff0);
    assert_false(arig_rd(&r, AMDVI_STATUS) & ST_EVT_OVERFLOW);
    assert_int_equal(r.irqs, 1);
    fault(&r);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0xff0);
    assert_int_equal(arig_rd(&r, AMDVI_STATUS), ST_EVT_OVERFLOW | ST_EVT_INT | ST_CMD_RUN);
    assert_int_equal(r.irqs, 2);
    arig_wr(&r, AMDVI_EVT_HEAD, 0x100);
    fault(&r);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0xff0);
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON); /* the overflow is still there */
    fault(&r);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0xff0);
    arig_wr(&r, AMDVI_STATUS, ST_EVT_OVERFLOW);
    arig_wr(&r, AMDVI_CONTROL, CTL_IOMMU_EN);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON);
    fault(&r);
    assert_int_equal(arig_rd(&r, AMDVI_EVT_TAIL), 0);
    arig_fini(&r);
}

static void event_interrupts(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, CTL_EVT_INT_EN);
    arig_dte(&r, 0x5a, 0, 0, DTE2_IV);
    arig_dte(&r, AMDVI_RID, 0, 0, DTE2_IV); /* the unit is not behind itself */
    fault(&r);
    assert_int_equal(r.irqs, 0); /* no MSI */
    arig_wr(&r, AMDVI_STATUS, ST_EVT_INT);
    amdvi_set_msi(r.a, true, (struct msi_msg){0xfee77000, 0x4d});
    fault(&r);
    assert_int_equal(r.irqs, 1);
    assert_int_equal(r.irq.dest, 0x77);
    arig_wr(&r, AMDVI_STATUS, ST_EVT_INT);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_EVT_INT_EN | CTL_INTCAPXT_EN);
    arig_wr(&r, AMDVI_XT_GEN, UINT64_C(0x0100004e) << 32 | 0x02345604);
    fault(&r);
    assert_int_equal(r.irqs, 2);
    assert_int_equal(r.irq.dest, 0x01023456);
    assert_int_equal(r.irq.vector, 0x4e);
    assert_int_equal(r.irq.logical, 1);
    assert_int_equal(r.irq.mode, IRQ_FIXED);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON);
    arig_wr(&r, AMDVI_STATUS, ST_EVT_INT);
    fault(&r);
    assert_int_equal(r.irqs, 2);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_EVT_INT_EN); /* the bit waits for the enable */
    assert_int_equal(r.irqs, 3);
    arig_fini(&r);
}

/* ---- interrupt remapping ---- */

static void who_passes(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(4));
    assert_int_equal(arig_remap(&r, AMDVI_RID, 0x61).form, REMAP_FORM_COMPAT);
    assert_int_equal(arig_remap(&r, 0x77, 0x61).irq.vector, 0x61); /* IV = 0 */
    assert_int_equal(arig_remap(&r, ARIG_DEV, 0x3).form, REMAP_FORM_AMDVI);
    arig_dte(&r, ARIG_DEV, 0, 0, DTE2_IV | (uint64_t)INT_CTL_PASS << 60);
    struct remap_result res = arig_remap(&r, ARIG_DEV, 0x161);
    assert_int_equal(res.fault, REMAP_OK);
    assert_int_equal(res.form, REMAP_FORM_COMPAT);
    assert_int_equal(res.irq.mode, IRQ_LOWEST);
    arig_dte(&r, ARIG_DEV, 0, 0, DTE2_IV);
    arig_wr(&r, AMDVI_CONTROL, CTL_EVT_LOG_EN);
    assert_int_equal(arig_remap(&r, ARIG_DEV, 0x61).fault, REMAP_OK);
    arig_fini(&r);
    arig_init_as(&r, false, false, true);
    arig_start(&r, 0);
    arig_dte(&r, ARIG_DEV, 0, 0, DTE2_IV);
    assert_int_equal(arig_remap(&r, ARIG_DEV, 0x61).fault, REMAP_OK);
    arig_fini(&r);
}

static void irte32(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(4));
    st32(r.ram.low + ARIG_IRT + 4 * 5, 0x00a1c345); /* enabled, lowest, logical, C3h, A1h */
    struct remap_result res = arig_remap(&r, ARIG_DEV, 5);
    assert_int_equal(res.fault, REMAP_OK);
    assert_int_equal(res.form, REMAP_FORM_AMDVI);
    assert_int_equal(res.cookie, amdvi_cookie(REQUESTER_ID(ARIG_DEV), 5));
    assert_int_equal(res.irq.dest, 0xc3);
    assert_int_equal(res.irq.dest8, 1);
    assert_int_equal(res.irq.vector, 0xa1);
    assert_int_equal(res.irq.mode, IRQ_LOWEST);
    assert_int_equal(res.irq.logical, 1);
    assert_int_equal(res.irq.level, 0);
    res = arig_remap(&r, ARIG_DEV, 0xc005);
    assert_int_equal(res.irq.level, 1);
    assert_int_equal(res.irq.assert_, 1);
    assert_int_equal(arig_remap(&r, ARIG_DEV, 0x8005).irq.assert_, 0);
    arig_fini(&r);
}

static void irte128_and_wide_destinations(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, CTL_GA_EN | CTL_XT_EN);
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(9));
    arig_st(&r, ARIG_IRT + 16 * 511, 0xcdef1201u);
    arig_st(&r, ARIG_IRT + 16 * 511 + 8, UINT64_C(0xab000000000000f7));
    struct remap_result res = arig_remap(&r, ARIG_DEV, 511);
    assert_int_equal(res.fault, REMAP_OK);
    assert_int_equal(res.irq.dest, 0xabcdef12u);
    assert_int_equal(res.irq.vector, 0xf7);
    assert_int_equal(res.irq.dest8, 0);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_GA_EN); /* now 8 bits, and the rest must be 0 */
    assert_int_equal(arig_remap(&r, ARIG_DEV, 511).fault, REMAP_AMDVI_RESERVED);
    arig_expect(&r, EVT_IO_PAGE_FAULT, ARIG_DEV, 0, EVT_I | EVT_PR | EVT_RZ, 0xfee01000);
    arig_st(&r, ARIG_IRT + 16 * 511, 0xff01u);
    arig_st(&r, ARIG_IRT + 16 * 511 + 8, 0x31);
    res = arig_remap(&r, ARIG_DEV, 511);
    assert_int_equal(res.irq.dest, 0xff);
    assert_int_equal(res.irq.dest8, 1);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_GA_EN | CTL_XT_EN); /* ID 255, nobody else */
    assert_int_equal(arig_remap(&r, ARIG_DEV, 511).irq.dest8, 0);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_XT_EN); /* XTEn counts with GAEn only */
    st32(r.ram.low + ARIG_IRT + 4 * 7, 0x0041ff01);
    res = arig_remap(&r, ARIG_DEV, 7);
    assert_int_equal(res.irq.vector, 0x41);
    assert_int_equal(res.irq.dest8, 1);
    arig_fini(&r);
}

/* Where the message has its destination mode bit set, 2K mode takes eleven bits and asks for no delivery mode. */
static void tables_of_2048_entries(void **state)
{
    struct arig r;
    struct msi_msg m = {0xfee00004, 0x7ff};
    arig_init(&r);
    arig_start(&r, CTL_GA_EN | CTL_XT_EN | CTL_NUM_INT_2K);
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(11));
    arig_st(&r, ARIG_IRT + 16 * 2047, 0x12301);
    arig_st(&r, ARIG_IRT + 16 * 2047 + 8, 0x99);
    struct remap_result res = remap_msi(&r.remap, m, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER);
    assert_int_equal(res.fault, REMAP_OK);
    assert_int_equal(res.irq.dest, 0x123);
    assert_int_equal(res.cookie, amdvi_cookie(REQUESTER_ID(ARIG_DEV), 2047));
    m.addr = 0xfee00000; /* without it, 7FFh is an ExtINT */
    assert_int_equal(remap_msi(&r.remap, m, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER).fault, REMAP_AMDVI_BLOCKED);
    m.addr = 0xfee00004;
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(10));
    assert_int_equal(remap_msi(&r.remap, m, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER).fault, REMAP_AMDVI_INDEX);
    arig_wr(&r, AMDVI_CONTROL, ARIG_ON | CTL_GA_EN);
    assert_int_equal(remap_msi(&r.remap, m, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER).fault, REMAP_AMDVI_BLOCKED);
    arig_fini(&r);
}

static void faults_and_their_events(void **state)
{
    uint64_t irt = (uint64_t)INT_CTL_REMAP << 60 | DTE2_IV;
    const struct {
        uint64_t dte1, dte2;
        uint32_t irte, data;
        enum remap_fault fault;
        unsigned code; /* 0: none */
        uint32_t flags;
        uint64_t addr;
    } t[] = {
        {0, DTE2_IV, 0, 3, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(5), 0},
        {0, DTE2_IV | UINT64_C(3) << 60, 0, 3, REMAP_AMDVI_DEVICE, EVT_ILLEGAL_DTE, 0, 0},
        {0, arig_int(12), 1, 3, REMAP_AMDVI_DEVICE, EVT_ILLEGAL_DTE, 0, 0},
        {0, arig_int(4) | BIT(52), 1, 3, REMAP_AMDVI_DEVICE, EVT_ILLEGAL_DTE, EVT_RZ, 0},
        {7, arig_int(2), 1, 4, REMAP_AMDVI_INDEX, EVT_IO_PAGE_FAULT, 0, 0},
        {7, arig_int(4), 0, 3, REMAP_AMDVI_NOT_PRESENT, EVT_IO_PAGE_FAULT, 0, 0},
        {7, arig_int(4), 2, 3, REMAP_AMDVI_NOT_PRESENT, 0, 0, 0},
        {7, arig_int(4) | DTE2_IG, 0, 3, REMAP_AMDVI_NOT_PRESENT, 0, 0, 0},
        {7, arig_int(2) | DTE2_IG, 0, 4, REMAP_AMDVI_INDEX, 0, 0, 0},
        {7, arig_int(4), 0x81, 3, REMAP_AMDVI_RESERVED, EVT_IO_PAGE_FAULT, EVT_PR | EVT_RZ, 0},
        {7, arig_int(4), 0x01000001, 3, REMAP_AMDVI_RESERVED, EVT_IO_PAGE_FAULT, EVT_PR | EVT_RZ, 0},
        {7, arig_int(4), 0x09, 3, REMAP_AMDVI_RESERVED, EVT_IO_PAGE_FAULT, EVT_PR, 0},
        {7, arig_int(4), 0x8b, 3, REMAP_AMDVI_RESERVED, 0, 0, 0},
        {7, irt | UINT64_C(0x700000000) | 4 << 1, 0, 3, REMAP_AMDVI_UNREACHABLE, EVT_PAGETAB_HW, EVT_MASTER,
         UINT64_C(0x70000000c)},
        {0, arig_int(4), 1, 0x203, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(6), 0},
        {0, arig_int(4), 1, 0x603, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(6), 0},
        {0, arig_int(4), 1, 0x403, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(5), 0},
        {0, arig_int(4), 1, 0x503, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(5), 0},
        {0, arig_int(4), 1, 0x703, REMAP_AMDVI_BLOCKED, EVT_INVALID_DEVICE_REQUEST, EVT_TYPE(5), 0},
    };
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        arig_dte(&r, ARIG_DEV, 0, t[i].dte1, t[i].dte2);
        st32(r.ram.low + ARIG_IRT + 12, t[i].irte);
        struct remap_result look = remap_msi(&r.remap, arig_msg(t[i].data), REQUESTER_ID(ARIG_DEV), REMAP_LOOKUP);
        assert_int_equal(look.fault, t[i].fault);
        arig_quiet(&r);
        assert_int_equal(arig_remap(&r, ARIG_DEV, t[i].data).fault, t[i].fault);
        if (t[i].code)
            arig_expect(&r, t[i].code, ARIG_DEV, (uint16_t)t[i].dte1, t[i].flags | EVT_I,
                        t[i].addr ? t[i].addr : 0xfee01000);
        else
            arig_quiet(&r);
    }
    arig_fini(&r);
}

static void kinds_that_may_pass(void **state)
{
    static const struct {
        uint64_t bit;
        unsigned mode;
    } t[] = {{DTE2_INIT_PASS, IRQ_INIT}, {DTE2_EXT_PASS, IRQ_EXTINT}, {DTE2_NMI_PASS, IRQ_NMI}};
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < 3; j++) {
            arig_dte(&r, ARIG_DEV, 0, 0, arig_int(4) | t[i].bit);
            struct remap_result res = arig_remap(&r, ARIG_DEV, t[j].mode << 8);
            assert_int_equal(res.fault, i == j ? REMAP_OK : REMAP_AMDVI_BLOCKED);
            if (i == j)
                assert_int_equal(res.irq.mode, t[j].mode);
        }
    arig_fini(&r);
}

static void devices_past_the_table(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, 0);
    assert_int_equal(arig_remap(&r, 2047, 3).fault, REMAP_OK);
    assert_int_equal(arig_remap(&r, 2048, 3).fault, REMAP_AMDVI_DEVICE);
    arig_expect(&r, EVT_IO_PAGE_FAULT, 2048, 0, EVT_I, 0xfee01000);
    arig_wr(&r, AMDVI_DEVTAB, UINT64_C(0x700000000));
    assert_int_equal(arig_remap(&r, 3, 3).fault, REMAP_AMDVI_UNREACHABLE);
    arig_expect(&r, EVT_DEVTAB_HW, 3, 0, EVT_I | EVT_MASTER, UINT64_C(0x700000060));
    arig_fini(&r);
}

/* An I/O APIC entry's low eleven bits are the index, and its trigger mode stays. */
static void redirection_entries(void **state)
{
    struct arig r;
    arig_init(&r);
    arig_start(&r, CTL_GA_EN | CTL_XT_EN);
    arig_dte(&r, ARIG_DEV, 0, 0, arig_int(9));
    arig_st(&r, ARIG_IRT + 16 * 0x109, 0x12b01);
    arig_st(&r, ARIG_IRT + 16 * 0x109 + 8, 0x35);
    struct remap_result res = remap_rte(&r.remap, 0x8109, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER);
    assert_int_equal(res.fault, REMAP_OK);
    assert_int_equal(res.irq.dest, 0x12b);
    assert_int_equal(res.irq.vector, 0x35);
    assert_int_equal(res.irq.level, 1);
    arig_fini(&r);
}

/* ---- against a model ---- */

/* What 48882 says, in the order in which it says it, on plain numbers. */
struct verdict {
    int code;    /* -1: passes; 0: an interrupt; 1-15: the event's code; 16: a silent fault */
    uint64_t q0; /* the event's first quadword, or the interrupt's */
};

static uint64_t event0(unsigned code, uint16_t dev, uint16_t domain, unsigned low12)
{
    return (uint64_t)code << 60 | (uint64_t)(low12 | 8) << 48 | (uint64_t)domain << 32 | dev;
}

static uint64_t irq_word(uint64_t dest, unsigned vector, unsigned type, bool dm, bool wide)
{
    return dest | (uint64_t)vector << 32 | (uint64_t)type << 40 | (uint64_t)dm << 44 | (uint64_t)wide << 45;
}

static struct verdict model_entry(struct arig *r, uint64_t control, uint64_t dte1, uint64_t dte2, unsigned index)
{
    bool ga = control & CTL_GA_EN, xt = ga && control & CTL_XT_EN;
    unsigned len = dte2 >> 1 & 15;
    uint64_t root = dte2 & UINT64_C(0xfffffffffffc0), lo, hi, dest, bad;
    bool quiet = dte2 & BIT(5);
    if (len > 11)
        return (struct verdict){1, event0(1, ARIG_DEV, 0, 0)};
    if (index >= 1u << len)
        return (struct verdict){quiet ? 16 : 2, event0(2, ARIG_DEV, (uint16_t)dte1, 0)};
    if (root >= ARIG_RAM)
        return (struct verdict){4, event0(4, ARIG_DEV, (uint16_t)dte1, 0x200)};
    if (ga) {
        lo = arig_ld(r, root + 16 * index);
        hi = arig_ld(r, root + 16 * index + 8);
        dest = (lo >> 8 & 0xffffff) | hi >> 56 << 24;
        bad = (lo & 0x80) | lo >> 32 | (hi & UINT64_C(0x00ffffffffffff00)) | (xt ? 0 : dest & 0xffffff00);
    } else {
        lo = ld32(r->ram.low + root + 4 * index);
        hi = lo >> 16;
        dest = lo >> 8 & 0xff;
        bad = lo & 0xff000080;
    }
    quiet |= (lo & 2) != 0;
    if (!(lo & 1))
        return (struct verdict){quiet ? 16 : 2, event0(2, ARIG_DEV, (uint16_t)dte1, 0)};
    if (bad)
        return (struct verdict){quiet ? 16 : 2, event0(2, ARIG_DEV, (uint16_t)dte1, 0x90)};
    if ((lo >> 2 & 7) > 1)
        return (struct verdict){quiet ? 16 : 2, event0(2, ARIG_DEV, (uint16_t)dte1, 0x10)};
    return (struct verdict){0, irq_word(dest, hi & 0xff, lo >> 2 & 7, lo >> 6 & 1, xt)};
}

static struct verdict model(struct arig *r, uint64_t control, uint64_t dte1, uint64_t dte2, struct msi_msg m)
{
    static const int pass_bit[8] = {-1, -1, -2, -2, 58, 56, -2, 57};
    bool eleven = (control >> 43 & 3) == 1 && m.addr & 4;
    int pass = eleven ? -1 : pass_bit[m.data >> 8 & 7];
    if (!(control & 1) || !(dte2 & 1))
        return (struct verdict){-1, 0};
    if (dte2 >> 52 & 15)
        return (struct verdict){1, event0(1, ARIG_DEV, 0, 0x80)};
    if (pass == -2)
        return (struct verdict){8, event0(8, ARIG_DEV, 0, 6 << 9)};
    if (pass >= 0)
        return dte2 >> pass & 1 ? (struct verdict){-1, 0} : (struct verdict){8, event0(8, ARIG_DEV, 0, 5 << 9)};
    switch (dte2 >> 60 & 3) {
    case 0:
        return (struct verdict){8, event0(8, ARIG_DEV, 0, 5 << 9)};
    case 1:
        return (struct verdict){-1, 0};
    case 2:
        return model_entry(r, control, dte1, dte2, m.data & (eleven ? 0x7ff : 0x1ff));
    default:
        return (struct verdict){1, event0(1, ARIG_DEV, 0, 0)};
    }
}

static uint64_t sparse(uint64_t *s, uint64_t mask, unsigned rarity)
{
    return rig_below(s, rarity) ? 0 : rig_random(s) & mask;
}

static uint64_t random_dte2(uint64_t *s)
{
    uint64_t v = rig_below(s, 16) != 0, lens[4] = {11, 9, 2, rig_below(s, 16)};
    v |= lens[rig_below(s, 4)] << 1 | (uint64_t)(rig_below(s, 8) ? 2 : rig_below(s, 4)) << 60;
    v |= rig_below(s, 16) ? ARIG_IRT : UINT64_C(0x700000000);
    return v | sparse(s, BIT(5), 4) | sparse(s, UINT64_C(15) << 52, 16) | sparse(s, UINT64_C(7) << 56, 2);
}

static void fill_table(struct arig *r, uint64_t *s)
{
    for (unsigned i = 0; i < 4096; i++) {
        uint64_t lo = sparse(s, UINT64_MAX, 8), hi = sparse(s, UINT64_MAX, 8);
        if (!lo) {
            lo = (rig_random(s) & (BIT(6) | 0xff07)) | (rig_below(s, 4) != 0) | (rig_below(s, 8) ? 0 : 0x12300 << 8);
            hi = (rig_random(s) & 0xff) | (rig_below(s, 8) ? 0 : UINT64_C(5) << 56);
        }
        arig_st(r, ARIG_IRT + 16 * i, lo);
        arig_st(r, ARIG_IRT + 16 * i + 8, hi);
    }
}

static void check_against(struct arig *r, struct verdict v, struct remap_result res, struct msi_msg m)
{
    uint64_t q[2] = {0, 0};
    bool logged = arig_event(r, q);
    assert_int_equal(logged, v.code > 0 && v.code < 16);
    if (logged)
        assert_int_equal(q[0], v.q0);
    if (v.code < 0)
        assert_true(res.form != REMAP_FORM_AMDVI);
    else if (v.code == 0) {
        assert_int_equal(res.fault, REMAP_OK);
        assert_int_equal(irq_word(res.irq.dest, res.irq.vector, res.irq.mode, res.irq.logical, !res.irq.dest8), v.q0);
        assert_int_equal(res.irq.level, m.data >> 15 & 1);
    } else {
        assert_true(res.fault >= REMAP_AMDVI_BLOCKED);
    }
}

static void any_message_through_any_tables(void **state)
{
    uint64_t s = 0x9157, outcomes[18] = {0};
    struct arig r;
    arig_init(&r);
    for (unsigned round = 0; round < 200000; round++) {
        uint64_t more = (rig_below(&s, 3) ? CTL_GA_EN | CTL_XT_EN : rig_random(&s) & (CTL_GA_EN | CTL_XT_EN));
        more |= sparse(&s, CTL_NUM_INT, 2);
        if (round % 2000 == 0)
            fill_table(&r, &s);
        if (round % 16 == 0)
            arig_start(&r, more);
        uint64_t dte1 = rig_random(&s), dte2 = random_dte2(&s), control = arig_rd(&r, AMDVI_CONTROL);
        struct msi_msg m = {0xfee00000 | (rig_random(&s) & 0xffffc), (uint32_t)rig_random(&s) & 0xc7ff};
        if (rig_below(&s, 2))
            m.data &= 0xc1ff;
        arig_dte(&r, ARIG_DEV, 0, dte1, dte2);
        struct verdict v = model(&r, control, dte1, dte2, m);
        outcomes[v.code + 1]++;
        check_against(&r, v, remap_msi(&r.remap, m, REQUESTER_ID(ARIG_DEV), REMAP_DELIVER), m);
    }
    for (unsigned i = 0; i < 18; i++) /* the script reaches everything */
        if (i <= 3 || i == 5 || i == 9 || i == 17)
            assert_true(outcomes[i] > 100);
    arig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_keep_what_they_have),
        cmocka_unit_test(features_follow_the_options),
        cmocka_unit_test(any_bytes_of_a_register),
        cmocka_unit_test(a_new_base_empties_the_buffer),
        cmocka_unit_test(running_needs_both_enables),
        cmocka_unit_test(completion_wait_stores_and_interrupts),
        cmocka_unit_test(the_buffer_wraps),
        cmocka_unit_test(commands_wait_until_the_buffer_runs),
        cmocka_unit_test(legal_commands),
        cmocka_unit_test(illegal_commands_stop_the_buffer),
        cmocka_unit_test(memory_that_is_not_there),
        cmocka_unit_test(invalidations_name_stale_routes),
        cmocka_unit_test(the_log_overflows_and_starts_again),
        cmocka_unit_test(event_interrupts),
        cmocka_unit_test(who_passes),
        cmocka_unit_test(irte32),
        cmocka_unit_test(irte128_and_wide_destinations),
        cmocka_unit_test(tables_of_2048_entries),
        cmocka_unit_test(faults_and_their_events),
        cmocka_unit_test(kinds_that_may_pass),
        cmocka_unit_test(devices_past_the_table),
        cmocka_unit_test(redirection_entries),
        cmocka_unit_test(any_message_through_any_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
