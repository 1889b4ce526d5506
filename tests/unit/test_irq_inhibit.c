/* The accelerated path: when it may be taken, that it changes no answer, and that a reboot ends as it began. */
#include "irq_rig.h"

#include "irq/inhibit.h"

static const uint32_t ids[] = {0, 1, 0x23, 0xfe, 0x100, 0x123, 0x12c, 0x1ff, 0x3ff, 0xfff};
#define N ARRAY_SIZE(ids)

static uint32_t word(const struct rig *r)
{
    return fabric_inhibits(r->f);
}

static void numbers_are_those_of_kvm(void **state)
{
    static const char *const names[] = {"disabled",
                                        "hyperv",
                                        "absent",
                                        "blockirq",
                                        "physical-id-aliased",
                                        "apic-id-modified",
                                        "apic-base-modified",
                                        "nested",
                                        "irqwin",
                                        "pit-reinj",
                                        "sev",
                                        "logical-id-aliased",
                                        "physical-id-too-big"};
    assert_int_equal(INHIBIT_REASONS, 13);
    for (unsigned i = 0; i < INHIBIT_REASONS; i++)
        assert_string_equal(inhibit_name(i), names[i]);
    assert_string_equal(inhibit_name(INHIBIT_REASONS), "?");
}

/* The lines KVM's users look for. */
static void changes_are_traced_and_nothing_else_is(void **state)
{
    char *text = NULL;
    size_t len = 0;
    struct trace t = {.mask = TRACE_IRQ, .out = open_memstream(&text, &len)};
    struct inhibit in;
    inhibit_init(&in, 0, &t);
    inhibit_set(&in, INHIBIT_APIC_ID_MODIFIED, true);
    inhibit_set(&in, INHIBIT_APIC_ID_MODIFIED, true);
    inhibit_hold(&in, INHIBIT_IRQWIN);
    inhibit_hold(&in, INHIBIT_IRQWIN);
    inhibit_release(&in, INHIBIT_IRQWIN);
    assert_int_equal(inhibit_word(&in), 0x120);
    inhibit_release(&in, INHIBIT_IRQWIN);
    inhibit_set(&in, INHIBIT_SEV, false);
    inhibit_hold(&in, INHIBIT_BLOCKIRQ);
    inhibit_reset(&in);
    assert_int_equal(inhibit_word(&in), 0x20);
    inhibit_fini(&in);
    fclose(t.out);
    assert_string_equal(text, "apicv_inhibit_changed: set reason=5, inhibits=0x20\n"
                              "apicv_inhibit_changed: set reason=8, inhibits=0x120\n"
                              "apicv_inhibit_changed: cleared reason=8, inhibits=0x20\n"
                              "apicv_inhibit_changed: set reason=3, inhibits=0x28\n"
                              "apicv_inhibit_changed: cleared reason=3, inhibits=0x20\n");
    free(text);
}

static void xapic_ids_of_the_guests_choice_inhibit(void **state)
{
    struct rig r;
    rig_init(&r, ids, N, false);
    rig_enable(&r);
    assert_int_equal(word(&r), 0); /* the low byte of a 32-bit ID is no modification */
    rig_wr(&r, 6, APIC_ID_REG, 0x44000000);
    assert_int_equal(word(&r), INHIBIT_BIT(5));
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x44, 0x50)), 1);
    assert_true(rig_got(&r, 6, 0x50));
    rig_wr(&r, 6, APIC_ID_REG, 0x2c000000);
    assert_int_equal(word(&r), 0);
    rig_wr(&r, 6, APIC_ID_REG, 0x44000000);
    rig_base(&r, 6, APIC_BASE_EN | APIC_BASE_EXTD); /* in x2APIC mode the ID is its own again */
    assert_int_equal(word(&r), 0);
    rig_fini(&r);
}

static void logical_ids_and_missing_maps_inhibit(void **state)
{
    struct rig r;
    rig_init(&r, ids, N, false);
    rig_enable(&r);
    rig_wr(&r, 1, APIC_LDR, 0x01000000);
    assert_int_equal(word(&r), 0);
    rig_wr(&r, 2, APIC_LDR, 0x01000000);
    assert_int_equal(word(&r), INHIBIT_BIT(11));
    rig_wr(&r, 2, APIC_LDR, 0x02000000);
    assert_int_equal(word(&r), 0);
    rig_base(&r, 5, APIC_BASE_EN | APIC_BASE_EXTD); /* mixed modes */
    assert_int_equal(word(&r), INHIBIT_BIT(11));
    rig_wr(&r, 1, APIC_LDR, 0);
    rig_wr(&r, 2, APIC_LDR, 0);
    assert_int_equal(word(&r), 0);
    rig_fini(&r);
}

static void *no_memory(size_t size)
{
    return NULL;
}

static void without_a_map_reasons_4_and_11(void **state)
{
    struct rig r;
    rig_init(&r, ids, N, true);
    r.f->map_alloc = no_memory;
    fabric_reset(r.f);
    assert_int_equal(word(&r), INHIBIT_BIT(4) | INHIBIT_BIT(11));
    r.f->map_alloc = malloc;
    fabric_reset(r.f);
    assert_int_equal(word(&r), 0);
    rig_fini(&r);
}

static void a_moved_page_inhibits_for_good(void **state)
{
    struct rig r;
    rig_init(&r, ids, N, false);
    assert_true(fabric_msr_write(r.f, VCPU_IDX(3), 0, MSR_APIC_BASE, 0xfed00000 | APIC_BASE_EN));
    assert_int_equal(word(&r), INHIBIT_BIT(6));
    rig_base(&r, 3, APIC_BASE_EN);
    assert_int_equal(word(&r), INHIBIT_BIT(6));
    fabric_reset(r.f);
    assert_int_equal(word(&r), INHIBIT_BIT(6));
    rig_fini(&r);
}

static void an_extint_and_a_debugger_inhibit_for_a_while(void **state)
{
    struct rig r;
    rig_init(&r, ids, N, false);
    r.pic_vector = 0x30;
    fabric_lint(r.f, VCPU_IDX(0), 0, true);
    assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(0)), FABRIC_IRQ_EXTINT);
    assert_int_equal(word(&r), INHIBIT_BIT(8));
    assert_int_equal(fabric_irq_take(r.f, VCPU_IDX(0)), 0x30);
    assert_int_equal(word(&r), 0);
    assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(0)), FABRIC_IRQ_EXTINT);
    fabric_lint(r.f, VCPU_IDX(0), 0, false); /* gone before it was taken */
    assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(0)), -1);
    assert_int_equal(word(&r), 0);
    fabric_lint(r.f, VCPU_IDX(0), 0, true);
    fabric_irq_pending(r.f, VCPU_IDX(0));
    fabric_block_irqs(r.f, true);
    assert_int_equal(word(&r), INHIBIT_BIT(3) | INHIBIT_BIT(8));
    fabric_block_irqs(r.f, false);
    assert_int_equal(word(&r), INHIBIT_BIT(8));
    fabric_reset(r.f);
    assert_int_equal(word(&r), 0);
    assert_int_equal(fabric_irq_pending(r.f, VCPU_IDX(0)), -1);
    rig_fini(&r);
}

/* What a kernel does to its APICs between two resets: bring-up, x2APIC mode on all or on some, the PIC, a CPU taken
 * offline, and, for the second machine, IDs and pages of its own choice undone before it ends. */
static void a_life(struct rig *r, bool x2apic)
{
    uint8_t page;
    rig_enable(r);
    for (uint32_t i = 0; i < r->n; i++) {
        if (x2apic)
            rig_base(r, i, APIC_BASE_EN | APIC_BASE_EXTD);
        rig_wr(r, i, APIC_SVR, 0x1ff);
        fabric_deliver(r->f, (struct irq){.dest = r->ids[i].id, .mode = IRQ_INIT, .assert_ = 1});
        fabric_events_take(r->f, VCPU_IDX(i), &page);
        rig_wr(r, i, APIC_SVR, 0x1ff);
        fabric_deliver(r->f, (struct irq){.dest = r->ids[i].id, .vector = 0x70, .assert_ = 1});
    }
    if (!x2apic)
        rig_wr(r, r->n - 1, APIC_ID_REG, 0x99000000);
    fabric_lint(r->f, VCPU_IDX(0), 0, true);
    fabric_irq_pending(r->f, VCPU_IDX(0));
}

static void a_reboot_ends_with_the_inhibits_it_began_with(void **state)
{
    static const uint32_t sizes[] = {2, 32, 255, 380, 512};
    for (unsigned k = 0; k < ARRAY_SIZE(sizes) * 2; k++) {
        uint32_t n = sizes[k / 2], list[512];
        for (uint32_t i = 0; i < n; i++)
            list[i] = i + i / 6; /* holes; past FFh from 220 on */
        struct rig r;
        rig_init(&r, list, n, k & 1);
        uint32_t began = word(&r);
        assert_int_equal(began, 0);
        for (unsigned reboot = 0; reboot < 2; reboot++) {
            a_life(&r, true);
            assert_int_equal(word(&r) & ~INHIBIT_BIT(INHIBIT_IRQWIN), began);
            fabric_reset(r.f);
            assert_int_equal(word(&r), began);
        }
        for (unsigned reboot = 0; reboot < 2 && !(k & 1); reboot++) {
            a_life(&r, false);
            assert_int_equal(word(&r) & INHIBIT_BIT(INHIBIT_APIC_ID_MODIFIED), INHIBIT_BIT(INHIBIT_APIC_ID_MODIFIED));
            fabric_reset(r.f);
            assert_int_equal(word(&r), began);
        }
        rig_fini(&r);
    }
}

/* The same random script with and without the accelerated path: same receivers, same return values. */
static void one_step(struct rig *a, struct rig *b, uint64_t *s)
{
    uint32_t cpu = rig_below(s, a->n), r32 = (uint32_t)rig_random(s);
    vcpu_idx_t c = VCPU_IDX(cpu);
    struct irq q = {.vector = (uint8_t)r32,
                    .mode = r32 >> 8 & 1,
                    .level = (r32 >> 9 & 7) == 0,
                    .assert_ = 1,
                    .logical = (r32 >> 12 & 7) == 0};
    q.dest = r32 & 0x8000 ? a->ids[rig_below(s, a->n)].id : rig_below(s, 0x1200);
    q.dest8 = q.dest <= 0xff && r32 & 0x10000;
    uint64_t val = rig_random(s);
    switch (rig_below(s, 12)) {
    case 0:
        val = rig_below(s, 3) * 0x400;
        assert_int_equal(rig_base(a, cpu, val + 0x400), rig_base(b, cpu, val + 0x400));
        break;
    case 1:
        fabric_mmio_write(a->f, c, 0, 0x20, (uint32_t)val);
        fabric_mmio_write(b->f, c, 0, 0x20, (uint32_t)val);
        break;
    case 2:
        if (rig_below(s, 40) == 0) {
            fabric_reset(a->f);
            fabric_reset(b->f);
        }
        break;
    case 3:
        if (a->f->lapic[cpu].mode != LAPIC_DISABLED) {
            rig_wr(a, cpu, APIC_SVR, 0xff | (val & 0x300));
            rig_wr(b, cpu, APIC_SVR, 0xff | (val & 0x300));
        }
        break;
    case 4:
        assert_int_equal(fabric_irq_take(a->f, c), fabric_irq_take(b->f, c));
        break;
    default:
        assert_int_equal(fabric_deliver(a->f, q), fabric_deliver(b->f, q));
    }
}

static void posting_changes_no_answer(void **state)
{
    uint64_t seed = 0x13198a2e03707344;
    uint64_t posted = 0, steps = 0;
    for (unsigned round = 0; round < 40; round++) {
        struct rig a, b;
        rig_init(&a, ids, N, round & 1);
        rig_init(&b, ids, N, round & 1);
        inhibit_set(&b.f->inhibit, INHIBIT_DISABLED, true);
        for (uint32_t i = 0; i < N && round & 2; i++)
            a.f->lapic[i].id8 = b.f->lapic[i].id8 = true;
        fabric_reset(a.f);
        fabric_reset(b.f);
        rig_enable(&a);
        rig_enable(&b);
        for (unsigned k = 0; k < 3000; k++, steps++) {
            one_step(&a, &b, &seed);
            posted += word(&a) == 0;
        }
        for (uint32_t i = 0; i < N; i++)
            for (unsigned w = 0; w < 4; w++)
                assert_true(atomic_load(&a.f->lapic[i].irr[w]) == atomic_load(&b.f->lapic[i].irr[w]));
        rig_fini(&a);
        rig_fini(&b);
    }
    assert_true(posted > steps / 10 && posted < steps); /* both states were met */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_kvm),
        cmocka_unit_test(changes_are_traced_and_nothing_else_is),
        cmocka_unit_test(xapic_ids_of_the_guests_choice_inhibit),
        cmocka_unit_test(logical_ids_and_missing_maps_inhibit),
        cmocka_unit_test(without_a_map_reasons_4_and_11),
        cmocka_unit_test(a_moved_page_inhibits_for_good),
        cmocka_unit_test(an_extint_and_a_debugger_inhibit_for_a_while),
        cmocka_unit_test(a_reboot_ends_with_the_inhibits_it_began_with),
        cmocka_unit_test(posting_changes_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
