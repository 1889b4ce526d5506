/* The unit's registers and its life. 48882, "IOMMU MMIO Registers". Registers are 64 bits wide and may be accessed by
 * bytes; what is not listed reads as zero and ignores writes. */
#include "irq/amdvi_priv.h"

#include <errno.h>
#include <stdlib.h>

uint64_t amdvi_efr(bool xt, bool dma_translation)
{
    unsigned hats = dma_translation ? AMDVI_LEVELS - 4 : EFR_HATS_NONE;
    return EFR_PREFETCH | EFR_IA | EFR_GA | EFR_HATS(hats) | (xt ? EFR_XT : 0);
}

uint64_t amdvi_efr2(void)
{
    return EFR2_INT_2K;
}

/* ---- reading ---- */

static uint64_t read_register(const struct amdvi *a, uint64_t reg)
{
    switch (reg) {
    case AMDVI_DEVTAB:
        return atomic_load_explicit(&a->devtab, memory_order_relaxed);
    case AMDVI_CMD_BASE:
        return a->cmd_base;
    case AMDVI_EVT_BASE:
        return a->evt_base;
    case AMDVI_CONTROL:
        return atomic_load_explicit(&a->control, memory_order_relaxed);
    case AMDVI_EXCL_BASE:
        return atomic_load_explicit(&a->excl_base, memory_order_relaxed);
    case AMDVI_EXCL_LIMIT:
        return atomic_load_explicit(&a->excl_limit, memory_order_relaxed);
    case AMDVI_EFR:
        return amdvi_efr(a->cfg.xt, a->cfg.dma_translation);
    case AMDVI_EFR2:
        return amdvi_efr2();
    case AMDVI_XT_GEN:
    case AMDVI_XT_PPR:
    case AMDVI_XT_GA:
        return a->xt_int[(reg - AMDVI_XT_GEN) / 8];
    case AMDVI_CMD_HEAD:
        return a->cmd_head;
    case AMDVI_CMD_TAIL:
        return a->cmd_tail;
    case AMDVI_EVT_HEAD:
        return a->evt_head;
    case AMDVI_EVT_TAIL:
        return a->evt_tail;
    case AMDVI_STATUS:
        return a->status;
    default:
        return 0;
    }
}

/* ---- writing ---- */

/* Set by a change from "not both" to "both"; an overflow must be cleared first. */
static void set_running(struct amdvi *a, uint64_t old, uint64_t now, uint64_t enable, uint64_t run, uint64_t unless)
{
    uint64_t both = enable | CTL_IOMMU_EN;
    if ((now & both) != both)
        a->status &= ~run;
    else if ((old & both) != both && !(a->status & unless))
        a->status |= run;
}

static void write_control(struct amdvi *a, uint64_t val)
{
    uint64_t xt = a->cfg.xt ? CTL_XT_EN | CTL_INTCAPXT_EN : 0;
    uint64_t old = atomic_load_explicit(&a->control, memory_order_relaxed), now = val & (CTL_RW | xt);
    atomic_store_explicit(&a->control, now, memory_order_release);
    set_running(a, old, now, CTL_EVT_LOG_EN, ST_EVT_RUN, ST_EVT_OVERFLOW);
    set_running(a, old, now, CTL_CMD_BUF_EN, ST_CMD_RUN, 0);
    if ((old ^ now) & (CTL_IOMMU_EN | CTL_GA_EN | CTL_XT_EN | CTL_NUM_INT))
        amdvi_stale_all(a);
    trace(a->cfg.trace, TRACE_IRQ, "amdvi: control %llxh status %llxh", (unsigned long long)now,
          (unsigned long long)a->status);
    amdvi_lines_changed(a);
    amdvi_run_commands(a);
}

static void write_devtab(struct amdvi *a, uint64_t val)
{
    atomic_store_explicit(&a->devtab, val & DEVTAB_RW, memory_order_release);
    amdvi_stale_all(a);
}

/* A write to a buffer's base empties it. */
static void write_base(uint64_t *base, uint64_t *head, uint64_t *tail, uint64_t val)
{
    *base = val & BUFFER_RW;
    *head = *tail = 0;
}

static void write_register(struct amdvi *a, uint64_t reg, uint64_t val)
{
    switch (reg) {
    case AMDVI_DEVTAB:
        write_devtab(a, val);
        break;
    case AMDVI_CMD_BASE:
        write_base(&a->cmd_base, &a->cmd_head, &a->cmd_tail, val);
        break;
    case AMDVI_EVT_BASE:
        write_base(&a->evt_base, &a->evt_head, &a->evt_tail, val);
        break;
    case AMDVI_CONTROL:
        write_control(a, val);
        break;
    case AMDVI_EXCL_BASE:
        atomic_store_explicit(&a->excl_base, val & (ADDR_51_12 | 3), memory_order_release);
        break;
    case AMDVI_EXCL_LIMIT:
        atomic_store_explicit(&a->excl_limit, val & ADDR_51_12, memory_order_release);
        break;
    case AMDVI_XT_GEN:
    case AMDVI_XT_PPR:
    case AMDVI_XT_GA:
        a->xt_int[(reg - AMDVI_XT_GEN) / 8] = a->cfg.xt ? val & XT_INT_RW : 0;
        break;
    case AMDVI_CMD_HEAD:
        a->cmd_head = val & POINTER_RW;
        break;
    case AMDVI_CMD_TAIL:
        a->cmd_tail = val & POINTER_RW;
        amdvi_run_commands(a);
        break;
    case AMDVI_EVT_HEAD:
        a->evt_head = val & POINTER_RW;
        break;
    case AMDVI_EVT_TAIL:
        a->evt_tail = val & POINTER_RW;
        break;
    default:
        break;
    }
}

/* ---- the bus ---- */

static uint64_t mmio_read(void *dev, uint64_t off, unsigned size)
{
    struct amdvi *a = dev;
    unsigned at = off & 7;
    pthread_mutex_lock(&a->lock);
    uint64_t v = read_register(a, off - at) >> 8 * at;
    if (at + size > 8)
        v |= read_register(a, off - at + 8) << 8 * (8 - at);
    pthread_mutex_unlock(&a->lock);
    return v & size_mask(size);
}

/* Bytes of one register. Status bits are cleared by ones, so bytes that were not written must not count. */
static void write_part(struct amdvi *a, uint64_t reg, uint64_t mask, uint64_t val)
{
    if (reg == AMDVI_STATUS) {
        a->status &= ~(val & mask & ST_RW1C);
        amdvi_lines_changed(a);
        return;
    }
    write_register(a, reg, (read_register(a, reg) & ~mask) | (val & mask));
}

static void mmio_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct amdvi *a = dev;
    unsigned at = off & 7;
    uint64_t mask = size_mask(size);
    pthread_mutex_lock(&a->lock);
    write_part(a, off - at, mask << 8 * at, val << 8 * at);
    if (at + size > 8)
        write_part(a, off - at + 8, mask >> 8 * (8 - at), val >> 8 * (8 - at));
    pthread_mutex_unlock(&a->lock);
}

const struct bus_ops amdvi_bus_ops = {.read = mmio_read, .write = mmio_write};

/* ---- lifecycle ---- */

int amdvi_create(const struct amdvi_config *c, struct amdvi **out, struct err *e)
{
    struct amdvi *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, -ENOMEM, "no memory for an AMD I/O virtualization unit");
    a->cfg = *c;
    pthread_mutex_init(&a->lock, NULL);
    amdvi_iotlb_init(a);
    *out = a;
    return 0;
}

void amdvi_destroy(struct amdvi *a)
{
    if (!a)
        return;
    amdvi_iotlb_fini(a);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void amdvi_reset(struct amdvi *a)
{
    pthread_mutex_lock(&a->lock);
    atomic_store(&a->control, 0);
    atomic_store(&a->devtab, 0);
    atomic_store(&a->excl_base, 0);
    atomic_store(&a->excl_limit, 0);
    a->cmd_base = a->cmd_head = a->cmd_tail = 0;
    a->evt_base = a->evt_head = a->evt_tail = 0;
    a->status = a->lines = 0;
    memset(a->xt_int, 0, sizeof a->xt_int);
    memset(a->logged_once, 0, sizeof a->logged_once);
    amdvi_iotlb_drop(a, -1, 0, UINT64_MAX);
    amdvi_stale_all(a);
    pthread_mutex_unlock(&a->lock);
}
