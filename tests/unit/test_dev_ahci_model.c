/* Random commands against a model of the disk: what is read is what was written, whatever the PRD tables look like,
 * whatever order requests end in, and whenever the port is reset. */
#include "ahci_rig.h"

#define AREA 0x20000u /* guest memory a slot: 64 sectors with gaps */
#define MOST 64u

struct pending {
    bool active, write;
    uint64_t lba;
    unsigned n;
    struct rig_prd prd[MOST * 16];
    unsigned prds;
};

struct model {
    struct ahci_rig r;
    uint32_t seed;
    uint8_t disk[RIG_SECTORS * 512];
    struct pending p[32];
    unsigned ended;
};

static uint32_t rnd(struct model *m, uint32_t below)
{
    m->seed = m->seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)m->seed * below >> 32);
}

/* Even pieces with gaps between them, in the slot's area. */
static void scatter(struct model *m, struct pending *p, unsigned slot)
{
    uint64_t at = RIG_DATA + slot * AREA;
    uint32_t left = p->n * 512, coarse = rnd(m, 3);
    for (p->prds = 0; left; p->prds++) {
        uint32_t len = coarse == 0 ? left : coarse == 1 ? 2 + 2 * rnd(m, 1024) : 2 + 2 * rnd(m, 80);
        len = p->prds == ARRAY_SIZE(p->prd) - 1 || len > left ? left : len;
        p->prd[p->prds] = (struct rig_prd){at, len};
        at += len + 2 * rnd(m, 4);
        left -= len;
    }
}

/* The command's bytes in guest memory, one after the other. */
static void each_byte(struct model *m, struct pending *p, uint8_t *flat, bool to_guest)
{
    for (unsigned i = 0; i < p->prds; i++) {
        uint8_t *mem = guest(&m->r, p->prd[i].at);
        memcpy(to_guest ? mem : flat, to_guest ? flat : mem, p->prd[i].len);
        flat += p->prd[i].len;
    }
}

static bool overlaps(struct model *m, uint64_t lba, unsigned n)
{
    for (unsigned i = 0; i < 32; i++)
        if (m->p[i].active && lba < m->p[i].lba + m->p[i].n && m->p[i].lba < lba + n)
            return true;
    return false;
}

static void prepare(struct model *m, unsigned slot)
{
    struct pending *p = &m->p[slot];
    uint8_t flat[MOST * 512];
    p->write = rnd(m, 2);
    scatter(m, p, slot);
    for (unsigned i = 0; i < p->n * 512; i++)
        flat[i] = p->write ? (uint8_t)rnd(m, 256) : 0xcc;
    each_byte(m, p, flat, true);
}

static void settle(struct model *m, unsigned slot)
{
    struct pending *p = &m->p[slot];
    uint8_t flat[MOST * 512];
    each_byte(m, p, flat, false);
    if (p->write)
        memcpy(m->disk + p->lba * 512, flat, p->n * 512);
    else
        assert_memory_equal(flat, m->disk + p->lba * 512, p->n * 512);
    p->active = false;
    m->ended++;
}

/* ---- queued ---- */
static uint32_t put_queued(struct model *m, unsigned slot)
{
    struct pending *p = &m->p[slot];
    unsigned n = 1 + rnd(m, MOST);
    uint64_t lba = rnd(m, RIG_SECTORS - n);
    if (p->active || overlaps(m, lba, n))
        return 0;
    p->lba = lba;
    p->n = n;
    prepare(m, slot);
    const struct ata_regs regs = {.command = p->write ? 0x61 : 0x60,
                                  .device = (uint8_t)(0x40 | rnd(m, 2) << 7),
                                  .lba = lba,
                                  .feature = (uint16_t)n,
                                  .count = (uint16_t)(slot << 3)};
    put_command(&m->r, 0, slot, &regs, p->write, p->prd, p->prds);
    p->active = true;
    return 1u << slot;
}

static void look(struct model *m)
{
    uint32_t sact = px_rd(&m->r, 0, AHCI_PxSACT);
    for (unsigned i = 0; i < 32; i++)
        if (m->p[i].active && !(sact >> i & 1))
            settle(m, i);
}

static void end_some(struct model *m, unsigned most)
{
    struct block *b = &m->r.disk0;
    for (unsigned n = 1 + rnd(m, most); n && b->kicked; n--)
        fake_block_end(b, rnd(m, b->kicked), 0);
    run(&m->r);
    look(m);
}

static void drain(struct model *m)
{
    while (m->r.disk0.kicked)
        end_some(m, 32);
    for (unsigned i = 0; i < 32; i++)
        assert_false(m->p[i].active);
    assert_int_equal(px_rd(&m->r, 0, AHCI_PxSACT) | px_rd(&m->r, 0, AHCI_PxCI), 0);
    assert_int_equal(px_rd(&m->r, 0, AHCI_PxTFD), ATA_READY);
}

static void queue_some(struct model *m)
{
    uint32_t slots = 0;
    for (unsigned n = 1 + rnd(m, 8); n; n--)
        slots |= put_queued(m, rnd(m, 32));
    ncq_issue(&m->r, slots);
}

/* ---- one at a time ---- */
static void plain(struct model *m)
{
    static const uint8_t reads[] = {0x20, 0x24, 0x25, 0x29, 0xc4, 0xc8};
    static const uint8_t writes[] = {0x30, 0x34, 0x35, 0x39, 0x3d, 0xc5, 0xca, 0xce};
    unsigned slot = rnd(m, 32);
    struct pending *p = &m->p[slot];
    p->n = 1 + rnd(m, MOST);
    p->lba = rnd(m, RIG_SECTORS - p->n);
    prepare(m, slot);
    uint8_t code = p->write ? writes[rnd(m, sizeof writes)] : reads[rnd(m, sizeof reads)];
    const struct ata_regs regs = {.command = code, .device = 0x40, .lba = p->lba, .count = (uint16_t)p->n};
    put_command(&m->r, 0, slot, &regs, p->write, p->prd, p->prds);
    px_wr(&m->r, 0, AHCI_PxCI, 1u << slot);
    run(&m->r);
    while (m->r.disk0.kicked)
        end_some(m, 1);
    assert_int_equal(px_rd(&m->r, 0, AHCI_PxCI), 0);
    assert_int_equal(px_rd(&m->r, 0, AHCI_PxTFD), ATA_READY);
    assert_int_equal(ld32(list_of(&m->r, 0) + 32 * slot + 4), p->n * 512);
    settle(m, slot);
}

static void trim(struct model *m)
{
    unsigned n = rnd(m, 40);
    uint64_t lba = rnd(m, RIG_SECTORS - n);
    const struct ata_regs regs = {.command = 0x06, .feature = 1, .count = 1, .device = 0x40};
    memset(guest(&m->r, RIG_DATA), 0, 512);
    st64(guest(&m->r, RIG_DATA) + 8 * rnd(m, 64), lba | (uint64_t)n << 48);
    command(&m->r, 0, regs, true, RIG_DATA, 512);
    while (m->r.disk0.kicked)
        end_some(m, 1);
    assert_int_equal(px_rd(&m->r, 0, AHCI_PxTFD), ATA_READY);
    memset(m->disk + lba * 512, 0, n * 512);
}

/* ---- resets: a write that was under way has been done or has not ---- */
static void reset_amid(struct model *m)
{
    struct ahci_rig *r = &m->r;
    if (rnd(m, 2)) {
        px_wr(r, 0, AHCI_PxCMD, CMD_FRE);
        px_wr(r, 0, AHCI_PxSCTL, 1);
        px_wr(r, 0, AHCI_PxSCTL, 0);
    } else {
        hba_wr(r, AHCI_GHC, GHC_HR);
    }
    run(r);
    while (r->disk0.kicked) {
        fake_block_end(&r->disk0, rnd(m, r->disk0.kicked), rnd(m, 4) ? 0 : -EIO);
        run(r);
    }
    assert_int_equal(px_rd(r, 0, AHCI_PxTFD), 0x0150);
    for (unsigned i = 0; i < 32; i++) {
        struct pending *p = &m->p[i];
        if (p->active && p->write)
            memcpy(m->disk + p->lba * 512, r->image0 + p->lba * 512, p->n * 512);
        p->active = false;
    }
    port_start(r, 0);
    simple(r, 0, 0xe5, 0, 0);
    assert_int_equal(px_rd(r, 0, AHCI_PxTFD), ATA_READY);
}

static void step(struct model *m)
{
    switch (rnd(m, 32)) {
    case 0:
        drain(m);
        trim(m);
        break;
    case 1:
        drain(m);
        for (unsigned n = rnd(m, 8); n; n--)
            plain(m);
        break;
    case 2:
        reset_amid(m);
        break;
    default:
        queue_some(m);
        end_some(m, 12);
    }
}

static void what_is_read_is_what_was_written(void **state)
{
    static struct model m;
    for (uint32_t seed = 1; seed <= 6; seed++) {
        memset(&m, 0, sizeof m);
        m.seed = seed * 2654435761u;
        ahci_rig_init(&m.r);
        memcpy(m.disk, m.r.image0, sizeof m.disk);
        port_start(&m.r, 0);
        m.r.disk0.manual = true;
        for (unsigned i = 0; i < 1500; i++)
            step(&m);
        drain(&m);
        assert_memory_equal(m.disk, m.r.image0, sizeof m.disk);
        assert_true(m.ended > 2000);
        ahci_rig_fini(&m.r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_is_what_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
