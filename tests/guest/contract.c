/* What small bare-metal guests expect of the machine. Exit code 0 (the process: 1) when all is well, else the number of
 * the check that failed; each failure is also a line on the console. */
#include "guest.h"

#define APIC_BASE   0xfee00000u
#define IOAPIC_BASE 0xfec00000u

enum { MSR_APIC_BASE = 0x1b, BASE_EXTD = 1 << 10, BASE_EN = 1 << 11 };

static unsigned checks, failed;

static void check(int ok, const char *what)
{
    checks++;
    if (ok)
        return;
    if (!failed)
        failed = checks;
    print("contract: not so: ");
    print(what);
    print("\r\n");
}

static uint64_t idt[256];
static volatile uint32_t irqs, irr_seen, tmr_seen, isr_seen;

static void gate(unsigned vector, char *entry)
{
    uint32_t a = (uint32_t)entry;
    idt[vector] = (a & 0xffff) | 8u << 16 | (uint64_t)(0x8e00 | (a & 0xffff0000u)) << 32;
}

static void load_idt(void)
{
    const struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } idtr = {sizeof idt - 1, (uint32_t)idt};
    for (unsigned i = 0; i < 32; i++)
        gate(i, bad_entry);
    gate(8, pit_entry);
    gate(13, gp_entry);
    gate(0x40, irq_entry);
    __asm__ volatile("lidt %0" ::"m"(idtr));
}

/* ---- local APIC, in the mode it is in ---- */

static int in_x2apic(void)
{
    return (rdmsr(MSR_APIC_BASE) & BASE_EXTD) != 0;
}

static uint32_t apic_read(uint32_t reg)
{
    return in_x2apic() ? (uint32_t)rdmsr(0x800 + (reg >> 4)) : *mmio(APIC_BASE + reg);
}

static void apic_write(uint32_t reg, uint32_t v)
{
    if (in_x2apic())
        wrmsr_faults(0x800 + (reg >> 4), v, 0);
    else
        *mmio(APIC_BASE + reg) = v;
}

/* ---- I/O APIC ---- */

static uint32_t io_read(uint32_t reg)
{
    *mmio(IOAPIC_BASE) = reg;
    return *mmio(IOAPIC_BASE + 0x10);
}

static void io_write(uint32_t reg, uint32_t v)
{
    *mmio(IOAPIC_BASE) = reg;
    *mmio(IOAPIC_BASE + 0x10) = v;
}

void on_irq(void)
{
    irqs++;
    irr_seen = io_read(0x10 + 2 * 20) & 1 << 14;
    tmr_seen = apic_read(0x180 + 0x20) & 1;
    isr_seen = apic_read(0x100 + 0x20) & 1;
    outb(0x2014, 0);
    apic_write(0xb0, 0);
}

/* ---- checks ---- */

static void entry_state(void)
{
    check(entry_eax == 0x2badb002, "EAX is Multiboot's magic");
    check((entry_cr0 & 0x80000001) == 1, "protected mode, no paging");
    check(!(entry_eflags & 1 << 9), "interrupts are off");
    volatile uint32_t *low = mmio(0x7000), *high = mmio(0x107000);
    *low = 1;
    *high = 2;
    check(*low == 1, "A20 is on");
}

static void info(void)
{
    const uint32_t *i = (const uint32_t *)entry_ebx;
    check(entry_ebx >= 0x1000 && entry_ebx < 0xa0000, "the information is below 640K, outside page 0");
    check((i[0] & 0x45) == 0x45, "memory, command line and memory map are there");
    check(i[1] >= 512 && i[1] <= 640, "lower memory");
    check(i[2] == 64 * 1024 - 1024 || i[2] > 60 * 1024, "upper memory");
    check(i[4] >= 0x1000 && i[4] < 0xa0000 && has_word(command_line(), "contract"), "word 0 names the program");
    check(i[11] >= 48 && i[12] >= 0x1000 && i[12] < 0xa0000, "memory map");
}

static unsigned cpus(void)
{
    outw(0x510, 5);
    unsigned n = inb(0x511);
    return n | (unsigned)inb(0x511) << 8;
}

static void fw_cfg(void)
{
    char want[] = "cpus=000";
    unsigned n = cpus();
    want[5] = (char)('0' + n / 100 % 10);
    want[6] = (char)('0' + n / 10 % 10);
    want[7] = (char)('0' + n % 10);
    check(has_word(command_line(), want), "fw_cfg's CPU count");
    outw(0x510, 0);
    check(inb(0x511) == 'Q' && inb(0x511) == 'E' && inb(0x511) == 'M' && inb(0x511) == 'U', "fw_cfg's signature");
}

static void test_device(void)
{
    outl(0xe0, 0x12345678);
    check(inl(0xe0) == 0x12345678 && inb(0xe1) == 0x56, "the latch keeps a dword, by bytes too");
    outb(0xe3, 0xab);
    check(inl(0xe0) == 0xab345678, "the latch takes a byte");
    *mmio(0xff000010) = 0xcafe0001;
    ((volatile uint8_t *)0xff000012)[0] = 0x77;
    check(*mmio(0xff000010) == 0xca770001, "test MMIO behaves as RAM");
}

static void pic(void)
{
    uint8_t mask = inb(0x21);
    outb(0x21, 0xfe);
    outb(0x43, 0x30); /* channel 0, mode 0 */
    outb(0x40, 0x00);
    outb(0x40, 0x10);
    __asm__ volatile("sti");
    for (uint32_t i = 0; i < 100000000 && !pit_count; i++)
        __asm__ volatile("pause");
    __asm__ volatile("cli");
    outb(0x21, 0xff);
    check(pit_count == 1, "the PIT's interrupt comes as vector 8 through the PIC");
    check(inb(0x21) == 0xff && inb(0xa1) != 0x5a, "the PIC's masks");
    (void)mask;
}

static void ioapic(void)
{
    io_write(0, 0x0b000000);
    check((io_read(0) & 0x0f000000) == 0x0b000000, "I/O APIC ID bits 24-27 are writable");
    io_write(0, 0);
    check((io_read(1) & 0xff00ff) == 0x170020 || (io_read(1) & 0xff00ff) == 0x170011, "24 pins");
    apic_write(0xf0, 0x1ff);
    uint32_t id = in_x2apic() ? apic_read(0x20) : apic_read(0x20) >> 24;
    io_write(0x10 + 2 * 20 + 1, id << 24 | (id >> 8 & 0x7f) << 17);
    io_write(0x10 + 2 * 20, 1 << 15 | 0x40 | 1 << 14 | 1 << 12);
    check((io_read(0x10 + 2 * 20) & (1 << 14 | 1 << 12)) == 0, "remote IRR and delivery status are read-only");
    __asm__ volatile("sti");
    outb(0x2014, 1);
    for (uint32_t i = 0; i < 1000000 && !irqs; i++)
        __asm__ volatile("pause");
    __asm__ volatile("cli");
    check(irqs >= 1, "a level comes");
    /* A KVM in software ends an interrupt when the CPU takes it, so that a level comes again before its handler can
     * lower it. */
    if (!has_word(command_line(), "auto-eoi")) {
        check(irqs == 1, "a level comes once when its handler lowers it");
        check(isr_seen, "it is in service while its handler runs");
        check(irr_seen && tmr_seen, "remote IRR and TMR while it is in service");
        check(!(io_read(0x10 + 2 * 20) & 1 << 14), "EOI clears remote IRR");
    }
    io_write(0x10 + 2 * 20, 1 << 16);
}

static void xapic(void)
{
    uint32_t version = apic_read(0x30);
    check((version & 0xff) >= 0x10 && (version >> 16 & 0xff) >= 5, "APIC version");
    apic_write(0x80, 0x55);
    check(apic_read(0x80) == 0x55, "TPR is kept");
    apic_write(0x80, 0);
    uint32_t lo = (uint32_t)rdmsr(MSR_APIC_BASE);
    check(wrmsr_faults(MSR_APIC_BASE, lo & ~(BASE_EN | BASE_EXTD), 0) == 0, "the APIC can be disabled");
    check(wrmsr_faults(MSR_APIC_BASE, lo | BASE_EN | BASE_EXTD, 0) == 1, "disabled to x2APIC is #GP");
    check(wrmsr_faults(MSR_APIC_BASE, (lo & ~BASE_EXTD) | BASE_EN, 0) == 0, "and enabled again");
    check(*mmio(APIC_BASE + 0x30) == version, "xAPIC registers are in memory");
}

static void x2apic(void)
{
    uint32_t lo = (uint32_t)rdmsr(MSR_APIC_BASE);
    check(wrmsr_faults(MSR_APIC_BASE, lo | BASE_EXTD, 0) == 0, "xAPIC to x2APIC");
    check(wrmsr_faults(MSR_APIC_BASE, (lo & ~BASE_EXTD) | BASE_EN, 0) == 1, "x2APIC to xAPIC is #GP");
    check(wrmsr_faults(0x802, 7, 0) == 1, "the x2APIC ID is read-only");
    check(wrmsr_faults(0x828, 1, 0) == 1, "ESR takes only 0");
    check(wrmsr_faults(0x828, 0, 0) == 0, "ESR takes 0");
    check((uint32_t)rdmsr(0x80d) == (((uint32_t)rdmsr(0x802) >> 4) << 16 | 1u << (rdmsr(0x802) & 15)),
          "LDR follows the ID");
}

static void send_all_but_self(uint32_t command)
{
    if (in_x2apic()) {
        wrmsr_faults(0x830, 0xc0000 | command, 0);
        return;
    }
    *mmio(APIC_BASE + 0x310) = 0;
    *mmio(APIC_BASE + 0x300) = 0xc0000 | command;
}

static void other_cpus(void)
{
    volatile uint32_t *up = mmio(0x800), *up_x2 = mmio(0x804);
    int x2 = in_x2apic();
    unsigned n = cpus();
    __asm__ volatile("" : "+r"(up));
    for (uint32_t i = 0; i < (uint32_t)(ap_end - ap_start); i++)
        *((volatile char *)mmio(0) + i) = ap_start[i];
    *up = *up_x2 = 0;
    send_all_but_self(0x4500);
    send_all_but_self(0x4600);
    for (uint32_t i = 0; i < 100000000 && *up != n - 1; i++)
        __asm__ volatile("pause");
    check(*up == n - 1, "one INIT and one SIPI with vector 0 start every other CPU");
    check(*up_x2 == (x2 ? n - 1 : 0), "they are in the mode the boot CPU was started in");
}

void payload(void)
{
    print("contract: up\r\n");
    load_idt();
    entry_state();
    info();
    fw_cfg();
    test_device();
    pic();
    ioapic();
    other_cpus();
    xapic();
    x2apic();
    print(failed ? "contract: failed\r\n" : "contract: all well\r\n");
    exit_with((uint8_t)failed);
}
