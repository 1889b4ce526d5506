/* Tiny kernels, made by the tests that load them: ELF with and without notes, bzImage with each compression, Multiboot.
 */
#ifndef HEC_TEST_BOOT_IMAGES_H
#define HEC_TEST_BOOT_IMAGES_H

#include "boot/boot.h"

#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define IMG_PADDR UINT64_C(0x1000000)
#define IMG_TEXT  20000 /* bytes of the first segment in the file */
#define IMG_BSS   5000  /* and zeroes after it */

struct img {
    uint8_t *p;
    size_t n;
};

static inline void img_add(struct img *i, const void *p, size_t n)
{
    i->p = realloc(i->p, i->n + n);
    if (!i->p)
        abort();
    if (p)
        memcpy(i->p + i->n, p, n);
    else
        memset(i->p + i->n, 0, n);
    i->n += n;
}

static inline uint8_t img_byte(size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + 1);
}

static inline void img_add_text(struct img *i, size_t n)
{
    uint8_t *t = malloc(n);
    for (size_t k = 0; k < n; k++)
        t[k] = img_byte(k);
    img_add(i, t, n);
    free(t);
}

/* ELF64: one PT_LOAD at `paddr` (virtual in the kernel's half), and a note segment with two foreign notes before Xen's.
 */
static inline struct img img_vmlinux(uint64_t paddr, bool note, uint64_t pvh)
{
    struct img i = {0};
    uint64_t vaddr = paddr + UINT64_C(0xffffffff80000000);
    Elf64_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = 1,
                    .e_entry = paddr + 0x40,
                    .e_phoff = sizeof h,
                    .e_ehsize = sizeof h,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = note ? 2 : 1};
    memcpy(h.e_ident, ELFMAG "\2\1\1", 7);
    Elf64_Phdr load = {.p_type = PT_LOAD,
                       .p_flags = 7,
                       .p_offset = 0x200,
                       .p_vaddr = vaddr,
                       .p_paddr = paddr,
                       .p_filesz = IMG_TEXT,
                       .p_memsz = IMG_TEXT + IMG_BSS,
                       .p_align = 0x200};
    uint32_t notes[] = {4, 5, 1,  0x554e47 /* GNU */, 1, 2, 6, 4, 7, 0x756e694c, 0x78, 9,
                        4, 8, 18, 0x6e6558 /* Xen */, 0, 0};
    st64(&notes[16], pvh);
    Elf64_Phdr pn = {.p_type = PT_NOTE, .p_offset = 0x200 + IMG_TEXT, .p_filesz = sizeof notes, .p_align = 4};
    img_add(&i, &h, sizeof h);
    img_add(&i, &load, sizeof load);
    if (note)
        img_add(&i, &pn, sizeof pn);
    img_add(&i, NULL, 0x200 - i.n);
    img_add_text(&i, IMG_TEXT);
    if (note)
        img_add(&i, notes, sizeof notes);
    return i;
}

enum img_comp { IMG_GZIP, IMG_XZ, IMG_ZSTD, IMG_LZ4, IMG_BZIP2, IMG_COMPS = IMG_BZIP2 };

/* As a kernel's build packs its payload: the size unpacked follows, which gzip has already. */
static inline struct img img_pack(enum img_comp comp, const struct img *in)
{
    struct img out = {.p = malloc(in->n * 2 + 4096)};
    size_t cap = in->n * 2 + 4000, len = 0;
    uint32_t size = (uint32_t)in->n, legacy = 0x184c2102;
    z_stream z = {.next_in = in->p, .avail_in = (uInt)in->n, .next_out = out.p, .avail_out = (uInt)cap};
    switch (comp) {
    case IMG_GZIP:
        deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
        deflate(&z, Z_FINISH);
        out.n = z.total_out;
        deflateEnd(&z);
        return out;
    case IMG_XZ:
        lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, in->p, in->n, out.p, &len, cap);
        break;
    case IMG_ZSTD:
        len = ZSTD_compress(out.p, cap, in->p, in->n, 19);
        break;
    case IMG_LZ4:
        st32(out.p, legacy);
        len = (size_t)LZ4_compress_default((char *)in->p, (char *)out.p + 8, (int)in->n, (int)cap);
        st32(out.p + 4, (uint32_t)len);
        len += 8;
        break;
    case IMG_BZIP2:
        memcpy(out.p, "BZh9 and more", len = 14);
        break;
    }
    out.n = len;
    img_add(&out, &size, 4);
    return out;
}

#define IMG_SETUP_SECTS 2
#define IMG_PM_OFFSET   ((IMG_SETUP_SECTS + 1) * 512)
#define IMG_PM_HEAD     0x400 /* of the protected-mode part, before the payload */

/* A bzImage of protocol 2.15 around `payload` (taken over). */
static inline struct img img_bzimage(struct img payload)
{
    struct img i = {0};
    img_add(&i, NULL, IMG_PM_OFFSET);
    i.p[0x1f1] = IMG_SETUP_SECTS;
    st16(i.p + 0x1fe, 0xaa55);
    i.p[0x200] = 0xeb;
    i.p[0x201] = 0x66;
    memcpy(i.p + 0x202, "HdrS", 4);
    st16(i.p + 0x206, 0x20f);
    i.p[0x211] = 1;
    st32(i.p + 0x22c, 0x7fffffff);
    st32(i.p + 0x230, 0x200000);
    i.p[0x234] = 1;
    st16(i.p + 0x236, 0x3f);
    st32(i.p + 0x238, 2047);
    st32(i.p + 0x248, IMG_PM_HEAD);
    st32(i.p + 0x24c, (uint32_t)payload.n);
    st64(i.p + 0x258, IMG_PADDR);
    st32(i.p + 0x260, 0x300000);
    img_add_text(&i, IMG_PM_HEAD);
    img_add(&i, payload.p, payload.n);
    img_add(&i, NULL, 64);
    free(payload.p);
    return i;
}

static inline struct img img_bzimage_of(enum img_comp comp, bool note)
{
    struct img v = img_vmlinux(IMG_PADDR, note, IMG_PADDR + 0x850);
    struct img z = img_pack(comp, &v);
    free(v.p);
    return img_bzimage(z);
}

/* ELF32 i386 with a Multiboot 1 header at the start of its only segment. */
static inline struct img img_multiboot(uint32_t paddr, uint32_t memsz, uint32_t flags)
{
    struct img i = {0};
    Elf32_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_version = 1,
                    .e_entry = paddr + 0x20,
                    .e_phoff = sizeof h,
                    .e_ehsize = sizeof h,
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = 1};
    memcpy(h.e_ident, ELFMAG "\1\1\1", 7);
    Elf32_Phdr load = {.p_type = PT_LOAD,
                       .p_flags = 7,
                       .p_offset = 0x80,
                       .p_vaddr = paddr,
                       .p_paddr = paddr,
                       .p_filesz = 4096,
                       .p_memsz = memsz,
                       .p_align = 4};
    uint32_t mb[3] = {0x1badb002, flags, 0u - 0x1badb002u - flags};
    img_add(&i, &h, sizeof h);
    img_add(&i, &load, sizeof load);
    img_add(&i, NULL, 0x80 - i.n);
    img_add(&i, mb, sizeof mb);
    img_add_text(&i, 4096 - sizeof mb);
    return i;
}

/* A file below /tmp with these bytes; unlink() and free() the name. */
static inline char *img_file(const void *p, size_t n)
{
    char *path = strdup("/tmp/hec-test-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n)
        abort();
    close(fd);
    return path;
}

/* A machine's RAM with 64 KiB of ACPI tables at its top, and a configuration that loads into it. */
struct boot_rig {
    struct ram ram;
    struct boot_layout layout;
    struct boot_config c;
    struct boot_entry out;
    struct err e;
};

static inline void rig_init(struct boot_rig *r, uint64_t mib)
{
    *r = (struct boot_rig){
        .c = {.layout = &r->layout, .kernel = "test-kernel", .cmdline = "console=ttyS0", .rsdp = 0xe0000}};
    if (ram_init(&r->ram, mib << 20, &r->e))
        abort();
    boot_layout_init(&r->layout, &r->ram);
    boot_layout_acpi(&r->layout, 65000, 64, &r->e);
}

static inline int rig_load(struct boot_rig *r, const struct img *i)
{
    r->e.msg[0] = 0;
    return boot_load_image(&r->c, i->p, i->n, &r->out, &r->e);
}

static inline uint8_t *rig_at(struct boot_rig *r, uint64_t gpa)
{
    return ram_hva(&r->ram, gpa, 1);
}

static inline void rig_fini(struct boot_rig *r)
{
    ram_fini(&r->ram);
}

#endif
