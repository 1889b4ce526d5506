/* Put a kernel into guest RAM and say how its first CPU starts.
 *
 * Formats, told apart by content: bzImage (its payload is decompressed here, on the host, and started by PVH; a kernel
 * without a PVH note, or with a compression we don't know, starts by the 64-bit boot protocol and unpacks itself), a
 * bare vmlinux, and Multiboot 1.
 */
#ifndef HEC_BOOT_BOOT_H
#define HEC_BOOT_BOOT_H

#include "base/err.h"
#include "base/types.h"
#include "boot/layout.h"

enum boot_kind { BOOT_PVH, BOOT_LINUX64, BOOT_MULTIBOOT };
enum boot_protocol { BOOT_PROTOCOL_AUTO, BOOT_PROTOCOL_PVH, BOOT_PROTOCOL_LINUX64 };

struct boot_config {
    const struct boot_layout *layout; /* its ACPI area is final: nothing of the kernel or initrd goes there */
    const char *kernel;               /* path */
    const char *initrd;               /* path, NULL: none. Multiboot: "FILE ARGS,FILE ARGS" */
    const char *cmdline;              /* NULL: empty */
    gpa_t rsdp;                       /* 0: none; PVH and Linux are told where it is */
    enum boot_protocol protocol;      /* AUTO prefers PVH; ignored by Multiboot */
};

/* State of the boot CPU, as plain register values. General registers not named here are 0, RFLAGS is 2 (IF = 0),
 * EFER and CR4 are 0 unless long_mode, FPU as after reset, A20 open. DS, ES, SS, FS, GS = data_sel: flat, writable,
 * 4 GiB, 32-bit. CS = code_sel: flat, readable, 4 GiB; 32-bit (D = 1) or, in long mode, 64-bit (L = 1). LDTR null.
 * TR = tss_sel: base 0, limit 67h, busy 32-bit TSS. CR0 = PE, ET, and PG in long mode.
 * Long mode: EFER = LME, LMA; CR4 = PAE; CR3 = cr3, an identity map of the first 4 GiB in 2 MiB pages.
 */
struct boot_entry {
    enum boot_kind kind;
    bool long_mode;
    uint64_t rip, rsp, rax, rbx, rsi;
    gpa_t cr3;
    gpa_t gdt; /* in guest RAM; holds the selectors named here */
    uint16_t gdt_limit, code_sel, data_sel, tss_sel;
    gpa_t kernel_start, kernel_end; /* what the image occupies, bss included */
    gpa_t initrd_start, initrd_end; /* Linux and PVH; 0, 0: none */
};

/* ---- any one thread, before the guest runs (again) ---- */
/* -ENOENT and other -errno of the files, -ENOEXEC (not a kernel we can start), -EBADMSG (truncated or corrupt), -EFBIG
 * (doesn't fit, or the command line is too long), -ENOMEM. `e` gets one line: the file, what is wrong, the remedy. RAM
 * is undefined after a failure. May be called again (a reset loads afresh). */
int boot_load(const struct boot_config *c, struct boot_entry *out, struct err *e);
/* The same for an image already in memory (c->kernel only names it). Never writes to `image`. */
int boot_load_image(const struct boot_config *c, const uint8_t *image, uint64_t size, struct boot_entry *out,
                    struct err *e);

#endif
