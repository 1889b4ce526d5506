/* Entry by Multiboot 1, the APs' trampoline, and the interrupt stubs. 32-bit, flat, no paging. */
    .set AP_PAGE, 0x8000
    .set STACK_SHIFT, 9             /* 512 bytes a CPU; the stack's place tells the CPU */

#include "../return.h"

    .section .multiboot, "a"
    .long 0x1badb002, 0, -0x1badb002

    .text
    .globl _start
_start:
    movl $boot_stack_top, %esp
    lgdt gdt_ptr
    ljmp $8, $1f
1:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $ap_start, %esi
    movl $AP_PAGE, %edi
    movl $(ap_end - ap_start), %ecx
    rep movsb
    call bsp_main
2:  cli
    hlt
    jmp 2b

/* Copied to AP_PAGE; the SIPI's page number leads here. */
    .code16
ap_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl AP_PAGE + (ap_gdt_ptr - ap_start)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $ap_32
ap_gdt_ptr:
    .word gdt_end - gdt - 1
    .long gdt
ap_end:

    .code32
ap_32:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %eax
    lock xaddl %eax, next_cpu
    incl %eax
    shll $STACK_SHIFT, %eax
    addl $stacks, %eax
    movl %eax, %esp
    call ap_main
3:  sti
    hlt
    jmp 3b

/* One 16-byte stub a vector: push the vector, then the common part. */
    .globl stub_table
    .data
    .align 4
stub_table:
    .set i, 0
    .rept 256
    .long stubs + i * 16
    .set i, i + 1
    .endr

    .text
    .align 16
stubs:
    .set i, 0
    .rept 256
    .align 16
    pushl $i
    jmp common
    .set i, i + 1
    .endr

common:
    pusha
    movl 32(%esp), %eax
    pushl %eax
    cld
    call on_vector
    addl $4, %esp
    popa
    addl $4, %esp
    INTERRUPT_RETURN

    .data
    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_end:
gdt_ptr:
    .word gdt_end - gdt - 1
    .long gdt

    .bss
    .align 16
    .skip 4096
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
