#include "cpu/soft/io.h"

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"

enum { TSS32_AVAILABLE = 9, TSS32_BUSY = 11, TSS_IO_BASE = 102 };

static bool refused(struct soft_vcpu *v)
{
    fault_set(v, VEC_GP, true, 0);
    return false;
}

static bool bitmap_allows(struct soft_vcpu *v, unsigned port, unsigned size)
{
    const struct cpu_segment *tr = &v->st.seg[SEG_TR];
    unsigned type = tr->attr & SEGA_TYPE;
    uint16_t base, map;
    if (tr->attr & SEGA_UNUSABLE || (type != TSS32_AVAILABLE && type != TSS32_BUSY) || tr->limit < TSS_IO_BASE + 1)
        return refused(v);
    if (!lin_read(v, tr->base + TSS_IO_BASE, &base, 2, ACC_READ | ACC_SUPER))
        return false;
    /* Two bytes are read whatever the port, so the map ends with a byte of ones. */
    uint32_t at = base + port / 8;
    if (at + 1 > tr->limit)
        return refused(v);
    if (!lin_read(v, tr->base + at, &map, 2, ACC_READ | ACC_SUPER))
        return false;
    return !(map >> (port & 7) & ((1u << size) - 1)) || refused(v);
}

bool io_allowed(struct soft_vcpu *v, unsigned port, unsigned size)
{
    if (!(v->st.cr0 & CR0_PE))
        return true;
    if (!(v->st.rflags & RF_VM) && cpl(v) <= bits(v->st.rflags, 13, 12))
        return true;
    return bitmap_allows(v, port, size);
}

/* SDM 3B, "Breakpoint Field Recognition": I/O breakpoints, with CR4.DE. */
static void watch(struct soft_vcpu *v, unsigned port, unsigned size)
{
    uint64_t dr7 = v->st.dr[7];
    if (likely(!(dr7 & 0xff)) || !(v->st.cr4 & CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        unsigned n = 1u << (dr7 >> (18 + i * 4) & 3);
        n = n == 8 ? 4 : n == 4 ? 8 : n;
        uint64_t at = v->st.dr[i] & ~(uint64_t)(n - 1);
        if (dr7 >> (i * 2) & 3 && (dr7 >> (16 + i * 4) & 3) == 2 && port < at + n && at < port + size)
            v->db_hits |= 1u << i;
    }
}

uint32_t io_read(struct soft_vcpu *v, unsigned port, unsigned size)
{
    soft_now_shared(v);
    watch(v, port, size);
    return (uint32_t)bus_read(v->vm->cfg.ports, port, size);
}

void io_write(struct soft_vcpu *v, unsigned port, unsigned size, uint32_t val)
{
    soft_now_shared(v);
    watch(v, port, size);
    bus_write(v->vm->cfg.ports, port, size, val & size_mask(size));
}
