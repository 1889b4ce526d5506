/* Any message and any redirection entry: a fault or a resolved interrupt, the same for delivery and look-up, and never
 * a destination wider than its format. */
#include "irq_fuzz.h"

#include "irq/remap.h"

static void check(const struct remap *r, struct remap_result a, struct remap_result b)
{
    ensure(a.fault == b.fault);
    if (a.fault != REMAP_OK)
        return;
    ensure(memcmp(&a.irq, &b.irq, sizeof a.irq) == 0);
    ensure(a.form == b.form && a.cookie == b.cookie);
    ensure(a.irq.dest <= (r->ext_dest_id ? HEC_APIC_ID_MAX : 0xff));
    ensure(a.irq.dest8 == (a.irq.dest <= 0xff));
    ensure(a.irq.mode < 8 && a.irq.mode != IRQ_STARTUP && a.irq.mode != IRQ_REMRD);
    ensure(a.irq.shorthand == IRQ_DEST && (a.irq.assert_ || a.irq.level));
    ensure(!a.irq.level || a.irq.mode <= IRQ_LOWEST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, size};
    struct remap r;
    remap_init(&r, script_get(&s, 1) & 1);
    while (s.left) {
        requester_id_t from = REQUESTER_ID(script_get(&s, 2));
        uint8_t kind = (uint8_t)script_get(&s, 1);
        uint64_t addr = kind & 1 ? 0xfee00000u | (script_get(&s, 3) & 0xfffff) : script_get(&s, 8);
        struct msi_msg m = {addr, (uint32_t)script_get(&s, 4)};
        check(&r, remap_msi(&r, m, from, REMAP_DELIVER), remap_msi(&r, m, from, REMAP_LOOKUP));
        uint64_t rte = script_get(&s, 8);
        check(&r, remap_rte(&r, rte, from, REMAP_DELIVER), remap_msi(&r, remap_rte_msg(rte), from, REMAP_LOOKUP));
    }
    return 0;
}
