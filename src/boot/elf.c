#include "boot/boot_priv.h"

#include <elf.h>
#include <string.h>

#define XEN_NOTE_PHYS32_ENTRY 18
#define PHDRS_MAX             128

bool elf_magic(const struct image *im)
{
    return im->size >= SELFMAG && !memcmp(im->data, ELFMAG, SELFMAG);
}

static int truncated(const struct image *im, struct err *e)
{
    return err_set(e, -EBADMSG,
                   "kernel %s: truncated: its ELF headers name bytes past its end (%llu); get the file again", im->name,
                   (unsigned long long)im->size);
}

/* The two ELF classes differ only in widths: every header is read into the 64-bit form. */
static bool read_header(const struct image *im, Elf64_Ehdr *h)
{
    if (im->data[EI_CLASS] == ELFCLASS64) {
        if (im->size < sizeof *h)
            return false;
        memcpy(h, im->data, sizeof *h);
        return true;
    }
    Elf32_Ehdr s;
    if (im->size < sizeof s)
        return false;
    memcpy(&s, im->data, sizeof s);
    *h = (Elf64_Ehdr){.e_type = s.e_type,
                      .e_machine = s.e_machine,
                      .e_entry = s.e_entry,
                      .e_phoff = s.e_phoff,
                      .e_phentsize = s.e_phentsize,
                      .e_phnum = s.e_phnum};
    return true;
}

static bool read_phdr(const struct image *im, bool is64, uint64_t off, Elf64_Phdr *p)
{
    if (is64) {
        const uint8_t *at = image_at(im, off, sizeof *p);
        if (at)
            memcpy(p, at, sizeof *p);
        return at;
    }
    Elf32_Phdr s;
    const uint8_t *at = image_at(im, off, sizeof s);
    if (!at)
        return false;
    memcpy(&s, at, sizeof s);
    *p = (Elf64_Phdr){.p_type = s.p_type,
                      .p_offset = s.p_offset,
                      .p_vaddr = s.p_vaddr,
                      .p_paddr = s.p_paddr,
                      .p_filesz = s.p_filesz,
                      .p_memsz = s.p_memsz,
                      .p_align = s.p_align};
    return true;
}

/* One PT_NOTE: name size, description size, type, then both padded to the segment's alignment (4, rarely 8). */
static void scan_notes(const struct image *im, const Elf64_Phdr *p, struct elf *out)
{
    uint64_t pad = p->p_align == 8 ? 8 : 4;
    const uint8_t *n = image_at(im, p->p_offset, p->p_filesz);
    uint64_t left = n ? p->p_filesz : 0;
    while (left >= 12) {
        uint64_t name = ld32(n), desc = ld32(n + 4);
        uint64_t desc_at = align_up(12 + name, pad), size = align_up(desc_at + desc, pad);
        if (desc_at + desc > left)
            return;
        if (name == 4 && !memcmp(n + 12, "Xen", 4) && ld32(n + 8) == XEN_NOTE_PHYS32_ENTRY && desc >= 4) {
            out->has_pvh = true;
            out->pvh = desc >= 8 ? ld64(n + desc_at) : ld32(n + desc_at);
        }
        if (size >= left)
            return;
        n += size;
        left -= size;
    }
}

static int add_load(const struct image *im, const Elf64_Phdr *p, struct elf *out, struct err *e)
{
    if (!p->p_memsz)
        return 0;
    if (!image_at(im, p->p_offset, p->p_filesz))
        return truncated(im, e);
    if (p->p_filesz > p->p_memsz || p->p_paddr + p->p_memsz < p->p_paddr)
        return err_set(e, -EBADMSG, "kernel %s: corrupt: a segment is larger in the file than in memory", im->name);
    if (out->n == ELF_LOADS_MAX)
        return err_set(e, -ENOEXEC, "kernel %s: more than %u segments", im->name, ELF_LOADS_MAX);
    out->load[out->n++] = (struct elf_load){p->p_offset, p->p_filesz, p->p_memsz, p->p_paddr, p->p_vaddr};
    if (out->n == 1 || p->p_paddr < out->start)
        out->start = p->p_paddr;
    out->end = max_u64(out->end, p->p_paddr + p->p_memsz);
    return 0;
}

static int walk_phdrs(const struct image *im, const Elf64_Ehdr *h, struct elf *out, struct err *e)
{
    for (unsigned i = 0; i < h->e_phnum; i++) {
        Elf64_Phdr p;
        uint64_t off = h->e_phoff + (uint64_t)i * h->e_phentsize;
        if (off < h->e_phoff || !read_phdr(im, out->is64, off, &p))
            return truncated(im, e);
        int rc = p.p_type == PT_LOAD ? add_load(im, &p, out, e) : 0;
        if (rc)
            return rc;
        if (p.p_type == PT_NOTE)
            scan_notes(im, &p, out);
    }
    return 0;
}

/* An entry point given as a virtual address, where the segment holding it is loaded elsewhere. */
static uint64_t entry_paddr(const struct elf *elf, uint64_t entry)
{
    for (unsigned i = 0; i < elf->n; i++)
        if (entry - elf->load[i].paddr < elf->load[i].memsz)
            return entry;
    for (unsigned i = 0; i < elf->n; i++)
        if (entry - elf->load[i].vaddr < elf->load[i].memsz)
            return entry - elf->load[i].vaddr + elf->load[i].paddr;
    return entry;
}

/* Segments that overlap would make loading cost more than RAM has bytes. */
static bool segments_overlap(const struct elf *elf)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < elf->n; i++)
        if (__builtin_add_overflow(sum, elf->load[i].memsz, &sum))
            return true;
    return sum > elf->end - elf->start;
}

int elf_parse(const struct image *im, struct elf *out, struct err *e)
{
    Elf64_Ehdr h;
    *out = (struct elf){0};
    if (im->size < EI_NIDENT || (im->data[EI_CLASS] != ELFCLASS64 && im->data[EI_CLASS] != ELFCLASS32) ||
        !read_header(im, &h))
        return truncated(im, e);
    out->is64 = im->data[EI_CLASS] == ELFCLASS64;
    out->machine = h.e_machine;
    if (im->data[EI_DATA] != ELFDATA2LSB || h.e_machine != (out->is64 ? EM_X86_64 : EM_386))
        return err_set(e, -ENOEXEC,
                       "kernel %s: an ELF file for another architecture (machine %u): give an x86-64 kernel", im->name,
                       h.e_machine);
    if (h.e_type != ET_EXEC && h.e_type != ET_DYN)
        return err_set(e, -ENOEXEC, "kernel %s: an ELF object or core file, not a linked kernel", im->name);
    if (!h.e_phnum || h.e_phnum > PHDRS_MAX || h.e_phentsize < (out->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return err_set(e, -EBADMSG, "kernel %s: corrupt: bad ELF program header table", im->name);
    int rc = walk_phdrs(im, &h, out, e);
    if (!rc && !out->n)
        rc = err_set(e, -ENOEXEC, "kernel %s: nothing in it is to be loaded", im->name);
    if (!rc && segments_overlap(out))
        rc = err_set(e, -EBADMSG, "kernel %s: corrupt: its segments overlap", im->name);
    out->entry = entry_paddr(out, h.e_entry);
    return rc;
}

static int load_one(const struct image *im, const struct elf_load *s, const struct boot_layout *l, gpa_t lowest,
                    struct err *e)
{
    uint8_t *to = ram_hva(l->ram, s->paddr, s->memsz);
    bool low = s->paddr < l->ram->low_size;
    if (s->paddr < lowest)
        return err_set(e, -EFBIG, "kernel %s: it wants to be at %llxh, below %llxh, where boot data lies", im->name,
                       (unsigned long long)s->paddr, (unsigned long long)lowest);
    if (!to || (low && s->paddr + s->memsz > l->top))
        return err_set(e, -EFBIG, "kernel %s: it needs memory up to %llu MiB, -m gives %llu MiB: raise -m", im->name,
                       (unsigned long long)((s->paddr + s->memsz) >> 20) + 1, (unsigned long long)(l->top >> 20));
    memcpy(to, im->data + s->off, s->filesz);
    memset(to + s->filesz, 0, s->memsz - s->filesz);
    return 0;
}

int elf_load(const struct image *im, const struct elf *elf, const struct boot_layout *l, gpa_t lowest, struct err *e)
{
    for (unsigned i = 0; i < elf->n; i++) {
        int rc = load_one(im, &elf->load[i], l, lowest, e);
        if (rc)
            return rc;
    }
    return 0;
}
