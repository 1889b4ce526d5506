/* Root ports: what is reachable behind them, by which number, and how wires turn; and what firmware makes of it all. */
#include "pci_rig.h"

#include "dev/irqtest_pci.h"

#include <errno.h>

#define PORT  PCI_DEVFN(2, 0)
#define PORT2 PCI_DEVFN(2, 1)

struct rig {
    struct pci_rig r;
    struct pci_port port, port2;
    struct irqtest_pci *t;
    struct pci_func *f;
};

static void setup(struct rig *s)
{
    rig_init(&s->r);
    assert_int_equal(pci_port_init(&s->port, &s->r.host, PORT, "rp1", 1, &s->r.f.err), 0);
    assert_int_equal(pci_port_init(&s->port2, &s->r.host, PORT2, "rp2", 2, &s->r.f.err), 0);
    const struct irqtest_pci_config c = {
        .host = &s->r.host, .bus = pci_host_bus(&s->r.host, "rp1"), .devfn = 0, .msi = 1, .msix = 64};
    assert_int_equal(irqtest_pci_create(&c, &s->t, &s->r.f.err), 0);
    s->f = irqtest_pci_func(s->t);
}

static void done(struct rig *s)
{
    irqtest_pci_destroy(s->t);
    pci_port_fini(&s->port);
    pci_port_fini(&s->port2);
    rig_fini(&s->r);
}

static void number(struct rig *s, unsigned devfn, uint8_t secondary, uint8_t subordinate)
{
    cfg_wr(&s->r, 0, devfn, 0x18, 4, (uint32_t)subordinate << 16 | secondary << 8);
}

static void window(struct rig *s, uint32_t base, uint32_t limit)
{
    cfg_wr(&s->r, 0, PORT, 0x20, 4, (base >> 16 & 0xfff0) | (limit & 0xfff00000));
}

static void buses_are_known_by_name(void **state)
{
    struct rig s;
    setup(&s);
    assert_ptr_equal(pci_host_bus(&s.r.host, "pcie.0"), &s.r.host.root);
    assert_ptr_equal(pci_host_bus(&s.r.host, "rp2"), &s.port2.bus);
    assert_null(pci_host_bus(&s.r.host, "rp3"));
    struct pci_func f;
    pci_func_setup(&f, PCI_DEVFN(1, 0), 1, 2, 3, 4);
    assert_int_equal(pci_host_add(&s.r.host, &s.port2.bus, &f, &s.r.f.err), -ENOSPC);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, PCI_HEADER, 1), 0x81);
    unsigned e = cap_of(&s.r, 0, PORT, PCI_CAP_EXPRESS);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, e + 2, 2), 0x142);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, e + 0x1a, 2), 0x40); /* something is in the slot */
    assert_int_equal(cfg_rd(&s.r, 0, PORT2, e + 0x1a, 2), 0);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, 0x100, 4), 0x0001000d);
    cfg_wr(&s.r, 0, PORT, 0x104, 4, 0xffffffff);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, 0x104, 4), 0x001f001f);
    done(&s);
}

static void the_guest_numbers_buses(void **state)
{
    struct rig s;
    setup(&s);
    uint64_t id = IRQTEST_PCI_DEVICE << 16 | IRQTEST_PCI_VENDOR;
    for (unsigned bus = 0; bus < 256; bus++)
        assert_int_not_equal(cfg_rd(&s.r, bus, 0, 0, 4), id);
    number(&s, PORT, 7, 9);
    assert_int_equal(cfg_rd(&s.r, 7, 0, 0, 4), id);
    assert_true(cfg_rd(&s.r, 7, PCI_DEVFN(1, 0), 0, 4) == 0xffffffff);
    assert_true(cfg_rd(&s.r, 8, 0, 0, 4) == 0xffffffff);
    assert_int_equal(pci_func_requester(s.f).rid, 0x700);
    cf8(&s.r, 7, 0, 0);
    assert_int_equal(inl(&s.r.f, 0xcfc), id);
    number(&s, PORT, 0x80, 0x80);
    assert_true(cfg_rd(&s.r, 7, 0, 0, 4) == 0xffffffff);
    assert_int_equal(cfg_rd(&s.r, 0x80, 0, 0, 4), id);
    assert_int_equal(pci_func_requester(s.f).rid, 0x8000);
    number(&s, PORT, 0x80, 0x7f); /* an empty range */
    assert_true(cfg_rd(&s.r, 0x80, 0, 0, 4) == 0xffffffff);
    number(&s, PORT, 0x80, 0x80);
    assert_int_equal(cfg_rd(&s.r, 0x80, 0, 0x42, 2), 2); /* behind a port it is an endpoint, with a link */
    assert_int_not_equal(cfg_rd(&s.r, 0x80, 0, 0x4c, 4), 0);
    done(&s);
}

static void memory_goes_through_windows(void **state)
{
    struct rig s;
    setup(&s);
    number(&s, PORT, 1, 1);
    cfg_wr(&s.r, 1, 0, PCI_COMMAND, 2, 6);
    cfg_wr(&s.r, 1, 0, 0x10, 4, 0xd0100000);
    window(&s, 0xd0100000, 0xd0100000);
    assert_true(mem_rd(&s.r, 0xd0100000, 4) == 0xffffffff); /* the port decodes nothing yet */
    cfg_wr(&s.r, 0, PORT, PCI_COMMAND, 2, 6);
    assert_int_equal(mem_rd(&s.r, 0xd0100000, 4), IRQTEST_PCI_ID);
    window(&s, 0xd0200000, 0xd0300000);
    assert_true(mem_rd(&s.r, 0xd0100000, 4) == 0xffffffff);
    cfg_wr(&s.r, 0, PORT, 0x24, 4, 0xd011d011); /* the prefetchable one will do */
    assert_int_equal(mem_rd(&s.r, 0xd0100000, 4), IRQTEST_PCI_ID);
    cfg_wr(&s.r, 0, PORT, 0x28, 8, UINT64_C(0x0000000100000001));
    assert_true(mem_rd(&s.r, 0xd0100000, 4) == 0xffffffff);
    done(&s);
}

/* Bus mastering is the function's and the port's. */
static void the_port_lets_messages_and_dma_pass(void **state)
{
    struct rig s;
    uint32_t word = 0x12345678;
    setup(&s);
    number(&s, PORT, 3, 3);
    cfg_wr(&s.r, 3, 0, PCI_COMMAND, 2, PCI_CMD_MASTER);
    assert_false(pci_func_masters(s.f));
    assert_false(pci_dma_write(s.f, 0x1000, &word, 4));
    cfg_wr(&s.r, 0, PORT, PCI_COMMAND, 2, PCI_CMD_MASTER);
    assert_true(pci_func_masters(s.f));
    assert_true(pci_dma_write(s.f, 0x1000, &word, 4));
    unsigned msi = cap_of(&s.r, 3, 0, PCI_CAP_MSI);
    cfg_wr(&s.r, 3, 0, msi + 4, 4, 0xfee01000);
    cfg_wr(&s.r, 3, 0, msi + 12, 2, 0x33);
    cfg_wr(&s.r, 3, 0, msi + 2, 2, 1);
    msi_fire(s.f, 0);
    assert_int_equal(s.r.sent, 1);
    cfg_wr(&s.r, 0, PORT, PCI_COMMAND, 2, 0);
    msi_fire(s.f, 0);
    assert_int_equal(s.r.sent, 1);
    assert_false(pci_dma_write(s.f, 0x1000, &word, 4));
    cfg_wr(&s.r, 0, PORT, PCI_COMMAND, 2, PCI_CMD_MASTER);
    cfg_wr(&s.r, 3, 0, PCI_COMMAND, 2, 0);
    assert_false(pci_func_masters(s.f));
    done(&s);
}

static void wires_turn_behind_a_port(void **state)
{
    struct rig s;
    setup(&s);
    pci_intx_set(s.f, true);
    assert_true(s.r.f.level == 1u << pci_intx_gsi(2, 1));
    pci_intx_set(s.f, false);
    assert_int_equal(s.r.f.level, 0);
    done(&s);
}

static void a_secondary_bus_reset_resets_what_is_behind(void **state)
{
    struct rig s;
    setup(&s);
    number(&s, PORT, 1, 1);
    cfg_wr(&s.r, 0, PORT, PCI_COMMAND, 2, 6);
    window(&s, 0xd0100000, 0xd0100000);
    cfg_wr(&s.r, 1, 0, 0x10, 4, 0xd0100000);
    cfg_wr(&s.r, 1, 0, PCI_COMMAND, 2, 6);
    mem_wr(&s.r, 0xd0100000 + IRQTEST_PCI_COUNT, 4, 77);
    assert_int_equal(mem_rd(&s.r, 0xd0100000 + IRQTEST_PCI_COUNT, 4), 77);
    cfg_wr(&s.r, 0, PORT, 0x3e, 2, 0x40);
    assert_int_equal(cfg_rd(&s.r, 1, 0, PCI_COMMAND, 2), 0);
    cfg_wr(&s.r, 0, PORT, 0x3e, 2, 0);
    assert_int_equal(cfg_rd(&s.r, 1, 0, 0x10, 4), 0);
    cfg_wr(&s.r, 1, 0, 0x10, 4, 0xd0100000);
    cfg_wr(&s.r, 1, 0, PCI_COMMAND, 2, 6);
    assert_int_equal(mem_rd(&s.r, 0xd0100000 + IRQTEST_PCI_COUNT, 4), 1);
    assert_int_equal(cfg_rd(&s.r, 0, PORT, PCI_COMMAND, 2), 6); /* the port itself goes on */
    done(&s);
}

/* ---- firmware ---- */

static uint64_t zero_read(void *dev, uint64_t off, unsigned size)
{
    return 0x5a;
}

static void zero_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
}

static const struct bus_ops zero_ops = {zero_read, zero_write};

static void bar(struct pci_func *f, unsigned index, enum pci_bar_kind kind, uint64_t size)
{
    const struct pci_bar b = {
        .kind = kind, .prefetch = kind == PCI_BAR_MEM64, .size = size, .ops = &zero_ops, .name = "bar"};
    pci_func_bar(f, index, &b);
}

static void firmware_leaves_everything_reachable(void **state)
{
    struct rig s;
    struct pci_func f, g;
    setup(&s);
    pci_func_setup(&f, PCI_DEVFN(6, 0), 1, 2, 3, 4);
    bar(&f, 0, PCI_BAR_MEM32, 0x1000);
    bar(&f, 1, PCI_BAR_IO, 64);
    bar(&f, 2, PCI_BAR_MEM64, 0x4000);
    bar(&f, 4, PCI_BAR_MEM64, UINT64_C(1) << 32);
    pci_func_intx(&f, 2);
    assert_int_equal(pci_host_add(&s.r.host, NULL, &f, &s.r.f.err), 0);
    pci_func_setup(&g, 0, 1, 2, 3, 4);
    bar(&g, 0, PCI_BAR_IO, 32);
    bar(&g, 2, PCI_BAR_MEM64, UINT64_C(1) << 30);
    bar(&g, 4, PCI_BAR_MEM32, 8 << 20);
    assert_int_equal(pci_host_add(&s.r.host, &s.port2.bus, &g, &s.r.f.err), 0);
    for (unsigned round = 0; round < 2; round++) {
        pci_host_reset(&s.r.host);
        assert_int_equal(pci_host_assign(&s.r.host, &s.r.f.err), 0);
        assert_int_equal(cfg_rd(&s.r, 1, 0, 0, 4), IRQTEST_PCI_DEVICE << 16 | IRQTEST_PCI_VENDOR);
        assert_int_equal(cfg_rd(&s.r, 2, 0, 0, 4), 0x00020001);
        assert_int_equal(cfg_rd(&s.r, 0, PCI_DEVFN(6, 0), PCI_INTLINE, 1), pci_intx_gsi(6, 2));
        assert_int_equal(cfg_rd(&s.r, 1, 0, PCI_INTLINE, 1), pci_intx_gsi(2, 1));
        assert_int_equal(cfg_rd(&s.r, 2, 0, PCI_COMMAND, 2), PCI_CMD_IO | PCI_CMD_MEMORY);
        for (unsigned i = 0; i < PCI_BARS; i++) {
            assert_int_equal(f.bar[i].mapped, f.bar[i].kind != PCI_BAR_NONE);
            assert_int_equal(g.bar[i].mapped, g.bar[i].kind != PCI_BAR_NONE);
            assert_int_equal(s.f->bar[i].mapped, s.f->bar[i].kind != PCI_BAR_NONE);
        }
        assert_true(f.bar[2].at >= PCI_MEM32_BASE && f.bar[2].at < PCI_MEM32_END); /* small */
        assert_true(f.bar[4].at >= RIG_MEM64);
        assert_true(g.bar[2].at >= RIG_MEM64);
        assert_true(f.bar[1].at >= PCI_IO_BASE && g.bar[0].at >= PCI_IO_BASE);
        assert_int_equal(mem_rd(&s.r, g.bar[4].at, 1), 0x5a);
        assert_int_equal(mem_rd(&s.r, s.f->bar[0].at, 4), IRQTEST_PCI_ID);
    }
    done(&s);
}

static void too_much_is_said(void **state)
{
    struct pci_rig r;
    static struct pci_func f[9];
    rig_init(&r);
    for (unsigned i = 0; i < 9; i++) {
        pci_func_setup(&f[i], PCI_DEVFN(3 + i, 0), 1, 2, 3, 4);
        f[i].name = "glutton";
        bar(&f[i], 0, i < 8 ? PCI_BAR_MEM64 : PCI_BAR_MEM32, UINT64_C(32) << 20);
        bar(&f[i], 2, PCI_BAR_MEM32, UINT64_C(64) << 20);
        assert_int_equal(pci_host_add(&r.host, NULL, &f[i], &r.f.err), 0);
    }
    assert_int_equal(pci_host_assign(&r.host, &r.f.err), 0);
    struct pci_func more[3];
    for (unsigned i = 0; i < 3; i++) {
        pci_func_setup(&more[i], PCI_DEVFN(24 + i, 0), 1, 2, 3, 4);
        more[i].name = "last";
        bar(&more[i], 0, PCI_BAR_MEM32, UINT64_C(256) << 20);
        assert_int_equal(pci_host_add(&r.host, NULL, &more[i], &r.f.err), 0);
    }
    pci_host_reset(&r.host);
    int rc = pci_host_assign(&r.host, &r.f.err);
    assert_int_equal(rc, -ENOSPC);
    assert_non_null(strstr(r.f.err.msg, "32-bit memory"));
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buses_are_known_by_name),
        cmocka_unit_test(the_guest_numbers_buses),
        cmocka_unit_test(memory_goes_through_windows),
        cmocka_unit_test(the_port_lets_messages_and_dma_pass),
        cmocka_unit_test(wires_turn_behind_a_port),
        cmocka_unit_test(a_secondary_bus_reset_resets_what_is_behind),
        cmocka_unit_test(firmware_leaves_everything_reachable),
        cmocka_unit_test(too_much_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
