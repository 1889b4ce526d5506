#include "acpi/acpi_priv.h"

#include <errno.h>
#include <stdlib.h>

enum {
    FADT_WBINVD = 1u << 0,
    FADT_PROC_C1 = 1u << 2,
    FADT_TMR_VAL_EXT = 1u << 8,
    FADT_RESET_REG = 1u << 10,
    FADT_APIC_CLUSTER = 1u << 18,
    FADT_APIC_PHYSICAL = 1u << 19
};
enum { BOOT_ARCH_LEGACY = 1u << 0, BOOT_ARCH_NO_VGA = 1u << 2 };

/* ---- tables ---- */

static uint64_t table_begin(struct bytes *b, const char *sig, uint8_t rev)
{
    put_align(b, 16);
    uint64_t at = b->len;
    put_mem(b, sig, 4);
    put(b, 0, 4); /* length */
    put(b, rev, 1);
    put(b, 0, 1); /* checksum */
    put_mem(b, "HECATN", 6);
    put_mem(b, "HECATON ", 8);
    put(b, 1, 4);
    put_mem(b, "HCTN", 4);
    put(b, 1, 4);
    return at;
}

static void table_end(struct bytes *b, uint64_t at)
{
    if (b->overflow)
        return;
    st32(b->buf + at + 4, (uint32_t)(b->len - at));
    b->buf[at + 9] = sum_fix(b->buf + at, b->len - at);
}

/* Generic Address Structure of a port block, ACPI 6.5, 5.2.3.2. */
static void gas_port(struct bytes *b, uint8_t bits, uint8_t access, uint64_t port)
{
    put(b, port ? 1 : 0, 1);
    put(b, bits, 1);
    put(b, 0, 1);
    put(b, access, 1);
    put(b, port, 8);
}

static uint32_t fadt_flags(const struct acpi_config *c)
{
    return FADT_WBINVD | FADT_PROC_C1 | FADT_TMR_VAL_EXT | FADT_RESET_REG |
           (c->physical_destination ? FADT_APIC_PHYSICAL : FADT_APIC_CLUSTER);
}

/* Offsets 36 to 115. */
static void fadt_legacy(struct bytes *b, const struct acpi_config *c, uint32_t facs, uint32_t dsdt)
{
    put(b, facs, 4);
    put(b, dsdt, 4);
    put(b, 0, 1);
    put(b, 0, 1); /* profile: unspecified */
    put(b, c->sci_gsi, 2);
    put(b, c->smi_cmd, 4);
    put(b, c->acpi_enable, 1);
    put(b, c->acpi_disable, 1);
    put(b, 0, 2);
    put(b, c->pm_base, 4);
    put(b, 0, 4);
    put(b, c->pm_base + 4u, 4);
    put(b, 0, 8);
    put(b, c->pm_base + 8u, 4);
    put(b, c->pm_base + 0x20u, 4);
    put(b, 0, 4);
    put(b, 4, 1);  /* PM1 event length */
    put(b, 2, 1);  /* PM1 control length */
    put(b, 0, 1);  /* no PM2 */
    put(b, 4, 1);  /* PM timer length */
    put(b, 16, 1); /* GPE0 length */
    put(b, 0, 3);
    put(b, 0xfff, 2); /* no C2 */
    put(b, 0xfff, 2); /* no C3 */
    put(b, 0, 8);
    put(b, 0x32, 1); /* century byte of the RTC */
    put(b, BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA, 2);
    put(b, 0, 1);
    put(b, fadt_flags(c), 4);
}

/* ACPI 6.5, 5.2.9 "Fixed ACPI Description Table (FADT)". */
static void fadt_body(struct bytes *b, const struct acpi_config *c, gpa_t facs, gpa_t dsdt)
{
    fadt_legacy(b, c, (uint32_t)facs, (uint32_t)dsdt);
    gas_port(b, 8, 1, c->reset_port);
    put(b, c->reset_value, 1);
    put(b, 0, 2);
    put(b, 5, 1); /* minor revision */
    put(b, 0, 8); /* X_FIRMWARE_CTRL: the 32-bit field counts */
    put(b, dsdt, 8);
    gas_port(b, 32, 2, c->pm_base);
    gas_port(b, 0, 0, 0);
    gas_port(b, 16, 2, c->pm_base + 4u);
    gas_port(b, 0, 0, 0);
    gas_port(b, 0, 0, 0);
    gas_port(b, 32, 3, c->pm_base + 8u);
    gas_port(b, 128, 1, c->pm_base + 0x20u);
    gas_port(b, 0, 0, 0);
    gas_port(b, 0, 0, 0);
    gas_port(b, 0, 0, 0);
    put(b, 0, 8); /* hypervisor vendor */
}

static gpa_t facs(struct bytes *b, gpa_t base)
{
    put_align(b, 64);
    gpa_t at = base + b->len;
    put_mem(b, "FACS", 4);
    put(b, 64, 4);
    put_zero(b, 24);
    put(b, 2, 1);
    put_zero(b, 31);
    return at;
}

static void rsdp_build(uint8_t rsdp[ACPI_RSDP_LEN], gpa_t xsdt)
{
    struct bytes b = {.buf = rsdp, .cap = ACPI_RSDP_LEN};
    put_mem(&b, "RSD PTR ", 8);
    put(&b, 0, 1);
    put_mem(&b, "HECATN", 6);
    put(&b, 2, 1);
    put(&b, 0, 4); /* no RSDT */
    put(&b, ACPI_RSDP_LEN, 4);
    put(&b, xsdt, 8);
    put(&b, 0, 4);
    rsdp[8] = sum_fix(rsdp, 20);
    rsdp[32] = sum_fix(rsdp, ACPI_RSDP_LEN);
}

/* ---- UIDs ---- */

static void acpi_uids(const struct acpi_config *c, uint32_t *uid)
{
    uint32_t next = 0;
    for (unsigned wide = 0; wide < 2; wide++)
        for (uint32_t i = 0; i < c->cpus; i++)
            if ((c->ids[i].id > ACPI_ID8_MAX) == wide)
                uid[i] = next++;
}

static uint32_t *cpus_by_uid(const struct acpi_config *c)
{
    uint32_t *uid = calloc(c->cpus, 2 * sizeof *uid);
    if (!uid)
        return NULL;
    uint32_t *cpu = uid + c->cpus;
    acpi_uids(c, uid);
    for (uint32_t i = 0; i < c->cpus; i++)
        cpu[uid[i]] = i;
    memcpy(uid, cpu, c->cpus * sizeof *uid);
    return uid;
}

/* ---- all of them ---- */

uint64_t acpi_size(const struct acpi_config *c)
{
    return 16384 + (uint64_t)c->cpus * (16 + 24 + 64) + (uint64_t)c->mems * 40;
}

typedef void body_fn(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid);

static void waet_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    put(b, 3, 4); /* the RTC and the PM timer need no workaround */
}

/* PCI Firmware 3.3, 4.1.2 "MCFG Table Description". */
static void mcfg_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    put(b, 0, 8);
    put(b, c->ecam.base, 8);
    put(b, 0, 2); /* segment */
    put(b, 0, 1);
    put(b, (c->ecam.len >> 20) - 1, 1); /* last bus */
    put(b, 0, 4);
}

static gpa_t table(struct bytes *b, gpa_t base, const char *sig, uint8_t rev, body_fn *body,
                   const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    uint64_t at = table_begin(b, sig, rev);
    body(b, c, cpu_of_uid);
    table_end(b, at);
    return base + at;
}

static gpa_t build_all(struct bytes *b, gpa_t base, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    gpa_t entry[8];
    unsigned n = 0;
    gpa_t facs_at = facs(b, base);
    gpa_t dsdt_at = table(b, base, "DSDT", 2, dsdt_body, c, cpu_of_uid);
    uint64_t fadt = table_begin(b, "FACP", 6);
    fadt_body(b, c, facs_at, dsdt_at);
    table_end(b, fadt);
    entry[n++] = base + fadt;
    entry[n++] = table(b, base, "APIC", 5, madt_body, c, cpu_of_uid);
    entry[n++] = table(b, base, "WAET", 1, waet_body, c, cpu_of_uid);
    if (c->ecam.len)
        entry[n++] = table(b, base, "MCFG", 1, mcfg_body, c, cpu_of_uid);
    if (c->nodes > 1)
        entry[n++] = table(b, base, "SRAT", 3, srat_body, c, cpu_of_uid);
    if (c->vtd.gpa)
        entry[n++] = table(b, base, "DMAR", 1, dmar_body, c, cpu_of_uid);
    if (c->amdvi.gpa)
        entry[n++] = table(b, base, "IVRS", 2, ivrs_body, c, cpu_of_uid);
    uint64_t xsdt = table_begin(b, "XSDT", 1);
    for (unsigned i = 0; i < n; i++)
        put(b, entry[i], 8);
    table_end(b, xsdt);
    return base + xsdt;
}

int acpi_build(const struct acpi_config *c, gpa_t base, uint8_t *buf, uint64_t cap, uint8_t rsdp[ACPI_RSDP_LEN],
               uint64_t *used, struct err *e)
{
    struct bytes b = {.buf = buf, .cap = cap};
    uint32_t *cpu_of_uid = cpus_by_uid(c);
    if (!cpu_of_uid)
        return err_set(e, -ENOMEM, "out of memory for the ACPI tables of %u CPUs", c->cpus);
    gpa_t xsdt = build_all(&b, base, c, cpu_of_uid);
    free(cpu_of_uid);
    if (b.overflow)
        return err_set(e, -ENOSPC, "the ACPI tables of %u CPUs need more than %llu bytes", c->cpus,
                       (unsigned long long)cap);
    rsdp_build(rsdp, xsdt);
    *used = b.len;
    return 0;
}
