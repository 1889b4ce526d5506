/* The page walk. SDM 3A, "Paging": 32-bit (with PSE, without PSE-36), PAE and 4-level. Owning vCPU's thread only.
 *
 * A walk sets accessed and dirty bits with compare-and-exchange in guest RAM, only after the whole walk succeeded, and
 * starts again when an entry has changed under it. Paging structures outside RAM read as all ones.
 */
#ifndef HEC_CPU_SOFT_WALK_H
#define HEC_CPU_SOFT_WALK_H

#include "cpu/soft/soft.h"

/* Rights of a translation, all levels combined; they fit below bit 12, beside a page address. */
enum walk_right {
    WALK_W = 1u << 0,    /* R/W set at every level */
    WALK_U = 1u << 1,    /* U/S set at every level */
    WALK_NX = 1u << 2,   /* XD set at some level */
    WALK_D = 1u << 3,    /* the leaf is dirty */
    WALK_G = 1u << 4,    /* the leaf is global, with CR4.PGE */
    WALK_LARGE = 1u << 5 /* the leaf maps more than 4 KiB */
};

struct walk {
    gpa_t page;      /* of the 4 KiB page, whatever the leaf's size */
    uint32_t rights; /* enum walk_right */
};

/* Whether `rights` allow the access (ACC_READ, ACC_WRITE or ACC_EXEC) under the present CR0.WP and CR4.SMEP. */
bool walk_allows(const struct soft_vcpu *v, uint32_t rights, unsigned acc, bool user);
/* Translate `gva` with CR0.PG set. False: `error` is the page fault's error code (SDM 3A, "Page-Fault Exceptions"). */
bool walk_page(struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, struct walk *out, uint32_t *error);
/* Whether the four PDPTEs at `cr3` may be loaded: no reserved bit in a present one (SDM 3A, "PDPTE Registers"). */
bool walk_pdptes_valid(const struct soft_vcpu *v, uint64_t cr3);
/* Bits MAXPHYADDR-1..0. */
uint64_t walk_phys_mask(const struct soft_vcpu *v);

#endif
