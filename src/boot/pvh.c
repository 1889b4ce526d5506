/* PVH direct boot, Xen's "x86/HVM direct boot ABI" and its public header arch-x86/hvm/start_info.h. */
#include "boot/boot_priv.h"

#define START_INFO_MAGIC   0x336ec578u
#define START_INFO_VERSION 1
#define START_INFO_SIZE    56
#define MODULE_SIZE        32
#define MEMMAP_SIZE        24

static int put_memmap(struct boot_data *d, const struct boot_config *c, uint8_t *info, struct err *e)
{
    struct e820_map map;
    uint8_t *p;
    boot_layout_e820(c->layout, &map);
    gpa_t at = boot_data_take(d, map.n * MEMMAP_SIZE, 16, &p);
    if (!at)
        return boot_data_full(c, e);
    for (unsigned i = 0; i < map.n; i++, p += MEMMAP_SIZE) {
        st64(p, map.e[i].base);
        st64(p + 8, map.e[i].len);
        st32(p + 16, map.e[i].type);
    }
    st64(info + 40, at);
    st32(info + 48, map.n);
    return 0;
}

static int put_module(struct boot_data *d, const struct boot_config *c, const struct boot_entry *out, uint8_t *info,
                      struct err *e)
{
    uint8_t *p;
    if (!out->initrd_end)
        return 0;
    gpa_t at = boot_data_take(d, MODULE_SIZE, 16, &p);
    if (!at)
        return boot_data_full(c, e);
    st64(p, out->initrd_start);
    st64(p + 8, out->initrd_end - out->initrd_start);
    st32(info + 12, 1);
    st64(info + 16, at);
    return 0;
}

static int put_start_info(struct boot_data *d, const struct boot_config *c, struct boot_entry *out, struct err *e)
{
    uint8_t *info;
    gpa_t cmdline, at = boot_data_take(d, START_INFO_SIZE, 16, &info);
    if (!at)
        return boot_data_full(c, e);
    int rc = boot_data_cmdline(d, c, LINUX_CMDLINE_MAX, &cmdline, e);
    if (rc)
        return rc;
    st32(info, START_INFO_MAGIC);
    st32(info + 4, START_INFO_VERSION);
    st64(info + 24, cmdline);
    st64(info + 32, c->rsdp);
    out->rbx = at;
    rc = put_module(d, c, out, info, e);
    return rc ? rc : put_memmap(d, c, info, e);
}

static bool entry_is_loaded(const struct elf *elf, uint64_t at)
{
    for (unsigned i = 0; i < elf->n; i++)
        if (at - elf->load[i].paddr < elf->load[i].memsz)
            return at <= UINT32_MAX;
    return false;
}

int pvh_load(const struct boot_config *c, const struct image *im, const struct elf *elf, struct boot_entry *out,
             struct err *e)
{
    struct boot_data d;
    if (!entry_is_loaded(elf, elf->pvh))
        return err_set(e, -EBADMSG, "kernel %s: corrupt: its PVH entry %llxh is outside what it loads", im->name,
                       (unsigned long long)elf->pvh);
    *out = (struct boot_entry){.kind = BOOT_PVH, .rip = elf->pvh, .kernel_start = elf->start, .kernel_end = elf->end};
    int rc = elf_load(im, elf, c->layout, BOOT_HIGH, e);
    if (!rc)
        rc = boot_initrd(c, RAM_LOW_MAX, out, e);
    if (rc)
        return rc;
    boot_data_init(&d, c->layout, BOOT_DATA_BASE, BOOT_DATA_END);
    rc = boot_data_gdt(&d, out, e);
    return rc ? rc : put_start_info(&d, c, out, e);
}
