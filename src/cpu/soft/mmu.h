/* Guest memory as an instruction sees it. SDM 3A, "Paging" and "Protected-Mode Memory Management".
 *
 * Three levels, from the fast one down: the TLB probes (inline), accesses by linear address (lin_*), accesses by segment
 * and offset (seg_*, with limit, type and canonical checks). All return false with v->fault set on a fault; a store that
 * faults has changed nothing. Accesses may cross pages and hit MMIO or the local APIC page. Owning vCPU's thread only.
 */
#ifndef HEC_CPU_SOFT_MMU_H
#define HEC_CPU_SOFT_MMU_H

#include "cpu/soft/soft.h"

enum access {
    ACC_READ = 0,
    ACC_WRITE = 1,
    ACC_EXEC = 2,
    ACC_SUPER = 4 /* implicit supervisor access: descriptor tables, TSS; whatever the CPL */
};

/* ---- TLB probes: hva of [gva, gva+size) within one page, or NULL (go the slow way) ---- */
static inline uint8_t *tlb_read(struct soft_vcpu *v, gva_t gva, unsigned size)
{
    const struct tlb_entry *e = &v->tlb->r[gva >> 12 & (TLB_SIZE - 1)];
    uint64_t off = gva ^ e->tag;
    return likely(off <= 4096 - size) ? e->host + off : NULL;
}

static inline uint8_t *tlb_write(struct soft_vcpu *v, gva_t gva, unsigned size)
{
    const struct tlb_entry *e = &v->tlb->w[gva >> 12 & (TLB_SIZE - 1)];
    uint64_t off = gva ^ e->tag;
    return likely(off <= 4096 - size) ? e->host + off : NULL;
}

/* ---- by linear address; access rights are those of the current CPL unless `acc` has ACC_SUPER ---- */
bool lin_read(struct soft_vcpu *v, gva_t gva, void *buf, unsigned size, unsigned acc);
bool lin_write(struct soft_vcpu *v, gva_t gva, const void *buf, unsigned size, unsigned acc);
/* The slow half of an aligned-or-not 1/2/4/8-byte access after a TLB probe missed. The value is zero-extended. */
bool lin_load_slow(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t *val);
bool lin_store_slow(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t val);
/* Probe for a later write of `size` bytes (all pages) without changing anything but A/D bits. */
bool lin_probe_write(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc);
/* hva for an atomic read-modify-write of `size` (1..16) bytes. NULL with *atomic_via_excl set: the operand crosses a page,
 * is MMIO or holds translated code: the caller does it with lin_read + lin_write inside excl_begin()/excl_end(). NULL
 * with it clear: v->fault is set. */
uint8_t *lin_atomic(struct soft_vcpu *v, gva_t gva, unsigned size, bool *atomic_via_excl);
/* Translate for an instruction fetch: the gpa of `gva`, filling nothing but A bits. */
bool lin_fetch(struct soft_vcpu *v, gva_t gva, gpa_t *gpa);

/* ---- by segment and offset ---- */
/* Linear address of [off, off+size) in `seg` after limit, type, null and canonical checks (#GP(0), or #SS(0) for SS).
 * `acc` is ACC_READ, ACC_WRITE or ACC_EXEC. */
bool seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc, gva_t *gva);
bool seg_read(struct soft_vcpu *v, unsigned seg, uint64_t off, void *buf, unsigned size);
bool seg_write(struct soft_vcpu *v, unsigned seg, uint64_t off, const void *buf, unsigned size);

/* ---- an instruction's memory operand ---- */
/* Offset within in->seg, wrapped to the address size. v->next_rip must be right (RIP-relative). */
uint64_t insn_offset(const struct soft_vcpu *v, const struct insn *in);
bool opnd_linear(struct soft_vcpu *v, const struct insn *in, unsigned size, unsigned acc, gva_t *gva);
bool opnd_read(struct soft_vcpu *v, const struct insn *in, void *buf, unsigned size);
bool opnd_write(struct soft_vcpu *v, const struct insn *in, const void *buf, unsigned size);
/* Value of a general register or memory operand `o` of `in` (zero-extended), and its write-back (a 4-byte register write
 * zero-extends; 1- and 2-byte writes merge). */
bool opnd_get(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t *val);
bool opnd_put(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t val);

/* ---- TLB upkeep ---- */
void tlb_flush_all(struct soft_vcpu *v);         /* also the jump cache */
void tlb_flush_nonglobal(struct soft_vcpu *v);   /* MOV CR3 */
void tlb_flush_page(struct soft_vcpu *v, gva_t gva); /* INVLPG: global too */
void tlb_drop_write(struct soft_vcpu *v, const uint8_t *host_page); /* one page became a code page; NULL: all */

#endif
