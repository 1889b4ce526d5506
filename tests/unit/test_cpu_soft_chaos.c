/* Random bytes as guest code, in every mode, with random registers and control bits: whatever they do to the guest, the
 * engine returns, keeps its invariants, and goes on with the next. Meant for the sanitizer builds.
 */
#include "cpu_rig.h"

enum { ROUNDS = 3000, BYTES = 256 };

static uint64_t seed = 0x1234567887654321;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static unsigned below(unsigned n)
{
    return (unsigned)(rnd() >> 20) % n;
}

static void random_mode(struct rig *r)
{
    switch (below(5)) {
    case 0:
        rig_real(r);
        break;
    case 1:
        rig_protected(r, below(2) * 3);
        break;
    case 2:
        rig_v86(r, below(4));
        break;
    default:
        rig_long(r, below(2) * 3);
    }
}

/* Registers that mostly point into RAM, so that memory operands get somewhere. */
static void random_registers(struct rig *r)
{
    struct cpu_state *s = &r->v->st;
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP || !below(4))
            s->gpr[i] = below(4) ? 0x20000 + below(0x40000) : rnd() >> below(64);
    if (!below(3))
        s->rflags ^= rnd() & (RF_ARITH | RF_DF | RF_AC | RF_NT | RF_IOPL | RF_ID);
    if (!below(8))
        s->rflags |= RF_TF;
    if (!below(8))
        s->cr0 |= CR0_AM | CR0_TS | CR0_EM;
    if (below(2) && s->efer & EFER_LMA)
        s->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | (rnd() & (CR4_TSD | CR4_DE | CR4_UMIP | CR4_SMEP | CR4_SMAP));
    if (!below(8)) {
        s->dr[7] = rnd() & 0xffff07ff;
        for (unsigned i = 0; i < 4; i++)
            s->dr[i] = RIG_CODE + below(BYTES);
    }
    mode_update(r->v);
}

/* Bytes that are instructions more often than not. */
static void random_code(struct rig *r)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0x65, 0x48, 0x4c, 0x41, 0x45};
    uint8_t *p = rig_at(r, RIG_CODE);
    for (unsigned i = 0; i < BYTES; i++)
        p[i] = below(8) ? (uint8_t)rnd() : below(2) ? 0x0f : prefixes[below(sizeof prefixes)];
    block_dma_write((struct soft_vm *)r->vm, RIG_CODE, BYTES);
}

static void check_invariants(struct rig *r, const struct cpu_run *c)
{
    struct soft_vcpu *v = r->v;
    assert_int_equal(v->zero, 0);
    assert_int_equal(v->mode & MODE_SINGLE, 0);
    assert_ptr_equal(v->jump, jump_select(v));
    assert_int_equal(v->block_left, 0);
    assert_true(c->exit <= CPU_EXIT_SHUTDOWN);
    assert_true(c->used <= c->budget + 2 * 64);
}

static void random_bytes_never_hurt_the_host(void **state)
{
    struct rig *r = *state;
    uint64_t now = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        engine_soft.kick((struct engine_vcpu *)r->v, below(16) ? 0 : ATTN_IRQ);
        random_mode(r);
        for (unsigned vec = 0; vec < 64; vec++)
            *rig_at(r, rig_handler(vec)) = below(2) ? 0xf4 : 0xcf;
        random_registers(r);
        random_code(r);
        struct cpu_run c = {.now = now, .budget = 1 + below(500)};
        engine_soft.vcpu_run((struct engine_vcpu *)r->v, &c);
        now += c.used;
        check_invariants(r, &c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {RIG_TEST(random_bytes_never_hurt_the_host)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
