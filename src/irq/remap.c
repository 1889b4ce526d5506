#include "irq/remap.h"

#include "base/bits.h"
#include "irq/amdvi.h"
#include "irq/vtd.h"
#include "irq/way.h"
#include "x86/apic.h"

#define MSI_BASE       UINT64_C(0xfee)
#define MSI_LOGICAL    BIT(2)
#define MSI_REDIRECT   BIT(3)
#define MSI_REMAPPABLE BIT(4)

void remap_init(struct remap *r, bool ext_dest_id)
{
    *r = (struct remap){.ext_dest_id = ext_dest_id};
}

/* Without a remapping unit bit 4 means nothing, and a message that sets it has no extended destination either: it goes
 * to the 8-bit one, as on KVM. */
static enum remap_form form_of(const struct remap *r, uint64_t addr)
{
    return r->ext_dest_id && !(addr & MSI_REMAPPABLE) && bits(addr, 11, 5) ? REMAP_FORM_EXT_DEST : REMAP_FORM_COMPAT;
}

/* SDM 3A, "Message Data Register Format": start-up and the reserved mode are for the ICR only. */
static bool mode_is_bad(unsigned mode)
{
    return mode == IRQ_REMRD || mode == IRQ_STARTUP;
}

/* What both direct formats share. The redirection hint asks for one receiver, which is what lowest priority does. SMI,
 * NMI, INIT and ExtINT are edges whatever the trigger bit says; the level bit counts for level-triggered ones alone. */
static struct irq direct(struct msi_msg msg, uint32_t dest)
{
    unsigned mode = bits(msg.data, 10, 8);
    bool level = mode <= IRQ_LOWEST && msg.data & 0x8000;
    if (mode == IRQ_FIXED && msg.addr & MSI_REDIRECT)
        mode = IRQ_LOWEST;
    return (struct irq){.dest = dest,
                        .vector = (uint8_t)msg.data,
                        .mode = (uint8_t)mode,
                        .logical = (msg.addr & MSI_LOGICAL) != 0,
                        .level = level,
                        .assert_ = !level || msg.data & 0x4000,
                        .dest8 = dest <= 0xff};
}

static struct remap_result fault(enum remap_form form, enum remap_fault f)
{
    return (struct remap_result){.fault = f, .form = form};
}

/* A message whose bits say all, with this destination. */
static struct remap_result plain(enum remap_form form, struct msi_msg msg, uint32_t dest)
{
    if (mode_is_bad(bits(msg.data, 10, 8)))
        return fault(form, REMAP_BAD_MODE);
    return (struct remap_result){.form = form, .irq = direct(msg, dest)};
}

static struct remap_result addr_hi(enum remap_form form, struct msi_msg msg)
{
    return plain(form, msg, (uint32_t)(bits(msg.addr, 19, 12) | bits(msg.addr, 63, 40) << 8));
}

/* Xen, hvm_inject_msi(): vector 0 is a PIRQ's number in the destination bits; Linux composes it with delivery mode 3.
 * Where nobody resolves them, only what is nothing else is taken for one. */
static bool is_xen_pirq(const struct remap *r, struct msi_msg msg)
{
    return !(msg.data & 0xff) && (r->pirq.resolve || bits(msg.data, 10, 8) == IRQ_REMRD);
}

static struct remap_result xen_pirq(const struct remap *r, struct msi_msg msg)
{
    struct remap_result res = {.form = REMAP_FORM_XEN_PIRQ};
    uint32_t pirq = (uint32_t)(bits(msg.addr, 19, 12) | bits(msg.addr, 63, 40) << 8);
    if (!r->pirq.resolve || !r->pirq.resolve(r->pirq.opaque, pirq, &res.irq))
        return fault(REMAP_FORM_XEN_PIRQ, REMAP_XEN_PIRQ);
    return res;
}

/* Something in address bits 63:32. */
static struct remap_result high(const struct remap *r, struct msi_msg msg)
{
    if (is_xen_pirq(r, msg) && !bits(msg.addr, 39, 32))
        return xen_pirq(r, msg);
    if (!r->windows_high || msg.addr >> 56)
        return fault(REMAP_FORM_COMPAT, REMAP_HIGH_ADDRESS);
    return plain(REMAP_FORM_WINDOWS_HIGH, msg, (uint32_t)(bits(msg.addr, 19, 12) | bits(msg.addr, 55, 32) << 8));
}

/* An AMD entry's index in VT-d's remappable format, for the I/O APIC: its pins' indices are those of the whole table,
 * while PCI functions count each from 0, and nobody knows where their entries are. */
static bool windows_amd(const struct remap *r, struct msi_msg msg, requester_id_t from, unsigned flags,
                        struct remap_result *res)
{
    struct msi_msg vtd_msg = {.addr = MSI_BASE << 20 | bits(msg.data, 10, 0) << 5 | MSI_REMAPPABLE};
    if (msg.addr & MSI_REMAPPABLE || from.rid != r->ioapic.rid || !vtd_remap(r->vtd, vtd_msg, from, flags, res))
        return false;
    res->form = REMAP_FORM_WINDOWS_AMD;
    return true;
}

/* A unit's last word, if there is one and it has it. */
static bool by_unit(const struct remap *r, struct msi_msg msg, requester_id_t from, unsigned flags,
                    struct remap_result *res)
{
    if (r->vtd && r->windows_amd && windows_amd(r, msg, from, flags, res))
        return true;
    return (r->vtd && vtd_remap(r->vtd, msg, from, flags, res)) ||
           (r->amdvi && amdvi_remap(r->amdvi, msg, from, flags, res));
}

static struct remap_result translate(const struct remap *r, struct msi_msg msg, requester_id_t from, unsigned flags)
{
    struct remap_result res = {.fault = REMAP_OK, .form = REMAP_FORM_COMPAT};
    if (bits(msg.addr, 31, 20) != MSI_BASE)
        return fault(REMAP_FORM_COMPAT, REMAP_NOT_INTERRUPT);
    if (unlikely(flags & REMAP_ADDR_HI))
        return bits(msg.addr, 39, 32) ? fault(REMAP_FORM_ADDR_HI, REMAP_HIGH_ADDRESS)
                                      : addr_hi(REMAP_FORM_ADDR_HI, msg);
    if (unlikely(msg.addr >> 32))
        return high(r, msg);
    if (by_unit(r, msg, from, flags, &res))
        return res;
    if (unlikely(is_xen_pirq(r, msg)))
        return xen_pirq(r, msg);
    enum remap_form form = form_of(r, msg.addr);
    uint32_t dest = (uint32_t)bits(msg.addr, 19, 12);
    if (form == REMAP_FORM_EXT_DEST)
        dest |= (uint32_t)bits(msg.addr, 11, 5) << 8;
    return plain(form, msg, dest);
}

bool remap_claims(const struct remap *r, uint64_t addr)
{
    return bits(addr, 31, 20) == MSI_BASE && (!(addr >> 32) || (r->windows_high && !(addr >> 56)));
}

/* On a machine with the broadcast quirk FFh is everyone, whatever table or field it came from. */
struct remap_result remap_msi(const struct remap *r, struct msi_msg msg, requester_id_t from, unsigned flags)
{
    struct remap_result res = translate(r, msg, from, flags);
    if (unlikely(r->broadcast_quirk) && res.fault == REMAP_OK && res.irq.dest == APIC_BROADCAST8)
        res.irq.dest8 = IRQ_DEST8_ALL;
    return res;
}

struct remap_result remap_unit_msi(struct msi_msg msg)
{
    if (bits(msg.addr, 31, 20) != MSI_BASE)
        return fault(REMAP_FORM_UNIT, REMAP_NOT_INTERRUPT);
    return addr_hi(REMAP_FORM_UNIT, msg);
}

struct msi_msg remap_rte_msg(uint64_t rte)
{
    bool level = (rte & RTE_LEVEL) != 0;
    return (struct msi_msg){
        .addr =
            MSI_BASE << 20 | bits(rte, 63, 56) << 12 | bits(rte, 55, 48) << 4 | (rte & RTE_LOGICAL ? MSI_LOGICAL : 0),
        .data = (uint32_t)(bits(rte, 10, 0) | (level ? 0xc000 : 0)),
    };
}

struct remap_result remap_rte(const struct remap *r, uint64_t rte, requester_id_t from, unsigned flags)
{
    return remap_msi(r, remap_rte_msg(rte), from, flags);
}

int remap_deliver_msi(const struct remap *r, struct irq_port port, struct msi_msg msg, requester_id_t from)
{
    struct remap_result res = remap_msi(r, msg, from, REMAP_DELIVER);
    res.irq.way = way_from_device(r->trace, from, msg);
    way_route(r->trace, res.irq.way, msg, &res);
    int taken = res.fault == REMAP_OK ? port.deliver(port.opaque, res.irq) : res.fault == REMAP_POSTED;
    way_end(r->trace, res.irq.way, taken);
    return taken;
}
