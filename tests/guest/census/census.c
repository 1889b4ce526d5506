/* hecaton census, the guest's half: start every CPU the MADT names, send one interrupt over every route to every ID,
 * and count where each arrives. 32-bit, flat, no library.
 *
 * A CPU's number is its place in `stacks`, handed out in the order of arrival; the boot CPU's is 0 and its stack is
 * elsewhere. Every handler counts in its own CPU's row only, so "once, and nowhere else" is a look at all rows.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../ports.h"
#include "remap.h"

#define MAX_CPUS 32768u
#define MAX_ID   32768u
#define STACK    512u
#define IOAPIC   0xfec00000u
#define NOBODY   0xffffu
#define PATIENCE UINT64_C(20000000000) /* TSC ticks (ns) without any arrival: something is lost */
#define NMI      2u

enum route { R_IPI, R_CLUSTER, R_ALL, R_SELF, R_NMI, R_COMPAT, R_EXT, R_PIN, R_MSI_REMAP, R_PIN_REMAP, ROUTES };
enum { VEC_COMMAND = 0x30, VEC_FIRST = 0x40, VEC_STEP = 0x10 }; /* route r has vector VEC_FIRST + r * VEC_STEP */

static const char *const route_name[ROUTES] = {
    "IPI, physical",      "IPI, cluster", "IPI, all but self", "IPI, self",     "NMI",
    "MSI, compatibility", "MSI, 15-bit",  "I/O APIC pin",      "MSI, remapped", "I/O APIC pin, remapped"};

/* KVM's leaf promises 15-bit destination IDs in messages and I/O APIC entries. */
static bool ext_dest_id;
static const struct remap_unit *unit; /* the remapping unit, once it is on */

uint8_t stacks[MAX_CPUS][STACK] __attribute__((aligned(512)));
volatile uint32_t next_cpu = 1;
extern const uint32_t stub_table[256];
void bsp_main(void);
void ap_main(void);
void on_vector(uint32_t vector);

struct row {
    uint16_t got[ROUTES];
    uint16_t stray;
};

static volatile struct row row[MAX_CPUS];
static volatile uint32_t ready, arrived[ROUTES];
static uint32_t id_of[MAX_CPUS];   /* by CPU number */
static uint16_t cpu_of[MAX_ID];    /* by APIC ID */
static uint32_t madt_id[MAX_CPUS]; /* as the MADT lists them */
static uint32_t cpus;              /* listed */
static uint64_t idt[256];

/* ---- the machine ---- */

static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "A"(v) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint64_t v;
    __asm__ volatile("rdtsc" : "=A"(v));
    return v;
}

static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static void put(char c)
{
    while (!(inb(0x3fd) & 0x20))
        pause();
    outb(0x3f8, (uint8_t)c);
}

static void put_number(uint32_t n, int width)
{
    char digit[10];
    int k = 0;
    do
        digit[k++] = (char)('0' + n % 10);
    while (n /= 10);
    for (; width > k; width--)
        put(' ');
    while (k)
        put(digit[--k]);
}

/* %s, %u and %Nu (padded) only. */
static void print(const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    for (; *f; f++) {
        int width = 0;
        if (*f != '%') {
            put(*f);
            continue;
        }
        for (f++; *f >= '0' && *f <= '9'; f++)
            width = width * 10 + *f - '0';
        if (*f == 'u') {
            put_number(va_arg(ap, uint32_t), width);
        } else {
            for (const char *s = va_arg(ap, const char *); *s || width > 0; width--)
                put(*s ? *s++ : ' ');
        }
    }
    va_end(ap);
}

static void __attribute__((noreturn)) leave(bool good)
{
    static const char shutdown[] = "Shutdown";
    if (good)
        for (unsigned i = 0; shutdown[i]; i++)
            outb(0x8900, (uint8_t)shutdown[i]);
    outb(0xf4, 0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void __attribute__((noreturn)) give_up(const char *why)
{
    print("census: %s\n", why);
    leave(false);
}

/* ---- the MADT ---- */

static uint32_t ld32(uintptr_t p)
{
    return *(const volatile uint32_t *)p;
}

static bool same(uintptr_t p, const char *s)
{
    for (; *s; s++, p++)
        if (*(const volatile char *)p != *s)
            return false;
    return true;
}

/* An ACPI table, or 0. */
static uintptr_t find_table(const char *signature)
{
    uintptr_t rsdp = 0xe0000;
    while (rsdp < 0x100000 && !same(rsdp, "RSD PTR "))
        rsdp += 16;
    if (rsdp == 0x100000)
        give_up("no RSDP between E0000h and FFFFFh");
    uintptr_t xsdt = ld32(rsdp + 24);
    for (uint32_t i = 36; i < ld32(xsdt + 4); i += 8)
        if (same(ld32(xsdt + i), signature))
            return ld32(xsdt + i);
    return 0;
}

static void list_cpu(uint32_t id)
{
    if (cpus == MAX_CPUS || id >= MAX_ID)
        give_up("the MADT lists more than this census can count");
    madt_id[cpus++] = id;
}

static void read_madt(void)
{
    uintptr_t madt = find_table("APIC");
    if (!madt)
        give_up("no MADT");
    uintptr_t end = madt + ld32(madt + 4);
    for (uintptr_t p = madt + 44; p < end; p += *(const volatile uint8_t *)(p + 1)) {
        uint8_t type = *(const volatile uint8_t *)p;
        if (type == 0)
            list_cpu(*(const volatile uint8_t *)(p + 3));
        else if (type == 9)
            list_cpu(ld32(p + 4));
    }
}

/* ---- every CPU ---- */

static uint32_t here(void)
{
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0), base = (uintptr_t)stacks;
    return sp >= base && sp < base + sizeof stacks ? (uint32_t)((sp - base) / STACK) : 0;
}

static void x2apic_on(void)
{
    uint64_t base = rdmsr(0x1b);
    if (!(base & 0x400))
        wrmsr(0x1b, base | 0x400);
    wrmsr(0x80f, 0x1ff); /* software enable, spurious vector FFh */
    wrmsr(0x808, 0);
}

static void load_idt(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) p = {sizeof idt - 1, (uint32_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(p));
}

static void count_in(uint32_t cpu)
{
    id_of[cpu] = (uint32_t)rdmsr(0x802);
    cpu_of[id_of[cpu]] = (uint16_t)cpu;
    __atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
}

void ap_main(void)
{
    load_idt();
    x2apic_on();
    count_in(here());
}

static void count(uint32_t cpu, unsigned r)
{
    row[cpu].got[r]++;
    __atomic_fetch_add(&arrived[r], 1, __ATOMIC_SEQ_CST);
}

static uint8_t vector_of(unsigned r)
{
    return (uint8_t)(VEC_FIRST + r * VEC_STEP);
}

void on_vector(uint32_t vector)
{
    uint32_t cpu = here();
    if (vector == NMI) {
        count(cpu, R_NMI);
        return;
    }
    if (vector < 32) {
        print("census: exception %u on CPU %u\n", vector, cpu);
        leave(false);
    }
    wrmsr(0x80b, 0);
    if (vector == VEC_COMMAND) {
        wrmsr(0x83f, vector_of(R_SELF));
        return;
    }
    unsigned r = (vector - VEC_FIRST) / VEC_STEP;
    if (vector >= VEC_FIRST && r < ROUTES && vector == vector_of(r))
        count(cpu, r);
    else
        row[cpu].stray++;
}

/* ---- the boot CPU: sending ---- */

static void ipi(uint32_t dest, uint32_t low)
{
    wrmsr(0x830, (uint64_t)dest << 32 | low);
}

static void message(uint32_t addr, uint32_t data, uint16_t requester)
{
    outl(0x2100, addr);
    outl(0x2104, 0);
    outl(0x210c, requester);
    outl(0x2108, data);
}

/* A 15-bit destination with `ext`, else 8 bits. */
static void msi(uint32_t id, uint8_t vector, bool ext)
{
    message(0xfee00000u | (id & 0xff) << 12 | (ext ? id >> 8 << 5 : 0), vector, 0);
}

static void ioapic_write(uint32_t reg, uint32_t val)
{
    *(volatile uint32_t *)IOAPIC = reg;
    *(volatile uint32_t *)(IOAPIC + 0x10) = val;
}

/* Pin 20, edge: given this entry, then raised and lowered by the test device. */
static void pin(uint64_t rte)
{
    enum { PIN = 20 };
    ioapic_write(0x10 + 2 * PIN, 0x10000);
    ioapic_write(0x11 + 2 * PIN, (uint32_t)(rte >> 32));
    ioapic_write(0x10 + 2 * PIN, (uint32_t)rte);
    outb(0x2000 + PIN, 1);
    outb(0x2000 + PIN, 0);
}

static void remapped_msi(uint32_t i)
{
    struct remap_msi m = unit->msi(i);
    message(m.addr, m.data, m.requester);
}

/* `i` is the CPU's place in the MADT. */
static void send(unsigned r, uint32_t i)
{
    uint32_t id = madt_id[i];
    switch (r) {
    case R_IPI:
        ipi(id, 0x4000u | vector_of(r));
        break;
    case R_CLUSTER:
        ipi(id >> 4 << 16 | 1u << (id & 15), 0x4800u | vector_of(r));
        break;
    case R_NMI:
        ipi(id, 0x4400);
        break;
    case R_COMPAT:
        msi(id, vector_of(r), false);
        break;
    case R_EXT:
        msi(id, vector_of(r), true);
        break;
    case R_PIN:
        pin((uint64_t)(id & 0xff) << 56 | (uint64_t)(id >> 8) << 49 | vector_of(r));
        break;
    case R_MSI_REMAP:
        remapped_msi(i);
        break;
    case R_PIN_REMAP:
        pin(unit->rte(i));
        break;
    }
}

static bool reaches(unsigned r, uint32_t id)
{
    switch (r) {
    case R_COMPAT:
        return id < 255;
    case R_EXT:
        return ext_dest_id;
    case R_PIN:
        return ext_dest_id || id < 255;
    case R_MSI_REMAP:
    case R_PIN_REMAP:
        return unit != NULL;
    default:
        return true;
    }
}

static uint32_t send_all(unsigned r)
{
    if (r == R_ALL) {
        ipi(0, 0xc4000u | vector_of(r));
        return cpus - 1;
    }
    if (r == R_SELF) {
        ipi(0, 0xc4000u | VEC_COMMAND);
        wrmsr(0x83f, vector_of(R_SELF));
        return cpus;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < cpus; i++)
        if (reaches(r, madt_id[i])) {
            send(r, i);
            n++;
        }
    return n;
}

static bool wait_for(volatile uint32_t *counter, uint32_t n)
{
    uint32_t last = *counter;
    uint64_t since = rdtsc();
    while (*counter < n) {
        pause();
        if (*counter != last) {
            last = *counter;
            since = rdtsc();
        } else if (rdtsc() - since > PATIENCE) {
            return false;
        }
    }
    return true;
}

/* ---- the verdict ---- */

struct tally {
    uint32_t once, lost, twice, strays;
    uint32_t first_bad; /* APIC ID */
};

static struct tally tally(unsigned r)
{
    struct tally t = {.first_bad = MAX_ID};
    for (uint32_t i = 0; i < cpus; i++) {
        uint32_t id = madt_id[i], cpu = cpu_of[id];
        uint16_t want = reaches(r, id) && !(r == R_ALL && cpu == 0), got = cpu == NOBODY ? 0 : row[cpu].got[r];
        t.once += want && got == 1;
        t.lost += got < want;
        t.twice += got > 1;
        t.strays += got && !want;
        if (got != want && t.first_bad == MAX_ID)
            t.first_bad = id;
    }
    return t;
}

static bool report(unsigned r, uint32_t sent)
{
    struct tally t = tally(r);
    bool good = t.once == sent && !t.lost && !t.twice && !t.strays && arrived[r] == sent;
    print("  %22s %8u %8u %8u %8u %8u  ", route_name[r], sent, t.once, t.lost, t.twice, t.strays);
    if (good)
        print("ok\n");
    else if (t.first_bad < MAX_ID)
        print("FAILED, first at ID %u\n", t.first_bad);
    else
        print("FAILED\n");
    return good;
}

static uint32_t stray_vectors(void)
{
    uint32_t n = 0;
    for (uint32_t cpu = 0; cpu < cpus; cpu++)
        n += row[cpu].stray;
    return n;
}

/* ---- start ---- */

static uint32_t cpuid(uint32_t leaf, uint32_t *ebx)
{
    uint32_t eax = leaf, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(*ebx), "+c"(ecx), "=d"(edx));
    return eax;
}

/* Leaf 4000xx01h EAX[15], where the signature of KVM ("KVMK" in EBX) stands. */
static bool offers_ext_dest_id(void)
{
    uint32_t ebx, other;
    for (uint32_t base = 0x40000000; base < 0x40000300; base += 0x100) {
        cpuid(base, &ebx);
        if (ebx == 0x4b4d564b)
            return cpuid(base + 1, &other) >> 15 & 1;
    }
    return false;
}

static void make_idt(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint32_t at = stub_table[i];
        idt[i] = (at & 0xffff) | 8u << 16 | UINT64_C(0x8e00) << 32 | (uint64_t)(at >> 16) << 48;
    }
}

static void start_aps(void)
{
    ipi(0, 0xc4500); /* INIT, all but self */
    ipi(0, 0xc4608); /* SIPI to page 8 */
    if (cpus > 1 && !wait_for(&ready, cpus))
        print("census: only %u of %u CPUs started\n", ready, cpus);
}

/* Switched on only now: from here on compatibility-format messages may be blocked. */
static void find_unit(void)
{
    static const struct remap_unit *const units[] = {&vtd_unit, &amdvi_unit};
    for (unsigned i = 0; i < 2 && !unit; i++) {
        uintptr_t table = find_table(units[i]->name);
        if (table && units[i]->enable(table, madt_id, cpus, vector_of(R_MSI_REMAP), vector_of(R_PIN_REMAP)))
            unit = units[i];
    }
}

void bsp_main(void)
{
    for (uint32_t i = 0; i < MAX_ID; i++)
        cpu_of[i] = NOBODY;
    ext_dest_id = offers_ext_dest_id();
    make_idt();
    load_idt();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    x2apic_on();
    read_madt();
    count_in(0);
    start_aps();
    bool good = ready == cpus;
    uint32_t sent[ROUTES];
    __asm__ volatile("sti");
    print("census: %u of %u CPUs started\n", ready, cpus);
    print("  route                      sent     once     lost    twice    stray\n");
    for (unsigned r = 0; r < ROUTES; r++) {
        if (r == R_MSI_REMAP)
            find_unit();
        sent[r] = send_all(r);
        wait_for(&arrived[r], sent[r]);
    }
    for (unsigned r = 0; r < ROUTES; r++)
        if (unit || r < R_MSI_REMAP)
            good &= report(r, sent[r]);
    uint32_t strays = stray_vectors();
    if (strays)
        print("census: %u interrupts with a vector nobody sent\n", strays);
    leave(good && !strays);
}
