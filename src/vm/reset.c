#include "vm/reset.h"

#include "base/bits.h"
#include "x86/cpu.h"

#define ATTR_CODE (SEGA_ACCESSED | SEGA_RW | SEGA_CODE | SEGA_S | SEGA_P | SEGA_G)
#define ATTR_DATA (SEGA_ACCESSED | SEGA_RW | SEGA_S | SEGA_P | SEGA_DB | SEGA_G)
#define ATTR_TSS  (0xbu | SEGA_P) /* busy 32-bit TSS; a 64-bit one has the same type */

static struct cpu_segment flat(uint16_t sel, uint32_t attr)
{
    return (struct cpu_segment){.sel = sel, .limit = UINT32_MAX, .attr = attr};
}

static void set_segments(const struct boot_entry *b, struct cpu_state *s)
{
    static const uint8_t data[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < sizeof data; i++)
        s->seg[data[i]] = flat(b->data_sel, ATTR_DATA);
    s->seg[SEG_CS] = flat(b->code_sel, ATTR_CODE | (b->long_mode ? SEGA_L : SEGA_DB));
    s->seg[SEG_TR] = (struct cpu_segment){.sel = b->tss_sel, .limit = 0x67, .attr = ATTR_TSS};
    s->seg[SEG_LDTR] = (struct cpu_segment){.attr = SEGA_UNUSABLE | 2};
    s->gdtr = (struct cpu_dtable){.base = b->gdt, .limit = b->gdt_limit};
    s->idtr = (struct cpu_dtable){.limit = 0};
}

void reset_boot_cpu(const struct boot_entry *b, struct cpu_state *s)
{
    cpu_state_reset(s, true);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = 0;
    s->gpr[RAX] = b->rax;
    s->gpr[RBX] = b->rbx;
    s->gpr[RSI] = b->rsi;
    s->gpr[RSP] = b->rsp;
    s->rip = b->rip;
    s->rflags = 2;
    s->cr0 = CR0_PE | CR0_ET;
    set_segments(b, s);
    if (b->long_mode) {
        s->cr0 |= CR0_PG;
        s->cr3 = b->cr3;
        s->cr4 = CR4_PAE;
        s->efer = EFER_LME | EFER_LMA;
    }
}

/* SDM 3A, "MTRR Feature Identification" and "Setting Memory Ranges": fixed ranges A0000h-BFFFFh uncached, the rest of
 * the first MiB and the default write-back. */
void reset_firmware_msrs(struct cpu_state *s)
{
    enum { WB = 6, FIXED_ENABLE = 1 << 10, ENABLE = 1 << 11 };
    s->mtrr_def_type = WB | FIXED_ENABLE | ENABLE;
    for (unsigned i = 0; i < 11; i++)
        s->mtrr_fixed[i] = i == 2 ? 0 : UINT64_C(0x0606060606060606);
    s->feat_ctl = 1;
}

static const struct {
    uint32_t off, val;
} wire[] = {{0xf0, 0x1ff}, {0x350, 0x700}, {0x360, 0x400}}; /* SVR, LINT0, LINT1 */

void reset_apic_regs(struct cpu_apic *a)
{
    for (unsigned i = 0; i < sizeof wire / sizeof wire[0]; i++)
        st32(a->regs + wire[i].off, wire[i].val);
}

void reset_apic_wiring(struct fabric *f, uint64_t now)
{
    vcpu_idx_t boot = VCPU_IDX(0);
    bool x2apic = fabric_mmio_base(f, boot) == UINT64_MAX;
    for (unsigned i = 0; i < sizeof wire / sizeof wire[0]; i++)
        if (x2apic)
            fabric_msr_write(f, boot, now, MSR_X2APIC_FIRST + wire[i].off / 16, wire[i].val);
        else
            fabric_mmio_write(f, boot, now, wire[i].off, wire[i].val);
}
