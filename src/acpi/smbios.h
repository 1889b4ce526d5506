/* SMBIOS 3 entry point and structures. DMTF DSP0134 3.7, "Structure definitions". */
#ifndef HEC_ACPI_SMBIOS_H
#define HEC_ACPI_SMBIOS_H

#include "base/err.h"
#include "base/types.h"

#define SMBIOS_ENTRY_LEN 24u

struct smbios_config {
    const char *product; /* "Hecaton" with the machine's name; borrowed */
    const char *version;
    uint32_t sockets, cores, threads; /* cores and threads a socket */
    uint64_t ram;                     /* bytes */
};

/* Bytes smbios_build() needs at most. Any thread. */
uint64_t smbios_size(const struct smbios_config *c);
/* Write the structures to `buf` (`cap` bytes, at `base` for the guest) and the 64-bit entry point to `entry`. -ENOSPC.
 * Any thread. */
int smbios_build(const struct smbios_config *c, gpa_t base, uint8_t *buf, uint64_t cap, uint8_t entry[SMBIOS_ENTRY_LEN],
                 uint64_t *used, struct err *e);

#endif
