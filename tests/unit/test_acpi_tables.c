#include "acpi/shapes.h"
#include "acpi/smbios.h"
#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BASE UINT64_C(0x10000000)

struct built {
    struct shape s;
    uint8_t *buf, rsdp[ACPI_RSDP_LEN];
    uint64_t used;
};

static uint8_t sum(const uint8_t *p, uint64_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static void build(struct built *b, const char *name)
{
    struct err e = {{0}};
    assert_int_equal(shape_init(&b->s, name), 0);
    uint64_t cap = acpi_size(&b->s.c);
    b->buf = malloc(cap);
    assert_int_equal(acpi_build(&b->s.c, BASE, b->buf, cap, b->rsdp, &b->used, &e), 0);
}

static void drop(struct built *b)
{
    free(b->buf);
    free(b->s.ids);
    free(b->s.node);
}

static const uint8_t *at(const struct built *b, gpa_t gpa)
{
    assert_in_range(gpa, BASE, BASE + b->used - 8);
    return b->buf + (gpa - BASE);
}

static const uint8_t *find(const struct built *b, const char *sig)
{
    const uint8_t *xsdt = at(b, ld64(b->rsdp + 24));
    for (uint32_t i = 36; i < ld32(xsdt + 4); i += 8) {
        const uint8_t *t = at(b, ld64(xsdt + i));
        if (!memcmp(t, sig, 4))
            return t;
    }
    return NULL;
}

static void every_checksum_is_right(void **state)
{
    static const char *const shapes[] = {"one", "sparse300", "big8192", "numa", "amdvi", "amdvi-ioapic"};
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct built b;
        build(&b, shapes[i]);
        assert_int_equal(sum(b.rsdp, 20), 0);
        assert_int_equal(sum(b.rsdp, ACPI_RSDP_LEN), 0);
        const uint8_t *xsdt = at(&b, ld64(b.rsdp + 24));
        assert_int_equal(sum(xsdt, ld32(xsdt + 4)), 0);
        for (uint32_t k = 36; k < ld32(xsdt + 4); k += 8) {
            const uint8_t *t = at(&b, ld64(xsdt + k));
            assert_int_equal(sum(t, ld32(t + 4)), 0);
        }
        const uint8_t *dsdt = at(&b, ld64(find(&b, "FACP") + 140));
        assert_memory_equal(dsdt, "DSDT", 4);
        assert_int_equal(sum(dsdt, ld32(dsdt + 4)), 0);
        assert_int_equal(ld32(find(&b, "FACP") + 4), 276);
        drop(&b);
    }
}

/* Each CPU once, with the entry type its ID needs, and a UID that no other CPU has. */
static void madt_lists_each_cpu_once(void **state)
{
    static const char *const shapes[] = {"one", "sparse300", "big8192", "numa"};
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct built b;
        build(&b, shapes[i]);
        uint32_t n = b.s.c.cpus, seen = 0;
        uint8_t *id_seen = calloc(32768, 1), *uid_seen = calloc(n, 1);
        const uint8_t *madt = find(&b, "APIC"), *end = madt + ld32(madt + 4);
        for (const uint8_t *p = madt + 44; p < end; p += p[1]) {
            if (p[0] != 0 && p[0] != 9)
                continue;
            uint32_t id = p[0] ? ld32(p + 4) : p[3], uid = p[0] ? ld32(p + 12) : p[2];
            assert_true(p[0] == 0 ? id < 255 : id >= 255);
            assert_true(uid < n && !uid_seen[uid] && !id_seen[id]);
            uid_seen[uid] = id_seen[id] = 1;
            assert_int_equal(ld32(p[0] ? p + 8 : p + 4), 1);
            seen++;
        }
        assert_int_equal(seen, n);
        for (uint32_t k = 0; k < n; k++)
            assert_true(id_seen[b.s.ids[k].id]);
        free(id_seen);
        free(uid_seen);
        drop(&b);
    }
}

static void srat_appears_with_the_second_node(void **state)
{
    struct built b;
    build(&b, "sparse300");
    assert_null(find(&b, "SRAT"));
    drop(&b);
    build(&b, "numa");
    const uint8_t *srat = find(&b, "SRAT");
    assert_non_null(srat);
    assert_int_equal(ld32(srat + 4), 48 + 512 * 24 + 4 * 40);
    drop(&b);
}

static void destination_mode_is_the_asked_one(void **state)
{
    struct built b;
    build(&b, "sparse300");
    assert_int_equal(ld32(find(&b, "FACP") + 112) >> 18 & 3, 2);
    drop(&b);
    build(&b, "one");
    assert_int_equal(ld32(find(&b, "FACP") + 112) >> 18 & 3, 1);
    drop(&b);
}

static void too_small_a_buffer_is_refused(void **state)
{
    struct built b;
    build(&b, "numa");
    for (uint64_t cap = 0; cap < b.used; cap += 97) {
        struct err e = {{0}};
        uint8_t *small = malloc(cap + 1);
        uint64_t used;
        assert_true(acpi_build(&b.s.c, BASE, small, cap, b.rsdp, &used, &e) < 0);
        assert_true(e.msg[0]);
        free(small);
    }
    drop(&b);
}

static void smbios_counts_past_255(void **state)
{
    struct smbios_config c = {
        .product = "test", .version = "1", .sockets = 2, .cores = 300, .threads = 600, .ram = UINT64_C(64) << 30};
    uint8_t entry[SMBIOS_ENTRY_LEN], buf[4096];
    uint64_t used;
    struct err e = {{0}};
    assert_true(smbios_size(&c) <= sizeof buf);
    assert_int_equal(smbios_build(&c, BASE, buf, sizeof buf, entry, &used, &e), 0);
    assert_int_equal(sum(entry, sizeof entry), 0);
    unsigned cpus = 0, last = 0;
    for (const uint8_t *p = buf; p < buf + used;) {
        last = p[0];
        if (p[0] == 4) {
            cpus++;
            assert_int_equal(p[1], 0x30);
            assert_int_equal(p[0x23], 255);
            assert_int_equal(ld16(p + 0x2a), 300);
            assert_int_equal(p[0x25], 255);
            assert_int_equal(ld16(p + 0x2e), 600);
        }
        for (p += p[1]; p[0] || p[1]; p++)
            ;
        p += 2;
    }
    assert_int_equal(cpus, 2);
    assert_int_equal(last, 127);
}

/* One unit twice, with the same entries; the I/O APIC among them by its requester id. */
static void ivrs_block(const uint8_t *p, uint8_t type, bool ioapic_only)
{
    unsigned head = type == 0x10 ? 24 : 40;
    assert_int_equal(p[0], type);
    assert_int_equal(ld16(p + 2), head + 16);
    assert_int_equal(ld16(p + 4), 2);
    assert_int_equal(ld16(p + 6), 0x40);
    assert_int_equal(ld64(p + 8), 0xfed80000);
    if (type == 0x10) {
        assert_int_equal(ld32(p + 20), ioapic_only ? 0xc0000060 : 0x80000061);
    } else {
        assert_int_equal(ld32(p + 20), ioapic_only);
        assert_int_equal(ld64(p + 24), ioapic_only ? 0xcc1 : 0x8c5);
        assert_int_equal(ld64(p + 32), 0x100);
    }
    p += head;
    assert_int_equal(ld32(p), ioapic_only ? 0xc700a002 : 0x00000001);
    assert_int_equal(ld32(p + 4), ioapic_only ? 0x00ffff02 : 0); /* the last function there can be, claimed by nobody */
    assert_int_equal(ld64(p + 8), UINT64_C(0x0100a000c7000048));
}

static void ivrs_describes_the_unit(void **state)
{
    for (unsigned only = 0; only < 2; only++) {
        struct built b;
        build(&b, only ? "amdvi-ioapic" : "amdvi");
        const uint8_t *t = find(&b, "IVRS");
        assert_non_null(t);
        assert_int_equal(ld32(t + 4), 48 + 40 + 56);
        assert_int_equal(t[36] & 1, 1);
        ivrs_block(t + 48, 0x10, only);
        ivrs_block(t + 88, 0x11, only);
        drop(&b);
    }
}

/* PCI Firmware 3.3, 4.1.2 "MCFG Table Description". */
static void mcfg_covers_every_bus(void **state)
{
    struct built b;
    build(&b, "sparse300");
    const uint8_t *t = find(&b, "MCFG");
    assert_non_null(t);
    assert_int_equal(ld32(t + 4), 36 + 8 + 16);
    assert_int_equal(ld64(t + 36), 0);
    assert_int_equal(ld64(t + 44), 0xb0000000);
    assert_int_equal(ld16(t + 52), 0);
    assert_int_equal(t[54], 0);
    assert_int_equal(t[55], 255);
    drop(&b);
    build(&b, "one");
    assert_null(find(&b, "MCFG"));
    drop(&b);
}

/* VT-d, "DMA Remapping Reporting Structure" and "DMA Remapping Hardware Unit Definition Structure". */
static void the_vtd_unit_and_its_io_apic(void **state)
{
    static const uint8_t scope[] = {3, 8, 0, 0, 0, 0, 0x14, 0}; /* I/O APIC 0 at 00:14.0 */
    static const struct {
        const char *shape;
        uint8_t flags;
    } cases[] = {{"sparse300", 1}, {"numa", 0}};
    struct built b;
    for (unsigned i = 0; i < 2; i++) {
        build(&b, cases[i].shape);
        const uint8_t *dmar = find(&b, "DMAR");
        assert_non_null(dmar);
        assert_int_equal(ld32(dmar + 4), 48 + 16 + 8);
        assert_int_equal(dmar[36], 45);
        assert_int_equal(dmar[37], 1);
        assert_int_equal(ld16(dmar + 48), 0);
        assert_int_equal(ld16(dmar + 50), 24);
        assert_int_equal(dmar[52], cases[i].flags);
        assert_int_equal(ld64(dmar + 56), 0xfed90000);
        assert_memory_equal(dmar + 64, scope, sizeof scope);
        drop(&b);
    }
    build(&b, "one");
    assert_null(find(&b, "DMAR"));
    drop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ivrs_describes_the_unit),
        cmocka_unit_test(mcfg_covers_every_bus),
        cmocka_unit_test(the_vtd_unit_and_its_io_apic),
        cmocka_unit_test(every_checksum_is_right),
        cmocka_unit_test(madt_lists_each_cpu_once),
        cmocka_unit_test(srat_appears_with_the_second_node),
        cmocka_unit_test(destination_mode_is_the_asked_one),
        cmocka_unit_test(too_small_a_buffer_is_refused),
        cmocka_unit_test(smbios_counts_past_255),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
