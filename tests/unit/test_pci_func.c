/* One function: what BARs answer and where they are, capabilities, resets. */
#include "pci_rig.h"

#define DEV PCI_DEVFN(3, 0)

/* A device whose BARs answer with their index and offset. */
struct thing {
    struct pci_func f;
    struct bar {
        unsigned index;
        uint64_t written;
    } bar[PCI_BARS];
    unsigned resets, writes, last_off;
};

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    return ((struct bar *)dev)->index << 24 | off;
}

static void bar_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    ((struct bar *)dev)->written = val << 8 | off;
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

static void on_reset(struct pci_func *f)
{
    ((struct thing *)f->dev)->resets++;
}

static void on_write(struct pci_func *f, unsigned off, unsigned size)
{
    struct thing *t = f->dev;
    t->writes++;
    t->last_off = off;
}

static const struct pci_func_ops ops = {.config_written = on_write, .reset = on_reset};

static void bar(struct thing *t, unsigned index, enum pci_bar_kind kind, uint64_t size)
{
    t->bar[index].index = index;
    const struct pci_bar b = {.kind = kind,
                              .prefetch = kind == PCI_BAR_MEM64,
                              .size = size,
                              .ops = &bar_ops,
                              .dev = &t->bar[index],
                              .name = "bar"};
    pci_func_bar(&t->f, index, &b);
}

/* BAR 0: 16 KiB, BAR 1: 32 ports, BAR 2/3: 8 GiB above 4 GiB, BAR 4: 4 KiB. */
static void thing_setup(struct thing *t, uint8_t devfn)
{
    memset(t, 0, sizeof *t);
    pci_func_setup(&t->f, devfn, 0x1234, 0x5678, 0xff0000, 9);
    t->f.ops = &ops;
    t->f.dev = t;
    t->f.name = "thing";
    bar(t, 0, PCI_BAR_MEM32, 0x4000);
    bar(t, 1, PCI_BAR_IO, 32);
    bar(t, 2, PCI_BAR_MEM64, UINT64_C(8) << 30);
    bar(t, 4, PCI_BAR_MEM32, 0x1000);
    pci_func_add_express(&t->f, PCI_EXP_ENDPOINT);
}

static void thing_add(struct pci_rig *r, struct thing *t, uint8_t devfn)
{
    thing_setup(t, devfn);
    assert_int_equal(pci_host_add(&r->host, NULL, &t->f, &r->f.err), 0);
}

static uint32_t size_of(struct pci_rig *r, unsigned reg)
{
    cfg_wr(r, 0, DEV, reg, 4, 0xffffffff);
    return (uint32_t)cfg_rd(r, 0, DEV, reg, 4);
}

static void bars_tell_their_size(void **state)
{
    struct pci_rig r;
    struct thing t;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    assert_int_equal(cfg_rd(&r, 0, DEV, 0x10, 4), 0);
    assert_true(size_of(&r, 0x10) == 0xffffc000);
    assert_true(size_of(&r, 0x14) == 0xffffffe1);
    assert_true(size_of(&r, 0x18) == 0x0000000c);
    assert_true(size_of(&r, 0x1c) == 0xfffffffe);
    assert_true(size_of(&r, 0x20) == 0xfffff000);
    assert_true(size_of(&r, 0x24) == 0); /* none */
    assert_true(size_of(&r, 0x30) == 0); /* no ROM */
    cfg_wr(&r, 0, DEV, 0x00, 4, 0);      /* read-only */
    assert_int_equal(cfg_rd(&r, 0, DEV, 0x00, 4), 0x56781234);
    rig_fini(&r);
}

/* With decoding on all the while, as some guests size. */
static void sizing_with_decoding_on_harms_nobody(void **state)
{
    struct pci_rig r;
    struct thing t;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, 3);
    cfg_wr(&r, 0, DEV, 0x10, 4, 0xd0000000);
    assert_int_equal(mem_rd(&r, 0xd0000008, 4), 8);
    for (unsigned reg = 0x10; reg < 0x28; reg += 4)
        size_of(&r, reg);
    assert_true(mem_rd(&r, 0xd0000008, 4) == 0xffffffff);
    assert_true(mem_rd(&r, 0xfffff000, 4) == 0xffffffff);
    assert_true(bus_read(&r.f.ports, 0xffe0, 4) == 0xffffffff);
    cfg_wr(&r, 0, DEV, 0x10, 4, 0xd0000000);
    assert_int_equal(mem_rd(&r, 0xd0000008, 4), 8);
    rig_fini(&r);
}

static void bars_follow_what_is_written(void **state)
{
    struct pci_rig r;
    struct thing t;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    cfg_wr(&r, 0, DEV, 0x10, 4, 0xd0000000);
    cfg_wr(&r, 0, DEV, 0x14, 4, 0xc040);
    cfg_wr(&r, 0, DEV, 0x18, 8, UINT64_C(0x1200000000));
    assert_true(mem_rd(&r, 0xd0000000, 4) == 0xffffffff); /* no decoding yet */
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    assert_int_equal(mem_rd(&r, 0xd0003ffc, 4), 0x3ffc);
    assert_true(mem_rd(&r, UINT64_C(0x1200000010), 4) == 0x02000010);
    assert_true(bus_read(&r.f.ports, 0xc044, 4) == 0xffffffff);
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY | PCI_CMD_IO);
    assert_int_equal(bus_read(&r.f.ports, 0xc044, 4), 0x01000004);
    cfg_wr(&r, 0, DEV, 0x12, 2, 0xd100); /* half a register */
    assert_true(mem_rd(&r, 0xd0003ffc, 4) == 0xffffffff);
    mem_wr(&r, 0xd1000020, 4, 0x77);
    assert_int_equal(t.bar[0].written, 0x7720);
    cfg_wr(&r, 0, DEV, 0x1c, 4, 0x14); /* the high half alone */
    assert_true(mem_rd(&r, UINT64_C(0x1200000010), 4) == 0xffffffff);
    assert_true(mem_rd(&r, UINT64_C(0x1400000010), 4) == 0x02000010);
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, 0);
    assert_true(mem_rd(&r, 0xd1000020, 4) == 0xffffffff);
    assert_true(mem_rd(&r, UINT64_C(0x1400000010), 4) == 0xffffffff);
    rig_fini(&r);
}

/* Two at one place: the first is heard; the second as soon as the first goes, wherever it came from. */
static void the_first_at_a_place_has_it(void **state)
{
    struct pci_rig r;
    struct thing t, u;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    thing_add(&r, &u, PCI_DEVFN(4, 0));
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, PCI_CMD_MEMORY);
    cfg_wr(&r, 0, PCI_DEVFN(4, 0), PCI_COMMAND, 2, PCI_CMD_MEMORY);
    cfg_wr(&r, 0, PCI_DEVFN(4, 0), 0x10, 4, 0xd0000000);
    cfg_wr(&r, 0, DEV, 0x20, 4, 0xd0001000); /* in the middle of the other */
    mem_wr(&r, 0xd0001000, 4, 1);
    assert_int_equal(u.bar[0].written, 0x1000 | 1 << 8);
    assert_int_equal(t.bar[4].written, 0);
    cfg_wr(&r, 0, PCI_DEVFN(4, 0), 0x10, 4, 0xd8000000);
    mem_wr(&r, 0xd0001000, 4, 2);
    assert_int_equal(t.bar[4].written, 2 << 8);
    /* onto the chipset's: ECAM keeps its place */
    cfg_wr(&r, 0, DEV, 0x20, 4, PCI_ECAM_GPA);
    assert_int_equal(cfg_rd(&r, 0, DEV, 0, 4), 0x56781234);
    cfg_wr(&r, 0, DEV, 0x20, 4, 0xd0001000);
    mem_wr(&r, 0xd0001000, 4, 3);
    assert_int_equal(t.bar[4].written, 3 << 8);
    rig_fini(&r);
}

static void a_reset_takes_everything_back(void **state)
{
    struct pci_rig r;
    struct thing t;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    cfg_wr(&r, 0, DEV, 0x10, 4, 0xd0000000);
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, 7);
    pci_intx_set(&t.f, true);
    assert_true(pci_func_masters(&t.f));
    pci_host_reset(&r.host);
    assert_false(pci_func_masters(&t.f));
    assert_true(mem_rd(&r, 0xd0000000, 4) == 0xffffffff);
    assert_int_equal(cfg_rd(&r, 0, DEV, 0x10, 4), 0);
    assert_int_equal(cfg_rd(&r, 0, DEV, PCI_STATUS, 2), PCI_STS_CAPABILITIES);
    assert_int_equal(t.resets, 0); /* the machine resets devices itself */
    rig_fini(&r);
}

static void flr_resets_one_function(void **state)
{
    struct pci_rig r;
    struct thing t, u;
    rig_init(&r);
    thing_add(&r, &t, DEV);
    thing_add(&r, &u, PCI_DEVFN(4, 0));
    unsigned cap = cap_of(&r, 0, DEV, PCI_CAP_EXPRESS);
    assert_true(cfg_rd(&r, 0, DEV, cap + 4, 4) & BIT(28));
    cfg_wr(&r, 0, DEV, 0x10, 4, 0xd0000000);
    cfg_wr(&r, 0, DEV, PCI_COMMAND, 2, 7);
    cfg_wr(&r, 0, DEV, cap + 8, 2, 0x7fff); /* everything but */
    assert_int_equal(t.resets, 0);
    assert_int_equal(cfg_rd(&r, 0, DEV, cap + 8, 2), 0x7fff);
    cfg_wr(&r, 0, DEV, cap + 9, 1, 0x80);
    assert_int_equal(t.resets, 1);
    assert_int_equal(u.resets, 0);
    assert_int_equal(cfg_rd(&r, 0, DEV, cap + 8, 2), 0);
    assert_int_equal(cfg_rd(&r, 0, DEV, PCI_COMMAND, 2), 0);
    assert_true(mem_rd(&r, 0xd0000000, 4) == 0xffffffff);
    rig_fini(&r);
}

static void capabilities_are_chained(void **state)
{
    struct pci_rig r;
    struct thing t;
    rig_init(&r);
    thing_setup(&t, DEV);
    assert_int_equal(pci_func_add_msi(&t.f, 4, &r.f.err), 0);
    unsigned at = pci_func_add_cap(&t.f, PCI_CAP_VENDOR, 5);
    st16(t.f.wmask + at + 2, 0xff00);
    unsigned ext = pci_func_add_ext_cap(&t.f, 0x03, 1, 12), ext2 = pci_func_add_ext_cap(&t.f, 0x0b, 2, 16);
    assert_int_equal(pci_host_add(&r.host, NULL, &t.f, &r.f.err), 0);
    assert_int_equal(cap_of(&r, 0, DEV, PCI_CAP_VENDOR), at);
    assert_int_equal(cap_of(&r, 0, DEV, PCI_CAP_EXPRESS), 0x40);
    assert_int_not_equal(cap_of(&r, 0, DEV, PCI_CAP_MSI), 0);
    assert_int_equal(cap_of(&r, 0, DEV, PCI_CAP_MSIX), 0);
    assert_int_equal(ext, 0x100);
    assert_int_equal(cfg_rd(&r, 0, DEV, ext, 4), 0x00010003 | ext2 << 20);
    assert_int_equal(cfg_rd(&r, 0, DEV, ext2, 4), 0x0002000b);
    cfg_wr(&r, 0, DEV, at + 2, 2, 0xabcd);
    assert_int_equal(cfg_rd(&r, 0, DEV, at + 2, 2), 0xab00);
    assert_int_equal(t.last_off, at + 2);
    /* on the root bus it is the root complex's own, without a link */
    assert_int_equal(cfg_rd(&r, 0, DEV, 0x42, 2), 0x92);
    assert_int_equal(cfg_rd(&r, 0, DEV, 0x4c, 8), 0);
    pci_func_fini(&t.f);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_tell_their_size),          cmocka_unit_test(sizing_with_decoding_on_harms_nobody),
        cmocka_unit_test(bars_follow_what_is_written),   cmocka_unit_test(the_first_at_a_place_has_it),
        cmocka_unit_test(a_reset_takes_everything_back), cmocka_unit_test(flr_resets_one_function),
        cmocka_unit_test(capabilities_are_chained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
