/* The guest's kernel: runs the tests from VAR_CUR to VAR_END at CPL 3, and takes their exceptions. A blob: copied to
 * G_KERNEL, seen at KERNEL_VA + G_KERNEL; uses absolute data addresses and relative jumps only. */
#include "layout.h"
    .section .rodata
    .globl guest_blob, guest_blob_end, guest_vectors
    .balign 16
guest_blob: /* entry: CPL 0, interrupts off */
next:
    mov VAR_CUR, %r15
    cmp VAR_END, %r15
    je done
    lea T_DATA(%r15), %rsi
    mov $WINDOW_VA, %edi
    mov $WINDOW_LEN / 8, %ecx
    rep movsq
    mov $TAIL_VA, %edi
    mov $TAIL_LEN / 8, %ecx
    rep movsq
    testl $KIND_FP, T_KIND(%r15)
    jz 1f
    fxrstor64 T_FX(%r15)
1:  mov $KERNEL_VA + G_STACK, %rsp
    push $SEL_UDATA
    push T_GPR+32(%r15)
    push T_RFLAGS(%r15)
    mov $SEL_UCODE, %ecx
    xor %eax, %eax
    testl $KIND_32, T_KIND(%r15)
    jz 2f
    mov $SEL_UCODE32, %ecx
    mov $SEL_UDATA, %eax
2:  mov %eax, %ds
    mov %eax, %es
    push %rcx
    push T_RIP(%r15)
    mov T_GPR+0(%r15), %rax
    mov T_GPR+8(%r15), %rcx
    mov T_GPR+16(%r15), %rdx
    mov T_GPR+24(%r15), %rbx
    mov T_GPR+40(%r15), %rbp
    mov T_GPR+48(%r15), %rsi
    mov T_GPR+56(%r15), %rdi
    mov T_GPR+64(%r15), %r8
    mov T_GPR+72(%r15), %r9
    mov T_GPR+80(%r15), %r10
    mov T_GPR+88(%r15), %r11
    mov T_GPR+96(%r15), %r12
    mov T_GPR+104(%r15), %r13
    mov T_GPR+112(%r15), %r14
    mov T_GPR+120(%r15), %r15
    iretq
done:
    hlt
    jmp done

common: /* stack: vector, error, RIP, CS, RFLAGS, RSP, SS */
    push %r15
    mov VAR_CUR, %r15
    mov %rax, T_R_GPR+0(%r15)
    mov %rcx, T_R_GPR+8(%r15)
    mov %rdx, T_R_GPR+16(%r15)
    mov %rbx, T_R_GPR+24(%r15)
    mov %rbp, T_R_GPR+40(%r15)
    mov %rsi, T_R_GPR+48(%r15)
    mov %rdi, T_R_GPR+56(%r15)
    mov %r8, T_R_GPR+64(%r15)
    mov %r9, T_R_GPR+72(%r15)
    mov %r10, T_R_GPR+80(%r15)
    mov %r11, T_R_GPR+88(%r15)
    mov %r12, T_R_GPR+96(%r15)
    mov %r13, T_R_GPR+104(%r15)
    mov %r14, T_R_GPR+112(%r15)
    pop T_R_GPR+120(%r15)
    pop T_R_VEC(%r15)
    pop T_R_ERR(%r15)
    pop T_R_RIP(%r15)
    pop %rax
    pop T_R_RFLAGS(%r15)
    pop T_R_GPR+32(%r15)
    mov %cr2, %rax
    mov %rax, T_R_CR2(%r15)
    testl $KIND_FP, T_KIND(%r15)
    jz 1f
    fxsave64 T_R_FX(%r15)
1:  cld
    lea T_R_DATA(%r15), %rdi
    mov $WINDOW_VA, %esi
    mov $WINDOW_LEN / 8, %ecx
    rep movsq
    mov $TAIL_VA, %esi
    mov $TAIL_LEN / 8, %ecx
    rep movsq
    addq $T_SIZE, VAR_CUR
    jmp next

    .balign 16
guest_vectors: /* 32 stubs, 16 bytes each */
    .set n, 0
    .rept 32
    .balign 16
    .if n == 8 || n == 10 || n == 11 || n == 12 || n == 13 || n == 14 || n == 17
    .else
    push $0
    .endif
    push $n
    jmp common
    .set n, n + 1
    .endr
guest_blob_end:
    .section .note.GNU-stack,"",@progbits
