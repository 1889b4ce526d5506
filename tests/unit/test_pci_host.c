#include "dev_fixture.h"

#include "pci/host.h"

#include <errno.h>

struct reset_log {
    uint8_t val;
    unsigned writes;
};

static uint8_t reset_read(void *opaque)
{
    return ((struct reset_log *)opaque)->val;
}

static void reset_write(void *opaque, uint8_t val)
{
    struct reset_log *l = opaque;
    l->val = val;
    l->writes++;
}

static void setup(struct fixture *f, struct pci_host *h, struct reset_log *l)
{
    fixture_init(f);
    *l = (struct reset_log){.val = 0};
    const struct pci_reset_hook hook = {reset_read, reset_write, l};
    assert_int_equal(pci_host_init(h, &f->ports, &hook, &f->err), 0);
}

static void done(struct fixture *f, struct pci_host *h)
{
    pci_host_fini(h);
    fixture_fini(f);
}

static void address(struct fixture *f, unsigned bus, unsigned devfn, unsigned reg)
{
    outl(f, 0xcf8, 0x80000000u | bus << 16 | devfn << 8 | reg);
}

static void a_scan_finds_two_bridges(void **state)
{
    struct fixture f;
    struct pci_host h;
    struct reset_log l;
    setup(&f, &h, &l);
    unsigned found = 0;
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        address(&f, 0, devfn, 0);
        uint32_t id = inl(&f, 0xcfc);
        if (id == 0xffffffff)
            continue;
        found++;
        assert_true((devfn == 0 && id == 0x29c08086) || (devfn == PCI_DEVFN(0x1f, 0) && id == 0x29188086));
        address(&f, 0, devfn, 8);
        assert_int_equal(inl(&f, 0xcfc) >> 8, devfn ? 0x060100 : 0x060000);
    }
    assert_int_equal(found, 2);
    address(&f, 1, 0, 0);
    assert_true(inl(&f, 0xcfc) == 0xffffffff);
    outl(&f, 0xcf8, 0); /* not enabled */
    assert_true(inl(&f, 0xcfc) == 0xffffffff);
    done(&f, &h);
}

static void narrow_accesses_reach_their_bytes(void **state)
{
    struct fixture f;
    struct pci_host h;
    struct reset_log l;
    setup(&f, &h, &l);
    outl(&f, 0xcf8, 0xffffffff);
    assert_true(inl(&f, 0xcf8) == 0x80fffffc);
    address(&f, 0, PCI_DEVFN(0x1f, 0), 0);
    assert_int_equal(bus_read(&f.ports, 0xcfc, 2), 0x8086);
    assert_int_equal(bus_read(&f.ports, 0xcfe, 2), 0x2918);
    assert_int_equal(bus_read(&f.ports, 0xcfd, 2), 0x1880);
    assert_int_equal(inb(&f, 0xcff), 0x29);
    address(&f, 0, PCI_DEVFN(0x1f, 0), 0x3c);
    outb(&f, 0xcfc, 0xab);
    assert_int_equal(inl(&f, 0xcfc), 0xab);
    outl(&f, 0xcfc, 0xffffffff);
    assert_int_equal(inl(&f, 0xcfc), 0xff);
    pci_host_reset(&h);
    assert_int_equal(inl(&f, 0xcf8), 0);
    address(&f, 0, PCI_DEVFN(0x1f, 0), 0x3c);
    assert_int_equal(inl(&f, 0xcfc), 0);
    done(&f, &h);
}

static void cf9_is_the_reset_register_and_nothing_else_is(void **state)
{
    struct fixture f;
    struct pci_host h;
    struct reset_log l;
    setup(&f, &h, &l);
    address(&f, 0, 0, 0x40);
    outb(&f, 0xcf8, 6);
    outb(&f, 0xcfb, 1);
    bus_write(&f.ports, 0xcf8, 2, 0x0600);
    outl(&f, 0xcf8, 0x80000600);
    assert_int_equal(l.writes, 0);
    outb(&f, 0xcf9, 6);
    assert_int_equal(l.writes, 1);
    assert_int_equal(inb(&f, 0xcf9), 6);
    assert_true(inl(&f, 0xcf8) == 0x80000600);
    done(&f, &h);
}

static uint32_t odd_read(struct pci_func *p, unsigned off, unsigned size)
{
    return off | size << 16;
}

static void functions_can_be_added(void **state)
{
    static const struct pci_func_ops ops = {odd_read, pci_config_write};
    struct fixture f;
    struct pci_host h;
    struct reset_log l;
    struct pci_func a, b, c;
    setup(&f, &h, &l);
    pci_func_setup(&b, PCI_DEVFN(3, 1), 0x1af4, 0x1042, 0x010000, 1);
    assert_int_equal(pci_host_add(&h, &b, &f.err), -EINVAL);
    pci_func_setup(&a, PCI_DEVFN(3, 0), 0x1af4, 0x1041, 0x020000, 1);
    assert_int_equal(pci_host_add(&h, &a, &f.err), 0);
    assert_int_equal(pci_host_add(&h, &b, &f.err), 0);
    assert_int_equal(pci_host_add(&h, &b, &f.err), -EEXIST);
    address(&f, 0, PCI_DEVFN(3, 0), 0x0c);
    assert_int_equal(inb(&f, 0xcfe), 0x80); /* multifunction */
    pci_func_setup(&c, PCI_DEVFN(4, 0), 1, 2, 3, 4);
    c.ops = &ops;
    assert_int_equal(pci_host_add(&h, &c, &f.err), 0);
    address(&f, 0, PCI_DEVFN(4, 0), 0x84);
    assert_int_equal(bus_read(&f.ports, 0xcfe, 2), 0x86);
    assert_true(inl(&f, 0xcfc) == (0x84 | 4 << 16));
    done(&f, &h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_finds_two_bridges),
        cmocka_unit_test(narrow_accesses_reach_their_bytes),
        cmocka_unit_test(cf9_is_the_reset_register_and_nothing_else_is),
        cmocka_unit_test(functions_can_be_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
