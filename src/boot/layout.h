/* Where things lie in guest RAM before the guest runs, and the map of it that the guest is told (e820 types).
 *
 *   0 .. 9FBFFh           RAM (boot data from BOOT_DATA_BASE; the guest reclaims it)
 *   9FC00h .. 9FFFFh      reserved, as a BIOS keeps its EBDA there
 *   E0000h .. FFFFFh      reserved: RSDP, SMBIOS entry (boot_layout_bios())
 *   100000h .. top        RAM: kernel, then the initrd just below top
 *   top .. low RAM's end  ACPI data: tables (boot_layout_acpi())
 *   4 GiB ..              the rest of RAM
 */
#ifndef HEC_BOOT_LAYOUT_H
#define HEC_BOOT_LAYOUT_H

#include "base/err.h"
#include "base/types.h"
#include "mem/ram.h"

#define BOOT_EBDA      UINT64_C(0x9fc00)
#define BOOT_BIOS      UINT64_C(0xe0000)
#define BOOT_HIGH      UINT64_C(0x100000)
#define BOOT_DATA_BASE UINT64_C(0x10000) /* PVH and Linux: start info, zero page, command line, page tables, GDT */
#define BOOT_DATA_END  UINT64_C(0x90000)
#define BOOT_E820_MAX  32

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
    uint64_t base, len;
    uint32_t type;
};

struct e820_map {
    struct e820_entry e[BOOT_E820_MAX];
    unsigned n;
};

struct boot_layout {
    struct ram *ram;       /* (c) borrowed */
    gpa_t top;             /* end of usable low RAM, page aligned; falls with boot_layout_acpi() */
    gpa_t acpi;            /* lowest byte handed out above top */
    gpa_t bios;            /* next free byte of E0000h .. FFFFFh */
    struct e820_map extra; /* what vm/ adds: ECAM and other windows outside RAM */
};

/* ---- lifecycle; one thread, before the guest runs ---- */
/* `ram` has at least 2 MiB. */
void boot_layout_init(struct boot_layout *l, struct ram *ram);
/* gpa of `len` bytes, aligned to `align` (a power of two, <= 4096), of ACPI-data type at the top of low RAM.
 * 0 when they would reach into the first 2 MiB: `e` says to raise -m. */
gpa_t boot_layout_acpi(struct boot_layout *l, uint64_t len, uint64_t align, struct err *e);
/* The same in E0000h .. FFFFFh; 0 when it is full. */
gpa_t boot_layout_bios(struct boot_layout *l, uint64_t len, uint64_t align, struct err *e);
/* Tell the guest of a range outside RAM. -ENOSPC, or -EINVAL if it touches RAM or another range. */
int boot_layout_reserve(struct boot_layout *l, gpa_t base, uint64_t len, uint32_t type, struct err *e);
/* The map, ascending, without overlaps. */
void boot_layout_e820(const struct boot_layout *l, struct e820_map *out);

#endif
