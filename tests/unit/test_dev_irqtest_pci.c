/* irq-test-pci: its registers, its DMA, and what it refuses. Its vectors are test_pci_irq.c's. */
#include "pci_rig.h"

#include "dev/irqtest_pci.h"

#include <errno.h>

#define DEV PCI_DEVFN(9, 0)
#define REG UINT64_C(0xd0000000)

static void setup(struct pci_rig *r, struct irqtest_pci **t)
{
    rig_init(r);
    const struct irqtest_pci_config c = {.host = &r->host, .devfn = DEV, .msix = 300, .msi = 16};
    assert_int_equal(irqtest_pci_create(&c, t, &r->f.err), 0);
    cfg_wr(r, 0, DEV, 0x10, 4, REG);
    cfg_wr(r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_MASTER);
}

static uint32_t rd(struct pci_rig *r, unsigned reg)
{
    return (uint32_t)mem_rd(r, REG + reg, 4);
}

static void wr(struct pci_rig *r, unsigned reg, uint32_t val)
{
    mem_wr(r, REG + reg, 4, val);
}

static void it_says_what_it_is(void **state)
{
    struct pci_rig r;
    struct irqtest_pci *t;
    setup(&r, &t);
    assert_int_equal(rd(&r, IRQTEST_PCI_IDENTITY), IRQTEST_PCI_ID);
    assert_int_equal(rd(&r, IRQTEST_PCI_VECTORS), 300 | 16 << 16);
    assert_int_equal(rd(&r, IRQTEST_PCI_COUNT), 1);
    wr(&r, IRQTEST_PCI_COUNT, 5);
    wr(&r, IRQTEST_PCI_STRIDE, 7);
    wr(&r, IRQTEST_PCI_KIND, 99); /* no such kind: counted, not sent */
    wr(&r, IRQTEST_PCI_COMMAND, 1);
    assert_int_equal(rd(&r, IRQTEST_PCI_FIRED), 5);
    wr(&r, IRQTEST_PCI_COUNT, 0xffffffff);
    wr(&r, IRQTEST_PCI_COMMAND, 1);
    assert_int_equal(rd(&r, IRQTEST_PCI_FIRED), 6);
    wr(&r, IRQTEST_PCI_FIRED, 0);
    mem_wr(&r, REG + IRQTEST_PCI_COUNT, 2, 3); /* no register of 4 bytes */
    assert_int_equal(rd(&r, IRQTEST_PCI_FIRED), 6);
    assert_int_equal(rd(&r, 0x100), 0);
    assert_int_equal(mem_rd(&r, REG + 2, 4), 0);
    irqtest_pci_reset(t);
    assert_int_equal(rd(&r, IRQTEST_PCI_FIRED), 0);
    assert_int_equal(rd(&r, IRQTEST_PCI_STRIDE), 0);
    irqtest_pci_destroy(t);
    rig_fini(&r);
}

static void dma(struct pci_rig *r, uint64_t at, uint32_t len, uint32_t direction, bool goes)
{
    wr(r, IRQTEST_PCI_DMA_LOW, (uint32_t)at);
    wr(r, IRQTEST_PCI_DMA_HIGH, (uint32_t)(at >> 32));
    wr(r, IRQTEST_PCI_DMA_LEN, len);
    wr(r, IRQTEST_PCI_DMA_GO, direction);
    assert_int_equal(rd(r, IRQTEST_PCI_DMA_GO), goes);
}

static void it_moves_memory(void **state)
{
    struct pci_rig r;
    struct irqtest_pci *t;
    setup(&r, &t);
    for (unsigned i = 0; i < 4096; i++)
        r.ram.low[0x3000 + i] = (uint8_t)(i * 5);
    dma(&r, 0x3001, 2048, 1, true);
    assert_int_equal(mem_rd(&r, REG + IRQTEST_PCI_BUFFER, 1), 5);
    assert_int_equal(mem_rd(&r, REG + IRQTEST_PCI_BUFFER + 2047, 1), (uint8_t)(2048 * 5));
    mem_wr(&r, REG + IRQTEST_PCI_BUFFER + 2040, 8, 0x1122334455667788);
    dma(&r, 0x8000, 0xffffffff, 2, true); /* as much as there is */
    assert_int_equal(r.ram.low[0x8000], 5);
    assert_true(ld64(r.ram.low + 0x87f8) == 0x1122334455667788);
    assert_int_equal(r.ram.low[0x8800], 0);
    dma(&r, RIG_RAM, 4, 2, false);
    dma(&r, UINT64_C(1) << 40, 4, 1, false);
    dma(&r, 0x3000, 4, 3, false); /* no direction */
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    dma(&r, 0x3000, 4, 1, false);
    irqtest_pci_destroy(t);
    rig_fini(&r);
}

static void vectors_there_are_none_of_are_refused(void **state)
{
    static const struct {
        unsigned msix, msi;
        int rc;
    } row[] = {{2049, 0, -EINVAL}, {0, 3, -EINVAL}, {0, 64, -EINVAL}, {2048, 32, 0}, {1, 0, -EEXIST}};
    struct pci_rig r;
    struct irqtest_pci *t = NULL, *made = NULL;
    rig_init(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
        const struct irqtest_pci_config c = {.host = &r.host, .devfn = DEV, .msix = row[i].msix, .msi = row[i].msi};
        r.f.err.msg[0] = 0;
        assert_int_equal(irqtest_pci_create(&c, &t, &r.f.err), row[i].rc);
        assert_int_equal(r.f.err.msg[0] != 0, row[i].rc != 0);
        made = row[i].rc ? made : t;
    }
    irqtest_pci_destroy(made);
    irqtest_pci_destroy(NULL);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(it_moves_memory),
        cmocka_unit_test(vectors_there_are_none_of_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
