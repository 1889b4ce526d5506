/* Multiboot 1 payload: header, entry, exception stubs. 32-bit, no paging, flat segments. */
#include "return.h"

    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .globl _start
_start:
    movl %eax, entry_eax
    movl %ebx, entry_ebx
    movl $stack_top, %esp
    pushfl
    popl entry_eflags
    movl %cr0, %eax
    movl %eax, entry_cr0
    cld
    lgdt gdtr
    ljmp $8, $1f
1:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    call payload
2:  cli
    hlt
    jmp 2b

/* int try(uint32_t msr, uint32_t lo, uint32_t hi): WRMSR; 1 if it took #GP. */
    .globl wrmsr_faults
wrmsr_faults:
    movl 4(%esp), %ecx
    movl 8(%esp), %eax
    movl 12(%esp), %edx
    movl $1f, fixup
    wrmsr
    movl $0, fixup
    xorl %eax, %eax
    ret
1:  movl $1, %eax
    ret

    .globl gp_entry
gp_entry:
    addl $4, %esp
    pushl %eax
    movl fixup, %eax
    movl %eax, 4(%esp)
    movl $0, fixup
    popl %eax
    INTERRUPT_RETURN

    .globl irq_entry
irq_entry:
    pushal
    cld
    call on_irq
    popal
    INTERRUPT_RETURN

    .globl pit_entry
pit_entry:
    incl pit_count
    pushl %eax
    movb $0x20, %al
    outb %al, $0x20
    popl %eax
    INTERRUPT_RETURN

    .globl bad_entry
bad_entry:
    movl $99, %eax
    outb %al, $0xf4
    jmp bad_entry

/* Copied to page 0: what the other CPUs run, in real mode. */
    .code16
    .globl ap_start, ap_end
ap_start:
    movw $0x1b, %cx
    movzwl %cx, %ecx
    rdmsr
    testw $0x400, %ax
    jz 1f
    lock incl %cs:0x804
1:  lock incl %cs:0x800
2:  cli
    hlt
    jmp 2b
ap_end:
    .code32

    .data
    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
    .word gdtr - gdt - 1
    .long gdt
    .globl entry_eax, entry_ebx, entry_eflags, entry_cr0, fixup, pit_count
entry_eax:    .long 0
entry_ebx:    .long 0
entry_eflags: .long 0
entry_cr0:    .long 0
fixup:        .long 0
pit_count:    .long 0

    .bss
    .align 16
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
