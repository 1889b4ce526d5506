/* Any registers, tables, commands and messages: a look-up says what the delivery says, nothing leaves the unit's
 * bounds, and pointers stay inside their buffers. */
#include "irq_fuzz.h"

#include "irq/amdvi_priv.h"

#define RAM_SIZE 0x20000u

struct box {
    struct ram ram;
    struct remap remap;
    struct amdvi *a;
    uint64_t irqs;
};

static int deliver(void *opaque, struct irq irq)
{
    ensure(irq.mode <= IRQ_EXTINT && irq.shorthand == IRQ_DEST);
    ((struct box *)opaque)->irqs++;
    return 1;
}

static void check_message(struct box *b, struct script *s)
{
    struct msi_msg m = {0xfee00000u | (script_get(s, 3) & 0xfffff), (uint32_t)script_get(s, 2)};
    requester_id_t from = REQUESTER_ID(script_get(s, 1));
    struct remap_result look = remap_msi(&b->remap, m, from, REMAP_LOOKUP);
    struct remap_result res = remap_msi(&b->remap, m, from, REMAP_DELIVER);
    ensure(look.fault == res.fault && look.form == res.form && look.cookie == res.cookie);
    ensure(!memcmp(&look.irq, &res.irq, sizeof res.irq));
    if (res.fault != REMAP_OK || res.form != REMAP_FORM_AMDVI)
        return;
    ensure(res.irq.mode <= IRQ_LOWEST && res.cookie == amdvi_cookie(from, res.cookie & 0x7ff));
    ensure(amdvi_xt_on(b->a, atomic_load(&b->a->control)) || (res.irq.dest <= 0xff && res.irq.dest8));
}

static void check_dma(struct box *b, struct script *s)
{
    gpa_t gpa = 0;
    uint64_t len = 0;
    requester_id_t from = REQUESTER_ID(script_get(s, 1));
    uint64_t iova = script_get(s, 8);
    bool write = script_get(s, 1) & 1;
    if (amdvi_dma(b->a, from, iova, write, &gpa, &len) != AMDVI_DMA_OK)
        return;
    ensure(gpa == iova || (gpa < UINT64_C(1) << 52 && len <= 4096 && (gpa & 0xfff) == (iova & 0xfff)));
}

static void check_registers(struct box *b)
{
    const struct amdvi *a = b->a;
    uint64_t status = amdvi_bus_ops.read(b->a, AMDVI_STATUS, 8);
    ensure(!(status & ~UINT64_C(0x1f)));
    ensure(!(a->cmd_head & ~POINTER_RW) && !(a->evt_tail & ~POINTER_RW));
    if (!(atomic_load(&a->control) & CTL_IOMMU_EN))
        ensure(!(status & (ST_CMD_RUN | ST_EVT_RUN)));
}

static void one_step(struct box *b, struct script *s)
{
    static const uint16_t regs[] = {AMDVI_DEVTAB,    AMDVI_CMD_BASE,   AMDVI_EVT_BASE, AMDVI_CONTROL,
                                    AMDVI_EXCL_BASE, AMDVI_EXCL_LIMIT, AMDVI_XT_GEN,   AMDVI_CMD_HEAD,
                                    AMDVI_CMD_TAIL,  AMDVI_EVT_HEAD,   AMDVI_EVT_TAIL, AMDVI_STATUS};
    uint8_t op = (uint8_t)script_get(s, 1);
    unsigned size = 1u << (op >> 6);
    switch (op & 7) {
    case 0:
    case 1:
        st64(b->ram.low + (script_get(s, 2) * 8) % RAM_SIZE, script_get(s, 8));
        break;
    case 2:
        amdvi_bus_ops.write(b->a, regs[(op >> 3 & 7) + (op >> 6 & 3) + script_get(s, 1) % 2], 8, script_get(s, 8));
        break;
    case 3: {
        uint64_t off = script_get(s, 2) % (AMDVI_SIZE - 8);
        amdvi_bus_ops.write(b->a, off, size, script_get(s, size));
        amdvi_bus_ops.read(b->a, off, size);
        break;
    }
    case 4:
    case 5:
        check_message(b, s);
        break;
    case 6:
        check_dma(b, s);
        break;
    default:
        amdvi_set_msi(b->a, op & 8, (struct msi_msg){script_get(s, 4), (uint32_t)script_get(s, 2)});
    }
    check_registers(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t memory[RAM_SIZE] __attribute__((aligned(4096)));
    struct script s = {data, size};
    struct box b = {.ram = {.low = memory, .low_size = RAM_SIZE}};
    uint8_t options = (uint8_t)script_get(&s, 1);
    struct err e = {""};
    memset(memory, 0, sizeof memory);
    remap_init(&b.remap, options & 1);
    struct amdvi_config c = {.intremap = true,
                             .xt = options & 2,
                             .dma_translation = options & 4,
                             .requester = REQUESTER_ID(AMDVI_RID),
                             .ram = &b.ram,
                             .remap = &b.remap,
                             .port = {deliver, &b}};
    ensure(amdvi_create(&c, &b.a, &e) == 0);
    b.remap.amdvi = b.a;
    amdvi_bus_ops.write(b.a, AMDVI_DEVTAB, 8, 1);
    amdvi_bus_ops.write(b.a, AMDVI_CMD_BASE, 8, 0x4000);
    amdvi_bus_ops.write(b.a, AMDVI_EVT_BASE, 8, 0x6000);
    amdvi_bus_ops.write(b.a, AMDVI_CONTROL, 8, CTL_RW | CTL_XT_EN);
    while (s.left)
        one_step(&b, &s);
    amdvi_reset(b.a);
    check_registers(&b);
    amdvi_destroy(b.a);
    return 0;
}
