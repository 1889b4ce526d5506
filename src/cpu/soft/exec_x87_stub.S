/* The x87 instructions themselves, one a slot of four bytes, to be called while the host FPU holds the guest's registers.
 *
 *   x87_reg_stubs[opcode - D8h][modrm - C0h]    void slot(void)
 *   x87_mem_stubs[opcode - D8h][modrm.reg]      void slot(void *operand)
 *
 * Every encoding is here; exec_x87.c calls only those its tables name (never one that loads the control word or the
 * environment, and never a reserved one).
 */
	.text
	.balign 16
	.globl x87_reg_stubs
	.hidden x87_reg_stubs
x87_reg_stubs:
	.set op, 0xd8
	.rept 8
	.set modrm, 0xc0
	.rept 64
	.byte op, modrm
	ret
	nop
	.set modrm, modrm + 1
	.endr
	.set op, op + 1
	.endr

	.globl x87_mem_stubs
	.hidden x87_mem_stubs
x87_mem_stubs:
	.set op, 0xd8
	.rept 8
	.set modrm, 0x07 /* (%rdi) */
	.rept 8
	.byte op, modrm
	ret
	nop
	.set modrm, modrm + 8
	.endr
	.set op, op + 1
	.endr

/* uint32_t x87_call_flags(void (*slot)(void), uint32_t flags): with SF, ZF, AF, PF, CF of `flags` going in (FCMOVcc), and
 * what they became coming out (FCOMI). */
	.balign 16
	.globl x87_call_flags
	.hidden x87_call_flags
	.type x87_call_flags, @function
x87_call_flags:
	movl %esi, %eax
	movb %al, %ah
	sahf
	call *%rdi
	lahf
	movzbl %ah, %eax
	ret

/* void x87_call_unmasked(void (*slot)(void *), void *operand, const uint16_t *fcw, uint32_t flags, struct x87_env *out):
 * with all arithmetic flags of `flags`, under a control word with unmasked exceptions. The slot is the only waiting instruction in between, and FNSTENV masks
 * everything before the next one, so an exception becomes ES in out->fsw and never #MF. */
	.balign 16
	.globl x87_call_unmasked
	.hidden x87_call_unmasked
	.type x87_call_unmasked, @function
x87_call_unmasked:
	pushq %rbx
	movq %r8, %rbx
	movq %rdi, %r9
	movq %rsi, %rdi
	fldcw (%rdx)
	movl %ecx, %ecx
	pushq %rcx
	popfq
	call *%r9
	pushfq
	fnstenv (%rbx)
	popq %rax
	popq %rbx
	ret

	.section .note.GNU-stack, "", @progbits
