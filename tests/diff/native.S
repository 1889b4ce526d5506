/* native_run(test): load the test's registers, jump into its code; native_exit is where it comes out. */
#include "layout.h"
    .text
    .globl native_run, native_exit, native_resume, native_signal
native_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, CTX_RSP
    mov %rdi, %r15
    mov T_RIP(%r15), %rax
    mov %rax, CTX_RIP
    testl $KIND_FP, T_KIND(%r15)
    jz 1f
    fxrstor64 T_FX(%r15)
1:  mov %rax, CTX_FAR
    movw $SEL_UCODE32, CTX_FAR + 4
    testl $KIND_32, T_KIND(%r15)
    jz 2f
    mov $SEL_UDATA, %eax
    mov %eax, %ds
    mov %eax, %es
2:  mov %r15, CTX_TEST /* from here on a signal is the test's */
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
    bt $2, T_KIND(%r15) /* KIND_32; the flags are loaded below */
    jc 3f
    push T_RFLAGS(%r15)
    popfq
    mov T_GPR+32(%r15), %rsp
    mov T_GPR+120(%r15), %r15
    jmp *CTX_RIP
3:  push T_RFLAGS(%r15)
    popfq
    mov T_GPR+32(%r15), %rsp
    ljmpl *CTX_FAR

native_exit:
    mov %r15, CTX_TMP
    mov CTX_TEST, %r15
    mov %rax, T_R_GPR+0(%r15)
    mov %rcx, T_R_GPR+8(%r15)
    mov %rdx, T_R_GPR+16(%r15)
    mov %rbx, T_R_GPR+24(%r15)
    mov %rsp, T_R_GPR+32(%r15)
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
    mov CTX_TMP, %rax
    mov %rax, T_R_GPR+120(%r15)
    mov CTX_RSP, %rsp
    pushfq
    pop T_R_RFLAGS(%r15)
    testl $KIND_FP, T_KIND(%r15)
    jz native_resume
    fxsave64 T_R_FX(%r15)
native_resume: /* also where the signal handler sends us, RSP as CTX_RSP */
    cld
    mov CTX_TEST, %r15
    movq $0, CTX_TEST
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    testl $KIND_FP, T_KIND(%r15)
    jz 1f
    fxrstor64 CTX_CLEAN
1:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

native_signal: /* AC, DF and TF may be as the test left them */
    pushfq
    andl $~0x40500, (%rsp)
    popfq
    jmp native_on_signal
    .section .note.GNU-stack,"",@progbits
