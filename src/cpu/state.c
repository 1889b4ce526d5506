#include "cpu/state.h"

#include "x86/cpu.h"

#include <string.h>

#define SIGNATURE_EDX UINT64_C(0x000006f0) /* family 6: what EDX holds after reset and INIT */
#define ATTR_DATA16   (SEGA_P | SEGA_S | SEGA_RW | SEGA_ACCESSED)
#define ATTR_LDT      (SEGA_P | 2u)
#define ATTR_TSS_BUSY (SEGA_P | 11u)
#define PAT_RESET     UINT64_C(0x0007040600070406)
#define MISC_ENABLE   (UINT64_C(1) | UINT64_C(1) << 11 | UINT64_C(1) << 12) /* fast strings; no BTS, no PEBS */

static void reset_segments(struct cpu_state *s)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct cpu_segment){.limit = 0xffff, .attr = ATTR_DATA16};
    s->seg[SEG_CS].sel = 0xf000;
    s->seg[SEG_CS].base = 0xffff0000;
    s->seg[SEG_LDTR] = (struct cpu_segment){.limit = 0xffff, .attr = ATTR_LDT};
    s->seg[SEG_TR] = (struct cpu_segment){.limit = 0xffff, .attr = ATTR_TSS_BUSY};
    s->gdtr = s->idtr = (struct cpu_dtable){.limit = 0xffff};
}

/* What reset and INIT have in common. */
static void reset_core(struct cpu_state *s)
{
    memset(s->gpr, 0, sizeof s->gpr);
    s->gpr[RDX] = SIGNATURE_EDX;
    s->rip = 0xfff0;
    s->rflags = 2;
    reset_segments(s);
    s->cr2 = s->cr3 = s->cr4 = s->efer = 0;
    memset(s->dr, 0, sizeof s->dr);
    s->dr[6] = DR6_FIXED;
    s->dr[7] = DR7_FIXED;
    s->nmi_blocked = 0;
    s->int_shadow = 0;
    s->activity = s->bsp ? CPU_ACTIVE : CPU_WAIT_SIPI;
}

void cpu_state_reset(struct cpu_state *s, bool bsp)
{
    memset(s, 0, sizeof *s);
    s->bsp = bsp;
    reset_core(s);
    s->cr0 = CR0_CD | CR0_NW | CR0_ET;
    s->pat = PAT_RESET;
    s->misc_enable = MISC_ENABLE;
    s->xcr0 = 1;
    s->pv_msr[CPU_PV_POLL] = 1; /* the host may poll */
    s->fx.fcw = 0x0040;
    s->fx.ftw_abridged = 0xff; /* tag word 5555h: eight registers that hold zero */
    s->fx.mxcsr = 0x1f80;
    s->fx.mxcsr_mask = 0xffff;
}

void cpu_state_init(struct cpu_state *s)
{
    uint64_t kept = s->cr0 & (CR0_CD | CR0_NW);
    reset_core(s);
    s->cr0 = kept | CR0_ET;
}

void cpu_state_sipi(struct cpu_state *s, uint8_t page)
{
    struct cpu_segment *cs = &s->seg[SEG_CS];
    cs->sel = (uint16_t)(page << 8);
    cs->base = (uint64_t)page << 12;
    cs->limit = 0xffff;
    s->rip = 0;
    s->activity = CPU_ACTIVE;
}
