/* The kernel's own PIC and I/O APIC (kernel-irqchip=on) at a reset, which the kernel has no call for. Linux,
 * Documentation/virt/kvm/api.rst, "KVM_SET_IRQCHIP". */
#include "cpu/kvm/kvm_priv.h"
#include "irq/ioapic.h"
#include "x86/apic.h"

#include <string.h>

/* As a BIOS leaves it: initialised, vectors `base` up, everything masked. */
static void reset_pic(struct kvm_pic_state *p, uint8_t base)
{
    *p = (struct kvm_pic_state){
        .last_irr = p->last_irr, .imr = 0xff, .irq_base = base, .init4 = 1, .elcr_mask = p->elcr_mask};
}

static void reset_ioapic(struct kvm_ioapic_state *io)
{
    memset(io, 0, sizeof *io);
    io->base_address = IOAPIC_GPA;
    for (unsigned pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
        io->redirtbl[pin].bits = RTE_MASKED;
}

static void reset_chip(struct kvm_irqchip *c)
{
    switch (c->chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
        reset_pic(&c->chip.pic, 0x08);
        break;
    case KVM_IRQCHIP_PIC_SLAVE:
        reset_pic(&c->chip.pic, 0x70);
        break;
    case KVM_IRQCHIP_IOAPIC:
        reset_ioapic(&c->chip.ioapic);
        break;
    }
}

int kvm_chips_reset(struct kvm_vm *vm)
{
    int rc = 0;
    for (uint32_t id = KVM_IRQCHIP_PIC_MASTER; id <= KVM_IRQCHIP_IOAPIC && rc >= 0; id++) {
        struct kvm_irqchip c = {.chip_id = id};
        rc = kvm_vm_iop(vm, KVM_GET_IRQCHIP, &c);
        if (rc >= 0) {
            reset_chip(&c);
            rc = kvm_vm_iop(vm, KVM_SET_IRQCHIP, &c);
        }
    }
    return rc < 0 ? rc : 0;
}
