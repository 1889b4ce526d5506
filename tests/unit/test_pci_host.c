/* Configuration space by both mechanisms, and where functions may be put. */
#include "pci_rig.h"

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

static void a_scan_finds_two_bridges(void **state)
{
    struct pci_rig r;
    rig_init(&r);
    unsigned found = 0;
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        cf8(&r, 0, devfn, 0);
        uint32_t id = inl(&r.f, 0xcfc);
        assert_int_equal(cfg_rd(&r, 0, devfn, 0, 4), id);
        if (id == 0xffffffff)
            continue;
        found++;
        assert_true((devfn == 0 && id == 0x29c08086) || (devfn == PCI_DEVFN(0x1f, 0) && id == 0x29188086));
        cf8(&r, 0, devfn, 8);
        assert_int_equal(inl(&r.f, 0xcfc) >> 8, devfn ? 0x060100 : 0x060000);
    }
    assert_int_equal(found, 2);
    cf8(&r, 1, 0, 0);
    assert_true(inl(&r.f, 0xcfc) == 0xffffffff);
    outl(&r.f, 0xcf8, 0); /* not enabled */
    assert_true(inl(&r.f, 0xcfc) == 0xffffffff);
    rig_fini(&r);
}

static void narrow_accesses_reach_their_bytes(void **state)
{
    struct pci_rig r;
    rig_init(&r);
    outl(&r.f, 0xcf8, 0xffffffff);
    assert_true(inl(&r.f, 0xcf8) == 0x80fffffc);
    cf8(&r, 0, PCI_DEVFN(0x1f, 0), 0);
    assert_int_equal(bus_read(&r.f.ports, 0xcfc, 2), 0x8086);
    assert_int_equal(bus_read(&r.f.ports, 0xcfe, 2), 0x2918);
    assert_int_equal(bus_read(&r.f.ports, 0xcfd, 2), 0x1880);
    assert_int_equal(inb(&r.f, 0xcff), 0x29);
    cf8(&r, 0, PCI_DEVFN(0x1f, 0), 0x3c);
    outb(&r.f, 0xcfc, 0xab);
    assert_int_equal(inl(&r.f, 0xcfc), 0xab);
    outl(&r.f, 0xcfc, 0xffffffff);
    assert_int_equal(inl(&r.f, 0xcfc), 0xff);
    pci_host_reset(&r.host);
    assert_int_equal(inl(&r.f, 0xcf8), 0);
    cf8(&r, 0, PCI_DEVFN(0x1f, 0), 0x3c);
    assert_int_equal(inl(&r.f, 0xcfc), 0);
    rig_fini(&r);
}

static void ecam_takes_every_size_and_alignment(void **state)
{
    struct pci_rig r;
    rig_init(&r);
    unsigned d = PCI_DEVFN(0x1f, 0);
    assert_true(cfg_rd(&r, 0, d, 0, 8) == 0x0000000729188086);
    assert_int_equal(cfg_rd(&r, 0, d, 1, 4), 0x07291880);
    assert_int_equal(cfg_rd(&r, 0, d, 3, 2), 0x0729);
    assert_true(cfg_rd(&r, 0, d, 0xffe, 4) == 0xffff0000); /* runs into 1f.1, which nobody is */
    assert_int_equal(cfg_rd(&r, 0, d, 0xffc, 4), 0);
    cfg_wr(&r, 0, d, 0x3b, 2, 0x5aff);
    assert_int_equal(cfg_rd(&r, 0, d, 0x38, 8), 0x5aull << 32);
    assert_true(cfg_rd(&r, 255, 255, 0xff8, 8) == UINT64_MAX);
    assert_int_equal(cfg_rd(&r, 0, 0, 0x60, 8), PCI_ECAM_GPA | 1);
    rig_fini(&r);
}

static void cf9_is_the_reset_register_and_nothing_else_is(void **state)
{
    struct pci_rig r;
    struct reset_log l = {.val = 0};
    rig_init(&r);
    r.host.cfg.reset = (struct pci_reset_hook){reset_read, reset_write, &l};
    cf8(&r, 0, 0, 0x40);
    outb(&r.f, 0xcf8, 6);
    outb(&r.f, 0xcfb, 1);
    bus_write(&r.f.ports, 0xcf8, 2, 0x0600);
    outl(&r.f, 0xcf8, 0x80000600);
    assert_int_equal(l.writes, 0);
    outb(&r.f, 0xcf9, 6);
    assert_int_equal(l.writes, 1);
    assert_int_equal(inb(&r.f, 0xcf9), 6);
    assert_true(inl(&r.f, 0xcf8) == 0x80000600);
    rig_fini(&r);
}

static void odd_read(struct pci_func *f, unsigned off, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        f->config[off + i] = (uint8_t)(off + i);
}

static void functions_can_be_added(void **state)
{
    static const struct pci_func_ops ops = {.config_read = odd_read};
    struct pci_rig r;
    struct pci_func a, b, c;
    rig_init(&r);
    pci_func_setup(&b, PCI_DEVFN(3, 1), 0x1af4, 0x1042, 0x010000, 1);
    assert_int_equal(pci_host_add(&r.host, NULL, &b, &r.f.err), -EINVAL);
    pci_func_setup(&a, PCI_DEVFN(3, 0), 0x1af4, 0x1041, 0x020000, 1);
    assert_int_equal(pci_host_add(&r.host, NULL, &a, &r.f.err), 0);
    assert_int_equal(pci_host_add(&r.host, NULL, &b, &r.f.err), 0);
    assert_int_equal(pci_host_add(&r.host, NULL, &b, &r.f.err), -EEXIST);
    cf8(&r, 0, PCI_DEVFN(3, 0), 0x0c);
    assert_int_equal(inb(&r.f, 0xcfe), 0x80); /* multifunction */
    pci_host_reset(&r.host);
    cf8(&r, 0, PCI_DEVFN(3, 0), 0x0c);
    assert_int_equal(inb(&r.f, 0xcfe), 0x80);
    pci_func_setup(&c, PCI_DEVFN(0x14, 0), 1, 2, 3, 4);
    assert_int_equal(pci_host_add(&r.host, NULL, &c, &r.f.err), -EEXIST); /* the I/O APIC's requester id */
    c.devfn = PCI_DEVFN(4, 0);
    c.ops = &ops;
    assert_int_equal(pci_host_add(&r.host, NULL, &c, &r.f.err), 0);
    cf8(&r, 0, PCI_DEVFN(4, 0), 0x84);
    assert_int_equal(bus_read(&r.f.ports, 0xcfe, 2), 0x8786);
    assert_true(inl(&r.f, 0xcfc) == 0x87868584);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_finds_two_bridges),
        cmocka_unit_test(narrow_accesses_reach_their_bytes),
        cmocka_unit_test(ecam_takes_every_size_and_alignment),
        cmocka_unit_test(cf9_is_the_reset_register_and_nothing_else_is),
        cmocka_unit_test(functions_can_be_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
