/* Shared by the files of acpi/. */
#ifndef HEC_ACPI_PRIV_H
#define HEC_ACPI_PRIV_H

#include "acpi/acpi.h"
#include "acpi/bytes.h"

#define ACPI_ID8_MAX 254u /* largest APIC ID an 8-bit MADT field may hold */

/* Everything after a table's 36-byte header. `cpu_of_uid[uid]` is a vCPU index. */
void ivrs_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void dsdt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void madt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void dmar_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);
void srat_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);

#endif
