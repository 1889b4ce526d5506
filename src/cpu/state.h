/* Architectural state of one vCPU: what every engine can hand over, and nothing else. Plain data. */
#ifndef HEC_CPU_STATE_H
#define HEC_CPU_STATE_H

#include "base/types.h"

enum cpu_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };
enum cpu_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Segment attributes as bits 40..55 of a descriptor (SDM 3A, "Segment Descriptors"), with bit 16 = unusable (a null
 * selector was loaded; VMX's meaning). */
enum seg_attr {
    SEGA_TYPE = 0xf, /* bit 0 accessed, 1 writable/readable, 2 expand-down/conforming, 3 code */
    SEGA_ACCESSED = 1u << 0,
    SEGA_RW = 1u << 1,
    SEGA_DC = 1u << 2,
    SEGA_CODE = 1u << 3,
    SEGA_S = 1u << 4,
    SEGA_DPL_SHIFT = 5,
    SEGA_P = 1u << 7,
    SEGA_AVL = 1u << 12,
    SEGA_L = 1u << 13,
    SEGA_DB = 1u << 14,
    SEGA_G = 1u << 15,
    SEGA_UNUSABLE = 1u << 16
};

struct cpu_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity already applied */
    uint32_t attr;  /* enum seg_attr */
    uint16_t sel;
};

struct cpu_dtable {
    uint64_t base;
    uint16_t limit;
};

enum cpu_activity { CPU_ACTIVE, CPU_HALTED, CPU_SHUTDOWN, CPU_WAIT_SIPI };

/* FXSAVE image, SDM 1, "FXSAVE Area". */
struct cpu_fx {
    uint16_t fcw, fsw;
    uint8_t ftw_abridged, reserved0;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t reserved1[96];
} __attribute__((aligned(16)));

/* Wall clock, system time, asynchronous page faults, steal time, EOI, poll control, asynchronous page faults' vector.
 * Linux, Documentation/virt/kvm/x86/msr.rst. */
enum {
    CPU_PV_WALL,
    CPU_PV_TIME,
    CPU_PV_ASYNC_PF,
    CPU_PV_STEAL,
    CPU_PV_EOI,
    CPU_PV_POLL,
    CPU_PV_ASYNC_INT,
    CPU_PV_MSRS
};

struct cpu_state {
    uint64_t gpr[16]; /* by enum cpu_reg */
    uint64_t rip;
    uint64_t rflags;
    struct cpu_segment seg[SEG_COUNT];
    struct cpu_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer; /* CR8 lives in the local APIC */
    uint64_t dr[8];                    /* 0-3, 6, 7 */
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, spec_ctrl, feat_ctl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_phys[16];
    uint64_t tsc_offset; /* guest TSC = guest ns + tsc_offset (the TSC runs at 1 GHz) */
    uint64_t tsc_adjust; /* IA32_TSC_ADJUST */
    uint64_t mcg_status, umwait_control;
    uint64_t xcr0;
    uint64_t pv_msr[CPU_PV_MSRS]; /* KVM's paravirtual MSRs 4b564d00h and up, those that the machine offers */
    uint8_t activity;             /* enum cpu_activity */
    uint8_t nmi_blocked;          /* between an NMI and its IRET */
    uint8_t int_shadow;           /* 1 STI, 2 MOV SS just ran: no interrupts (2: no debug traps either) before one more
                                     instruction */
    uint8_t bsp;
    struct cpu_fx fx;
};

/* A local APIC and what is pending at its CPU, in one form for every engine. SDM 3A, "Local APIC Register Address Map".
 * In x2APIC mode the ID register has all 32 bits, the LDR is derived from it, and ICR's upper half is in ICR2's place.
 * An engine sets a vCPU's state first and then its APIC; setting the state alone leaves nothing pending. */
struct cpu_apic {
    uint64_t base;         /* IA32_APIC_BASE */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE in guest TSC units, 0: disarmed */
    uint64_t timer_left;   /* guest ns until the timer's next expiry, HEC_NS_NEVER: not armed (not for TSC deadline) */
    uint8_t regs[1024];    /* the register page; in x2APIC mode the ID register holds all 32 bits */
    bool nmi_pending, smi_pending, init_pending, sipi_pending;
    uint8_t sipi_page;
    bool exception; /* an exception that was raised and not yet delivered */
    uint8_t exception_vector;
    bool exception_has_error;
    uint32_t exception_error;
    bool injected; /* an interrupt that was acknowledged and not yet delivered */
    uint8_t injected_vector;
};

/* Power-on state (SDM 3A, "Processor State After Reset"): CS F000h base FFFF0000h, RIP FFF0h; APs wait for a SIPI. */
void cpu_state_reset(struct cpu_state *s, bool bsp);
/* INIT (same table, INIT column): keeps the FPU, MTRRs, CR0.CD/NW and the TSC. APs then wait for a SIPI. */
void cpu_state_init(struct cpu_state *s);
/* SIPI with page number `page`: CS = page << 8, base page << 12, IP 0, active. */
void cpu_state_sipi(struct cpu_state *s, uint8_t page);

#endif
