/* What the payloads share: ports, MSRs, the console. Freestanding, 32-bit. */
#ifndef HEC_TESTS_GUEST_H
#define HEC_TESTS_GUEST_H

#include "ports.h"

extern uint32_t entry_eax, entry_ebx, entry_eflags, entry_cr0;
extern volatile uint32_t pit_count;
extern char ap_start[], ap_end[], gp_entry[], irq_entry[], pit_entry[], bad_entry[];
int wrmsr_faults(uint32_t msr, uint32_t lo, uint32_t hi);
void payload(void);
void on_irq(void);

static inline volatile uint32_t *mmio(uint32_t gpa)
{
    return (volatile uint32_t *)gpa;
}
static inline void print(const char *s)
{
    for (; *s; s++) {
        while (!(inb(0x3fd) & 0x20))
            ;
        outb(0x3f8, (uint8_t)*s);
    }
}
/* The process exits with code << 1 | 1. */
static inline void exit_with(uint8_t code)
{
    outb(0xf4, code);
    for (;;)
        __asm__ volatile("cli; hlt");
}
/* Whether `word` is on the command line. */
static inline int has_word(const char *line, const char *word)
{
    for (; *line; line++) {
        const char *a = line, *b = word;
        while (*b && *a == *b)
            a++, b++;
        if (!*b)
            return 1;
    }
    return 0;
}
static inline const char *command_line(void)
{
    return (const char *)((uint32_t *)entry_ebx)[4];
}

#endif
