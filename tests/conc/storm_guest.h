/* Where the storm's guest has its things; for C and for the assembler. */
#ifndef HEC_TESTS_STORM_GUEST_H
#define HEC_TESTS_STORM_GUEST_H

#define STORM_CPUS      8
#define STORM_RING      6 /* vCPUs 0..5 pass interrupts on to the next */
#define STORM_RESTARTER 6
#define STORM_VICTIM    7
#define STORM_ROUNDS    320
#define STORM_STARTS    100
#define STORM_VECTOR    0x40

#define STORM_PORT_DONE     0xf4
#define STORM_PORT_PROGRESS 0xf5

#define STORM_PML4   0x4000 /* and two pages more; 64-bit code only */
#define STORM_BASE   0x8000 /* a SIPI vector's page */
#define STORM_IDT    0xa000
#define STORM_IDS    0xb000
#define STORM_LINES  0xc000 /* 64 bytes a vCPU */
#define STORM_STACKS 0x20000

#define STORM_RECEIVED 0 /* in a line */
#define STORM_SENT     4

#define STORM_XADD       0x10000
#define STORM_CMPXCHG    0x10040
#define STORM_READY      0x10080
#define STORM_FINISHED   0x100c0
#define STORM_RESTARTS   0x10100
#define STORM_NOISE      0x10180
#define STORM_STALE      0x101c0
#define STORM_SPLIT_LINE 0x1023e
#define STORM_SPLIT_PAGE 0x14ffe

/* A function a vCPU, 64 bytes apart: MOV imm32, %eax; RET. The immediate is aligned. */
#define STORM_FUNCS       0x12000
#define STORM_ENTRY       3
#define STORM_IMM         4
#define STORM_BESIDE_CODE 0x12f00 /* data on the functions' page */

#endif
