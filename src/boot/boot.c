#include "boot/boot_priv.h"

#include <stdlib.h>

/* Start a vmlinux: by PVH if it can and may, else at its ELF entry. */
static int load_vmlinux(const struct boot_config *c, const struct image *im, const struct elf *elf,
                        struct boot_entry *out, struct err *e)
{
    if (elf->has_pvh && c->protocol != BOOT_PROTOCOL_LINUX64)
        return pvh_load(c, im, elf, out, e);
    if (c->protocol == BOOT_PROTOCOL_PVH)
        return err_set(e, -ENOEXEC, "kernel %s: built without CONFIG_PVH: drop -machine boot=pvh", im->name);
    return linux64_load_elf(c, im, elf, out, e);
}

/* The payload's vmlinux if it has a PVH entry; `*done` says that it was used, or that it is corrupt. */
static int try_payload(const struct boot_config *c, const struct image *im, const uint8_t *p, uint64_t n,
                       struct boot_entry *out, bool *done, struct err *e)
{
    uint8_t *vmlinux;
    struct elf elf;
    struct image inner = {.name = im->name};
    *done = true;
    int rc = decompress(im, p, n, &vmlinux, &inner.size, e);
    if (rc)
        return rc;
    inner.data = vmlinux;
    rc = elf_magic(&inner) ? elf_parse(&inner, &elf, e)
                           : err_set(e, -EBADMSG, "kernel %s: corrupt: its payload holds no ELF file", im->name);
    if (!rc) {
        *done = elf.has_pvh;
        rc = elf.has_pvh ? pvh_load(c, &inner, &elf, out, e) : 0;
    }
    free(vmlinux);
    return rc;
}

static int load_bzimage(const struct boot_config *c, const struct image *im, struct boot_entry *out, struct err *e)
{
    const uint8_t *p;
    const char *name = "no";
    uint64_t n;
    bool done = false;
    int rc = bzimage_payload(im, &p, &n, e);
    if (rc)
        return rc;
    enum compression comp = n ? compression_of(p, n, &name) : COMP_NONE;
    if (comp != COMP_NONE && comp != COMP_OTHER && c->protocol != BOOT_PROTOCOL_LINUX64)
        rc = try_payload(c, im, p, n, out, &done, e);
    if (rc || done)
        return rc;
    if (c->protocol == BOOT_PROTOCOL_PVH)
        return err_set(e, -ENOEXEC, "kernel %s: %s compression or no PVH entry: drop -machine boot=pvh", im->name,
                       name);
    return linux64_load(c, im, out, e);
}

static int unknown(const struct image *im, struct err *e)
{
    const char *name;
    if (compression_of(im->data, im->size, &name) != COMP_NONE)
        return err_set(e, -ENOEXEC, "kernel %s: a %s file: unpack it first", im->name, name);
    return err_set(e, -ENOEXEC,
                   "kernel %s: not a kernel: neither a Linux bzImage, nor an x86-64 ELF file, nor Multiboot", im->name);
}

static int load_elf(const struct boot_config *c, const struct image *im, int64_t header, struct boot_entry *out,
                    struct err *e)
{
    struct elf elf;
    int rc = elf_parse(im, &elf, e);
    if (rc)
        return rc;
    if (header >= 0 && !elf.has_pvh)
        return multiboot_load(c, im, (uint64_t)header, out, e);
    if (!elf.is64 && !elf.has_pvh)
        return err_set(e, -ENOEXEC,
                       "kernel %s: a 32-bit ELF file with neither a Multiboot header nor a PVH note: "
                       "give an x86-64 kernel",
                       im->name);
    return load_vmlinux(c, im, &elf, out, e);
}

int boot_load_image(const struct boot_config *c, const uint8_t *image, uint64_t size, struct boot_entry *out,
                    struct err *e)
{
    struct image im = {.name = c->kernel, .data = image, .size = size};
    if (bzimage_magic(&im))
        return load_bzimage(c, &im, out, e);
    int64_t header = multiboot_header(&im);
    if (header >= 0 && ld32(image + header + 4) & (1u << 16))
        return multiboot_load(c, &im, (uint64_t)header, out, e);
    if (elf_magic(&im))
        return load_elf(c, &im, header, out, e);
    return header >= 0 ? multiboot_load(c, &im, (uint64_t)header, out, e) : unknown(&im, e);
}

int boot_load(const struct boot_config *c, struct boot_entry *out, struct err *e)
{
    uint8_t *data;
    uint64_t size;
    int rc = file_read("kernel", c->kernel, BOOT_KERNEL_MAX, &data, &size, e);
    if (rc)
        return rc;
    rc = boot_load_image(c, data, size, out, e);
    free(data);
    return rc;
}
