/* Addresses and offsets shared by the C and the assembly of the native oracle. See oracle.h. */
#ifndef DIFF_LAYOUT_H
#define DIFF_LAYOUT_H

/* Where a test sees its memory, natively and in the guest alike. All below 2 GiB, so that any addressing form reaches
 * it, and far from the harness. */
#define DATA_VA 0x10000000 /* DATA_PAGES pages; what lies around is not mapped */
#define CODE_VA 0x20000000
#define CTX_VA  0x30000000 /* native only: the harness's own words */
#define KERNEL_VA                                                                                                      \
    0xffffffff80000000 /* guest only: supervisor view of guest RAM; where no test can point it by chance */

#define DATA_PAGES 4
#define WINDOW_VA  0x10001f00 /* the bytes that are initialised and compared: around a page boundary ... */
#define WINDOW_LEN 512
#define TAIL_VA    0x10003fc0 /* ... and the last bytes before the hole */
#define TAIL_LEN   64
#define GS_BASE    0x12340

#define SLOT     128 /* bytes of code a test */
#define BATCH    256
#define CODE_LEN 0x400000
/* Bytes of one test's instructions; from a slot's end they reach no further than the next one's middle. */
#define CODE_MAX 58

/* struct test */
#define T_GPR      0
#define T_RFLAGS   128
#define T_RIP      136
#define T_KIND     144
#define T_R_GPR    160
#define T_R_RFLAGS 288
#define T_R_RIP    296
#define T_R_VEC    304
#define T_R_ERR    312
#define T_R_CR2    320
#define T_DATA     336
#define T_R_DATA   912
#define T_FX       1488
#define T_R_FX     2000
#define T_SIZE     2688

#define KIND_FP   1 /* FXSAVE state is loaded and compared */
#define KIND_32   4 /* 32-bit code: compatibility mode on both sides */
#define KIND_INT3 2 /* natively, too, the test ends in INT3 (it jumps, or changes TF or AC) */

/* native context page */
#define CTX_RSP   (CTX_VA + 0)
#define CTX_TEST  (CTX_VA + 8)
#define CTX_RIP   (CTX_VA + 16)
#define CTX_EXIT  (CTX_VA + 24)
#define CTX_TMP   (CTX_VA + 32)
#define CTX_FAR   (CTX_VA + 40) /* EIP and selector of 32-bit code */
#define CTX_RUN   (CTX_VA + 48) /* tests so far */
#define CTX_BACK  (CTX_VA + 64) /* where 32-bit code jumps to, 64-bit code */
#define CTX_CLEAN (CTX_VA + 512)

/* guest-physical */
#define G_GDT    0x8000
#define G_IDT    0x9000
#define G_TSS    0xa000
#define G_STACK  0xc000
#define G_KERNEL 0x10000
#define G_VARS   0x20000
#define G_TESTS  0x100000
#define G_CODE   0x400000
#define G_RAM    0x1000000

#define VAR_CUR (KERNEL_VA + G_VARS)
#define VAR_END (KERNEL_VA + G_VARS + 8)

#define SEL_KCODE   0x08
#define SEL_KDATA   0x10
#define SEL_UDATA   0x2b /* as Linux has them, for MOV from a segment register */
#define SEL_UCODE   0x33
#define SEL_UCODE32 0x23
#define SEL_TSS     0x40

#define VEC_END_RIP 1 /* INT3 leaves RIP one past itself */

#endif
