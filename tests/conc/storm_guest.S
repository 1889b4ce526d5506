/* The guest of test_soft_storm.c: see there. Loaded at STORM_BASE; every vCPU enters at its first byte, in real mode, and
 * goes on in protected mode; or, assembled by storm_guest64.S, in 64-bit mode. */
#include "storm_guest.h"

#ifdef STORM_64
#define NAME(n) n##64
#define R(x)    %r##x /* in an address */
#else
#define NAME(n) n
#define R(x)    %e##x
#endif
#define AT(label) (STORM_BASE + (label) - NAME(storm_guest))

    .section .rodata
    .globl NAME(storm_guest), NAME(storm_ipi), NAME(storm_guest_end)
    .balign 16
NAME(storm_guest):
    .code16
    cli
    lgdtl %cs:(gdtr - NAME(storm_guest))
#ifdef STORM_64
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov $STORM_PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER.LME */
    xor %edx, %edx
    mov $0x100, %eax
    wrmsr
    mov $0x80000011, %eax
    mov %eax, %cr0
    ljmpl $8, $AT(start)
    .code64
#else
    mov $0x11, %eax
    mov %eax, %cr0
    ljmpl $8, $AT(start)
    .code32
#endif
start:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0xb, %eax
    xor %ecx, %ecx
    cpuid
    xor %edi, %edi
1:  cmp %edx, STORM_IDS(, R(di), 4)
    je 2f
    inc %edi
    jmp 1b
2:  mov %edi, %ebp              /* edi: vCPU index, ebp: its line; both for good */
    shl $6, %ebp
    add $STORM_LINES, %ebp
    lea 1(R(di)), %esp
    shl $12, %esp
    add $STORM_STACKS, %esp
    lidt AT(idtr)
    mov $0x1b, %ecx             /* x2APIC mode */
    rdmsr
    or $0xc00, %eax
    wrmsr
    mov $0x80f, %ecx            /* software-enabled */
    mov $0x1ff, %eax
    xor %edx, %edx
    wrmsr
    cmp $STORM_VICTIM, %edi
    je victim
    test %edi, %edi
    jnz 3f
    mov $0x830, %ecx            /* the boot CPU starts the others */
    mov $0xc4500, %eax
    wrmsr
    mov $(0xc4600 | STORM_BASE >> 12), %eax
    wrmsr
3:  sti
    cmp $STORM_RESTARTER, %edi
    je restarter

    lock incl STORM_READY
4:  pause
    cmpl $STORM_RING, STORM_READY
    jne 4b
    mov $STORM_ROUNDS, %esi
round:
    mov $1, %eax
    lock xadd %eax, STORM_XADD
    mov STORM_CMPXCHG, %eax
1:  lea 1(R(ax)), %edx
    lock cmpxchg %edx, STORM_CMPXCHG
    jnz 1b
    mov $1, %eax
    lock xadd %eax, STORM_SPLIT_LINE
    lock incl STORM_SPLIT_PAGE
    lock incl STORM_BESIDE_CODE
    lea 1(R(di)), %ebx           /* ebx: the next in the ring */
    cmp $STORM_RING, %ebx
    jne 2f
    xor %ebx, %ebx
2:  mov STORM_SENT(R(bp)), %eax
    inc %eax
    mov %eax, STORM_SENT(R(bp))
    mov STORM_IDS(, R(bx), 4), %edx
    shl $6, %ebx
    mov %eax, STORM_FUNCS + STORM_IMM(R(bx))
    mov $0x830, %ecx
    mov $(0x4000 | STORM_VECTOR), %eax
    wrmsr
3:  mov STORM_LINES + STORM_RECEIVED(R(bx)), %eax
    cmp STORM_SENT(R(bp)), %eax
    je 4f
    pause
    jmp 3b
4:  test $31, %esi
    jnz 5f
    test %edi, %edi
    jnz 5f
    out %al, $STORM_PORT_PROGRESS
5:  dec %esi
    jnz round

finish:
    mov $1, %eax
    lock xadd %eax, STORM_FINISHED
    cmp $STORM_RING, %eax       /* the ring and the restarter */
    jne 1f
    out %al, $STORM_PORT_DONE
1:  hlt
    jmp 1b

restarter:
    mov $1, %esi
1:  pause
    cmp %esi, STORM_RESTARTS
    jne 1b
    cmp $STORM_STARTS, %esi
    je finish
    inc %esi
    mov $0x830, %ecx
    mov STORM_IDS + STORM_VICTIM * 4, %edx
    mov $0x4500, %eax
    wrmsr
    mov $(0x4600 | STORM_BASE >> 12), %eax
    wrmsr
    jmp 1b

victim:
    lock incl STORM_RESTARTS
1:  lock incl STORM_NOISE
    jmp 1b

/* What the sender wrote into this vCPU's function before the interrupt must be what runs after it. */
NAME(storm_ipi):
#ifdef STORM_64
    push %rax
    push %rcx
    push %rdx
    push %rbx
#else
    pushal
#endif
    mov %edi, %edx
    shl $6, %edx
    add $(STORM_FUNCS + STORM_ENTRY), %edx
    call *R(dx)
    mov STORM_RECEIVED(R(bp)), %ebx
    inc %ebx
    cmp %ebx, %eax
    je 1f
    lock incl STORM_STALE
1:  mov $0x80b, %ecx
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    mov %ebx, STORM_RECEIVED(R(bp))
#ifdef STORM_64
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    iretq
#else
    popal
    iret
#endif

    .balign 8
gdt:
#ifdef STORM_64
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
#else
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
#endif
gdtr:
    .word 23
    .long AT(gdt)
idtr:
    .word STORM_VECTOR * 16 + 15
    .quad STORM_IDT             /* 32 bits of it in 32-bit code */
NAME(storm_guest_end):

    .section .note.GNU-stack, "", @progbits
