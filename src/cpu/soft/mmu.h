/* Guest memory as an instruction sees it. SDM 3A, "Paging" and "Protected-Mode Memory Management".
 *
 * Three levels, from the fast one down: the TLB probes (inline), accesses by linear address (lin_*), accesses by
 * segment and offset (seg_*, with limit, type and canonical checks). All return false with v->fault set on a fault; a
 * store that faults has changed nothing. Accesses may cross pages and hit MMIO or the local APIC page. Owning vCPU's
 * thread only.
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

/* Bits 63..47 are equal: 48-bit linear addresses (SDM 1, "Canonical Addressing"). */
static inline bool gva_canonical(gva_t gva)
{
    return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

/* A non-canonical address raises #GP(0) from lin_*; whoever knows that the segment was SS makes it #SS(0) with this. No
 * other cause of a lin_* failure has that vector. */
static inline void fault_stack(struct soft_vcpu *v)
{
    if (v->fault.vector == 13)
        v->fault.vector = 12;
}

/* ---- guest RAM through a host pointer: one host access each, unaligned allowed, never reported as a data race (guests
 * race with themselves by right) ---- */
#define GUEST_RACY __attribute__((no_sanitize("thread")))
typedef uint16_t __attribute__((may_alias, aligned(1))) guest_u16;
typedef uint32_t __attribute__((may_alias, aligned(1))) guest_u32;
typedef uint64_t __attribute__((may_alias, aligned(1))) guest_u64;

/* `size` is 1, 2, 4 or 8; the value is zero-extended. */
GUEST_RACY static inline uint64_t guest_ld(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return *(const volatile guest_u16 *)p;
    case 4:
        return *(const volatile guest_u32 *)p;
    default:
        return *(const volatile guest_u64 *)p;
    }
}

GUEST_RACY static inline void guest_st(uint8_t *p, unsigned size, uint64_t val)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)val;
        break;
    case 2:
        *(volatile guest_u16 *)p = (uint16_t)val;
        break;
    case 4:
        *(volatile guest_u32 *)p = (uint32_t)val;
        break;
    default:
        *(volatile guest_u64 *)p = val;
    }
}

/* Bytes that may change meanwhile. */
GUEST_RACY static inline void guest_copy(uint8_t *out, const uint8_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        out[i] = *(const volatile uint8_t *)(from + i);
}

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
/* hva for an access of `size` bytes that a probe missed, if it can have a TLB entry now: then it has one. NULL: it
 * faults, crosses pages, goes to a device or to a page with code, or is watched; v->fault means nothing. */
uint8_t *lin_refill(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc);
/* Probe for a later write of `size` bytes (all pages) without changing anything but A/D bits. */
bool lin_probe_write(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc);
/* hva for an atomic read-modify-write of `size` (1..16) bytes. NULL with *atomic_via_excl set: the operand crosses a
 * cache line (a host may punish split locks, so probe with tlb_write() only if it does not), is MMIO or holds
 * translated code: the caller does it with lin_read + lin_write inside excl_begin()/excl_end(). NULL with it clear:
 * v->fault is set. */
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
/* Value of a general register or memory operand `o` of `in` (zero-extended), and its write-back (a 4-byte register
 * write zero-extends; 1- and 2-byte writes merge). */
bool opnd_get(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t *val);
bool opnd_put(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t val);

/* ---- TLB upkeep; all tolerate a vCPU without one ---- */
/* Give the vCPU its TLB if it has none, and point v->tlb at it. False: out of host memory (CPU_EXIT_ERROR). */
bool tlb_alloc(struct soft_vcpu *v);
void tlb_free(struct soft_vcpu *v); /* trim; the vCPU is not running */
/* The bank the inline probes must use now: mode_update()'s value for v->tlb. While alignment checks (CR0.AM, RFLAGS.AC,
 * CPL 3) or data breakpoints (DR7) are on it is one that never hits, so that every access takes the slow way and is
 * checked: a change of RFLAGS.AC or DR7 calls mode_update() too. */
struct tlb_bank *tlb_select(struct soft_vcpu *v);
void tlb_flush_all(struct soft_vcpu *v);                            /* also the jump cache */
void tlb_flush_nonglobal(struct soft_vcpu *v);                      /* MOV CR3 */
void tlb_flush_page(struct soft_vcpu *v, gva_t gva);                /* INVLPG: global too */
void tlb_drop_write(struct soft_vcpu *v, const uint8_t *host_page); /* one page became a code page; NULL: all */

#endif
