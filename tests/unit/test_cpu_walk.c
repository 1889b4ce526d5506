/* Page walks against a model of the manual's figures, on random tables. */
#include "soft_machine.h"

#include "cpu/soft/walk.h"

/* ---- the independent model: the manual's figures, one function a mode ---- */

struct answer {
    bool ok;
    gpa_t gpa;
    uint32_t error;
    gpa_t touched[4]; /* entries that get A, the last one also D on a write */
    unsigned n;
};

struct question {
    gva_t gva;
    bool write, exec, user, wp, smep, nxe, pse;
    gpa_t root;
};

static uint64_t entry8(gpa_t at)
{
    return at + 8 <= 4 * MIB ? *q(at) : ~UINT64_C(0);
}

static uint64_t entry4(gpa_t at)
{
    return at + 4 <= 4 * MIB ? ld32(rig.ram.low + at) : 0xffffffff;
}

static struct answer fault(const struct question *k, uint32_t pr, bool fetch_bit)
{
    return (struct answer){.error = pr | (k->write ? 2 : 0) | (k->user ? 4 : 0) | (k->exec && fetch_bit ? 16 : 0)};
}

static bool permitted(const struct question *k, bool w, bool u, bool nx)
{
    if (k->user && !u)
        return false;
    if (k->write && !w && (k->user || k->wp))
        return false;
    return !(k->exec && (nx || (!k->user && u && k->smep)));
}

static struct answer model_32(const struct question *k)
{
    struct answer a = {.ok = true};
    gpa_t pde_at = (k->root & 0xfffff000) + (k->gva >> 22 & 0x3ff) * 4;
    uint64_t pde = entry4(pde_at);
    if (!(pde & 1))
        return fault(k, 0, k->smep);
    a.touched[a.n++] = pde_at;
    if (k->pse && pde & 0x80) {
        if (pde & 0x3fe000)
            return fault(k, 9, k->smep);
        a.gpa = (pde & 0xffc00000) | (k->gva & 0x3fffff);
        return permitted(k, pde & 2, pde & 4, false) ? a : fault(k, 1, k->smep);
    }
    gpa_t pte_at = (pde & 0xfffff000) + (k->gva >> 12 & 0x3ff) * 4;
    uint64_t pte = entry4(pte_at);
    if (!(pte & 1))
        return fault(k, 0, k->smep);
    a.touched[a.n++] = pte_at;
    a.gpa = (pte & 0xfffff000) | (k->gva & 0xfff);
    return permitted(k, pde & pte & 2, pde & pte & 4, false) ? a : fault(k, 1, k->smep);
}

/* The two lower levels of PAE and 4-level paging; w, u and nx come from above. */
static struct answer model_lower(const struct question *k, struct answer a, gpa_t pd, uint64_t reserved, bool w, bool u,
                                 bool nx)
{
    bool f = k->nxe || k->smep;
    gpa_t at = pd + (k->gva >> 21 & 0x1ff) * 8;
    uint64_t e = entry8(at);
    for (unsigned shift = 21;; shift = 12) {
        if (!(e & 1))
            return fault(k, 0, f);
        bool leaf = shift == 12 || e & 0x80;
        if (e & reserved || (leaf && shift == 21 && e & 0x1fe000))
            return fault(k, 9, f);
        w = w && e & 2;
        u = u && e & 4;
        nx = nx || e >> 63;
        a.touched[a.n++] = at;
        if (leaf) {
            uint64_t inside = (UINT64_C(1) << shift) - 1;
            a.gpa = (e & 0x3ffffffff000 & ~inside) | (k->gva & inside);
            return permitted(k, w, u, nx) ? a : fault(k, 1, f);
        }
        at = (e & 0x3ffffffff000) + (k->gva >> 12 & 0x1ff) * 8;
        e = entry8(at);
    }
}

static struct answer model_pae(const struct question *k)
{
    struct answer a = {.ok = true};
    uint64_t pdpte = entry8((k->root & 0xffffffe0) + (k->gva >> 30 & 3) * 8);
    bool f = k->nxe || k->smep;
    if (!(pdpte & 1))
        return fault(k, 0, f);
    if (pdpte & (0x1e6 | ~UINT64_C(0x3fffffffffff)))
        return fault(k, 9, f);
    uint64_t reserved = UINT64_C(0x7fffc00000000000) | (k->nxe ? 0 : UINT64_C(1) << 63);
    return model_lower(k, a, pdpte & 0x3ffffffff000, reserved, true, true, false);
}

static struct answer model_64(const struct question *k)
{
    struct answer a = {.ok = true};
    bool f = k->nxe || k->smep;
    uint64_t reserved = UINT64_C(0x000fc00000000000) | (k->nxe ? 0 : UINT64_C(1) << 63);
    a.touched[0] = (k->root & 0x3ffffffff000) + (k->gva >> 39 & 0x1ff) * 8;
    uint64_t e4 = entry8(a.touched[0]);
    if (!(e4 & 1))
        return fault(k, 0, f);
    if (e4 & (reserved | 0x80))
        return fault(k, 9, f);
    a.touched[1] = (e4 & 0x3ffffffff000) + (k->gva >> 30 & 0x1ff) * 8;
    uint64_t e3 = entry8(a.touched[1]);
    a.n = 2;
    if (!(e3 & 1))
        return fault(k, 0, f);
    if (e3 & reserved || (e3 & 0x80 && e3 & 0x3fffe000))
        return fault(k, 9, f);
    bool w = e4 & e3 & 2, u = e4 & e3 & 4, nx = (e4 | e3) >> 63;
    if (!(e3 & 0x80))
        return model_lower(k, a, e3 & 0x3ffffffff000, reserved, w, u, nx);
    a.gpa = (e3 & 0x3fffc0000000) | (k->gva & 0x3fffffff);
    return permitted(k, w, u, nx) ? a : fault(k, 1, f);
}

/* ---- random tables ---- */

static uint64_t seed;

static uint32_t rnd(void)
{
    return soft_rig_random(&seed);
}

static bool one_in(unsigned n)
{
    return rnd() % n == 0;
}

enum { TABLES = 8, TABLE_BASE = 0x10000 };

/* Entries point to the eight tables, to a page of data or out of RAM; most bits are right most of the time. */
static uint64_t random_entry(bool wide)
{
    uint64_t e = TABLE_BASE + (uint64_t)(rnd() % (TABLES + 4)) * 0x1000;
    e |= (one_in(16) ? 0 : 1) | (one_in(5) ? 0 : 2) | (one_in(5) ? 0 : 4) | (rnd() & 0x160);
    e |= one_in(6) ? 0x80 : 0;
    if (e & 0x80 && !one_in(4))
        e &= wide ? ~UINT64_C(0x3ffff000) : ~UINT64_C(0x3ff000);
    if (one_in(30))
        e |= UINT64_C(0x80000000);
    if (wide && one_in(20))
        e |= UINT64_C(1) << 63;
    if (wide && one_in(30))
        e |= UINT64_C(1) << (46 + rnd() % 17);
    return e;
}

static void random_tables(bool wide)
{
    for (unsigned at = 0; at < TABLES * 0x1000; at += wide ? 8 : 4) {
        uint64_t e = random_entry(wide);
        memcpy(rig.ram.low + TABLE_BASE + at, &e, wide ? 8 : 4);
    }
}

/* CR3 in PAE mode may be any 32-byte line; its four entries have fewer bits. */
static void random_pdptes(void)
{
    for (unsigned i = 0; i < 4; i++)
        *q(0x1000 + i * 8) =
            (TABLE_BASE + (uint64_t)(rnd() % TABLES) * 0x1000) | (one_in(8) ? 0 : 1) | (one_in(10) ? 2 : 0);
}

static void check_marks(const struct answer *a, const uint8_t *before, bool write)
{
    static uint8_t want[TABLES * 0x1000];
    memcpy(want, before, sizeof want);
    for (unsigned i = 0; a->ok && i < a->n; i++)
        if (a->touched[i] - TABLE_BASE < sizeof want)
            want[a->touched[i] - TABLE_BASE] |= (uint8_t)(0x20 | (write && i == a->n - 1 ? 0x40 : 0));
    assert_memory_equal(rig.ram.low + TABLE_BASE, want, sizeof want);
}

static bool check_walk(const struct question *k, struct answer (*model)(const struct question *))
{
    static uint8_t before[TABLES * 0x1000];
    struct walk w;
    uint32_t error;
    memcpy(before, rig.ram.low + TABLE_BASE, sizeof before);
    struct answer a = model(k);
    unsigned acc = k->write ? ACC_WRITE : k->exec ? ACC_EXEC : ACC_READ;
    bool ok = walk_page(rig.v, k->gva, acc, k->user, &w, &error);
    assert_int_equal(ok, a.ok);
    if (ok)
        assert_int_equal(w.page, a.gpa & ~UINT64_C(0xfff));
    else
        assert_int_equal(error, a.error);
    check_marks(&a, before, k->write);
    return ok;
}

static void ask(struct question *k)
{
    unsigned kind = rnd() % 3;
    k->write = kind == 1;
    k->exec = kind == 2;
    k->user = rnd() & 1;
}

static void mode_of(const struct question *k, uint64_t cr4, uint64_t efer)
{
    struct soft_vcpu *v = rig.v;
    soft_rig_mode(&rig, CR0_PE | CR0_PG | (k->wp ? CR0_WP : 0), cr4 | (k->smep ? CR4_SMEP : 0) | (k->pse ? CR4_PSE : 0),
                  efer | (k->nxe ? EFER_NXE : 0), efer ? CODE64 : CODE32, k->user ? 3 : 0);
    v->st.cr3 = k->root;
}

static void walks_agree_with_the_model(void **state)
{
    unsigned mapped[3] = {0};
    seed = 42;
    for (unsigned round = 0; round < 150; round++) {
        struct question k = {.wp = rnd() & 1, .smep = rnd() & 1, .nxe = rnd() & 1, .pse = rnd() & 1};
        unsigned mode = round % 3;
        random_tables(mode > 0);
        random_pdptes();
        k.root = mode == 1 ? 0x1000 : TABLE_BASE;
        for (unsigned i = 0; i < 200; i++) {
            ask(&k);
            mode_of(&k, mode ? CR4_PAE : 0, mode == 2 ? EFER_LMA | EFER_LME : 0);
            k.gva = (uint64_t)rnd() << (mode == 2 ? 15 : 0);
            if (mode == 2)
                k.gva = ((uint64_t)((int64_t)(k.gva << 16) >> 16)) | (rnd() & 0x7fff);
            mapped[mode] += check_walk(&k, mode == 0 ? model_32 : mode == 1 ? model_pae : model_64);
        }
    }
    for (unsigned mode = 0; mode < 3; mode++) /* both outcomes were met often */
        assert_true(mapped[mode] > 1000 && mapped[mode] < 9000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(walks_agree_with_the_model, set_up_bare, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
