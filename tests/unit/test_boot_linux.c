#include "boot_images.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char *const comp_names[] = {"gzip", "xz", "zstd", "lz4"};

static void assert_says(const struct boot_rig *r, const char *text)
{
    if (!strstr(r->e.msg, text))
        fail_msg("'%s' does not say '%s'", r->e.msg, text);
    assert_null(strchr(r->e.msg, '\n'));
}

static void assert_loaded(struct boot_rig *r, uint64_t at)
{
    for (unsigned i = 0; i < IMG_TEXT; i++)
        assert_int_equal(*rig_at(r, at + i), img_byte(i));
    for (unsigned i = 0; i < IMG_BSS; i++)
        assert_int_equal(*rig_at(r, at + IMG_TEXT + i), 0);
}

static void assert_start_info(struct boot_rig *r)
{
    const uint8_t *s = rig_at(r, r->out.rbx);
    assert_int_equal(ld32(s), 0x336ec578);
    assert_int_equal(ld32(s + 4), 1);
    assert_int_equal(ld32(s + 8), 0);
    assert_string_equal((char *)rig_at(r, ld64(s + 24)), r->c.cmdline);
    assert_int_equal(ld64(s + 32), 0xe0000);
    struct e820_map map;
    boot_layout_e820(&r->layout, &map);
    assert_int_equal(ld32(s + 48), map.n);
    for (unsigned i = 0; i < map.n; i++) {
        const uint8_t *m = rig_at(r, ld64(s + 40) + i * 24);
        assert_int_equal(ld64(m), map.e[i].base);
        assert_int_equal(ld64(m + 8), map.e[i].len);
        assert_int_equal(ld64(m + 16), map.e[i].type);
    }
}

static void every_compression_starts_by_pvh(void **state)
{
    for (unsigned comp = 0; comp < IMG_COMPS; comp++) {
        struct boot_rig r;
        struct img i = img_bzimage_of(comp, true);
        rig_init(&r, 64);
        memset(rig_at(&r, IMG_PADDR), 0xee, IMG_TEXT + IMG_BSS); /* what a guest left before its reset */
        int rc = rig_load(&r, &i);
        if (rc)
            fail_msg("%s: %s", comp_names[comp], r.e.msg);
        assert_int_equal(r.out.kind, BOOT_PVH);
        assert_false(r.out.long_mode);
        assert_int_equal(r.out.rip, IMG_PADDR + 0x850);
        assert_loaded(&r, IMG_PADDR);
        assert_start_info(&r);
        assert_int_equal(ld64(rig_at(&r, r.out.gdt + r.out.code_sel)), 0x00cf9b000000ffff);
        assert_int_equal(ld64(rig_at(&r, r.out.gdt + r.out.data_sel)), 0x00cf93000000ffff);
        assert_true(r.out.tss_sel + 7 <= r.out.gdt_limit);
        rig_fini(&r);
        free(i.p);
    }
}

static void vmlinux_starts_by_its_note_or_by_its_entry(void **state)
{
    struct boot_rig r;
    rig_init(&r, 64);
    struct img i = img_vmlinux(IMG_PADDR, true, IMG_PADDR + 4);
    assert_int_equal(rig_load(&r, &i), 0);
    assert_int_equal(r.out.kind, BOOT_PVH);
    assert_int_equal(r.out.rip, IMG_PADDR + 4);
    r.c.protocol = BOOT_PROTOCOL_LINUX64;
    assert_int_equal(rig_load(&r, &i), 0);
    assert_int_equal(r.out.kind, BOOT_LINUX64);
    assert_int_equal(r.out.rip, IMG_PADDR + 0x40);
    assert_memory_equal(rig_at(&r, r.out.rsi + 0x202), "HdrS", 4);
    free(i.p);
    r.c.protocol = BOOT_PROTOCOL_AUTO;
    i = img_vmlinux(IMG_PADDR, false, 0);
    assert_int_equal(rig_load(&r, &i), 0);
    assert_int_equal(r.out.kind, BOOT_LINUX64);
    r.c.protocol = BOOT_PROTOCOL_PVH;
    assert_int_equal(rig_load(&r, &i), -ENOEXEC);
    assert_says(&r, "CONFIG_PVH");
    free(i.p);
    rig_fini(&r);
}

/* Walk the page tables the entry gives, as the CPU would. */
static uint64_t translate(struct boot_rig *r, uint64_t va)
{
    uint64_t table = r->out.cr3;
    for (unsigned shift = 39; shift >= 21; shift -= 9) {
        uint64_t pte = ld64(rig_at(r, table + (va >> shift & 511) * 8));
        assert_int_equal(pte & 3, 3);
        if (pte & 0x80)
            return (pte & ~UINT64_C(0xfff) & ~((UINT64_C(1) << shift) - 1)) | (va & ((UINT64_C(1) << shift) - 1));
        table = pte & ~UINT64_C(0xfff);
    }
    fail();
    return 0;
}

static void bzimage_falls_back_to_the_64_bit_entry(void **state)
{
    static const uint64_t probes[] = {0, 0x1fffff, 0x200000, IMG_PADDR + 0x200, 0x3fffffff, 0x40000000, 0xffffffff};
    for (unsigned n = 0; n < 3; n++) {
        struct boot_rig r;
        struct img i = img_bzimage_of(n == 0 ? IMG_BZIP2 : IMG_ZSTD, n == 2);
        rig_init(&r, 64);
        r.c.protocol = n == 2 ? BOOT_PROTOCOL_LINUX64 : BOOT_PROTOCOL_AUTO;
        assert_int_equal(rig_load(&r, &i), 0);
        assert_int_equal(r.out.kind, BOOT_LINUX64);
        assert_true(r.out.long_mode);
        assert_int_equal(r.out.rip, IMG_PADDR + 0x200);
        assert_memory_equal(rig_at(&r, IMG_PADDR), i.p + IMG_PM_OFFSET, i.n - IMG_PM_OFFSET);
        assert_int_equal(r.out.kernel_end, IMG_PADDR + 0x300000);
        for (unsigned k = 0; k < ARRAY_SIZE(probes); k++)
            assert_int_equal(translate(&r, probes[k]), probes[k]);
        assert_int_equal(ld64(rig_at(&r, r.out.gdt + r.out.code_sel)), 0x00af9b000000ffff);
        const uint8_t *z = rig_at(&r, r.out.rsi);
        assert_memory_equal(z + 0x202, "HdrS", 4);
        assert_int_equal(z[0x210], 0xff);
        assert_int_equal(z[0x211] & 1, 1);
        assert_int_equal(ld32(z + 0x260), 0x300000);
        assert_string_equal((char *)rig_at(&r, ld32(z + 0x228)), "console=ttyS0");
        assert_int_equal(ld64(z + 0x70), 0xe0000);
        assert_true(z[0x1e8] >= 5);
        assert_int_equal(ld64(z + 0x2d0), 0);
        assert_int_equal(ld64(z + 0x2d8), 0x9fc00);
        assert_int_equal(ld32(z + 0x2e0), 1);
        for (unsigned k = 0x270; k < 0x2d0; k++)
            assert_int_equal(z[k], 0);
        rig_fini(&r);
        free(i.p);
    }
}

static void initrd_lies_high_page_aligned_and_whole(void **state)
{
    uint8_t data[10001];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i ^ i >> 8);
    char *path = img_file(data, sizeof data);
    struct img i = img_bzimage_of(IMG_LZ4, true);
    for (unsigned way = 0; way < 2; way++) {
        struct boot_rig r;
        rig_init(&r, 64);
        r.c.initrd = path;
        r.c.protocol = way ? BOOT_PROTOCOL_LINUX64 : BOOT_PROTOCOL_AUTO;
        assert_int_equal(rig_load(&r, &i), 0);
        assert_int_equal(r.out.initrd_start % 4096, 0);
        assert_int_equal(r.out.initrd_end - r.out.initrd_start, sizeof data);
        assert_true(r.out.initrd_end <= r.layout.top && r.layout.top - r.out.initrd_end < 4096);
        assert_true(r.out.initrd_start >= r.out.kernel_end);
        assert_memory_equal(rig_at(&r, r.out.initrd_start), data, sizeof data);
        const uint8_t *p = rig_at(&r, way ? r.out.rsi + 0x218 : r.out.rbx);
        if (way) {
            assert_int_equal(ld32(p), r.out.initrd_start);
            assert_int_equal(ld32(p + 4), sizeof data);
        } else {
            assert_int_equal(ld32(p + 12), 1);
            assert_int_equal(ld64(rig_at(&r, ld64(p + 16))), r.out.initrd_start);
            assert_int_equal(ld64(rig_at(&r, ld64(p + 16)) + 8), sizeof data);
        }
        rig_fini(&r);
    }
    unlink(path);
    free(path);
    free(i.p);
}

static void what_does_not_fit_is_refused_with_a_remedy(void **state)
{
    struct boot_rig r;
    struct img i = img_bzimage_of(IMG_GZIP, true);
    uint8_t *big = calloc(1, 16 << 20);
    char *path = img_file(big, 16 << 20), line[3000];
    rig_init(&r, 16); /* the kernel begins at 16 MiB */
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    assert_says(&r, "raise -m");
    r.c.protocol = BOOT_PROTOCOL_LINUX64;
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    assert_says(&r, "raise -m");
    rig_fini(&r);
    rig_init(&r, 24);
    r.c.initrd = path;
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    assert_says(&r, path);
    assert_says(&r, "raise -m");
    r.c.initrd = "/nonexistent/initrd";
    assert_int_equal(rig_load(&r, &i), -ENOENT);
    assert_says(&r, "/nonexistent/initrd");
    r.c.initrd = NULL;
    memset(line, 'a', sizeof line);
    line[2048] = 0;
    r.c.cmdline = line;
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    assert_says(&r, "2047");
    line[2047] = 0;
    assert_int_equal(rig_load(&r, &i), 0);
    rig_fini(&r);
    unlink(path);
    free(path);
    free(big);
    free(i.p);
}

static void files_that_are_no_kernels_are_named(void **state)
{
    struct boot_rig r;
    char *text = img_file("#!/bin/sh\necho hello, this is not a kernel at all\n", 50), *empty = img_file("", 0);
    rig_init(&r, 64);
    const struct {
        const char *path;
        int rc;
        const char *says;
    } cases[] = {{"/nonexistent/vmlinuz", -ENOENT, "No such file"},
                 {"/tmp", -EINVAL, "not a regular file"},
                 {"/dev/null", -EINVAL, "not a regular file"},
                 {empty, -EBADMSG, "empty"},
                 {text, -ENOEXEC, "not a kernel"}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        r.c.kernel = cases[i].path;
        r.e.msg[0] = 0;
        assert_int_equal(boot_load(&r.c, &r.out, &r.e), cases[i].rc);
        assert_says(&r, cases[i].path);
        assert_says(&r, cases[i].says);
    }
    rig_fini(&r);
    unlink(text);
    unlink(empty);
    free(text);
    free(empty);
}

static void other_architectures_and_objects_are_refused(void **state)
{
    struct boot_rig r;
    rig_init(&r, 64);
    const struct {
        unsigned off;
        uint16_t val;
        const char *says;
    } cases[] = {{18, EM_AARCH64, "another architecture"},
                 {16, ET_REL, "object"},
                 {16, ET_CORE, "object"},
                 {56, 0, "program header"},
                 {54, 8, "program header"}};
    for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
        struct img i = img_vmlinux(IMG_PADDR, true, IMG_PADDR);
        st16(i.p + cases[n].off, cases[n].val);
        assert_true(rig_load(&r, &i) < 0);
        assert_says(&r, cases[n].says);
        free(i.p);
    }
    struct img gz = img_vmlinux(IMG_PADDR, true, IMG_PADDR), z = img_pack(IMG_GZIP, &gz);
    assert_int_equal(rig_load(&r, &z), -ENOEXEC);
    assert_says(&r, "unpack it");
    struct img i = img_bzimage_of(IMG_BZIP2, true);
    st16(i.p + 0x236, 0);
    assert_int_equal(rig_load(&r, &i), -ENOEXEC);
    assert_says(&r, "no 64-bit entry");
    struct img low = img_vmlinux(0x8000, true, 0x8000), out = img_vmlinux(IMG_PADDR, true, IMG_PADDR - 1);
    assert_int_equal(rig_load(&r, &low), -EFBIG);
    assert_int_equal(rig_load(&r, &out), -EBADMSG);
    assert_says(&r, "PVH entry");
    free(gz.p);
    free(z.p);
    free(i.p);
    free(low.p);
    free(out.p);
    rig_fini(&r);
}

/* Cut short anywhere, an image is refused, or (only padding is missing) loads as the whole one does. */
static void truncation_anywhere_is_refused(void **state)
{
    for (unsigned comp = 0; comp <= IMG_COMPS; comp++) {
        struct boot_rig r;
        struct img whole = comp < IMG_COMPS ? img_bzimage_of(comp, true) : img_vmlinux(IMG_PADDR, true, IMG_PADDR + 8);
        size_t needed = comp < IMG_COMPS ? whole.n - 64 : whole.n;
        rig_init(&r, 32);
        for (size_t n = 1; n < whole.n; n += n < 0x700 || n > needed - 40 ? 1 : 97) {
            struct img cut = {.p = malloc(n), .n = n}; /* exact size: a sanitizer sees a read past it */
            memcpy(cut.p, whole.p, n);
            int rc = rig_load(&r, &cut);
            bool unnoticed =
                comp == IMG_COMPS && n >= 0x200 + IMG_TEXT; /* the notes alone are cut: the ELF entry is left */
            if (n < needed && !unnoticed && rc >= 0)
                fail_msg("%u: %zu of %zu bytes were accepted", comp, n, whole.n);
            if (n >= needed)
                assert_int_equal(rc, 0);
            if (rc)
                assert_true(r.e.msg[0] && strstr(r.e.msg, "test-kernel"));
            free(cut.p);
        }
        rig_fini(&r);
        free(whole.p);
    }
}

/* A flipped byte in the compressed data is found out by the format's own checks, or changes only what nothing checks.
 */
static void corrupt_payloads_are_refused(void **state)
{
    for (unsigned comp = 0; comp < IMG_COMPS; comp++) {
        struct boot_rig r;
        struct img i = img_bzimage_of(comp, true);
        size_t start = IMG_PM_OFFSET + IMG_PM_HEAD, len = i.n - 64 - start;
        unsigned refused = 0, tried = 0;
        rig_init(&r, 32);
        for (size_t at = 8; at < len; at += len / 150 + 1) {
            i.p[start + at] ^= 0x5a;
            refused += rig_load(&r, &i) < 0;
            tried++;
            i.p[start + at] ^= 0x5a;
        }
        if (comp == IMG_XZ || comp == IMG_GZIP)
            assert_true(refused >= tried - 2); /* they carry a CRC; a header's time stamp matters to nobody */
        assert_true(refused > 0);
        assert_int_equal(rig_load(&r, &i), 0);
        st32(i.p + start + len - 4, 0xfffffff0); /* the size unpacked */
        assert_int_equal(rig_load(&r, &i), -EBADMSG);
        assert_says(&r, comp_names[comp]);
        rig_fini(&r);
        free(i.p);
    }
}

/* Any header byte may be anything: never a crash, always a message with a refusal. */
static void headers_survive_every_byte(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct boot_rig r;
    rig_init(&r, 32);
    for (unsigned kind = 0; kind < 2; kind++) {
        struct img i = kind ? img_bzimage_of(IMG_BZIP2, false) : img_vmlinux(IMG_PADDR, true, IMG_PADDR);
        size_t from = kind ? 0x1f1 : 0, to = kind ? 0x268 : 64 + 2 * 56;
        for (size_t at = from; at < to; at++)
            for (unsigned v = 0; v < sizeof values; v++) {
                uint8_t old = i.p[at];
                i.p[at] = values[v];
                if (rig_load(&r, &i) < 0)
                    assert_true(r.e.msg[0]);
                i.p[at] = old;
            }
        free(i.p);
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_compression_starts_by_pvh),
        cmocka_unit_test(vmlinux_starts_by_its_note_or_by_its_entry),
        cmocka_unit_test(bzimage_falls_back_to_the_64_bit_entry),
        cmocka_unit_test(initrd_lies_high_page_aligned_and_whole),
        cmocka_unit_test(what_does_not_fit_is_refused_with_a_remedy),
        cmocka_unit_test(files_that_are_no_kernels_are_named),
        cmocka_unit_test(other_architectures_and_objects_are_refused),
        cmocka_unit_test(truncation_anywhere_is_refused),
        cmocka_unit_test(corrupt_payloads_are_refused),
        cmocka_unit_test(headers_survive_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
