/* A function's interrupts: MSI, MSI-X, INTx. */
#include "pci_rig.h"

#include "dev/irqtest_pci.h"

#define DEV   PCI_DEVFN(5, 0)
#define REG   UINT64_C(0xd0000000)
#define TABLE UINT64_C(0xd0100000)
#define PBA   (TABLE + 0x8000)

struct rig {
    struct pci_rig r;
    struct irqtest_pci *t;
    struct pci_func *f;
    unsigned msi, msix;
};

static void setup(struct rig *s, unsigned msi, unsigned msix)
{
    rig_init(&s->r);
    const struct irqtest_pci_config c = {.host = &s->r.host, .devfn = DEV, .msi = msi, .msix = msix};
    assert_int_equal(irqtest_pci_create(&c, &s->t, &s->r.f.err), 0);
    s->f = irqtest_pci_func(s->t);
    cfg_wr(&s->r, 0, DEV, 0x10, 4, REG);
    cfg_wr(&s->r, 0, DEV, 0x14, 4, TABLE);
    cfg_wr(&s->r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    s->msi = cap_of(&s->r, 0, DEV, PCI_CAP_MSI);
    s->msix = cap_of(&s->r, 0, DEV, PCI_CAP_MSIX);
}

static void done(struct rig *s)
{
    irqtest_pci_destroy(s->t);
    rig_fini(&s->r);
}

static void fire(struct rig *s, enum irqtest_pci_kind kind, unsigned vector)
{
    mem_wr(&s->r, REG + IRQTEST_PCI_KIND, 4, kind);
    mem_wr(&s->r, REG + IRQTEST_PCI_COMMAND, 4, vector);
}

/* Exactly one more than before, to APIC ID `dest` with `vector`. */
static void came(struct rig *s, uint32_t dest, uint8_t vector)
{
    assert_int_equal(s->r.sent, 1);
    assert_int_equal(s->r.irq[0].dest, dest);
    assert_int_equal(s->r.irq[0].vector, vector);
    s->r.sent = 0;
}

static void nothing_came(struct rig *s)
{
    assert_int_equal(s->r.sent, 0);
}

static void entry(struct rig *s, unsigned v, uint64_t addr, uint32_t data, uint32_t ctl)
{
    mem_wr(&s->r, TABLE + v * 16 + 12, 4, 1);
    mem_wr(&s->r, TABLE + v * 16, 4, (uint32_t)addr);
    mem_wr(&s->r, TABLE + v * 16 + 4, 4, addr >> 32);
    mem_wr(&s->r, TABLE + v * 16 + 8, 4, data);
    mem_wr(&s->r, TABLE + v * 16 + 12, 4, ctl);
}

static void msix_ctl(struct rig *s, unsigned ctl)
{
    cfg_wr(&s->r, 0, DEV, s->msix + 2, 2, ctl);
}

static uint64_t pending(struct rig *s, unsigned v)
{
    return mem_rd(&s->r, PBA + v / 64 * 8, 8) >> (v % 64) & 1;
}

static void msix_describes_itself(void **state)
{
    struct rig s;
    setup(&s, 0, 2048);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msix + 2, 2), 2047);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msix + 4, 4), 1);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msix + 8, 4), 0x8001);
    cfg_wr(&s.r, 0, DEV, 0x14, 4, 0xffffffff);
    assert_true(cfg_rd(&s.r, 0, DEV, 0x14, 4) == 0xffff0000);
    cfg_wr(&s.r, 0, DEV, 0x14, 4, TABLE);
    assert_int_equal(mem_rd(&s.r, TABLE + 2047 * 16 + 12, 4), 1); /* masked at first */
    mem_wr(&s.r, TABLE + 2047 * 16, 8, 0x1122334455667788);
    assert_true(mem_rd(&s.r, TABLE + 2047 * 16, 8) == 0x1122334455667788);
    assert_int_equal(mem_rd(&s.r, TABLE + 2047 * 16 + 5, 2), 0x2233);
    mem_wr(&s.r, TABLE + 2047 * 16 + 6, 4, 0xaabbccdd); /* into the data */
    assert_true(mem_rd(&s.r, TABLE + 2047 * 16, 8) == 0xccdd334455667788);
    assert_int_equal(mem_rd(&s.r, TABLE + 2047 * 16 + 8, 4), 0xaabb);
    mem_wr(&s.r, PBA, 8, ~0ull); /* read-only */
    assert_int_equal(mem_rd(&s.r, PBA, 8), 0);
    done(&s);
}

static void every_msix_vector_has_its_message(void **state)
{
    struct rig s;
    setup(&s, 0, 2048);
    for (unsigned v = 0; v < 2048; v++)
        entry(&s, v, 0xfee00000 | (v % 7) << 12 | (v % 3) << 5, 0x30 + v % 200, 0);
    fire(&s, IRQTEST_PCI_MSIX, 9);
    nothing_came(&s);
    msix_ctl(&s, 0x8000);
    for (unsigned v = 0; v < 2048; v++) {
        fire(&s, IRQTEST_PCI_MSIX, v);
        came(&s, v % 7 | (v % 3) << 8, (uint8_t)(0x30 + v % 200));
    }
    fire(&s, IRQTEST_PCI_MSIX, 2048); /* none */
    fire(&s, IRQTEST_PCI_MSIX, UINT32_MAX);
    nothing_came(&s);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    fire(&s, IRQTEST_PCI_MSIX, 5);
    nothing_came(&s);
    mem_wr(&s.r, REG + IRQTEST_PCI_COUNT, 4, 10);
    mem_wr(&s.r, REG + IRQTEST_PCI_STRIDE, 4, 3);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    fire(&s, IRQTEST_PCI_MSIX, 100);
    assert_int_equal(s.r.sent, 10);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(s.r.irq[i].vector, 0x30 + (100 + 3 * i) % 200);
    done(&s);
}

static void a_masked_msix_vector_waits(void **state)
{
    struct rig s;
    setup(&s, 0, 100);
    entry(&s, 70, 0xfee0a000, 0x51, 1);
    msix_ctl(&s, 0x8000);
    fire(&s, IRQTEST_PCI_MSIX, 70);
    fire(&s, IRQTEST_PCI_MSIX, 70);
    nothing_came(&s);
    cfg_wr(&s.r, 0, DEV, 0x14, 4, TABLE); /* nothing to do with it */
    assert_int_equal(mem_rd(&s.r, TABLE + 0x1000 + 8, 8), BIT(6));
    mem_wr(&s.r, TABLE + 70 * 16 + 8, 4, 0x52);
    mem_wr(&s.r, TABLE + 70 * 16 + 12, 4, 0);
    came(&s, 0xa, 0x52);
    assert_int_equal(mem_rd(&s.r, TABLE + 0x1000 + 8, 8), 0);
    mem_wr(&s.r, TABLE + 70 * 16 + 12, 4, 1);
    mem_wr(&s.r, TABLE + 70 * 16 + 12, 4, 0); /* once is enough */
    nothing_came(&s);
    done(&s);
}

static void the_function_mask_holds_all(void **state)
{
    struct rig s;
    setup(&s, 0, 2048);
    entry(&s, 3, 0xfee0a000, 0x51, 0);
    entry(&s, 2000, 0xfee0b000, 0x52, 1);
    msix_ctl(&s, 0xc000);
    fire(&s, IRQTEST_PCI_MSIX, 3);
    fire(&s, IRQTEST_PCI_MSIX, 2000);
    nothing_came(&s);
    assert_int_equal(pending(&s, 3), 1);
    assert_int_equal(pending(&s, 2000), 1);
    msix_ctl(&s, 0x8000);
    came(&s, 0xa, 0x51);
    assert_int_equal(pending(&s, 2000), 1);
    mem_wr(&s.r, TABLE + 2000 * 16 + 12, 4, 0);
    came(&s, 0xb, 0x52);
    msix_ctl(&s, 0xc000);
    fire(&s, IRQTEST_PCI_MSIX, 3);
    pci_host_reset(&s.r.host);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msix + 2, 2), 2047);
    cfg_wr(&s.r, 0, DEV, 0x14, 4, TABLE);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
    assert_int_equal(pending(&s, 3), 0);
    assert_int_equal(mem_rd(&s.r, TABLE + 3 * 16, 8), 0);
    assert_int_equal(mem_rd(&s.r, TABLE + 3 * 16 + 12, 4), 1);
    nothing_came(&s);
    done(&s);
}

static void msi_on(struct rig *s, unsigned log2)
{
    cfg_wr(&s->r, 0, DEV, s->msi + 4, 4, 0xfee0c003); /* low bits don't exist */
    cfg_wr(&s->r, 0, DEV, s->msi + 8, 4, 0);
    cfg_wr(&s->r, 0, DEV, s->msi + 12, 2, 0x45);
    cfg_wr(&s->r, 0, DEV, s->msi + 2, 2, 1 | log2 << 4);
}

static void msi_counts_in_the_data(void **state)
{
    struct rig s;
    setup(&s, 8, 0);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msi + 2, 2), 0x0186);
    fire(&s, IRQTEST_PCI_MSI, 0);
    nothing_came(&s);
    msi_on(&s, 2);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msi + 4, 4), 0xfee0c000);
    assert_int_equal(pci_msi_vectors(s.f), 4);
    for (unsigned v = 0; v < 4; v++) {
        fire(&s, IRQTEST_PCI_MSI, v);
        came(&s, 0xc, (uint8_t)(0x44 + v));
    }
    fire(&s, IRQTEST_PCI_MSI, 4);
    nothing_came(&s);
    msi_on(&s, 5); /* more than there are */
    assert_int_equal(pci_msi_vectors(s.f), 8);
    fire(&s, IRQTEST_PCI_MSI, 7);
    came(&s, 0xc, 0x47);
    msi_on(&s, 0);
    fire(&s, IRQTEST_PCI_MSI, 0);
    came(&s, 0xc, 0x45);
    done(&s);
}

static void a_masked_msi_vector_waits(void **state)
{
    struct rig s;
    setup(&s, 32, 0);
    msi_on(&s, 5);
    cfg_wr(&s.r, 0, DEV, s.msi + 16, 4, 1u << 31 | 1);
    fire(&s, IRQTEST_PCI_MSI, 31);
    fire(&s, IRQTEST_PCI_MSI, 30);
    came(&s, 0xc, 0x5e);
    assert_true(cfg_rd(&s.r, 0, DEV, s.msi + 20, 4) == 1u << 31);
    cfg_wr(&s.r, 0, DEV, s.msi + 20, 4, 0); /* read-only */
    assert_true(cfg_rd(&s.r, 0, DEV, s.msi + 20, 4) == 1u << 31);
    cfg_wr(&s.r, 0, DEV, s.msi + 16, 4, 1);
    came(&s, 0xc, 0x5f);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, s.msi + 20, 4), 0);
    done(&s);
}

/* A message to an address that is none is a write to memory like any other. */
static void a_message_to_memory_is_a_write(void **state)
{
    struct rig s;
    setup(&s, 0, 4);
    entry(&s, 1, 0x5000, 0xabcdef12, 0);
    entry(&s, 2, UINT64_C(0x7000000000), 1, 0);
    msix_ctl(&s, 0x8000);
    fire(&s, IRQTEST_PCI_MSIX, 1);
    fire(&s, IRQTEST_PCI_MSIX, 2); /* nothing there */
    nothing_came(&s);
    assert_true(ld32(s.r.ram.low + 0x5000) == 0xabcdef12);
    done(&s);
}

/* ---- INTx ---- */

static void intx_is_a_level_at_a_gsi(void **state)
{
    struct rig s;
    setup(&s, 1, 4);
    unsigned gsi = pci_intx_gsi(5, 1);
    assert_in_range(gsi, 16, 23);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, PCI_INTPIN, 1), 1);
    fire(&s, IRQTEST_PCI_INTX, 1);
    assert_true(s.r.f.level == 1u << gsi);
    assert_true(s.r.pic_level == 1u << PCI_PIC_IRQ(gsi));
    assert_int_equal(cfg_rd(&s.r, 0, DEV, PCI_STATUS, 2) & PCI_STS_INTX, PCI_STS_INTX);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_INTX_OFF);
    assert_int_equal(s.r.f.level, 0);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, PCI_STATUS, 2) & PCI_STS_INTX, PCI_STS_INTX);
    cfg_wr(&s.r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    assert_true(s.r.f.level == 1u << gsi);
    msix_ctl(&s, 0x8000); /* who has MSI-X on, or MSI, has no wire */
    assert_int_equal(s.r.f.level, 0);
    msix_ctl(&s, 0);
    assert_true(s.r.f.level == 1u << gsi);
    cfg_wr(&s.r, 0, DEV, s.msi + 2, 2, 1);
    assert_int_equal(s.r.f.level, 0);
    cfg_wr(&s.r, 0, DEV, s.msi + 2, 2, 0);
    assert_true(s.r.f.level == 1u << gsi);
    fire(&s, IRQTEST_PCI_INTX, 0);
    assert_int_equal(s.r.f.level, 0);
    assert_int_equal(s.r.pic_level, 0);
    assert_int_equal(cfg_rd(&s.r, 0, DEV, PCI_STATUS, 2) & PCI_STS_INTX, 0);
    done(&s);
}

/* Devices 5 and 13 share a GSI, and the PIC's two IRQs are shared by four GSIs each. */
static void wires_are_shared(void **state)
{
    struct rig s;
    struct pci_func f[2];
    static const uint8_t devfn[2] = {PCI_DEVFN(13, 0), PCI_DEVFN(7, 0)};
    setup(&s, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        pci_func_setup(&f[i], devfn[i], 1, 2, 3, 4);
        pci_func_intx(&f[i], 1);
        assert_int_equal(pci_host_add(&s.r.host, NULL, &f[i], &s.r.f.err), 0);
    }
    unsigned gsi = pci_intx_gsi(5, 1), other = pci_intx_gsi(7, 1);
    assert_int_equal(pci_intx_gsi(13, 1), gsi);
    assert_int_equal(PCI_PIC_IRQ(other), PCI_PIC_IRQ(gsi));
    pci_intx_set(s.f, true);
    pci_intx_set(&f[0], true);
    pci_intx_set(&f[0], true);
    assert_int_equal(s.r.f.rises[gsi], 1);
    pci_intx_set(&f[1], true);
    assert_true(s.r.f.level == (1u << gsi | 1u << other));
    assert_int_equal(s.r.pic_rises, 1);
    pci_intx_set(s.f, false);
    assert_true(s.r.f.level == (1u << gsi | 1u << other));
    pci_intx_set(&f[0], false);
    assert_true(s.r.f.level == 1u << other);
    assert_int_not_equal(s.r.pic_level, 0);
    pci_host_reset(&s.r.host);
    assert_int_equal(s.r.f.level, 0);
    assert_int_equal(s.r.pic_level, 0);
    pci_intx_set(&f[0], true); /* the count is right after all that */
    assert_int_equal(s.r.f.rises[gsi], 2);
    done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(msix_describes_itself),
        cmocka_unit_test(every_msix_vector_has_its_message),
        cmocka_unit_test(a_masked_msix_vector_waits),
        cmocka_unit_test(the_function_mask_holds_all),
        cmocka_unit_test(msi_counts_in_the_data),
        cmocka_unit_test(a_masked_msi_vector_waits),
        cmocka_unit_test(a_message_to_memory_is_a_write),
        cmocka_unit_test(intx_is_a_level_at_a_gsi),
        cmocka_unit_test(wires_are_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
