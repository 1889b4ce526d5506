/* The stubs of sse_ops.def: load two register images, run the instruction itself on them, store the result.
 *
 * The encodings are fixed here and nowhere else, so nothing a guest writes chooses what the host executes.
 *   X, M    void stub(void *dst, const void *src)
 *   XI, MI  void stub(void *dst, const void *src, unsigned imm8): one copy of the instruction for each immediate
 *   X0      void stub(void *dst, const void *src, const void *xmm0)
 * An MMX stub leaves its two registers in the host's tag word: the caller owes an EMMS (fpu.h, X87_SCRATCH).
 */

.macro sse_insn m, p, o, modrm
	.if \p == 1
	.byte 0x66
	.endif
	.if \p == 2
	.byte 0xf3
	.endif
	.if \p == 3
	.byte 0xf2
	.endif
	.byte 0x0f
	.if \m == 2
	.byte 0x38
	.endif
	.if \m == 3
	.byte 0x3a
	.endif
	.byte 0x\o, \modrm
.endm

.macro func name
	.balign 16
	.globl \name
	.hidden \name
	.type \name, @function
\name:
.endm

/* The immediate selects one of 256 copies of `insn imm8; ret`, 8 bytes apart, that follow. */
.macro call_copy
	movzbl %dl, %edx
	leaq 1f(%rip), %rax
	leaq (%rax,%rdx,8), %rax
	call *%rax
.endm

.macro copies m, p, o
	.balign 8
1:
	.set imm, 0
	.rept 256
	sse_insn \m, \p, \o, 0xc1
	.byte imm
	ret
	.balign 8
	.set imm, imm + 1
	.endr
.endm

.macro stub_x m, p, o
func sse_stub_\m\()_\p\()_\o
	movups (%rdi), %xmm0
	movups (%rsi), %xmm1
	sse_insn \m, \p, \o, 0xc1
	movups %xmm0, (%rdi)
	ret
.endm

.macro stub_x0 m, p, o
func sse_stub_\m\()_\p\()_\o
	movups (%rdi), %xmm2
	movups (%rsi), %xmm1
	movups (%rdx), %xmm0
	sse_insn \m, \p, \o, 0xd1
	movups %xmm2, (%rdi)
	ret
.endm

.macro stub_xi m, p, o
func sse_stub_\m\()_\p\()_\o
	movups (%rdi), %xmm0
	movups (%rsi), %xmm1
	call_copy
	movups %xmm0, (%rdi)
	ret
copies \m, \p, \o
.endm

.macro stub_m m, o
func sse_stub_\m\()_0_\o
	movq (%rdi), %mm0
	movq (%rsi), %mm1
	sse_insn \m, 0, \o, 0xc1
	movq %mm0, (%rdi)
	ret
.endm

.macro stub_mi m, o
func sse_stub_\m\()_0_\o
	movq (%rdi), %mm0
	movq (%rsi), %mm1
	call_copy
	movq %mm0, (%rdi)
	ret
copies \m, 0, \o
.endm

	.text
#define X(m, p, o, n, fl, ft)  stub_x m, p, o;
#define X0(m, p, o, n, fl, ft) stub_x0 m, p, o;
#define XI(m, p, o, n, fl, ft) stub_xi m, p, o;
#define M(m, o, n, ft)         stub_m m, o;
#define MI(m, o, n, ft)        stub_mi m, o;
#include "cpu/soft/sse_ops.def"

/* uint32_t sse_comis{s,d}(const void *a, const void *b, unordered): SF, ZF, AF, PF, CF as LAHF has them. */
.macro compare name, insn
func \name
	movups (%rdi), %xmm0
	movups (%rsi), %xmm1
	\insn %xmm1, %xmm0
	lahf
	movzbl %ah, %eax
	ret
.endm
compare sse_comiss, comiss
compare sse_ucomiss, ucomiss
compare sse_comisd, comisd
compare sse_ucomisd, ucomisd
compare sse_ptest, ptest

/* uint64_t sse_cvt...2si...(const void *src): a 32-bit result is zero-extended. */
.macro to_int name, insn, reg
func \name
	movups (%rdi), %xmm1
	\insn %xmm1, %\reg
	ret
.endm
to_int sse_cvtss2si32, cvtss2si, eax
to_int sse_cvtss2si64, cvtss2si, rax
to_int sse_cvtsd2si32, cvtsd2si, eax
to_int sse_cvtsd2si64, cvtsd2si, rax
to_int sse_cvttss2si32, cvttss2si, eax
to_int sse_cvttss2si64, cvttss2si, rax
to_int sse_cvttsd2si32, cvttsd2si, eax
to_int sse_cvttsd2si64, cvttsd2si, rax

/* void sse_cvtsi2...(void *dst, uint64_t val) */
.macro from_int name, insn, reg
func \name
	movups (%rdi), %xmm0
	\insn %\reg, %xmm0
	movups %xmm0, (%rdi)
	ret
.endm
from_int sse_cvtsi2ss32, cvtsi2ssl, esi
from_int sse_cvtsi2ss64, cvtsi2ssq, rsi
from_int sse_cvtsi2sd32, cvtsi2sdl, esi
from_int sse_cvtsi2sd64, cvtsi2sdq, rsi

/* void stub(void *mm, const void *xmm); leaves the host's MMX registers in use, as the M stubs do. */
.macro to_mmx name, insn
func \name
	movups (%rsi), %xmm1
	\insn %xmm1, %mm0
	movq %mm0, (%rdi)
	ret
.endm
to_mmx sse_cvtps2pi, cvtps2pi
to_mmx sse_cvtpd2pi, cvtpd2pi
to_mmx sse_cvttps2pi, cvttps2pi
to_mmx sse_cvttpd2pi, cvttpd2pi

/* void sse_pcmpXstrY(struct sse_strcmp *s, const void *src, unsigned imm8): registers in and out through *s. */
.macro string_compare name, op
func \name
	pushq %rbx
	movq %rdi, %rbx
	movups (%rbx), %xmm0
	movups (%rsi), %xmm1
	leaq 1f(%rip), %rsi
	movzbl %dl, %edx
	leaq (%rsi,%rdx,8), %rsi
	movq 16(%rbx), %rax
	movq 24(%rbx), %rdx
	call *%rsi
	pushfq
	popq %rax
	movups %xmm0, (%rbx)
	movq %rcx, 16(%rbx)
	movq %rax, 24(%rbx)
	popq %rbx
	ret
	.balign 8
1:
	.set imm, 0
	.rept 256
	.byte 0x66
	.if \op < 0x62
	.byte 0x48
	.endif
	.byte 0x0f, 0x3a, \op, 0xc1, imm
	ret
	.balign 8
	.set imm, imm + 1
	.endr
.endm
string_compare sse_pcmpestrm, 0x60
string_compare sse_pcmpestri, 0x61
string_compare sse_pcmpistrm, 0x62
string_compare sse_pcmpistri, 0x63

	.section .note.GNU-stack, "", @progbits
