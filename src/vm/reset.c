#include "vm/reset.h"

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
