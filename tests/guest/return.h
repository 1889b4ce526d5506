/* The end of an interrupt handler, for assembler sources. */
#ifndef HEC_TESTS_GUEST_RETURN_H
#define HEC_TESTS_GUEST_RETURN_H

/* As IRET to the same privilege level, which a KVM in software has not in protected mode. With interrupts to be on
 * again the flags come back first with IF clear, and STI holds interrupts off until after the far return: nothing
 * nests. */
#define INTERRUPT_RETURN                                                                                               \
    testl $0x200, 8(% esp);                                                                                            \
    jz 991f;                                                                                                           \
    andl $ ~0x200, 8(% esp);                                                                                           \
    pushl 8(% esp);                                                                                                    \
    popfl;                                                                                                             \
    sti;                                                                                                               \
    lret $4;                                                                                                           \
    991 : pushl 8(% esp);                                                                                              \
    popfl;                                                                                                             \
    lret $4

#endif
