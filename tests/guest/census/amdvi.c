/* AMD-Vi: interrupt tables of 2048 entries of 128 bits, 32-bit destinations. 48882, "Interrupt Remapping Tables". A
 * table holds 2048 CPUs: messages come from as many requesters as it takes, the I/O APIC's table is rewritten as
 * needed. */
#include "remap.h"

enum { DEVTAB = 0x00, CMDBUF = 0x08, CONTROL = 0x18, CMD_HEAD = 0x2000, CMD_TAIL = 0x2008 };

#define TABLE     2048u
#define TABLES    (REMAP_MAX / TABLE)
#define MSI_RID   0x0200u /* bus 2: requesters 200h .. 20Fh */
#define DEVICES   0x300u
#define CTRL_LOW  (1u << 0 | 1u << 12 | 1u << 17) /* IommuEn, CmdBufEn, GAEn */
#define CTRL_HIGH (1u << 18 | 1u << 11)           /* XTEn; NumIntRemapMode: 2048 entries */

#define DM     (1u << 2) /* the destination mode bit says that the index has eleven bits */
#define DM_RTE (1u << 11)

static uint64_t device[DEVICES][4] __attribute__((aligned(4096)));
static uint64_t table[TABLES + 1][TABLE][2] __attribute__((aligned(4096))); /* the last one is the I/O APIC's */
static uint64_t commands[256][2] __attribute__((aligned(4096)));
static volatile uint64_t done;
static uint32_t tail, pins_from;
static uintptr_t unit;
static uint16_t ioapic_rid;
static const uint32_t *ids;
static uint32_t cpus;
static uint8_t vector_of_pins;

static void entry(uint64_t *e, uint32_t id, uint8_t vector)
{
    e[0] = 1u | (uint64_t)(id & 0xffffff) << 8;
    e[1] = vector | (uint64_t)(id >> 24) << 56;
}

static void use_table(uint32_t rid, uint64_t (*t)[2])
{
    device[rid][0] = 1;
    device[rid][2] = 1u | 11u << 1 | (uintptr_t)t | UINT64_C(2) << 60;
}

static void command(uint64_t lo, uint64_t hi)
{
    commands[tail][0] = lo;
    commands[tail][1] = hi;
    tail = (tail + 1) % 256;
    mmio_write(unit + CMD_TAIL, tail << 4);
}

static void invalidate(uint16_t rid)
{
    done = 0;
    command(UINT64_C(5) << 60 | rid, 0);
    command(UINT64_C(1) << 60 | 1 | (uintptr_t)&done, 1);
    while (!done)
        __asm__ volatile("pause");
}

/* The I/O APIC's table for the CPUs from `first`. */
static void fill_pins(uint32_t first)
{
    pins_from = first;
    for (uint32_t i = 0; i < TABLE && first + i < cpus; i++)
        entry(table[TABLES][i], ids[first + i], vector_of_pins);
}

/* The unit's registers and the I/O APIC's requester id, from the first IVHD. */
static void read_ivhd(uintptr_t ivrs)
{
    const volatile uint8_t *p = (const volatile uint8_t *)(ivrs + 48), *end = p + (p[2] | p[3] << 8);
    unit = mmio_read((uintptr_t)p + 8);
    for (p += p[0] == 0x10 ? 24 : 40; p < end; p += 4u << (p[0] >> 6))
        if (p[0] == 0x48 && p[7] == 1)
            ioapic_rid = (uint16_t)(p[5] | p[6] << 8);
}

static bool enable(uintptr_t ivrs, const uint32_t *id, uint32_t n, uint8_t msi_vector, uint8_t pin_vector)
{
    ids = id;
    cpus = n;
    vector_of_pins = pin_vector;
    read_ivhd(ivrs);
    if (!ioapic_rid)
        return false; /* no interrupt remapping */
    for (uint32_t i = 0; i < n; i++)
        entry(table[i / TABLE][i % TABLE], id[i], msi_vector);
    for (uint32_t t = 0; t < TABLES; t++)
        use_table(MSI_RID + t, table[t]);
    use_table(ioapic_rid, table[TABLES]);
    fill_pins(0);
    mmio_write64(unit + DEVTAB, (uintptr_t)device | ((sizeof device + 4095) / 4096 - 1));
    mmio_write64(unit + CMDBUF, (uintptr_t)commands | UINT64_C(8) << 56);
    mmio_write(unit + CONTROL + 4, CTRL_HIGH);
    mmio_write(unit + CONTROL, CTRL_LOW);
    invalidate(ioapic_rid);
    return true;
}

static struct remap_msi msi(uint32_t i)
{
    return (struct remap_msi){.addr = 0xfee00000 | DM, .data = i % TABLE, .requester = (uint16_t)(MSI_RID + i / TABLE)};
}

static uint64_t rte(uint32_t i)
{
    if (i / TABLE * TABLE != pins_from) {
        fill_pins(i / TABLE * TABLE);
        invalidate(ioapic_rid);
    }
    return i % TABLE | DM_RTE;
}

const struct remap_unit amdvi_unit = {.name = "IVRS", .enable = enable, .msi = msi, .rte = rte};
