/* Constants of the local APIC and the I/O APIC. SDM 3A, "Advanced Programmable Interrupt Controller (APIC)"; 82093AA.
 */
#ifndef HEC_X86_APIC_H
#define HEC_X86_APIC_H

/* Register numbers: xAPIC byte offset / 16, x2APIC MSR - 800h. */
enum apic_reg {
    APIC_ID_REG = 0x02,
    APIC_VERSION = 0x03,
    APIC_TPR = 0x08,
    APIC_APR = 0x09,
    APIC_PPR = 0x0a,
    APIC_EOI = 0x0b,
    APIC_RRD = 0x0c,
    APIC_LDR = 0x0d,
    APIC_DFR = 0x0e,
    APIC_SVR = 0x0f,
    APIC_ISR = 0x10,
    APIC_TMR = 0x18,
    APIC_IRR = 0x20,
    APIC_ESR = 0x28,
    APIC_LVT_CMCI = 0x2f,
    APIC_ICR = 0x30,
    APIC_ICR2 = 0x31,
    APIC_LVT_TIMER = 0x32,
    APIC_LVT_THERMAL = 0x33,
    APIC_LVT_PERF = 0x34,
    APIC_LVT_LINT0 = 0x35,
    APIC_LVT_LINT1 = 0x36,
    APIC_LVT_ERROR = 0x37,
    APIC_TMICT = 0x38,
    APIC_TMCCT = 0x39,
    APIC_TDCR = 0x3e,
    APIC_SELF_IPI = 0x3f
};

#define APIC_BASE_BSP     UINT64_C(0x100)
#define APIC_BASE_EXTD    UINT64_C(0x400)
#define APIC_BASE_EN      UINT64_C(0x800)
#define APIC_BASE_ADDR    UINT64_C(0x000ffffffffff000)
#define APIC_BASE_DEFAULT UINT64_C(0xfee00000)

#define APIC_SVR_ENABLE       0x100u
#define APIC_SVR_FOCUS_OFF    0x200u
#define APIC_SVR_DIRECTED_EOI 0x1000u

#define APIC_LVT_VECTOR     0xffu
#define APIC_LVT_MODE_SHIFT 8
#define APIC_LVT_STATUS     0x1000u
#define APIC_LVT_POLARITY   0x2000u
#define APIC_LVT_REMOTE_IRR 0x4000u
#define APIC_LVT_LEVEL      0x8000u
#define APIC_LVT_MASKED     0x10000u
#define APIC_LVT_TIMER_MODE 0x60000u

#define APIC_ESR_SEND_ILLEGAL 0x20u
#define APIC_ESR_RECV_ILLEGAL 0x40u
#define APIC_ESR_BAD_REGISTER 0x80u

#define APIC_ICR_BUSY     0x1000u
#define APIC_ICR_RESERVED 0xfff32000u /* bits 31:20, 17:16 and 13: x2APIC answers #GP */

#define APIC_VERSION_VALUE 0x01050014u /* 6 LVT entries, EOI-broadcast suppression, integrated APIC */

#define APIC_BROADCAST8  0xffu
#define APIC_BROADCAST32 0xffffffffu

/* I/O APIC. */
#define IOAPIC_REGSEL 0x00u
#define IOAPIC_WINDOW 0x10u
#define IOAPIC_EOI    0x40u

#define IOAPIC_REG_ID      0x00u
#define IOAPIC_REG_VERSION 0x01u
#define IOAPIC_REG_ARB     0x02u
#define IOAPIC_REG_RTE     0x10u

#define RTE_VECTOR     UINT64_C(0xff)
#define RTE_MODE_SHIFT 8
#define RTE_LOGICAL    UINT64_C(0x800)
#define RTE_STATUS     UINT64_C(0x1000)
#define RTE_LOW_ACTIVE UINT64_C(0x2000)
#define RTE_REMOTE_IRR UINT64_C(0x4000)
#define RTE_LEVEL      UINT64_C(0x8000)
#define RTE_MASKED     UINT64_C(0x10000)
#define RTE_FORMAT     (UINT64_C(1) << 48)

#endif
