/* ACPI tables as bytes from a plain description: RSDP, XSDT, FADT, FACS, MADT, MCFG, DSDT, SRAT, DMAR, IVRS, WAET.
 * ACPI 6.5, chapter 5 "ACPI Software Programming Model" and chapter 20 "ACPI Machine Language (AML) Specification".
 *
 * Past APIC ID 254 a CPU is a type 9 MADT entry; no CPU is ever listed twice. ACPI UIDs are neither vCPU indices nor
 * APIC IDs: CPUs with an ID below 255 come first, so that their UID fits the 8-bit field of a type 0 entry.
 */
#ifndef HEC_ACPI_ACPI_H
#define HEC_ACPI_ACPI_H

#include "base/err.h"
#include "base/types.h"

#define ACPI_RSDP_LEN 36u

struct acpi_range {
    gpa_t base;
    uint64_t len; /* 0: absent */
};

struct acpi_memory {
    struct acpi_range range;
    uint32_t node;
};

/* A VT-d unit. */
struct acpi_vtd {
    gpa_t gpa;         /* of its registers; 0: there is none */
    bool intremap;     /* it remaps interrupts */
    bool ioapic_only;  /* the I/O APIC alone is behind it */
    uint8_t phys_bits; /* width of host addresses */
};

/* An AMD I/O virtualization unit. */
struct acpi_amdvi {
    gpa_t gpa;            /* of its registers; 0: there is none */
    bool intremap;        /* it remaps interrupts */
    bool ioapic_only;     /* the I/O APIC alone is behind it */
    bool dma_translation; /* off: says HATDis */
    uint16_t rid;         /* of its PCI function */
    uint16_t capability;  /* offset of its capability block there */
    uint64_t efr, efr2;   /* as its registers say */
};

struct acpi_config {
    uint32_t cpus;
    const apic_id_t *ids;          /* [cpus] by vCPU index */
    const uint32_t *cpu_node;      /* [cpus], NULL: all in node 0 */
    uint32_t nodes;                /* SRAT is built from 2 on */
    const struct acpi_memory *mem; /* [mems] */
    uint32_t mems;
    bool physical_destination; /* FADT says physical destination mode (flag 19) instead of cluster (18) */
    bool no_id_255;            /* 8-bit destinations only: FFh is everyone, so that CPU is not enabled */
    uint8_t ioapic_id;
    uint32_t ioapic_gpa;
    uint16_t ioapic_rid; /* the requester id that its interrupts come from */
    struct acpi_vtd vtd;
    struct acpi_amdvi amdvi;
    uint8_t sci_gsi;
    uint16_t pm_base; /* PM1 event +0, PM1 control +4, PM timer +8, GPE0 +20h (16 bytes) */
    uint16_t smi_cmd; /* port; with the values that switch ACPI mode on and off */
    uint8_t acpi_enable, acpi_disable;
    uint8_t s5_typ;      /* SLP_TYP of soft-off */
    uint16_t reset_port; /* reset register */
    uint8_t reset_value;
    bool serial;                    /* COM1 exists */
    struct acpi_range pci32, pci64; /* windows for BARs */
    struct acpi_range ecam;         /* configuration space of buses 0 .. 255 */
    uint8_t intx_gsi[32][4];        /* of device number and pin - 1 of bus 0; 0: no interrupt */
    uint8_t intx_irq[32][4];        /* the same for a guest that uses the PIC */
};

/* Bytes acpi_build() needs at most. Any thread. */
uint64_t acpi_size(const struct acpi_config *c);
/* Write all tables but the RSDP to `buf` (`cap` bytes, seen by the guest at `base`, 64-byte aligned) and the RSDP to
 * `rsdp`. Any thread. -ENOSPC if `cap` is too small; *used gets the bytes written. */
int acpi_build(const struct acpi_config *c, gpa_t base, uint8_t *buf, uint64_t cap, uint8_t rsdp[ACPI_RSDP_LEN],
               uint64_t *used, struct err *e);

#endif
