/* Guest code, assembled with the test; `prefix` chooses the code size. */
#ifndef HEC_TESTS_GUEST_CODE_H
#define HEC_TESTS_GUEST_CODE_H

#define GUEST(name, prefix, text)                                                                                      \
    __asm__(".pushsection .rodata\n.global guest_" #name "\n" prefix "\nguest_" #name ":\n" text                       \
            "\n.global guest_" #name "_end\nguest_" #name "_end: .code64\n.popsection\n");                             \
    extern const char guest_##name[], guest_##name##_end[]
#define GUEST_LEN(name) ((size_t)(guest_##name##_end - guest_##name))

#endif
