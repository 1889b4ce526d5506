#include "dev/fw_cfg.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { KEY_SIGNATURE = 0, KEY_ID = 1, KEY_RAM = 3, KEY_CPUS = 5, KEY_MAX_CPUS = 0xf, KEY_DIR = 0x19, KEY_FILES = 0x20 };

#define KEY_WRITE 0x4000u /* asks for the write channel, which is gone */
#define REG_DATA  1u
#define REG_DMA   4u
#define REG_COUNT 12u

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u

#define DMA_SIGNATURE  UINT64_C(0x51454d5520434647) /* "QEMU CFG": what reading 514h gives */
#define ID_TRADITIONAL 1u
#define ID_DMA         2u

static void put_be32(uint8_t *p, uint32_t v)
{
    st32(p, __builtin_bswap32(v));
}

static void put_be16(uint8_t *p, uint16_t v)
{
    st16(p, __builtin_bswap16(v));
}

/* ---- items (lock held) ---- */

static void select_bytes(struct fw_cfg *f, const void *p, uint32_t len)
{
    f->item = p;
    f->item_len = len;
    f->offset = 0;
}

static void select_item(struct fw_cfg *f, uint16_t key)
{
    uint32_t file = (uint32_t)key - KEY_FILES;
    if (key >= KEY_FILES && file < f->file_count) {
        select_bytes(f, f->files[file].data, f->files[file].len);
        return;
    }
    switch (key & (uint16_t)~KEY_WRITE) {
    case KEY_SIGNATURE:
        select_bytes(f, f->signature, sizeof f->signature);
        break;
    case KEY_ID:
        select_bytes(f, f->id, sizeof f->id);
        break;
    case KEY_RAM:
        select_bytes(f, f->ram_size, sizeof f->ram_size);
        break;
    case KEY_CPUS:
        select_bytes(f, f->cpus, sizeof f->cpus);
        break;
    case KEY_MAX_CPUS:
        select_bytes(f, f->max_cpus, sizeof f->max_cpus);
        break;
    case KEY_DIR:
        select_bytes(f, f->directory, 4 + 64 * f->file_count);
        break;
    default:
        select_bytes(f, NULL, 0);
        break;
    }
}

static uint32_t left(const struct fw_cfg *f)
{
    return f->item_len - f->offset;
}

static uint8_t next_byte(struct fw_cfg *f)
{
    return left(f) ? f->item[f->offset++] : 0;
}

/* ---- DMA (lock held) ---- */

/* RAM bytes from `gpa` in one slot, at most `len`; NULL if `gpa` is no RAM. */
static uint8_t *ram_span(const struct ram *r, gpa_t gpa, uint32_t len, uint32_t *got)
{
    uint8_t *p = ram_hva(r, gpa, 1);
    uint64_t end = gpa < r->low_size ? r->low_size : RAM_HIGH_GPA + r->high_size;
    *got = p ? (uint32_t)min_u64(len, end - gpa) : 0;
    return p;
}

/* Store `len` bytes of the item at `gpa`, zeros past its end. False: it touches what is not RAM. */
static bool dma_read(struct fw_cfg *f, gpa_t gpa, uint32_t len)
{
    while (len) {
        uint32_t span;
        uint8_t *p = ram_span(f->cfg.ram, gpa, len, &span);
        if (!p)
            return false;
        uint32_t n = (uint32_t)min_u64(span, left(f));
        if (n)
            memcpy(p, f->item + f->offset, n);
        memset(p + n, 0, span - n);
        ram_written(f->cfg.ram, gpa, span);
        f->offset += n;
        gpa += span;
        len -= span;
    }
    return true;
}

static bool dma_do(struct fw_cfg *f, uint32_t control, uint32_t len, gpa_t addr)
{
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        return dma_read(f, addr, len);
    if (control & DMA_WRITE)
        return false; /* no item can be written */
    if (control & DMA_SKIP)
        f->offset += (uint32_t)min_u64(len, left(f));
    return true;
}

/* A request is {control, length, address}, big-endian; its control word is the answer: 0, or DMA_ERROR. */
static void dma_run(struct fw_cfg *f)
{
    gpa_t gpa = f->dma_addr;
    f->dma_addr = 0;
    uint8_t *req = ram_hva(f->cfg.ram, gpa, 16);
    if (!req)
        return;
    uint32_t control = __builtin_bswap32(ld32(req)), len = __builtin_bswap32(ld32(req + 4));
    bool ok = dma_do(f, control, len, __builtin_bswap64(ld64(req + 8)));
    /* The data before the answer, for a CPU that polls it: x86 keeps the order of stores, the compiler must too. */
    uint32_t answer = __builtin_bswap32(ok ? 0 : DMA_ERROR);
    atomic_signal_fence(memory_order_seq_cst);
    st32(req, answer);
    ram_written(f->cfg.ram, gpa, 4);
}

/* Writing the low half, or the whole, starts the transfer. */
static void dma_write(struct fw_cfg *f, unsigned off, unsigned size, uint64_t val)
{
    if (size == 8 && off == 0) {
        f->dma_addr = __builtin_bswap64(val);
        dma_run(f);
    } else if (size == 4 && off == 0) {
        f->dma_addr = (uint64_t)__builtin_bswap32((uint32_t)val) << 32;
    } else if (size == 4 && off == 4) {
        f->dma_addr |= __builtin_bswap32((uint32_t)val);
        dma_run(f);
    }
}

/* ---- the bus ---- */

static uint64_t fw_read_locked(struct fw_cfg *f, unsigned off, unsigned size)
{
    uint64_t v = 0;
    if (off >= REG_DMA) {
        for (unsigned i = 0; i < size; i++)
            v |= (DMA_SIGNATURE >> (8 * (7 - (off - REG_DMA + i))) & 0xff) << (8 * i);
        return v;
    }
    /* Only bytes reach the data register; 510h answers with it too. */
    return off <= REG_DATA && size == 1 ? next_byte(f) : 0;
}

static uint64_t fw_cfg_read(void *dev, uint64_t off, unsigned size)
{
    struct fw_cfg *f = dev;
    pthread_mutex_lock(&f->lock);
    uint64_t v = fw_read_locked(f, (unsigned)off, size);
    pthread_mutex_unlock(&f->lock);
    return v;
}

static void fw_cfg_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct fw_cfg *f = dev;
    pthread_mutex_lock(&f->lock);
    if (off == 0 && size == 2)
        select_item(f, (uint16_t)val);
    else if (off >= REG_DMA)
        dma_write(f, (unsigned)off - REG_DMA, size, val);
    pthread_mutex_unlock(&f->lock);
}

static const struct bus_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write};

/* ---- lifecycle ---- */

static void build_directory(struct fw_cfg *f)
{
    put_be32(f->directory, f->file_count);
    for (uint32_t i = 0; i < f->file_count; i++) {
        uint8_t *d = f->directory + 4 + 64 * i;
        memset(d, 0, 64);
        put_be32(d, f->files[i].len);
        put_be16(d + 4, (uint16_t)(KEY_FILES + i));
        memcpy(d + 8, f->files[i].name, FW_CFG_NAME_MAX);
    }
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len, struct err *e)
{
    size_t name_len = strlen(name);
    if (!name_len || name_len >= FW_CFG_NAME_MAX)
        return err_set(e, -EINVAL, "fw_cfg file name '%s': 1 to %u characters", name, FW_CFG_NAME_MAX - 1);
    uint32_t at = 0;
    while (at < f->file_count && strcmp(f->files[at].name, name) < 0)
        at++;
    bool there = at < f->file_count && strcmp(f->files[at].name, name) == 0;
    if (!there && f->file_count == FW_CFG_MAX_FILES)
        return err_set(e, -ENOSPC, "fw_cfg: no room for file '%s', %u are the limit", name, FW_CFG_MAX_FILES);
    if (!there) {
        memmove(&f->files[at + 1], &f->files[at], (f->file_count - at) * sizeof f->files[0]);
        f->file_count++;
    }
    f->files[at] = (struct fw_cfg_file){.data = data, .len = len};
    memcpy(f->files[at].name, name, name_len);
    build_directory(f);
    return 0;
}

int fw_cfg_init(struct fw_cfg *f, const struct fw_cfg_config *c, struct err *e)
{
    *f = (struct fw_cfg){.cfg = *c, .signature = {'Q', 'E', 'M', 'U'}};
    pthread_mutex_init(&f->lock, NULL);
    st32(f->id, ID_TRADITIONAL | ID_DMA);
    st64(f->ram_size, c->ram_size);
    st16(f->cpus, (uint16_t)min_u64(c->cpus, 0xffff));
    st16(f->max_cpus, (uint16_t)min_u64(c->max_cpus, 0xffff));
    build_directory(f);
    select_item(f, KEY_SIGNATURE);
    const struct bus_region r = {FW_CFG_PORT, REG_COUNT, &fw_cfg_ops, f, "fw_cfg"};
    int rc = bus_map(c->ports, &r, e);
    if (rc < 0)
        fw_cfg_fini(f);
    return rc;
}

void fw_cfg_fini(struct fw_cfg *f)
{
    bus_unmap(f->cfg.ports, FW_CFG_PORT);
    pthread_mutex_destroy(&f->lock);
}

void fw_cfg_reset(struct fw_cfg *f)
{
    pthread_mutex_lock(&f->lock);
    select_item(f, KEY_SIGNATURE);
    f->dma_addr = 0;
    pthread_mutex_unlock(&f->lock);
}
