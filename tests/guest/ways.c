/* Ways to end, by a word of the command line. */
#include "guest.h"

void on_irq(void)
{
}

void payload(void)
{
    const char *line = command_line();
    static const struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } nothing;
    print("ways: up\r\n");
    if (has_word(line, "triple"))
        __asm__ volatile("lidt %0; divl %1" ::"m"(nothing), "r"(0), "a"(1), "d"(0));
    if (has_word(line, "halt"))
        for (;;)
            __asm__ volatile("cli; hlt");
    if (has_word(line, "spin"))
        for (;;)
            __asm__ volatile("pause");
    if (has_word(line, "talk"))
        for (;;)
            print("ways: on and on, a line that fills every buffer there is\r\n");
    if (has_word(line, "code"))
        outb(0xf4, 21);
    if (has_word(line, "wide"))
        outw(0xf4, 0x1a);
    if (has_word(line, "dbl"))
        outl(0xf4, 0x1b);
    if (has_word(line, "shutdown"))
        for (const char *s = "Shutdown"; *s; s++)
            outb(0x8900, (uint8_t)*s);
    if (has_word(line, "reset"))
        outb(0xcf9, 6);
}
