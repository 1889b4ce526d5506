/* The command buffer. 48882, "Commands". Commands are carried out within the write that makes them known, in order and
 * completely, so that a COMPLETION_WAIT has nothing to wait for. */
#include "irq/amdvi_priv.h"

enum command {
    CMD_COMPLETION_WAIT = 1,
    CMD_INVALIDATE_DEVTAB_ENTRY = 2,
    CMD_INVALIDATE_IOMMU_PAGES = 3,
    CMD_INVALIDATE_IOTLB_PAGES = 4,
    CMD_INVALIDATE_INTERRUPT_TABLE = 5,
    CMD_PREFETCH_IOMMU_PAGES = 6,
    CMD_INVALIDATE_IOMMU_ALL = 8
};

/* Bits that must be 0, by opcode; the first quadword without the opcode itself. 48882, "COMPLETION_WAIT" and so on. */
static const uint64_t reserved[16][2] = {
    [CMD_COMPLETION_WAIT] = {UINT64_C(0x0ff00000) << 32, 0},
    [CMD_INVALIDATE_DEVTAB_ENTRY] = {UINT64_C(0x0fffffff) << 32 | 0xffff0000, UINT64_MAX},
    [CMD_INVALIDATE_IOMMU_PAGES] = {UINT64_C(0x0fff0000) << 32 | 0xfff00000, 0xff8},
    [CMD_INVALIDATE_IOTLB_PAGES] = {0, 0xf8a},
    [CMD_INVALIDATE_INTERRUPT_TABLE] = {UINT64_C(0x0fffffff) << 32 | 0xffff0000, UINT64_MAX},
    [CMD_PREFETCH_IOMMU_PAGES] = {UINT64_C(0x0ff00000) << 32 | 0x00ff0000, 0xf8a},
    [CMD_INVALIDATE_IOMMU_ALL] = {UINT64_C(0x0fffffff) << 32 | 0xffffffff, UINT64_MAX},
};

/* What was done before is visible before the store is. False: nothing to store to. */
static bool completion_wait(struct amdvi *a, const uint64_t q[2])
{
    if (q[0] & 1) {
        gpa_t at = q[0] & ((UINT64_C(1) << 52) - 8);
        uint8_t *p = ram_hva(a->cfg.ram, at, 8);
        if (!p)
            return false;
        atomic_store_explicit((_Atomic uint64_t *)(void *)p, q[1], memory_order_release);
        ram_written(a->cfg.ram, at, 8);
    }
    if (q[0] & 2) {
        a->status |= ST_COM_WAIT;
        amdvi_lines_changed(a);
    }
    return true;
}

/* With the size bit, the lowest clear bit from 12 up says how much: 2^(n+1) bytes, aligned; none clear means all. */
static void invalidate_pages(struct amdvi *a, const uint64_t q[2])
{
    uint64_t first = q[1] & ~UINT64_C(0xfff), span = 0xfff;
    if (q[1] & 1) {
        uint64_t low = ~(first | 0xfff);
        span = low ? ((low & -low) << 1) - 1 : UINT64_MAX;
    }
    amdvi_iotlb_drop(a, (uint16_t)(q[0] >> 32), first & ~span, first | span);
}

void amdvi_stale_all(struct amdvi *a)
{
    if (a->cfg.stale.fn)
        a->cfg.stale.fn(a->cfg.stale.opaque, 0, UINT32_MAX);
}

static void stale_device(struct amdvi *a, uint16_t device)
{
    if (a->cfg.stale.fn)
        a->cfg.stale.fn(a->cfg.stale.opaque, amdvi_cookie(REQUESTER_ID(device), 0),
                        amdvi_cookie(REQUESTER_ID(device), 2047));
}

static void invalidate_device(struct amdvi *a, uint16_t device)
{
    a->logged_once[device / 64] &= ~BIT(device % 64);
    stale_device(a, device);
}

static void invalidate_all(struct amdvi *a)
{
    memset(a->logged_once, 0, sizeof a->logged_once);
    amdvi_iotlb_drop(a, -1, 0, UINT64_MAX);
    amdvi_stale_all(a);
}

/* False: COMMAND_HARDWARE_ERROR. Devices have no TLBs of their own, and a prefetch may be ignored. */
static bool carry_out(struct amdvi *a, const uint64_t q[2])
{
    uint16_t device = (uint16_t)q[0];
    switch (q[0] >> 60) {
    case CMD_COMPLETION_WAIT:
        return completion_wait(a, q);
    case CMD_INVALIDATE_DEVTAB_ENTRY:
        invalidate_device(a, device);
        break;
    case CMD_INVALIDATE_IOMMU_PAGES:
        invalidate_pages(a, q);
        break;
    case CMD_INVALIDATE_INTERRUPT_TABLE:
        stale_device(a, device);
        break;
    case CMD_INVALIDATE_IOMMU_ALL:
        invalidate_all(a);
        break;
    default:
        break;
    }
    return true;
}

static bool is_legal(const uint64_t q[2])
{
    unsigned op = (unsigned)(q[0] >> 60);
    bool known = (op >= CMD_COMPLETION_WAIT && op <= CMD_PREFETCH_IOMMU_PAGES) || op == CMD_INVALIDATE_IOMMU_ALL;
    return known && !(q[0] & reserved[op][0]) && !(q[1] & reserved[op][1]);
}

/* Stop with the head at the command in question; setting CmdBufEn anew starts again. */
static void stop(struct amdvi *a, enum amdvi_event_code code, uint32_t flags, gpa_t at)
{
    a->status &= ~ST_CMD_RUN;
    amdvi_log_locked(a, (struct amdvi_event){.code = code, .flags = flags, .addr = at});
}

/* At most one turn of the buffer: the guest cannot move the tail while this runs. */
void amdvi_run_commands(struct amdvi *a)
{
    uint64_t size = amdvi_buffer_size(a->cmd_base), tail = a->cmd_tail & (size - 1);
    a->cmd_head &= size - 1;
    while (a->status & ST_CMD_RUN && a->cmd_head != tail) {
        gpa_t at = (a->cmd_base & ADDR_51_12) + a->cmd_head;
        uint64_t q[2];
        if (!amdvi_load(a, at, &q[0]) || !amdvi_load(a, at + 8, &q[1]))
            stop(a, EVT_CMD_HW, EVT_MASTER, at);
        else if (!is_legal(q))
            stop(a, EVT_ILLEGAL_CMD, 0, at);
        else if (!carry_out(a, q))
            stop(a, EVT_CMD_HW, EVT_MASTER, at);
        else
            a->cmd_head = (a->cmd_head + 16) & (size - 1);
    }
}
