/* Multiboot 1: "Multiboot Specification version 0.6.96", sections 3.1 (header), 3.2 (machine state), 3.3 (information).
 */
#include "boot/boot_priv.h"

#include <stdlib.h>
#include <string.h>

#define MB_MAGIC        0x1badb002u
#define MB_LOADED       0x2badb002u
#define MB_SEARCH       8192
#define MB_AOUT_KLUDGE  (1u << 16)
#define MB_UNKNOWN      0xfff8u /* requirements we can't meet; bit 2, a video mode, is only a wish on a headless machine */
#define MB_DATA_LOW     RAM_PAGE /* page 0 is the guest's: SIPI vector 0 */
#define MB_MODULES_MAX  32
#define MB_SMALL_MODULE (UINT64_C(64) << 10) /* goes below 640 KiB, so that a heap above the image can't hit it */

enum mb_info {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,
    INFO_SIZE = 116
};

enum mb_flag { FLAG_MEM = 1, FLAG_CMDLINE = 4, FLAG_MODS = 8, FLAG_MMAP = 64, FLAG_LOADER = 512 };

#define MMAP_ENTRY 24
#define MOD_ENTRY  16

struct module {
    char *text; /* file name, then what follows it */
    uint8_t *data;
    uint64_t size;
};

struct mb {
    const struct boot_config *c;
    const struct image *im;
    struct elf elf; /* also of an a.out-kludge image, as one segment */
    unsigned mods;
    struct module mod[MB_MODULES_MAX];
};

int64_t multiboot_header(const struct image *im)
{
    uint64_t end = min_u64(im->size, MB_SEARCH);
    for (uint64_t at = 0; at + 12 <= end; at += 4) {
        uint32_t flags = ld32(im->data + at + 4);
        if (ld32(im->data + at) == MB_MAGIC && MB_MAGIC + flags + ld32(im->data + at + 8) == 0)
            return (int64_t)at;
    }
    return -1;
}

/* The address record of the header in place of ELF headers. */
static int parse_kludge(struct mb *m, uint64_t header, struct err *e)
{
    const uint8_t *h = image_at(m->im, header, 32);
    if (!h)
        return err_set(e, -EBADMSG, "kernel %s: truncated in its Multiboot header", m->im->name);
    uint32_t header_addr = ld32(h + 12), load = ld32(h + 16), load_end = ld32(h + 20), bss_end = ld32(h + 24);
    uint64_t back = (uint64_t)header_addr - load;
    if (header_addr < load || back > header || (load_end && load_end < load) || (bss_end && bss_end < load_end))
        return err_set(e, -EBADMSG, "kernel %s: corrupt: the addresses in its Multiboot header contradict each other",
                       m->im->name);
    uint64_t off = header - back, filesz = load_end ? load_end - load : m->im->size - off;
    if (!image_at(m->im, off, filesz))
        return err_set(e, -EBADMSG, "kernel %s: truncated: its Multiboot header names bytes past its end; get it again",
                       m->im->name);
    uint64_t memsz = bss_end > load + filesz ? bss_end - load : filesz;
    m->elf = (struct elf){.n = 1, .entry = ld32(h + 28), .start = load, .end = load + memsz};
    m->elf.load[0] = (struct elf_load){off, filesz, memsz, load, load};
    return 0;
}

static int parse(struct mb *m, uint64_t header, struct err *e)
{
    uint32_t flags = ld32(m->im->data + header + 4);
    if (flags & MB_UNKNOWN)
        return err_set(e, -ENOEXEC, "kernel %s: its Multiboot header requires features %xh that don't exist here",
                       m->im->name, flags & MB_UNKNOWN);
    if (flags & MB_AOUT_KLUDGE)
        return parse_kludge(m, header, e);
    if (!elf_magic(m->im))
        return err_set(e, -ENOEXEC, "kernel %s: a Multiboot image that is neither ELF nor has an address record",
                       m->im->name);
    int rc = elf_parse(m->im, &m->elf, e);
    if (!rc && m->elf.is64)
        rc = err_set(e, -ENOEXEC,
                     "kernel %s: a 64-bit ELF file, which Multiboot can't start: "
                     "convert it with objcopy -O elf32-i386",
                     m->im->name);
    return rc;
}

/* ---- modules: "-initrd FILE ARGS,FILE ARGS" ---- */

static int read_module(struct mb *m, const char *text, size_t len, struct err *e)
{
    if (m->mods == MB_MODULES_MAX)
        return err_set(e, -EFBIG, "-initrd: more than %u modules", MB_MODULES_MAX);
    struct module *mod = &m->mod[m->mods++];
    mod->text = strndup(text, len);
    char *path = mod->text ? strndup(mod->text, strcspn(mod->text, " ")) : NULL;
    int rc = path ? file_read("module", path, BOOT_KERNEL_MAX, &mod->data, &mod->size, e)
                  : err_set(e, -ENOMEM, "-initrd: no host memory");
    free(path);
    return rc;
}

static int read_modules(struct mb *m, struct err *e)
{
    for (const char *s = m->c->initrd; s && *s;) {
        size_t len = strcspn(s, ",");
        int rc = len ? read_module(m, s, len, e) : 0;
        if (rc)
            return rc;
        s += len + (s[len] == ',');
    }
    return 0;
}

/* ---- placing ---- */

static bool hits_image(const struct mb *m, gpa_t at, uint64_t len, gpa_t *below)
{
    for (unsigned i = 0; i < m->elf.n; i++) {
        const struct elf_load *s = &m->elf.load[i];
        if (at < s->paddr + s->memsz && s->paddr < at + len) {
            *below = s->paddr;
            return true;
        }
    }
    return false;
}

/* The highest page-aligned window of `len` bytes below 640 KiB that the image leaves free, or 0. */
static gpa_t find_window(const struct mb *m, uint64_t len)
{
    gpa_t end = align_down(BOOT_EBDA, RAM_PAGE);
    while (end >= MB_DATA_LOW + len) {
        gpa_t at = align_down(end - len, RAM_PAGE), below;
        if (at < MB_DATA_LOW)
            return 0;
        if (!hits_image(m, at, end - at, &below))
            return at;
        if (below >= end)
            return 0;
        end = align_down(below, RAM_PAGE);
    }
    return 0;
}

static bool is_small(const struct module *mod)
{
    return mod->size <= MB_SMALL_MODULE;
}

static uint64_t data_bytes(const struct mb *m, unsigned maps)
{
    uint64_t n =
        INFO_SIZE + strlen(m->c->kernel) + 2 + (m->c->cmdline ? strlen(m->c->cmdline) : 0) + 1024 + maps * MMAP_ENTRY;
    for (unsigned i = 0; i < m->mods; i++)
        n += MOD_ENTRY + strlen(m->mod[i].text) + 17 +
             (is_small(&m->mod[i]) ? align_up(m->mod[i].size, RAM_PAGE) + RAM_PAGE : 0);
    return n;
}

static gpa_t put_string(struct boot_data *d, const char *a, const char *b)
{
    uint8_t *p;
    size_t la = strlen(a), lb = b && *b ? strlen(b) : 0;
    gpa_t at = boot_data_take(d, la + lb + 2, 16, &p);
    if (!at)
        return 0;
    memcpy(p, a, la);
    if (lb) {
        p[la] = ' ';
        memcpy(p + la + 1, b, lb);
    }
    return at;
}

static int put_module(struct mb *m, struct boot_data *d, const struct module *mod, uint8_t *entry, gpa_t *after,
                      struct err *e)
{
    uint8_t *p = NULL;
    gpa_t at = is_small(mod) ? boot_data_take(d, mod->size, RAM_PAGE, &p) : 0;
    if (!at) {
        at = align_up(*after, RAM_PAGE);
        p = at + mod->size <= m->c->layout->top ? ram_hva(m->c->layout->ram, at, mod->size) : NULL;
        if (!p)
            return err_set(e, -EFBIG, "module %s: its %llu KiB don't fit above the kernel: raise -m", mod->text,
                           (unsigned long long)(mod->size >> 10));
        *after = at + mod->size;
    }
    memcpy(p, mod->data, mod->size);
    gpa_t text = put_string(d, mod->text, NULL);
    if (!text)
        return boot_data_full(m->c, e);
    st32(entry, (uint32_t)at);
    st32(entry + 4, (uint32_t)(at + mod->size));
    st32(entry + 8, (uint32_t)text);
    return 0;
}

static int put_modules(struct mb *m, struct boot_data *d, uint8_t *info, struct err *e)
{
    uint8_t *list;
    gpa_t after = max_u64(m->elf.end, BOOT_HIGH);
    gpa_t at = boot_data_take(d, (m->mods ? m->mods : 1) * MOD_ENTRY, 16, &list);
    if (!at)
        return boot_data_full(m->c, e);
    st32(info + INFO_MODS_COUNT, m->mods);
    st32(info + INFO_MODS_ADDR, (uint32_t)at);
    for (unsigned i = 0; i < m->mods; i++) {
        int rc = put_module(m, d, &m->mod[i], list + i * MOD_ENTRY, &after, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int put_mmap(struct mb *m, struct boot_data *d, const struct e820_map *map, uint8_t *info, struct err *e)
{
    uint8_t *p;
    gpa_t at = boot_data_take(d, map->n * MMAP_ENTRY, 16, &p);
    if (!at)
        return boot_data_full(m->c, e);
    st32(info + INFO_MMAP_LENGTH, map->n * MMAP_ENTRY);
    st32(info + INFO_MMAP_ADDR, (uint32_t)at);
    for (unsigned i = 0; i < map->n; i++, p += MMAP_ENTRY) {
        st32(p, MMAP_ENTRY - 4);
        st64(p + 4, map->e[i].base);
        st64(p + 12, map->e[i].len);
        st32(p + 20, map->e[i].type);
    }
    return 0;
}

static int put_info(struct mb *m, struct boot_entry *out, struct err *e)
{
    struct e820_map map;
    struct boot_data d;
    uint8_t *info;
    boot_layout_e820(m->c->layout, &map);
    uint64_t len = data_bytes(m, map.n);
    gpa_t window = find_window(m, len);
    if (!window)
        return boot_data_full(m->c, e);
    boot_data_init(&d, m->c->layout, window, window + align_up(len, RAM_PAGE));
    out->rbx = boot_data_take(&d, INFO_SIZE, 16, &info);
    gpa_t cmdline = put_string(&d, m->c->kernel, m->c->cmdline), name = put_string(&d, "hecaton", NULL);
    int rc = boot_data_gdt(&d, out, e);
    if (rc || !cmdline || !name)
        return rc ? rc : boot_data_full(m->c, e);
    st32(info + INFO_FLAGS, FLAG_MEM | FLAG_CMDLINE | FLAG_MODS | FLAG_MMAP | FLAG_LOADER);
    st32(info + INFO_MEM_LOWER, (uint32_t)(BOOT_EBDA >> 10));
    st32(info + INFO_MEM_UPPER, (uint32_t)((m->c->layout->top - BOOT_HIGH) >> 10));
    st32(info + INFO_CMDLINE, (uint32_t)cmdline);
    st32(info + INFO_LOADER_NAME, (uint32_t)name);
    rc = put_mmap(m, &d, &map, info, e);
    return rc ? rc : put_modules(m, &d, info, e);
}

static int load(struct mb *m, uint64_t header, struct boot_entry *out, struct err *e)
{
    int rc = parse(m, header, e);
    if (!rc)
        rc = read_modules(m, e);
    if (!rc)
        rc = elf_load(m->im, &m->elf, m->c->layout, MB_DATA_LOW, e);
    if (rc)
        return rc;
    if (m->elf.entry < m->elf.start || m->elf.entry >= m->elf.end)
        return err_set(e, -EBADMSG, "kernel %s: corrupt: its entry point %llxh is outside what it loads", m->im->name,
                       (unsigned long long)m->elf.entry);
    *out = (struct boot_entry){.kind = BOOT_MULTIBOOT,
                               .rip = m->elf.entry,
                               .rax = MB_LOADED,
                               .kernel_start = m->elf.start,
                               .kernel_end = m->elf.end};
    return put_info(m, out, e);
}

int multiboot_load(const struct boot_config *c, const struct image *im, uint64_t header, struct boot_entry *out,
                   struct err *e)
{
    struct mb *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, -ENOMEM, "kernel %s: no host memory", im->name);
    m->c = c;
    m->im = im;
    int rc = load(m, header, out, e);
    for (unsigned i = 0; i < m->mods; i++) {
        free(m->mod[i].text);
        free(m->mod[i].data);
    }
    free(m);
    return rc;
}
