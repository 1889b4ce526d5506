/* The soft-TLB's two levels: filling and finding, for mmu.c. (Upkeep that others may call is in mmu.h.) Owning vCPU's
 * thread only.
 *
 * The first level is what the inline probes see: hva of a page, read and write apart, one bank for supervisor and one
 * for user code. The second holds page and rights of 256 translations for both, so that a conflict in the first costs
 * no walk; its entries say nothing about host memory and need no flush when a page becomes a code page.
 */
#ifndef HEC_CPU_SOFT_TLB_H
#define HEC_CPU_SOFT_TLB_H

#include "cpu/soft/soft.h"

struct walk;

/* Make the probes hit for `gva` if they may: a write only to a dirty page without translated code. */
void tlb_fill(struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, const struct walk *w, uint8_t *host);
/* A known translation that allows the access and needs no A/D bit set, or false: walk. */
bool tlb2_find(const struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, struct walk *w);
void tlb2_fill(struct soft_vcpu *v, gva_t gva, const struct walk *w);

#endif
