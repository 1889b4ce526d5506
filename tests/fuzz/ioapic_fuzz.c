/* Scripts of register accesses and pin levels on an I/O APIC in front of six local APICs. */
#include "irq_fuzz.h"

#include "irq/ioapic.h"

static void check(struct ioapic *io)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = ioapic_rte(io, pin);
        ensure(!(rte & RTE_REMOTE_IRR) || rte & RTE_LEVEL);
        ensure(!(rte >> 17 & 0x7fffffff) && !(rte & RTE_STATUS));
    }
}

static void step(struct fuzz_box *b, struct ioapic *io, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    vcpu_idx_t c = VCPU_IDX((op >> 4) % FUZZ_CPUS);
    uint64_t off;
    switch (op & 7) {
    case 0:
        off = script_get(s, 2) & 0xff8;
        ioapic_bus_ops.write(io, off, 1u << (op >> 6), script_get(s, 8));
        break;
    case 1:
        off = script_get(s, 2) & 0xff8;
        ioapic_bus_ops.read(io, off, 1u << (op >> 6));
        break;
    case 2:
    case 3:
        ioapic_set_pin(io, (unsigned)script_get(s, 1) & 31, op & 0x80);
        break;
    case 4:
        ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, 0x10 + (script_get(s, 1) & 63));
        ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, script_get(s, 4));
        break;
    case 5:
        if (fabric_irq_pending(b->f, c) >= 0)
            fabric_irq_take(b->f, c);
        break;
    case 6:
        fabric_msr_write(b->f, c, 0, 0x80b, 0);
        break;
    default:
        ioapic_eoi(io, (uint8_t)script_get(s, 1));
    }
    check(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, size};
    struct fuzz_box b;
    struct remap remap;
    struct ioapic *io;
    bool ext = script_get(&s, 1) & 1;
    fuzz_box_init(&b, true);
    remap_init(&remap, ext);
    struct ioapic_config c = {.ext_dest_id = ext, .remap = &remap, .port = fabric_port(b.f)};
    ensure(ioapic_create(&c, &io, NULL) == 0);
    fabric_set_eoi(b.f, ioapic_eoi, io);
    for (uint32_t i = 0; i < FUZZ_CPUS; i++)
        fabric_msr_write(b.f, VCPU_IDX(i), 0, 0x80f, 0x1ff);
    while (s.left)
        step(&b, io, &s);
    ioapic_destroy(io);
    fuzz_box_fini(&b);
    return 0;
}
