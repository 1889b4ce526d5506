#include "boot/boot_priv.h"

#include <string.h>

#define GDT_CODE 0x10 /* the selectors Linux' boot protocol names __BOOT_CS and __BOOT_DS */
#define GDT_DATA 0x18
#define GDT_TSS  0x20

#define GDT_CODE32 UINT64_C(0x00cf9b000000ffff)
#define GDT_CODE64 UINT64_C(0x00af9b000000ffff)
#define GDT_FLAT   UINT64_C(0x00cf93000000ffff)
#define GDT_TSS32  UINT64_C(0x00008b0000000067)

#define PTE_P  UINT64_C(1)
#define PTE_W  UINT64_C(2)
#define PTE_PS UINT64_C(0x80)

void boot_data_init(struct boot_data *d, const struct boot_layout *l, gpa_t base, gpa_t end)
{
    *d = (struct boot_data){.ram = l->ram, .next = base, .end = end};
}

gpa_t boot_data_take(struct boot_data *d, uint64_t len, uint64_t align, uint8_t **hva)
{
    gpa_t at = align_up(d->next, align);
    if (at > d->end || len > d->end - at)
        return 0;
    *hva = ram_hva(d->ram, at, len);
    memset(*hva, 0, len);
    d->next = at + len;
    return at;
}

int boot_data_full(const struct boot_config *c, struct err *e)
{
    return err_set(e, -EFBIG, "kernel %s: no room for its boot data below 640 KiB: shorten -append", c->kernel);
}

int boot_data_gdt(struct boot_data *d, struct boot_entry *out, struct err *e)
{
    uint8_t *p;
    out->gdt = boot_data_take(d, 0x30, 16, &p);
    if (!out->gdt)
        return err_set(e, -EFBIG, "no room for a GDT below 640 KiB");
    st64(p + GDT_CODE, out->long_mode ? GDT_CODE64 : GDT_CODE32);
    st64(p + GDT_DATA, GDT_FLAT);
    st64(p + GDT_TSS, GDT_TSS32);
    out->gdt_limit = 0x2f;
    out->code_sel = GDT_CODE;
    out->data_sel = GDT_DATA;
    out->tss_sel = GDT_TSS;
    return 0;
}

int boot_data_paging(struct boot_data *d, struct boot_entry *out, struct err *e)
{
    uint8_t *p;
    out->cr3 = boot_data_take(d, 6 * RAM_PAGE, RAM_PAGE, &p);
    if (!out->cr3)
        return err_set(e, -EFBIG, "no room for page tables below 640 KiB");
    st64(p, (out->cr3 + RAM_PAGE) | PTE_P | PTE_W);
    for (unsigned i = 0; i < 4; i++)
        st64(p + RAM_PAGE + i * 8, (out->cr3 + (2 + i) * RAM_PAGE) | PTE_P | PTE_W);
    for (unsigned i = 0; i < 2048; i++)
        st64(p + 2 * RAM_PAGE + i * 8, (uint64_t)i << 21 | PTE_P | PTE_W | PTE_PS);
    return 0;
}

int boot_data_cmdline(struct boot_data *d, const struct boot_config *c, uint64_t max, gpa_t *out, struct err *e)
{
    const char *s = c->cmdline ? c->cmdline : "";
    uint64_t len = strlen(s);
    uint8_t *p;
    if (len > max)
        return err_set(e, -EFBIG, "-append: %llu characters, but kernel %s takes %llu: shorten it",
                       (unsigned long long)len, c->kernel, (unsigned long long)max);
    *out = boot_data_take(d, len + 1, 16, &p);
    if (!*out)
        return boot_data_full(c, e);
    memcpy(p, s, len);
    return 0;
}

int boot_initrd(const struct boot_config *c, uint64_t limit, struct boot_entry *out, struct err *e)
{
    uint64_t size, top = min_u64(c->layout->top, limit);
    if (!c->initrd)
        return 0;
    int rc = file_size("initrd", c->initrd, &size, e);
    if (rc)
        return rc;
    gpa_t lowest = align_up(max_u64(out->kernel_end, BOOT_HIGH), RAM_PAGE);
    if (top < lowest || align_up(size, RAM_PAGE) > top - lowest) {
        uint64_t need = (lowest + size + c->layout->ram->low_size - c->layout->top + (2u << 20)) >> 20;
        return err_set(e, -EFBIG, "initrd %s: its %llu MiB don't fit beside the kernel below %llu MiB: %s", c->initrd,
                       (unsigned long long)((size + (1 << 20) - 1) >> 20), (unsigned long long)(top >> 20),
                       need << 20 <= min_u64(limit, RAM_LOW_MAX) ? "raise -m" : "it must be smaller");
    }
    out->initrd_start = align_down(top - size, RAM_PAGE);
    out->initrd_end = out->initrd_start + size;
    return file_read_to("initrd", c->initrd, ram_hva(c->layout->ram, out->initrd_start, size), size, e);
}
