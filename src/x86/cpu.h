/* Constants of the processor: control registers, EFER, MSR numbers, page-table bits. SDM 3A and 4; no code. */
#ifndef HEC_X86_CPU_H
#define HEC_X86_CPU_H

#include <stdint.h>

#define RFLAGS_IF UINT64_C(0x200)

#define CR0_PE UINT64_C(0x00000001)
#define CR0_MP UINT64_C(0x00000002)
#define CR0_EM UINT64_C(0x00000004)
#define CR0_TS UINT64_C(0x00000008)
#define CR0_ET UINT64_C(0x00000010)
#define CR0_NE UINT64_C(0x00000020)
#define CR0_WP UINT64_C(0x00010000)
#define CR0_AM UINT64_C(0x00040000)
#define CR0_NW UINT64_C(0x20000000)
#define CR0_CD UINT64_C(0x40000000)
#define CR0_PG UINT64_C(0x80000000)

#define CR4_VME        UINT64_C(0x000001)
#define CR4_PVI        UINT64_C(0x000002)
#define CR4_TSD        UINT64_C(0x000004)
#define CR4_DE         UINT64_C(0x000008)
#define CR4_PSE        UINT64_C(0x000010)
#define CR4_PAE        UINT64_C(0x000020)
#define CR4_MCE        UINT64_C(0x000040)
#define CR4_PGE        UINT64_C(0x000080)
#define CR4_PCE        UINT64_C(0x000100)
#define CR4_OSFXSR     UINT64_C(0x000200)
#define CR4_OSXMMEXCPT UINT64_C(0x000400)
#define CR4_UMIP       UINT64_C(0x000800)
#define CR4_FSGSBASE   UINT64_C(0x010000)
#define CR4_PCIDE      UINT64_C(0x020000)
#define CR4_OSXSAVE    UINT64_C(0x040000)
#define CR4_SMEP       UINT64_C(0x100000)
#define CR4_SMAP       UINT64_C(0x200000)

#define EFER_SCE UINT64_C(0x001)
#define EFER_LME UINT64_C(0x100)
#define EFER_LMA UINT64_C(0x400)
#define EFER_NXE UINT64_C(0x800)

#define PTE_P  UINT64_C(0x001)
#define PTE_W  UINT64_C(0x002)
#define PTE_U  UINT64_C(0x004)
#define PTE_A  UINT64_C(0x020)
#define PTE_D  UINT64_C(0x040)
#define PTE_PS UINT64_C(0x080)
#define PTE_G  UINT64_C(0x100)
#define PTE_NX (UINT64_C(1) << 63)

/* Page-fault error code. */
#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_R 8u
#define PF_I 16u

#define MSR_TSC             0x10u
#define MSR_PLATFORM_ID     0x17u
#define MSR_APIC_BASE       0x1bu
#define MSR_FEAT_CTL        0x3au
#define MSR_TSC_ADJUST      0x3bu
#define MSR_SPEC_CTRL       0x48u
#define MSR_PRED_CMD        0x49u
#define MSR_UCODE_REV       0x8bu
#define MSR_PLATFORM_INFO   0xceu
#define MSR_UMWAIT_CONTROL  0xe1u
#define MSR_MTRR_CAP        0xfeu
#define MSR_ARCH_CAPS       0x10au
#define MSR_SYSENTER_CS     0x174u
#define MSR_SYSENTER_ESP    0x175u
#define MSR_SYSENTER_EIP    0x176u
#define MSR_MCG_CAP         0x179u
#define MSR_MCG_STATUS      0x17au
#define MSR_MISC_ENABLE     0x1a0u
#define MSR_MTRR_PHYS_BASE0 0x200u
#define MSR_MTRR_FIX64K     0x250u
#define MSR_MTRR_FIX16K_0   0x258u
#define MSR_MTRR_FIX4K_0    0x268u
#define MSR_PAT             0x277u
#define MSR_MTRR_DEF_TYPE   0x2ffu
#define MSR_TSC_DEADLINE    0x6e0u
#define MSR_X2APIC_FIRST    0x800u
#define MSR_X2APIC_LAST     0x83fu
#define MSR_EFER            0xc0000080u
#define MSR_STAR            0xc0000081u
#define MSR_LSTAR           0xc0000082u
#define MSR_CSTAR           0xc0000083u
#define MSR_FMASK           0xc0000084u
#define MSR_FS_BASE         0xc0000100u
#define MSR_GS_BASE         0xc0000101u
#define MSR_KERNEL_GS_BASE  0xc0000102u
#define MSR_TSC_AUX         0xc0000103u

#define DR6_FIXED UINT64_C(0xffff0ff0)
#define DR6_BS    UINT64_C(0x4000)
#define DR6_BD    UINT64_C(0x2000)
#define DR6_BT    UINT64_C(0x8000)
#define DR7_FIXED UINT64_C(0x400)
#define DR7_GD    UINT64_C(0x2000)

#endif
