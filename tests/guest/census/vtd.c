/* VT-d: a 64K-entry table, x2APIC mode, one global invalidation. VT-d, "Interrupt Remapping Setup". */
#include "remap.h"

enum { GCMD = 0x18, GSTS = 0x1c, IQT = 0x88, IQA = 0x90, IRTA = 0xb8 };

#define GCMD_SIRTP (1u << 24)
#define GCMD_IRE   (1u << 25)
#define GCMD_QIE   (1u << 26)
#define EIME       (1u << 11)
#define MSI_RID    0x0208 /* bus 2, device 1: nobody else's */

static uint64_t irte[2 * REMAP_MAX][2] __attribute__((aligned(4096)));
static uint64_t queue[256][2] __attribute__((aligned(4096)));
static volatile uint32_t queue_done;
static uint8_t vector_of_pins;

static void command(uintptr_t unit, uint32_t on, uint32_t wait)
{
    mmio_write(unit + GCMD, on);
    while (!(mmio_read(unit + GSTS) & wait))
        __asm__ volatile("pause");
}

/* Entry i of a half; source validated by its whole requester id (SVT 1). */
static void entry(uint32_t at, uint32_t id, uint8_t vector, uint16_t requester)
{
    irte[at][0] = 1u | (uint32_t)vector << 16 | (uint64_t)id << 32;
    irte[at][1] = requester | 1u << 18;
}

static void invalidate_all(uintptr_t unit)
{
    queue[0][0] = 4;
    queue[1][0] = 5 | 1u << 5 | UINT64_C(1) << 32; /* wait: write 1 to queue_done */
    queue[1][1] = (uintptr_t)&queue_done;
    mmio_write64(unit + IQA, (uintptr_t)queue);
    command(unit, GCMD_QIE, GCMD_QIE);
    mmio_write64(unit + IQT, 2 << 4);
    while (!queue_done)
        __asm__ volatile("pause");
}

/* The requester id of the I/O APIC in a DRHD's device scopes. */
static uint16_t ioapic_rid(uintptr_t drhd)
{
    const volatile uint8_t *p = (const volatile uint8_t *)drhd, *end = p + p[2];
    for (p += 16; p < end; p += p[1])
        if (p[0] == 3)
            return (uint16_t)(p[5] << 8 | p[6] << 3 | p[7]);
    return 0;
}

static bool enable(uintptr_t dmar, const uint32_t *id, uint32_t n, uint8_t msi_vector, uint8_t pin_vector)
{
    uintptr_t drhd = dmar + 48, unit = mmio_read(drhd + 8);
    if (!(*(const volatile uint8_t *)(dmar + 37) & 1))
        return false; /* no interrupt remapping */
    for (uint32_t i = 0; i < n; i++) {
        entry(i, id[i], msi_vector, MSI_RID);
        entry(REMAP_MAX + i, id[i], pin_vector, ioapic_rid(drhd));
    }
    vector_of_pins = pin_vector;
    mmio_write64(unit + IRTA, (uintptr_t)irte | EIME | 15);
    command(unit, GCMD_SIRTP, GCMD_SIRTP);
    invalidate_all(unit);
    command(unit, GCMD_QIE | GCMD_IRE, GCMD_IRE);
    return true;
}

static struct remap_msi msi(uint32_t i)
{
    return (struct remap_msi){.addr = 0xfee00010u | (i & 0x7fff) << 5 | i >> 15 << 2, .requester = MSI_RID};
}

static uint64_t rte(uint32_t i)
{
    uint32_t at = REMAP_MAX + i;
    return (uint64_t)(at & 0x7fff) << 49 | UINT64_C(1) << 48 | at >> 15 << 11 | vector_of_pins;
}

const struct remap_unit vtd_unit = {.name = "DMAR", .enable = enable, .msi = msi, .rte = rte};
