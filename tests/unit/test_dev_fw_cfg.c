#include "dev_fixture.h"

#include "base/bits.h"
#include "dev/fw_cfg.h"

#include <errno.h>
#include <stdio.h>

struct rig {
    struct fixture f;
    struct ram ram;
    struct fw_cfg fw;
};

static void setup(struct rig *r, uint32_t cpus, uint64_t ram)
{
    fixture_init(&r->f);
    assert_int_equal(ram_init(&r->ram, ram, &r->f.err), 0);
    const struct fw_cfg_config c = {
        .ports = &r->f.ports, .ram = &r->ram, .ram_size = ram, .cpus = cpus, .max_cpus = cpus + 1};
    assert_int_equal(fw_cfg_init(&r->fw, &c, &r->f.err), 0);
}

static void done(struct rig *r)
{
    fw_cfg_fini(&r->fw);
    ram_fini(&r->ram);
    fixture_fini(&r->f);
}

static void select_key(struct rig *r, unsigned key)
{
    bus_write(&r->f.ports, 0x510, 2, key);
}

static uint64_t le(struct rig *r, unsigned key, unsigned n)
{
    uint64_t v = 0;
    select_key(r, key);
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)inb(&r->f, 0x511) << (8 * i);
    return v;
}

static uint32_t be(struct rig *r, unsigned n)
{
    uint32_t v = 0;
    while (n--)
        v = v << 8 | inb(&r->f, 0x511);
    return v;
}

static void counts_are_where_payloads_look(void **state)
{
    struct rig r;
    setup(&r, 300, 32 << 20);
    assert_int_equal(le(&r, 0, 4), 0x554d4551); /* "QEMU" */
    assert_int_equal(le(&r, 1, 4), 3);
    assert_int_equal(le(&r, 3, 8), 32 << 20);
    assert_int_equal(le(&r, 5, 2), 300);
    assert_int_equal(le(&r, 0xf, 2), 301);
    assert_int_equal(le(&r, 5, 8), 300);    /* zeros past the end */
    assert_int_equal(le(&r, 0x1234, 4), 0); /* and from what does not exist */
    done(&r);
}

/* Find a file by name in the directory; its selector, or 0. */
static unsigned look_up(struct rig *r, const char *name, uint32_t *size)
{
    select_key(r, 0x19);
    unsigned found = 0;
    for (uint32_t n = be(r, 4); n; n--) {
        char got[56];
        uint32_t len = be(r, 4);
        unsigned key = be(r, 2);
        be(r, 2);
        for (unsigned i = 0; i < sizeof got; i++)
            got[i] = (char)inb(&r->f, 0x511);
        if (strcmp(got, name) == 0) {
            found = key;
            *size = len;
        }
    }
    return found;
}

static void files_are_found_by_name(void **state)
{
    struct rig r;
    setup(&r, 1, 32 << 20);
    uint32_t size;
    assert_int_equal(look_up(&r, "etc/b", &size), 0);
    assert_int_equal(fw_cfg_add_file(&r.fw, "etc/b", "beta", 4, &r.f.err), 0);
    assert_int_equal(fw_cfg_add_file(&r.fw, "etc/a", "alpha", 5, &r.f.err), 0);
    assert_int_equal(fw_cfg_add_file(&r.fw, "etc/b", "BETA!!", 6, &r.f.err), 0);
    unsigned key = look_up(&r, "etc/b", &size);
    assert_int_equal(size, 6);
    assert_int_equal(le(&r, key, 8), UINT64_C(0x212141544542));
    key = look_up(&r, "etc/a", &size);
    assert_int_equal(size, 5);
    assert_int_equal(le(&r, key, 5), UINT64_C(0x6168706c61));
    char name[80];
    memset(name, 'n', sizeof name);
    name[56] = 0;
    assert_int_equal(fw_cfg_add_file(&r.fw, name, "", 0, &r.f.err), -EINVAL);
    for (unsigned i = 0; i < FW_CFG_MAX_FILES - 2; i++) {
        snprintf(name, sizeof name, "opt/%u", i);
        assert_int_equal(fw_cfg_add_file(&r.fw, name, "", 0, &r.f.err), 0);
    }
    assert_int_equal(fw_cfg_add_file(&r.fw, "opt/more", "", 0, &r.f.err), -ENOSPC);
    done(&r);
}

/* Put a request at `at`, start it, return the answer. */
static uint32_t dma(struct rig *r, gpa_t at, uint32_t control, uint32_t len, uint64_t addr)
{
    uint8_t *p = ram_hva(&r->ram, at, 16);
    st32(p, __builtin_bswap32(control));
    st32(p + 4, __builtin_bswap32(len));
    st64(p + 8, __builtin_bswap64(addr));
    outl(&r->f, 0x514, __builtin_bswap32((uint32_t)(at >> 32)));
    outl(&r->f, 0x518, __builtin_bswap32((uint32_t)at));
    return __builtin_bswap32(ld32(p));
}

static void dma_copies_skips_and_selects(void **state)
{
    struct rig r;
    setup(&r, 1, 32 << 20);
    assert_int_equal(inl(&r.f, 0x514), 0x554d4551);
    assert_int_equal(inl(&r.f, 0x518), 0x47464320);
    assert_int_equal(fw_cfg_add_file(&r.fw, "f", "0123456789", 10, &r.f.err), 0);
    uint8_t *dst = ram_hva(&r.ram, 0x5000, 16);
    memset(dst, 0xee, 16);
    assert_int_equal(dma(&r, 0x1000, 0x20u << 16 | 8 | 2, 4, 0x5000), 0);
    assert_memory_equal(dst, "0123\xee", 5);
    assert_int_equal(dma(&r, 0x1000, 4, 3, 0), 0);
    assert_int_equal(dma(&r, 0x1000, 2, 8, 0x5004), 0);
    assert_memory_equal(dst, "0123789\0\0\0\0\0\xee", 13);
    assert_int_equal(dma(&r, 0x1000, 4, UINT32_MAX, 0), 0);
    assert_int_equal(dma(&r, 0x1000, 2, 1, 0x5000), 0);
    assert_int_equal(dst[0], 0);
    done(&r);
}

static void dma_to_nowhere_is_an_error_not_a_crash(void **state)
{
    struct rig r;
    setup(&r, 1, UINT64_C(0x80000000) + (1 << 20)); /* the last MiB sits above 4 GiB */
    assert_int_equal(dma(&r, 0x1000, 8 | 2, 4, UINT64_C(0xfee00000)), 1);
    assert_int_equal(dma(&r, 0x1000, 8 | 2, 4, UINT64_MAX - 1), 1);
    assert_int_equal(dma(&r, 0x1000, 8 | 2, 0x20, UINT64_C(0x7ffffff0)), 1); /* runs into the hole */
    assert_int_equal(dma(&r, 0x1000, 8 | 2, 0x20, UINT64_C(0x1000ffff0)), 1);
    assert_int_equal(dma(&r, 0x1000, 8 | 2, 4, UINT64_C(0x100000000)), 0);
    assert_memory_equal(r.ram.high, "QEMU", 4);
    assert_int_equal(dma(&r, 0x1000, 8 | 0x10, 4, 0x5000), 1); /* nothing can be written */
    assert_int_equal(dma(&r, UINT64_C(0x100000100), 8 | 2, 4, 0x5000), 0);
    /* A request that is nowhere itself. */
    outl(&r.f, 0x514, 0xffffffff);
    outl(&r.f, 0x518, 0xffffffff);
    outl(&r.f, 0x518, __builtin_bswap32(0x7ffffff8));
    done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_where_payloads_look),
        cmocka_unit_test(files_are_found_by_name),
        cmocka_unit_test(dma_copies_skips_and_selects),
        cmocka_unit_test(dma_to_nowhere_is_an_error_not_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
