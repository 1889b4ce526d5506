/* The AMD-Vi unit's PCI function, by the ports a guest finds it through. */
#include "amdvi_rig.h"

#include "dev/amdvi_pci.h"

struct host {
    struct arig r;
    struct epoch epoch;
    struct bus ports, mmio;
    struct pci_host pci;
    struct amdvi_pci fn;
};

static void host_init(struct host *h)
{
    struct err e = {""};
    arig_init(&h->r);
    epoch_init(&h->epoch);
    bus_init(&h->ports, "port", &h->epoch, NULL);
    bus_init(&h->mmio, "mmio", &h->epoch, NULL);
    const struct pci_host_config c = {.ports = &h->ports, .mmio = &h->mmio, .ram = &h->r.ram, .remap = &h->r.remap};
    assert_int_equal(pci_host_init(&h->pci, &c, &e), 0);
    assert_int_equal(amdvi_pci_init(&h->fn, &h->pci, h->r.a, &e), 0);
}

static void host_fini(struct host *h)
{
    pci_host_fini(&h->pci);
    bus_fini(&h->ports);
    bus_fini(&h->mmio);
    epoch_fini(&h->epoch);
    arig_fini(&h->r);
}

static uint32_t rd(struct host *h, unsigned devfn, unsigned off)
{
    bus_write(&h->ports, 0xcf8, 4, 0x80000000u | devfn << 8 | off);
    return (uint32_t)bus_read(&h->ports, 0xcfc, 4);
}

static void wr(struct host *h, unsigned devfn, unsigned off, uint32_t val)
{
    bus_write(&h->ports, 0xcf8, 4, 0x80000000u | devfn << 8 | off);
    bus_write(&h->ports, 0xcfc, 4, val);
}

static void it_is_found_at_00_2(void **state)
{
    struct host h;
    host_init(&h);
    assert_int_equal(rd(&h, 0, 0x0c) >> 16 & 0x80, 0x80); /* 00:00.0 says that there is more */
    assert_int_equal(rd(&h, 2, 0x00), 0x14191022);
    assert_int_equal(rd(&h, 2, 0x08) >> 8, 0x080600);
    assert_int_equal(rd(&h, 2, 0x04) >> 16 & 0x10, 0x10);
    assert_int_equal(rd(&h, 2, 0x34) & 0xff, 0x40);
    host_fini(&h);
}

static void the_capability_block_is_read_only(void **state)
{
    static const uint32_t block[] = {0x180b640f, 0xfed80001, 0, 0, 0x00203040, 0};
    struct host h;
    host_init(&h);
    for (unsigned i = 0; i < ARRAY_SIZE(block); i++) {
        assert_int_equal(rd(&h, 2, 0x40 + 4 * i), block[i]);
        wr(&h, 2, 0x40 + 4 * i, ~block[i]);
        assert_int_equal(rd(&h, 2, 0x40 + 4 * i), block[i]);
    }
    host_fini(&h);
}

static void events_go_where_the_msi_says(void **state)
{
    struct host h;
    host_init(&h);
    arig_start(&h.r, CTL_COM_WAIT_EN);
    assert_int_equal(rd(&h, 2, 0x64), 0x00800005);
    wr(&h, 2, 0x68, 0xfee3a003);
    wr(&h, 2, 0x6c, 0);
    wr(&h, 2, 0x70, 0xffff0047);
    assert_int_equal(rd(&h, 2, 0x68), 0xfee3a000);
    assert_int_equal(rd(&h, 2, 0x70), 0x47);
    arig_command(&h.r, arig_op(1, 2), 0);
    assert_int_equal(h.r.irqs, 0);
    wr(&h, 2, 0x64, 0xffffffff);
    assert_int_equal(rd(&h, 2, 0x64), 0x00810005);
    arig_wr(&h.r, AMDVI_STATUS, ST_COM_WAIT);
    arig_command(&h.r, arig_op(1, 2), 0);
    assert_int_equal(h.r.irqs, 1);
    assert_int_equal(h.r.irq.dest, 0x3a);
    assert_int_equal(h.r.irq.vector, 0x47);
    pci_host_reset(&h.pci);
    amdvi_pci_reset(&h.fn);
    assert_int_equal(rd(&h, 2, 0x64), 0x00800005);
    arig_wr(&h.r, AMDVI_STATUS, ST_COM_WAIT);
    arig_command(&h.r, arig_op(1, 2), 0);
    assert_int_equal(h.r.irqs, 1);
    host_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_found_at_00_2),
        cmocka_unit_test(the_capability_block_is_read_only),
        cmocka_unit_test(events_go_where_the_msi_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
