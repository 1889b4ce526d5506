/* The remapping units as the census payload programs them: one entry a CPU for messages, one a CPU for the I/O APIC's
 * pins. Boot CPU only.
 */
#ifndef CENSUS_REMAP_H
#define CENSUS_REMAP_H

#include <stdbool.h>
#include <stdint.h>

#define REMAP_MAX 32768u /* CPUs */

struct remap_msi {
    uint32_t addr, data;
    uint16_t requester;
};

struct remap_unit {
    const char *name;
    /* Find the unit in its ACPI table and switch remapping on, with entry i for the CPU of APIC ID id[i] and these
     * vectors. False: it is not there. Hangs on a unit that does not answer. */
    bool (*enable)(uintptr_t table, const uint32_t *id, uint32_t n, uint8_t msi_vector, uint8_t pin_vector);
    struct remap_msi (*msi)(uint32_t i);
    /* Redirection entry that names pin entry i; the unit is told if it must be. */
    uint64_t (*rte)(uint32_t i);
};

extern const struct remap_unit vtd_unit, amdvi_unit;

static inline uint32_t mmio_read(uintptr_t at)
{
    return *(volatile uint32_t *)at;
}

static inline void mmio_write(uintptr_t at, uint32_t val)
{
    *(volatile uint32_t *)at = val;
}

/* High half first; no unit is switched on by either half of these registers. */
static inline void mmio_write64(uintptr_t at, uint64_t val)
{
    mmio_write(at + 4, (uint32_t)(val >> 32));
    mmio_write(at, (uint32_t)val);
}

#endif
