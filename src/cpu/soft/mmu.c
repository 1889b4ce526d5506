#include "cpu/soft/mmu.h"

#include "cpu/soft/event.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/tlb.h"
#include "cpu/soft/walk.h"

/* A translated page: RAM if `host` is set, else MMIO or the local APIC page. */
struct page {
    gpa_t gpa;
    uint8_t *host;
};

/* What one access of at most 4096 bytes touches: `first` bytes at p[0] from offset `off`, the rest at the start of
 * p[1]. */
struct span {
    struct page p[2];
    unsigned off, first, size;
};

/* ---- translation ---- */

static bool is_user(const struct soft_vcpu *v, unsigned acc)
{
    return cpl(v) == 3 && !(acc & ACC_SUPER);
}

static bool page_fault(struct soft_vcpu *v, gva_t gva, uint32_t error)
{
    v->st.cr2 = gva;
    fault_set(v, VEC_PF, true, error);
    return false;
}

static bool paged(struct soft_vcpu *v, gva_t gva, unsigned acc, bool user, struct walk *w)
{
    uint32_t error;
    if (tlb2_find(v, gva, acc, user, w))
        return true;
    if (!walk_page(v, gva, acc, user, w, &error))
        return page_fault(v, gva, error);
    tlb2_fill(v, gva, w);
    return true;
}

static bool translate(struct soft_vcpu *v, gva_t gva, unsigned acc, struct page *p)
{
    bool user = is_user(v, acc);
    struct walk w = {.page = gva & 0xfffff000, .rights = WALK_W | WALK_U | WALK_D};
    if (v->st.efer & EFER_LMA) {
        if (unlikely(!gva_canonical(gva))) {
            fault_set(v, VEC_GP, true, 0);
            return false;
        }
    } else {
        gva &= 0xffffffff;
    }
    if (v->st.cr0 & CR0_PG && !paged(v, gva, acc, user, &w))
        return false;
    p->gpa = w.page;
    p->host = ram_hva(v_ram(v), w.page, RAM_PAGE);
    if (unlikely(w.page == fabric_mmio_base(v->vm->cfg.fabric, v->idx)))
        p->host = NULL;
    if (acc & ACC_EXEC && !user && !(w.rights & WALK_G))
        v->fetch_local = true;
    if (p->host && !(acc & ACC_EXEC))
        tlb_fill(v, gva, acc, user, &w, p->host);
    return true;
}

/* ---- checks that only the slow path makes ---- */

static bool aligned(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc)
{
    if (likely(!(v->st.rflags & RF_AC)) || !(v->st.cr0 & CR0_AM) || !is_user(v, acc))
        return true;
    if (size > 8 || size & (size - 1) || !(gva & (size - 1)))
        return true;
    fault_set(v, VEC_AC, true, 0);
    return false;
}

/* SDM 3B, "Debug Registers" and "Breakpoint Field Recognition": a match is reported after the access. */
static void watch(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc)
{
    static const uint8_t len[4] = {1, 2, 8, 4};
    uint64_t dr7 = v->st.dr[7];
    if (likely(!(dr7 & 0xff)) || acc & ACC_SUPER)
        return;
    for (unsigned i = 0; i < 4; i++) {
        unsigned rw = dr7 >> (16 + i * 4) & 3;
        unsigned n = len[dr7 >> (18 + i * 4) & 3];
        uint64_t at = v->st.dr[i] & ~(uint64_t)(n - 1);
        if (!(dr7 >> (i * 2) & 3) || !(rw == 3 || (rw == 1 && acc & ACC_WRITE)))
            continue;
        if (gva < at + n && at < gva + size)
            v->db_hits |= 1u << i;
    }
}

/* An access that begins canonical and ends otherwise faults before any page is looked at. */
static bool ends_canonical(struct soft_vcpu *v, gva_t gva, unsigned size)
{
    if (!(v->st.efer & EFER_LMA) || gva_canonical(gva + size - 1))
        return true;
    fault_set(v, VEC_GP, true, 0);
    return false;
}

/* Translate every page of an access before any of it happens. */
static bool span_map(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc, struct span *s)
{
    s->off = gva & 0xfff;
    s->size = size;
    s->first = size <= 4096 - s->off ? size : 4096 - s->off;
    if (unlikely(s->first < size) && !ends_canonical(v, gva, size))
        return false;
    if (unlikely(!aligned(v, gva, size, acc)) || !translate(v, gva, acc, &s->p[0]))
        return false;
    if (unlikely(s->first < size)) {
        gva_t next = (gva | 0xfff) + 1;
        /* Only 64-bit code and the CPU's own accesses in IA-32e mode see more than 4 GiB. */
        if ((v->mode & MODE_CODE) != CODE64 && !(acc & ACC_SUPER && v->st.efer & EFER_LMA))
            next &= 0xffffffff;
        if (!translate(v, next, acc, &s->p[1]))
            return false;
    }
    watch(v, gva, size, acc);
    return true;
}

/* ---- MMIO and the local APIC page ---- */

/* SDM 3A, "Local APIC Register Address Map": 32-bit registers at 16-byte steps; other accesses are undefined there. We
 * let a narrow or shifted access see the register's bytes, and zeros between registers. */
static uint64_t apic_read(struct soft_vcpu *v, uint64_t now, uint32_t off, unsigned size)
{
    unsigned shift = (off & 15) * 8;
    if (shift >= 32)
        return 0;
    return (uint64_t)fabric_mmio_read(v->vm->cfg.fabric, v->idx, now, off & ~15u) >> shift & size_mask(size);
}

static void apic_write(struct soft_vcpu *v, uint64_t now, uint32_t off, unsigned size, uint64_t val)
{
    struct fabric *f = v->vm->cfg.fabric;
    unsigned shift = (off & 15) * 8;
    if (shift >= 32)
        return;
    if (shift || size < 4) {
        uint64_t mask = size_mask(size) << shift;
        val = (fabric_mmio_read(f, v->idx, now, off & ~15u) & ~mask) | (val << shift & mask);
    }
    fabric_mmio_write(f, v->idx, now, off & ~15u, (uint32_t)val);
    attn_self(v);
}

static bool is_apic(struct soft_vcpu *v, gpa_t gpa)
{
    return (gpa & ~UINT64_C(0xfff)) == fabric_mmio_base(v->vm->cfg.fabric, v->idx);
}

/* Devices must see the time of the access, so the clock is advanced first. */
static uint64_t mmio_read(struct soft_vcpu *v, gpa_t gpa, unsigned size)
{
    uint64_t now = soft_now_shared(v);
    return is_apic(v, gpa) ? apic_read(v, now, gpa & 0xfff, size) : bus_read(v->vm->cfg.mmio, gpa, size);
}

static void mmio_write(struct soft_vcpu *v, gpa_t gpa, unsigned size, uint64_t val)
{
    uint64_t now = soft_now_shared(v);
    if (is_apic(v, gpa))
        apic_write(v, now, gpa & 0xfff, size, val);
    else
        bus_write(v->vm->cfg.mmio, gpa, size, val);
}

/* ---- moving bytes within one page; naturally sized pieces are one host access each ---- */

static void page_get(struct soft_vcpu *v, const struct page *p, unsigned off, void *buf, unsigned size)
{
    uint8_t *out = buf;
    for (unsigned n = 8; size; n /= 2)
        for (; size >= n; size -= n, off += n, out += n) {
            uint64_t val = p->host ? guest_ld(p->host + off, n) : mmio_read(v, p->gpa + off, n);
            memcpy(out, &val, n);
        }
}

static void page_put(struct soft_vcpu *v, const struct page *p, unsigned off, const void *buf, unsigned size)
{
    const uint8_t *in = buf;
    unsigned start = off, total = size;
    for (unsigned n = 8; size; n /= 2)
        for (; size >= n; size -= n, off += n, in += n) {
            uint64_t val = 0;
            memcpy(&val, in, n);
            if (p->host)
                guest_st(p->host + off, n, val);
            else
                mmio_write(v, p->gpa + off, n, val);
        }
    if (p->host && unlikely(block_page_has_code(v->vm, p->gpa)))
        block_store(v, p->gpa + start, total);
}

static void span_get(struct soft_vcpu *v, const struct span *s, void *buf)
{
    page_get(v, &s->p[0], s->off, buf, s->first);
    if (unlikely(s->first < s->size))
        page_get(v, &s->p[1], 0, (uint8_t *)buf + s->first, s->size - s->first);
}

static void span_put(struct soft_vcpu *v, const struct span *s, const void *buf)
{
    page_put(v, &s->p[0], s->off, buf, s->first);
    if (unlikely(s->first < s->size))
        page_put(v, &s->p[1], 0, (const uint8_t *)buf + s->first, s->size - s->first);
}

/* ---- by linear address ---- */

/* Whether the probes' bank has the rights that `acc` wants. */
static bool probe_fits(const struct soft_vcpu *v, unsigned size, unsigned acc)
{
    return size <= 4096 && (!(acc & ACC_SUPER) || cpl(v) != 3);
}

bool lin_read(struct soft_vcpu *v, gva_t gva, void *buf, unsigned size, unsigned acc)
{
    struct span s;
    struct page p;
    if (probe_fits(v, size, acc) && (p.host = tlb_read(v, gva, size))) {
        page_get(v, &p, 0, buf, size);
        return true;
    }
    for (unsigned n; size; size -= n, gva += n, buf = (uint8_t *)buf + n) {
        n = size < 4096 ? size : 4096;
        if (!span_map(v, gva, n, acc, &s))
            return false;
        span_get(v, &s, buf);
    }
    return true;
}

bool lin_write(struct soft_vcpu *v, gva_t gva, const void *buf, unsigned size, unsigned acc)
{
    struct span s;
    acc |= ACC_WRITE;
    if (size > 4096 && !lin_probe_write(v, gva, size, acc))
        return false;
    for (unsigned n; size; size -= n, gva += n, buf = (const uint8_t *)buf + n) {
        n = size < 4096 ? size : 4096;
        if (!span_map(v, gva, n, acc, &s))
            return false;
        span_put(v, &s, buf);
    }
    return true;
}

bool lin_load_slow(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t *val)
{
    struct span s;
    if (!span_map(v, gva, size, ACC_READ, &s))
        return false;
    *val = 0;
    span_get(v, &s, val);
    return true;
}

bool lin_store_slow(struct soft_vcpu *v, gva_t gva, unsigned size, uint64_t val)
{
    struct span s;
    if (!span_map(v, gva, size, ACC_WRITE, &s))
        return false;
    span_put(v, &s, &val);
    return true;
}

uint8_t *lin_refill(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc)
{
    struct page p;
    if ((gva & 0xfff) + size > 4096 || !translate(v, gva, acc, &p))
        return NULL;
    return acc & ACC_WRITE ? tlb_write(v, gva, size) : tlb_read(v, gva, size);
}

bool lin_probe_write(struct soft_vcpu *v, gva_t gva, unsigned size, unsigned acc)
{
    struct span s;
    uint32_t hits = v->db_hits;
    bool ok = true;
    for (unsigned n; ok && size; size -= n, gva += n) {
        n = size < 4096 ? size : 4096;
        ok = span_map(v, gva, n, acc | ACC_WRITE, &s);
    }
    v->db_hits = hits;
    return ok;
}

uint8_t *lin_atomic(struct soft_vcpu *v, gva_t gva, unsigned size, bool *atomic_via_excl)
{
    struct span s;
    bool split = (gva & 63) + size > 64;
    uint8_t *p = split ? NULL : tlb_write(v, gva, size);
    *atomic_via_excl = false;
    if (p)
        return p;
    if (!span_map(v, gva, size, ACC_WRITE, &s))
        return NULL;
    if (split || !s.p[0].host || block_page_has_code(v->vm, s.p[0].gpa)) {
        *atomic_via_excl = true;
        return NULL;
    }
    return s.p[0].host + s.off;
}

bool lin_fetch(struct soft_vcpu *v, gva_t gva, gpa_t *gpa)
{
    struct page p;
    if (!translate(v, gva, ACC_EXEC, &p))
        return false;
    *gpa = p.gpa | (gva & 0xfff);
    return true;
}
