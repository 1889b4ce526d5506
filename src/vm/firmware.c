#include "vm/firmware.h"

#include "acpi/acpi.h"
#include "acpi/smbios.h"
#include "dev/amdvi_pci.h"
#include "cpu/cpuid.h"
#include "dev/pm.h"
#include "irq/ioapic.h"
#include "irq/vtd.h"
#include "pci/host.h"

#include <errno.h>

#define PCI64_MOST  (UINT64_C(32) << 30)
#define PCI64_LEAST (UINT64_C(1) << 30)

static int place_acpi(const struct acpi_config *a, struct boot_layout *l, gpa_t *rsdp, struct err *e)
{
    uint64_t cap = acpi_size(a), used;
    gpa_t tables = boot_layout_acpi(l, cap, 4096, e);
    if (!tables)
        return -ENOMEM;
    *rsdp = boot_layout_bios(l, ACPI_RSDP_LEN, 16, e);
    if (!*rsdp)
        return -ENOSPC;
    return acpi_build(a, tables, ram_hva(l->ram, tables, cap), cap, ram_hva(l->ram, *rsdp, ACPI_RSDP_LEN), &used, e);
}

static int place_smbios(const struct smbios_config *s, struct boot_layout *l, struct err *e)
{
    uint64_t cap = smbios_size(s), used;
    gpa_t tables = boot_layout_acpi(l, cap, 64, e);
    if (!tables)
        return -ENOMEM;
    gpa_t entry = boot_layout_bios(l, SMBIOS_ENTRY_LEN, 16, e);
    if (!entry)
        return -ENOSPC;
    return smbios_build(s, tables, ram_hva(l->ram, tables, cap), cap, ram_hva(l->ram, entry, SMBIOS_ENTRY_LEN), &used,
                        e);
}

static struct acpi_amdvi amdvi_table(const struct vm_config *c)
{
    bool xt = vm_config_remaps_wide(c);
    return (struct acpi_amdvi){.gpa = AMDVI_GPA,
                               .intremap = c->iommu.intremap,
                               .ioapic_only = c->iommu.scope == VM_SCOPE_IOAPIC,
                               .dma_translation = c->iommu.dma_translation,
                               .rid = AMDVI_RID,
                               .capability = AMDVI_PCI_CAPABILITY,
                               .efr = amdvi_efr(xt, c->iommu.dma_translation),
                               .efr2 = amdvi_efr2()};
}

/* As large as q35's, 32 GiB, if the CPU has that many addresses, at a multiple of its own size. */
void firmware_pci64(const struct ram *ram, unsigned phys_bits, uint64_t *base, uint64_t *len)
{
    uint64_t top = RAM_HIGH_GPA + ram->high_size, end = BIT(phys_bits);
    for (*len = PCI64_MOST; *len >= PCI64_LEAST; *len /= 2) {
        *base = align_up(top, *len);
        if (*base + *len <= end)
            return;
    }
    *base = *len = 0;
}

static void pci_table(struct acpi_config *a, const struct cpuid_model *cpuid, const struct boot_layout *l)
{
    firmware_pci64(l->ram, cpuid->phys_bits, &a->pci64.base, &a->pci64.len);
    for (unsigned dev = 0; dev < 32; dev++)
        for (unsigned pin = 1; pin <= 4; pin++) {
            unsigned gsi = pci_intx_gsi(dev, pin);
            a->intx_gsi[dev][pin - 1] = (uint8_t)gsi;
            a->intx_irq[dev][pin - 1] = (uint8_t)PCI_PIC_IRQ(gsi);
        }
}

int firmware_tables(const struct vm_config *c, const struct cpuid_model *cpuid, const apic_id_t *ids,
                    struct boot_layout *layout, gpa_t *rsdp, struct err *e)
{
    struct acpi_config a = {.cpus = c->smp.cpus,
                            .ids = ids,
                            .nodes = 1,
                            .physical_destination = vm_config_physical_destination(c),
                            .no_id_255 = vm_config_usable_id(c, cpuid) < 255,
                            .ioapic_id = 0,
                            .ioapic_gpa = (uint32_t)IOAPIC_GPA,
                            .ioapic_rid = IOAPIC_REQUESTER,
                            .sci_gsi = PM_SCI_GSI,
                            .pm_base = PM_BASE,
                            .smi_cmd = PM_SMI_CMD,
                            .acpi_enable = PM_ACPI_ENABLE,
                            .acpi_disable = PM_ACPI_DISABLE,
                            .s5_typ = PM_SLP_TYP_S5,
                            .reset_port = PM_RESET_REG,
                            .reset_value = PM_RESET_VALUE,
                            .serial = true,
                            .pci32 = {PCI_MEM32_BASE, PCI_MEM32_END - PCI_MEM32_BASE},
                            .ecam = {PCI_ECAM_GPA, PCI_ECAM_SIZE}};
    struct smbios_config s = {.product = "q35",
                              .version = HEC_VERSION,
                              .sockets = c->smp.sockets,
                              .cores = c->smp.dies * c->smp.cores,
                              .threads = c->smp.dies * c->smp.cores * c->smp.threads,
                              .ram = c->mem_size};
    pci_table(&a, cpuid, layout);
    if (c->iommu.kind == VM_IOMMU_INTEL)
        a.vtd = (struct acpi_vtd){.gpa = VTD_GPA,
                                  .intremap = c->iommu.intremap,
                                  .ioapic_only = c->iommu.scope == VM_SCOPE_IOAPIC,
                                  .phys_bits = cpuid->phys_bits};
    if (c->iommu.kind == VM_IOMMU_AMD)
        a.amdvi = amdvi_table(c);
    int rc = boot_layout_reserve(layout, PCI_ECAM_GPA, PCI_ECAM_SIZE, E820_RESERVED, e);
    if (!rc)
        rc = place_acpi(&a, layout, rsdp, e);
    return rc ? rc : place_smbios(&s, layout, e);
}
