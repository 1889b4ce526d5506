/* -device intel-iommu, amd-iommu. */
#include "cli/options_priv.h"

#include "base/bits.h"

#include <errno.h>

static struct vm_iommu *iommu(void *ctx)
{
    return &((struct vm_config *)ctx)->iommu;
}

static int u_intremap(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &iommu(ctx)->intremap, e);
}

static int u_eim(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {[VM_AUTO] = "auto", [VM_ON] = "on", [VM_OFF] = "off"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &iommu(ctx)->eim, e);
}

static int u_caching(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &iommu(ctx)->caching_mode, e);
}

static int u_dma(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_onoff(k, &iommu(ctx)->dma_translation, e);
}

static int u_aw_bits(void *ctx, const struct keyval *k, struct err *e)
{
    return keyval_u32(k, 39, 48, &iommu(ctx)->aw_bits, e);
}

static int u_scope(void *ctx, const struct keyval *k, struct err *e)
{
    static const char *const names[] = {[VM_SCOPE_ALL] = "all", [VM_SCOPE_IOAPIC] = "ioapic"};
    return keyval_choice(k, names, ARRAY_SIZE(names), &iommu(ctx)->scope, e);
}

static const struct prop intel_props[] = {
    {"intremap", u_intremap, "on|off", "interrupt remapping (on)"},
    {"eim", u_eim, "auto|on|off", "32-bit destinations; auto: as intremap (auto)"},
    {"caching-mode", u_caching, "on|off", "the guest tells of new mappings too (off)"},
    {"dma-translation", u_dma, "on|off", "page tables for devices (on)"},
    {"aw-bits", u_aw_bits, "39|48", "width of devices' addresses (48)"},
    {"scope", u_scope, "all|ioapic", "who is behind it: everybody, or the I/O APIC alone (all)"},
};

static const struct prop amd_props[] = {
    {"intremap", u_intremap, "on|off", "interrupt remapping (on)"},
    {"xtsup", u_eim, "auto|on|off", "32-bit destinations; auto: as intremap (auto)"},
    {"dma-translation", u_dma, "on|off", "page tables for devices (on)"},
    {"scope", u_scope, "all|ioapic", "who is behind it: everybody, or the I/O APIC alone (all)"},
};

void help_amd_iommu(FILE *out)
{
    help_item(out, "amd-iommu", "an AMD-Vi unit: remaps interrupts, translates DMA");
    help_props(out, amd_props, ARRAY_SIZE(amd_props));
}

int opt_amd_iommu(struct vm_config *c, struct keyval *k, struct err *e)
{
    if (c->iommu.kind != VM_IOMMU_NONE)
        return err_set(e, -EINVAL, "-device amd-iommu: this machine has an IOMMU already: drop one");
    c->iommu.kind = VM_IOMMU_AMD;
    k->option = "-device amd-iommu";
    return keyval_apply(k, amd_props, ARRAY_SIZE(amd_props), c, e);
}

void help_intel_iommu(FILE *out)
{
    help_item(out, "intel-iommu", "a VT-d unit: remaps interrupts, translates DMA");
    help_props(out, intel_props, ARRAY_SIZE(intel_props));
}

int opt_intel_iommu(struct vm_config *c, struct keyval *k, struct err *e)
{
    if (c->iommu.kind != VM_IOMMU_NONE)
        return err_set(e, -EINVAL, "-device intel-iommu: this machine has an IOMMU already: drop one");
    c->iommu.kind = VM_IOMMU_INTEL;
    k->option = "-device intel-iommu";
    return keyval_apply(k, intel_props, ARRAY_SIZE(intel_props), c, e);
}
