#include "dev/amdvi_pci.h"

#include "base/bits.h"

#define VENDOR_AMD   0x1022
#define DEVICE_IOMMU 0x1419
#define CLASS_IOMMU  0x080600

/* The capability block. 48882, "IOMMU Capability Block Registers". */
enum {
    CAP_HEADER = AMDVI_PCI_CAPABILITY,
    CAP_BASE_LOW = 0x44,
    CAP_BASE_HIGH = 0x48,
    CAP_RANGE = 0x4c,
    CAP_MISC = 0x50,
    CAP_MSI = 0x64
};
#define CAP_ID_SECURE  0x0fu
#define CAP_TYPE_IOMMU (3u << 16)
#define CAP_REVISION   (1u << 19)
#define CAP_EFR        (1u << 27)
#define CAP_EXT        (1u << 28) /* the second miscellaneous register exists */
#define BASE_ENABLE    1u
#define MISC_GVA_48    (2u << 5)
#define MISC_PA(bits)  ((uint32_t)(bits) << 8)
#define MISC_VA(bits)  ((uint32_t)(bits) << 15)
#define MSI_END        (CAP_MSI + PCI_MSI_DATA + 2)

static void push_msi(struct amdvi_pci *p)
{
    const uint8_t *c = p->func.config;
    amdvi_set_msi(p->unit, ld16(c + CAP_MSI + PCI_MSI_CTL) & PCI_MSI_ENABLE,
                  (struct msi_msg){ld64(c + CAP_MSI + PCI_MSI_ADDR), ld16(c + CAP_MSI + PCI_MSI_DATA)});
}

static void config_written(struct pci_func *f, unsigned off, unsigned size)
{
    if (off < MSI_END && off + size > CAP_MSI)
        push_msi(f->dev);
}

static const struct pci_func_ops ops = {.config_written = config_written};

/* One vector without a mask bit, at the place the capability block names. PCI Local Bus 3.0, 6.8.1 "MSI Capability
 * Structure". */
static void setup_msi(struct pci_func *f)
{
    pci_func_add_cap(f, PCI_CAP_MSI, MSI_END - CAP_MSI);
    st16(f->config + CAP_MSI + PCI_MSI_CTL, PCI_MSI_64BIT);
    st16(f->wmask + CAP_MSI + PCI_MSI_CTL, PCI_MSI_ENABLE);
    st64(f->wmask + CAP_MSI + PCI_MSI_ADDR, ~UINT64_C(3));
    st16(f->wmask + CAP_MSI + PCI_MSI_DATA, 0xffff);
}

static void setup(struct amdvi_pci *p)
{
    struct pci_func *f = &p->func;
    pci_func_setup(f, AMDVI_RID, VENDOR_AMD, DEVICE_IOMMU, CLASS_IOMMU, 0);
    f->name = "AMD-Vi unit";
    f->ops = &ops;
    f->dev = p;
    pci_func_add_cap(f, CAP_ID_SECURE, CAP_MSI - CAP_HEADER);
    st16(f->config + CAP_HEADER + 2, (CAP_TYPE_IOMMU | CAP_REVISION | CAP_EFR | CAP_EXT) >> 16);
    st64(f->config + CAP_BASE_LOW, AMDVI_GPA | BASE_ENABLE);
    st32(f->config + CAP_MISC, MISC_GVA_48 | MISC_PA(48) | MISC_VA(64));
    setup_msi(f);
}

void amdvi_pci_reset(struct amdvi_pci *p)
{
    push_msi(p);
}

int amdvi_pci_init(struct amdvi_pci *p, struct pci_host *host, struct amdvi *unit, struct err *e)
{
    p->unit = unit;
    setup(p);
    return pci_host_add(host, NULL, &p->func, e);
}
