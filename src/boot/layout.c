#include "boot/layout.h"

#include <errno.h>

#define LOW_KEEP UINT64_C(0x200000) /* ACPI tables never take the first 2 MiB */

void boot_layout_init(struct boot_layout *l, struct ram *ram)
{
    *l = (struct boot_layout){.ram = ram, .top = ram->low_size, .acpi = ram->low_size, .bios = BOOT_BIOS};
}

gpa_t boot_layout_acpi(struct boot_layout *l, uint64_t len, uint64_t align, struct err *e)
{
    if (l->acpi < LOW_KEEP || len > l->acpi - LOW_KEEP) {
        err_set(e, -ENOMEM, "no room for %llu KiB of ACPI tables: raise -m", (unsigned long long)(len + 1023) >> 10);
        return 0;
    }
    l->acpi = align_down(l->acpi - len, align);
    l->top = align_down(l->acpi, RAM_PAGE);
    return l->acpi;
}

gpa_t boot_layout_bios(struct boot_layout *l, uint64_t len, uint64_t align, struct err *e)
{
    gpa_t at = align_up(l->bios, align);
    if (at > BOOT_HIGH || len > BOOT_HIGH - at) {
        err_set(e, -ENOMEM, "no room for %llu bytes of firmware tables below 1 MiB", (unsigned long long)len);
        return 0;
    }
    l->bios = at + len;
    return at;
}

static bool overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

int boot_layout_reserve(struct boot_layout *l, gpa_t base, uint64_t len, uint32_t type, struct err *e)
{
    const struct ram *r = l->ram;
    if (!len || base + len < base || overlaps(base, len, 0, r->low_size) ||
        (r->high_size && overlaps(base, len, RAM_HIGH_GPA, r->high_size)))
        return err_set(e, -EINVAL, "reserved range %llx+%llx touches RAM", (unsigned long long)base,
                       (unsigned long long)len);
    for (unsigned i = 0; i < l->extra.n; i++)
        if (overlaps(base, len, l->extra.e[i].base, l->extra.e[i].len))
            return err_set(e, -EINVAL, "reserved range %llx+%llx overlaps another", (unsigned long long)base,
                           (unsigned long long)len);
    if (l->extra.n >= BOOT_E820_MAX - 6)
        return err_set(e, -ENOSPC, "more than %u reserved ranges", BOOT_E820_MAX - 6);
    l->extra.e[l->extra.n++] = (struct e820_entry){base, len, type};
    return 0;
}

/* Insert by base; the map stays ascending. */
static void add(struct e820_map *m, uint64_t base, uint64_t end, uint32_t type)
{
    if (end <= base)
        return;
    unsigned i = m->n++;
    for (; i > 0 && m->e[i - 1].base > base; i--)
        m->e[i] = m->e[i - 1];
    m->e[i] = (struct e820_entry){base, end - base, type};
}

void boot_layout_e820(const struct boot_layout *l, struct e820_map *out)
{
    const struct ram *r = l->ram;
    out->n = 0;
    add(out, 0, BOOT_EBDA, E820_RAM);
    add(out, BOOT_EBDA, 0xa0000, E820_RESERVED);
    add(out, BOOT_BIOS, BOOT_HIGH, E820_RESERVED);
    add(out, BOOT_HIGH, l->top, E820_RAM);
    add(out, l->top, r->low_size, E820_ACPI);
    add(out, RAM_HIGH_GPA, RAM_HIGH_GPA + r->high_size, E820_RAM);
    for (unsigned i = 0; i < l->extra.n; i++)
        add(out, l->extra.e[i].base, l->extra.e[i].base + l->extra.e[i].len, l->extra.e[i].type);
}
