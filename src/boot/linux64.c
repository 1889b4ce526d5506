/* Linux' 64-bit boot protocol: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "64-bit Boot
 * Protocol", and zero-page.rst. Offsets below are of the file and of struct boot_params alike. */
#include "boot/boot_priv.h"

#include <string.h>

enum {
    BP_ACPI_RSDP = 0x070,
    BP_E820_ENTRIES = 0x1e8,
    BP_SETUP_SECTS = 0x1f1,
    BP_BOOT_FLAG = 0x1fe,
    BP_JUMP_LEN = 0x201, /* the header ends at 202h + this */
    BP_HEADER = 0x202,   /* "HdrS" */
    BP_VERSION = 0x206,
    BP_LOADER_TYPE = 0x210,
    BP_LOADFLAGS = 0x211,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_CMD_LINE_PTR = 0x228,
    BP_INITRD_MAX = 0x22c,
    BP_RELOCATABLE = 0x234,
    BP_XLOADFLAGS = 0x236,
    BP_CMDLINE_SIZE = 0x238,
    BP_PAYLOAD_OFFSET = 0x248,
    BP_PAYLOAD_LENGTH = 0x24c,
    BP_PREF_ADDRESS = 0x258,
    BP_INIT_SIZE = 0x260,
    BP_HEADER_END = 0x268,
    BP_E820_TABLE = 0x2d0,
    BP_SIZE = 4096
};

#define PROTOCOL_PAYLOAD 0x208
#define PROTOCOL_64      0x20c
#define XLF_KERNEL_64    1
#define LOADED_HIGH      1
#define LOADER_UNDEFINED 0xff
#define STARTUP_64       0x200
#define DEFAULT_LOAD     UINT64_C(0x100000)
#define E820_ENTRY_SIZE  20

bool bzimage_magic(const struct image *im)
{
    return im->size >= BP_VERSION && !memcmp(im->data + BP_HEADER, "HdrS", 4) &&
           ld16(im->data + BP_BOOT_FLAG) == 0xaa55;
}

static uint64_t setup_bytes(const struct image *im)
{
    unsigned sects = im->data[BP_SETUP_SECTS];
    return (uint64_t)((sects ? sects : 4) + 1) * 512;
}

static int truncated(const struct image *im, struct err *e)
{
    return err_set(e, -EBADMSG, "kernel %s: truncated: its header names bytes past its end (%llu); get the file again",
                   im->name, (unsigned long long)im->size);
}

int bzimage_payload(const struct image *im, const uint8_t **p, uint64_t *n, struct err *e)
{
    *p = NULL;
    *n = 0;
    if (im->size < BP_HEADER_END || im->size <= setup_bytes(im))
        return truncated(im, e);
    if (ld16(im->data + BP_VERSION) < PROTOCOL_PAYLOAD)
        return 0;
    uint64_t off = setup_bytes(im) + ld32(im->data + BP_PAYLOAD_OFFSET), len = ld32(im->data + BP_PAYLOAD_LENGTH);
    if (!len)
        return 0;
    const uint8_t *at = image_at(im, off, len);
    if (!at)
        return truncated(im, e);
    *p = at;
    *n = len;
    return 0;
}

static void put_e820(uint8_t *zero_page, const struct boot_layout *l)
{
    struct e820_map map;
    boot_layout_e820(l, &map);
    uint8_t *p = zero_page + BP_E820_TABLE;
    for (unsigned i = 0; i < map.n; i++, p += E820_ENTRY_SIZE) {
        st64(p, map.e[i].base);
        st64(p + 8, map.e[i].len);
        st32(p + 16, map.e[i].type);
    }
    zero_page[BP_E820_ENTRIES] = (uint8_t)map.n;
}

/* `header`: the setup header of the image, or NULL for a vmlinux, which has none. */
static int put_zero_page(const struct boot_config *c, const uint8_t *header, uint64_t cmdline_max,
                         struct boot_entry *out, struct err *e)
{
    struct boot_data d;
    uint8_t *z;
    gpa_t cmdline;
    boot_data_init(&d, c->layout, BOOT_DATA_BASE, BOOT_DATA_END);
    out->rsi = boot_data_take(&d, BP_SIZE, RAM_PAGE, &z);
    int rc = boot_data_cmdline(&d, c, cmdline_max, &cmdline, e);
    if (rc || (rc = boot_data_gdt(&d, out, e)) || (rc = boot_data_paging(&d, out, e)))
        return rc;
    if (header) {
        unsigned end = BP_HEADER + header[BP_JUMP_LEN];
        memcpy(z + BP_SETUP_SECTS, header + BP_SETUP_SECTS,
               (end < BP_HEADER_END ? end : BP_HEADER_END) - BP_SETUP_SECTS);
    } else {
        memcpy(z + BP_HEADER, "HdrS", 4);
        st16(z + BP_BOOT_FLAG, 0xaa55);
        st16(z + BP_VERSION, PROTOCOL_64);
    }
    z[BP_LOADER_TYPE] = LOADER_UNDEFINED;
    z[BP_LOADFLAGS] |= LOADED_HIGH;
    st32(z + BP_CMD_LINE_PTR, (uint32_t)cmdline);
    st32(z + BP_RAMDISK_IMAGE, (uint32_t)out->initrd_start);
    st32(z + BP_RAMDISK_SIZE, (uint32_t)(out->initrd_end - out->initrd_start));
    st64(z + BP_ACPI_RSDP, c->rsdp);
    put_e820(z, c->layout);
    return 0;
}

/* Copy the protected-mode part to where the kernel likes to be; it needs init_size bytes there to unpack itself. */
static int place(const struct boot_config *c, const struct image *im, struct boot_entry *out, struct err *e)
{
    uint64_t skip = setup_bytes(im), len = im->size - skip;
    uint64_t load = im->data[BP_RELOCATABLE] ? ld64(im->data + BP_PREF_ADDRESS) : DEFAULT_LOAD;
    uint64_t need = max_u64(ld32(im->data + BP_INIT_SIZE), len);
    if (load < BOOT_HIGH || load > RAM_LOW_MAX)
        return err_set(e, -EBADMSG, "kernel %s: corrupt: it wants to be loaded at %llxh", im->name,
                       (unsigned long long)load);
    if (load + need > c->layout->top)
        return err_set(e, -EFBIG, "kernel %s: it needs memory up to %llu MiB, -m gives %llu MiB: raise -m", im->name,
                       (unsigned long long)((load + need) >> 20) + 1, (unsigned long long)(c->layout->top >> 20));
    memcpy(ram_hva(c->layout->ram, load, len), im->data + skip, len);
    out->kernel_start = load;
    out->kernel_end = load + need;
    out->rip = load + STARTUP_64;
    return 0;
}

int linux64_load(const struct boot_config *c, const struct image *im, struct boot_entry *out, struct err *e)
{
    *out = (struct boot_entry){.kind = BOOT_LINUX64, .long_mode = true};
    if (im->size < BP_HEADER_END || im->size <= setup_bytes(im) + STARTUP_64)
        return truncated(im, e);
    if (ld16(im->data + BP_VERSION) < PROTOCOL_64 || !(ld16(im->data + BP_XLOADFLAGS) & XLF_KERNEL_64))
        return err_set(e, -ENOEXEC,
                       "kernel %s: a 32-bit or very old Linux kernel (boot protocol %x.%02x, no 64-bit entry): "
                       "give an x86-64 kernel, 3.8 or later",
                       im->name, im->data[BP_VERSION + 1], im->data[BP_VERSION]);
    int rc = place(c, im, out, e);
    if (!rc)
        rc = boot_initrd(c, min_u64((uint64_t)ld32(im->data + BP_INITRD_MAX) + 1, RAM_LOW_MAX), out, e);
    return rc ? rc : put_zero_page(c, im->data, min_u64(ld32(im->data + BP_CMDLINE_SIZE), LINUX_CMDLINE_MAX), out, e);
}

int linux64_load_elf(const struct boot_config *c, const struct image *im, const struct elf *elf, struct boot_entry *out,
                     struct err *e)
{
    *out = (struct boot_entry){
        .kind = BOOT_LINUX64, .long_mode = true, .rip = elf->entry, .kernel_start = elf->start, .kernel_end = elf->end};
    if (elf->end > RAM_LOW_MAX || elf->entry < elf->start || elf->entry >= elf->end)
        return err_set(e, -ENOEXEC, "kernel %s: its entry point %llxh is outside what it loads below 2 GiB", im->name,
                       (unsigned long long)elf->entry);
    int rc = elf_load(im, elf, c->layout, BOOT_HIGH, e);
    if (!rc)
        rc = boot_initrd(c, RAM_LOW_MAX, out, e);
    return rc ? rc : put_zero_page(c, NULL, LINUX_CMDLINE_MAX, out, e);
}
