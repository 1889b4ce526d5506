#include "boot_images.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LOW_END 0x9fc00

static void assert_low(const struct boot_rig *r, uint64_t gpa, uint64_t len)
{
    assert_true(gpa >= 4096 && gpa + len <= LOW_END);
    assert_true(gpa + len <= r->out.kernel_start || gpa >= r->out.kernel_end);
}

static const uint8_t *assert_info(struct boot_rig *r, const char *cmdline)
{
    struct e820_map map;
    const uint8_t *b = rig_at(r, r->out.rbx);
    assert_int_equal(r->out.kind, BOOT_MULTIBOOT);
    assert_false(r->out.long_mode);
    assert_int_equal(r->out.rax, 0x2badb002);
    assert_low(r, r->out.rbx, 116);
    assert_int_equal(ld32(b) & (1 | 4 | 8 | 64), 1 | 4 | 8 | 64);
    assert_int_equal(ld32(b + 4), 639);
    assert_int_equal(ld32(b + 8), (r->layout.top >> 10) - 1024);
    assert_low(r, ld32(b + 16), strlen(cmdline) + 1);
    assert_string_equal((char *)rig_at(r, ld32(b + 16)), cmdline);
    boot_layout_e820(&r->layout, &map);
    assert_int_equal(ld32(b + 44), map.n * 24);
    assert_low(r, ld32(b + 48), map.n * 24);
    for (unsigned i = 0; i < map.n; i++) {
        const uint8_t *m = rig_at(r, ld32(b + 48) + i * 24);
        assert_int_equal(ld32(m), 20);
        assert_int_equal(ld64(m + 4), map.e[i].base);
        assert_int_equal(ld64(m + 12), map.e[i].len);
        assert_int_equal(ld32(m + 20), map.e[i].type);
    }
    assert_int_equal(ld64(rig_at(r, r->out.gdt + r->out.code_sel)), 0x00cf9b000000ffff);
    return b;
}

static void elf_images_load_where_they_want(void **state)
{
    static const struct {
        uint32_t paddr, memsz;
    } at[] = {{0x4000b0, 13 << 20}, {0x8000, 0x10000}, {0x8000, 0x90000}, {0x1000, 0x8000}, {0x100000, 4096}};
    for (unsigned n = 0; n < ARRAY_SIZE(at); n++) {
        struct boot_rig r;
        rig_init(&r, 128);
        struct img i = img_multiboot(at[n].paddr, at[n].memsz, 0);
        memset(rig_at(&r, at[n].paddr), 0xee, at[n].memsz);
        if (rig_load(&r, &i))
            fail_msg("%s", r.e.msg);
        assert_int_equal(r.out.rip, at[n].paddr + 0x20);
        assert_memory_equal(rig_at(&r, at[n].paddr), i.p + 0x80, 4096);
        for (uint32_t k = 4096; k < at[n].memsz; k++)
            assert_int_equal(*rig_at(&r, at[n].paddr + k), 0);
        const uint8_t *b = assert_info(&r, "test-kernel console=ttyS0");
        assert_int_equal(ld32(b + 20), 0);
        assert_low(&r, ld32(b + 24), 1);
        r.c.cmdline = NULL;
        assert_int_equal(rig_load(&r, &i), 0);
        assert_info(&r, "test-kernel");
        rig_fini(&r);
        free(i.p);
    }
}

/* A flat image with the address record; `load_end` 0: to the file's end; `bss_end` 0: no bss. */
static struct img kludge(uint32_t load, uint32_t load_end, uint32_t bss_end)
{
    struct img i = {0};
    uint32_t flags = 1u << 16;
    uint32_t h[8] = {0x1badb002, flags, 0u - 0x1badb002u - flags, load + 0x100, load, load_end, bss_end, load + 0x200};
    img_add_text(&i, 0x300); /* not loaded: the header says where loading starts */
    img_add_text(&i, 0x100);
    img_add(&i, h, sizeof h);
    img_add_text(&i, 0x1000);
    return i;
}

static void the_address_record_is_obeyed(void **state)
{
    struct boot_rig r;
    rig_init(&r, 32);
    struct img i = kludge(0x200000, 0, 0);
    assert_int_equal(rig_load(&r, &i), 0);
    assert_int_equal(r.out.rip, 0x200200);
    assert_memory_equal(rig_at(&r, 0x200000), i.p + 0x300, i.n - 0x300);
    assert_int_equal(r.out.kernel_end, 0x200000 + i.n - 0x300);
    free(i.p);
    i = kludge(0x200000, 0x200800, 0x203000);
    memset(rig_at(&r, 0x200000), 0xee, 0x4000);
    assert_int_equal(rig_load(&r, &i), 0);
    assert_memory_equal(rig_at(&r, 0x200000), i.p + 0x300, 0x800);
    for (unsigned k = 0x800; k < 0x3000; k++)
        assert_int_equal(*rig_at(&r, 0x200000 + k), 0);
    assert_int_equal(*rig_at(&r, 0x203000), 0xee);
    assert_info(&r, "test-kernel console=ttyS0");
    free(i.p);
    static const uint32_t bad[][2] = {{0x1ff000, 0}, {0x209000, 0}, {0x200800, 0x200400}};
    for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
        i = kludge(0x200000, bad[n][0], bad[n][1]);
        assert_int_equal(rig_load(&r, &i), -EBADMSG);
        free(i.p);
    }
    rig_fini(&r);
}

static void modules_carry_their_text_and_bytes(void **state)
{
    struct boot_rig r;
    uint8_t big[100000];
    memset(big, 0x77, sizeof big);
    char *env = img_file("NR_CPUS=300\nKEY=value\n", 22), *data = img_file(big, sizeof big), list[200], text[100];
    struct img i = img_multiboot(0x4000b0, 1 << 20, 3);
    rig_init(&r, 32);
    snprintf(list, sizeof list, "%s first argument,%s", env, data);
    r.c.initrd = list;
    assert_int_equal(rig_load(&r, &i), 0);
    const uint8_t *b = assert_info(&r, "test-kernel console=ttyS0");
    assert_int_equal(ld32(b + 20), 2);
    const uint8_t *m = rig_at(&r, ld32(b + 24));
    assert_low(&r, ld32(m), 22);
    assert_int_equal(ld32(m) % 4096, 0);
    assert_int_equal(ld32(m + 4) - ld32(m), 22);
    assert_memory_equal(rig_at(&r, ld32(m)), "NR_CPUS=300\nKEY=value\n", 22);
    snprintf(text, sizeof text, "%s first argument", env);
    assert_string_equal((char *)rig_at(&r, ld32(m + 8)), text);
    assert_int_equal(ld32(m + 20) - ld32(m + 16), sizeof big);
    assert_true(ld32(m + 16) >= r.out.kernel_end && ld32(m + 20) <= r.layout.top);
    assert_memory_equal(rig_at(&r, ld32(m + 16)), big, sizeof big);
    r.c.initrd = "/nonexistent/module";
    assert_true(rig_load(&r, &i) < 0);
    assert_non_null(strstr(r.e.msg, "/nonexistent/module"));
    rig_fini(&r);
    unlink(env);
    unlink(data);
    free(env);
    free(data);
    free(i.p);
}

static void what_multiboot_cannot_start_is_refused(void **state)
{
    struct boot_rig r;
    rig_init(&r, 32);
    struct img i = img_multiboot(0x400000, 4096, 1u << 5);
    assert_int_equal(rig_load(&r, &i), -ENOEXEC); /* a feature we don't have is required */
    free(i.p);
    i = img_multiboot(0x400000, 4096, 0);
    st32(i.p + 0x88, 0); /* checksum */
    assert_int_equal(rig_load(&r, &i), -ENOEXEC);
    assert_non_null(strstr(r.e.msg, "32-bit"));
    free(i.p);
    i = img_multiboot(0x400000, 64 << 20, 0);
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    assert_non_null(strstr(r.e.msg, "raise -m"));
    free(i.p);
    i = img_multiboot(0x1000, 0xa0000, 0); /* leaves no place below 640 KiB */
    assert_int_equal(rig_load(&r, &i), -EFBIG);
    free(i.p);
    struct img v = img_vmlinux(IMG_PADDR, false, 0);
    uint32_t mb[3] = {0x1badb002, 0, 0u - 0x1badb002u};
    memcpy(v.p + 0x200, mb, sizeof mb);
    assert_int_equal(rig_load(&r, &v), -ENOEXEC);
    assert_non_null(strstr(r.e.msg, "objcopy"));
    free(v.p);
    rig_fini(&r);
}

static void truncation_and_bad_headers_never_crash(void **state)
{
    struct boot_rig r;
    rig_init(&r, 32);
    for (unsigned kind = 0; kind < 2; kind++) {
        struct img i = kind ? kludge(0x200000, 0x200800, 0) : img_multiboot(0x400000, 8192, 0);
        for (size_t n = 1; n < i.n; n++) {
            struct img cut = {.p = malloc(n), .n = n};
            memcpy(cut.p, i.p, n);
            int rc = rig_load(&r, &cut);
            if (n < (kind ? 0xb00 : i.n) && rc >= 0)
                fail_msg("%u: %zu of %zu bytes were accepted", kind, n, i.n);
            free(cut.p);
        }
        size_t from = kind ? 0x400 : 0, to = kind ? 0x420 : 0x80;
        for (size_t at = from; at < to; at++)
            for (unsigned v = 0; v < 256; v += 51) {
                uint8_t old = i.p[at];
                i.p[at] = (uint8_t)v;
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
        cmocka_unit_test(elf_images_load_where_they_want),
        cmocka_unit_test(the_address_record_is_obeyed),
        cmocka_unit_test(modules_carry_their_text_and_bytes),
        cmocka_unit_test(what_multiboot_cannot_start_is_refused),
        cmocka_unit_test(truncation_and_bad_headers_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
