/* Inside boot/: what its files share. One thread, before the guest runs. */
#ifndef HEC_BOOT_PRIV_H
#define HEC_BOOT_PRIV_H

#include "boot/boot.h"

#include <errno.h>

/* The bytes of an image and the name the user knows it by. */
struct image {
    const char *name; /* borrowed */
    const uint8_t *data;
    uint64_t size;
};

/* [off, off + len) of the image, or NULL if it isn't all there. */
static inline const uint8_t *image_at(const struct image *im, uint64_t off, uint64_t len)
{
    return off <= im->size && len <= im->size - off ? im->data + off : NULL;
}

/* ---- file.c ---- */
#define BOOT_KERNEL_MAX (UINT64_C(1) << 30)
/* Read a whole file; the caller frees *data. `what` is "kernel" or "module". */
int file_read(const char *what, const char *path, uint64_t max, uint8_t **data, uint64_t *size, struct err *e);
/* Size of a file. */
int file_size(const char *what, const char *path, uint64_t *size, struct err *e);
/* Read exactly `size` bytes to `to`. */
int file_read_to(const char *what, const char *path, uint8_t *to, uint64_t size, struct err *e);

/* ---- decompress.c ---- */
enum compression { COMP_NONE, COMP_GZIP, COMP_XZ, COMP_ZSTD, COMP_LZ4, COMP_OTHER };
/* By magic; `name` gets what to call it in a message. */
enum compression compression_of(const uint8_t *p, uint64_t n, const char **name);
/* Unpack a kernel payload, whose last 4 bytes are its unpacked size (Linux' documentation, boot.rst, payload_length).
 * The caller frees *out. -EBADMSG: corrupt, with the reason. */
int decompress(const struct image *im, const uint8_t *p, uint64_t n, uint8_t **out, uint64_t *out_size, struct err *e);

/* ---- elf.c ---- */
#define ELF_LOADS_MAX 64
struct elf {
    bool is64;
    uint16_t machine;
    uint64_t entry; /* physical: translated by the segment that holds it */
    unsigned n;
    struct elf_load {
        uint64_t off, filesz, memsz, paddr, vaddr;
    } load[ELF_LOADS_MAX];
    bool has_pvh;
    uint64_t pvh;        /* 32-bit physical entry, XEN_ELFNOTE_PHYS32_ENTRY */
    uint64_t start, end; /* physical extent of the loads */
};
bool elf_magic(const struct image *im);
/* Headers and notes. -EBADMSG truncated, -ENOEXEC not an executable we understand. */
int elf_parse(const struct image *im, struct elf *out, struct err *e);
/* Copy the segments to RAM and zero the rest of them. -EFBIG: outside [lowest, layout->top) and high RAM. */
int elf_load(const struct image *im, const struct elf *elf, const struct boot_layout *l, gpa_t lowest, struct err *e);

/* ---- setup.c: what PVH and the 64-bit protocol share ---- */
/* Boot data: bytes handed out one after the other from a window below 640 KiB, zeroed. */
struct boot_data {
    struct ram *ram;
    gpa_t next, end;
};
void boot_data_init(struct boot_data *d, const struct boot_layout *l, gpa_t base, gpa_t end);
/* gpa of `len` zeroed bytes at a multiple of `align`; `hva` gets where to write them. 0: the window is full. */
gpa_t boot_data_take(struct boot_data *d, uint64_t len, uint64_t align, uint8_t **hva);
/* Write the GDT and fill the entry's selectors. -EFBIG. */
int boot_data_gdt(struct boot_data *d, struct boot_entry *out, struct err *e);
/* Identity map of 4 GiB; sets out->cr3. */
int boot_data_paging(struct boot_data *d, struct boot_entry *out, struct err *e);
/* The command line as a string; -EFBIG past `max` characters. */
int boot_data_cmdline(struct boot_data *d, const struct boot_config *c, uint64_t max, gpa_t *out, struct err *e);
/* Load c->initrd as high as `limit` and layout->top allow, above out->kernel_end. Fills out->initrd_*. */
int boot_initrd(const struct boot_config *c, uint64_t limit, struct boot_entry *out, struct err *e);
int boot_data_full(const struct boot_config *c, struct err *e);

/* ---- pvh.c, linux64.c, multiboot.c ---- */
#define LINUX_CMDLINE_MAX 2047 /* COMMAND_LINE_SIZE of x86, less the NUL */
int pvh_load(const struct boot_config *c, const struct image *im, const struct elf *elf, struct boot_entry *out,
             struct err *e);
/* bzImage by its 64-bit entry. */
int linux64_load(const struct boot_config *c, const struct image *im, struct boot_entry *out, struct err *e);
/* vmlinux by its ELF entry, which is startup_64. */
int linux64_load_elf(const struct boot_config *c, const struct image *im, const struct elf *elf, struct boot_entry *out,
                     struct err *e);
bool bzimage_magic(const struct image *im);
/* The compressed payload inside a bzImage: NULL and 0 when it has none (an old boot protocol). -EBADMSG truncated. */
int bzimage_payload(const struct image *im, const uint8_t **p, uint64_t *n, struct err *e);
/* Offset of a valid Multiboot 1 header in the first 8 KiB, or -1. */
int64_t multiboot_header(const struct image *im);
int multiboot_load(const struct boot_config *c, const struct image *im, uint64_t header, struct boot_entry *out,
                   struct err *e);

#endif
