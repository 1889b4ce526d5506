/* -d irq: each interrupt's way as one line, or as a JSON trace that is whole at any moment. */
#include "base/trace_json.h"
#include "irq/ioapic.h"
#include "irq/way.h"
#include "irq_rig.h"

#include <stdio.h>
#include <unistd.h>

/* A fabric whose IDs have holes, with a trace to memory (`path` NULL) or to a JSON file. */
struct traced {
    struct rig r;
    struct trace trace;
    struct remap remap;
    char *text;
    size_t size;
};

static const uint32_t ids[] = {0, 3, 255, 300, 777};

static void set_up(struct traced *x, const char *path)
{
    struct err e = {""};
    *x = (struct traced){.size = 0};
    assert_int_equal(trace_open(&x->trace, TRACE_IRQ, path, path != NULL, &e), 0);
    if (!path)
        x->trace.out = open_memstream(&x->text, &x->size);
    rig_init(&x->r, ids, ARRAY_SIZE(ids), true);
    struct fabric_config c = x->r.f->cfg;
    c.trace = &x->trace;
    c.ids = x->r.ids;
    fabric_destroy(x->r.f);
    assert_int_equal(fabric_create(&c, &x->r.f, &e), 0);
    remap_init(&x->remap, true);
    x->remap.trace = &x->trace;
    rig_enable(&x->r);
}

static void tear_down(struct traced *x)
{
    rig_fini(&x->r);
    trace_close(&x->trace);
    free(x->text);
}

/* What was written since the last call is exactly `want`. */
static void expect(struct traced *x, const char *want)
{
    static size_t seen;
    static struct traced *of;
    if (of != x || !want)
        seen = 0;
    of = x;
    fflush(x->trace.out);
    if (want)
        assert_string_equal(x->text + seen, want);
    seen = x->size;
}

static int send(struct traced *x, uint64_t addr, uint32_t data)
{
    return remap_deliver_msi(&x->remap, fabric_port(x->r.f), (struct msi_msg){addr, data}, REQUESTER_ID(0xfa));
}

static void a_message(void **state)
{
    struct traced x;
    set_up(&x, NULL);
    expect(&x, NULL);
    assert_int_equal(send(&x, 0xfee2c020, 0x31), 1);
    expect(&x, "irq: device 00:1f.2 > FEE2C020h/0031h > extended destination > physical 12Ch fixed 31h edge (posts) > "
               "cpu 3 (12Ch) kicked\n");
    assert_int_equal(send(&x, 0xfee2c020, 0x31), 1);
    expect(&x, "irq: device 00:1f.2 > FEE2C020h/0031h > extended destination > physical 12Ch fixed 31h edge (posts) > "
               "cpu 3 (12Ch) merged\n");
    assert_int_equal(fabric_irq_take(x.r.f, VCPU_IDX(3)), 0x31);
    rig_wr(&x.r, 3, APIC_EOI, 0);
    expect(&x, "irq: cpu 3 (12Ch) takes 31h\nirq: cpu 3 (12Ch) ends 31h\n");
    assert_int_equal(send(&x, 0xfee05000, 0x31), 0);
    expect(&x, "irq: device 00:1f.2 > FEE05000h/0031h > compatibility > physical 5h fixed 31h edge (posts) > nobody\n");
    assert_int_equal(send(&x, 0xfee05000, 0x331), 0);
    expect(&x, "irq: device 00:1f.2 > FEE05000h/0331h > compatibility > fault 02h: delivery mode that no message "
               "carries > nobody\n");
    tear_down(&x);
}

static void ipis(void **state)
{
    struct traced x;
    set_up(&x, NULL);
    expect(&x, NULL);
    rig_wr(&x.r, 1, APIC_ICR, UINT64_C(777) << 32 | 0x4400);
    expect(&x, "irq: cpu 1 (3h) ICR > physical 309h NMI edge > cpu 4 (309h) kicked\n");
    uint8_t sipi;
    fabric_events_take(x.r.f, VCPU_IDX(4), &sipi);
    expect(&x, "irq: cpu 4 (309h) takes NMI\n");
    rig_wr(&x.r, 1, APIC_ICR, 0xc0045);
    expect(&x, "irq: cpu 1 (3h) ICR > all but self fixed 45h edge > cpu 0 (0h) kicked, cpu 2 (FFh) kicked, "
               "cpu 3 (12Ch) kicked, cpu 4 (309h) kicked\n");
    fabric_deliver_from(x.r.f, VCPU_IDX(0), (struct irq){.dest = 3, .vector = 0x50, .assert_ = 1});
    expect(&x, "irq: cpu 0 (0h) hypercall > physical 3h fixed 50h edge (posts) > cpu 1 (3h) kicked\n");
    fabric_deliver(x.r.f, (struct irq){.dest = 3, .vector = 0x50, .assert_ = 1});
    expect(&x, "irq: direct > physical 3h fixed 50h edge (posts) > cpu 1 (3h) merged\n");
    tear_down(&x);
}

static void a_pin(void **state)
{
    struct traced x;
    struct ioapic *io;
    struct err e = {""};
    set_up(&x, NULL);
    struct ioapic_config c = {.requester = REQUESTER_ID(0xa0),
                              .ext_dest_id = true,
                              .remap = &x.remap,
                              .port = fabric_port(x.r.f),
                              .trace = &x.trace};
    assert_int_equal(ioapic_create(&c, &io, &e), 0);
    ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, IOAPIC_REG_RTE + 9);
    ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, 0x2c020000);
    ioapic_bus_ops.write(io, IOAPIC_REGSEL, 4, IOAPIC_REG_RTE + 8);
    ioapic_bus_ops.write(io, IOAPIC_WINDOW, 4, 0x61);
    expect(&x, NULL);
    ioapic_set_pin(io, 4, true);
    expect(&x, "irq: pin 4, entry 2c02000000000061h > FEE2C020h/0061h > extended destination > physical 12Ch fixed 61h "
               "edge (posts) > cpu 3 (12Ch) kicked\n");
    ioapic_destroy(io);
    tear_down(&x);
}

/* Many targets: the first few by name. */
static void a_broadcast_is_cut(void **state)
{
    enum { N = 40 };
    uint32_t many[N];
    struct rig r;
    struct err e = {""};
    char *text = NULL;
    size_t size = 0;
    struct trace t;
    for (uint32_t i = 0; i < N; i++)
        many[i] = i * 5;
    assert_int_equal(trace_open(&t, TRACE_IRQ, NULL, false, &e), 0);
    t.out = open_memstream(&text, &size);
    rig_init(&r, many, N, true);
    rig_enable(&r);
    r.f->cfg.trace = &t;
    assert_int_equal(fabric_deliver(r.f, (struct irq){.dest = APIC_BROADCAST32, .vector = 0x70, .assert_ = 1}), N);
    fflush(t.out);
    assert_non_null(strstr(text, "cpu 7 (23h) kicked and 32 more: 40 took it\n"));
    assert_null(strstr(text, "cpu 8 "));
    r.f->cfg.trace = NULL;
    rig_fini(&r);
    trace_close(&t);
    free(text);
}

/* Off: nothing is written, nothing is kept. */
static void off_is_off(void **state)
{
    struct traced x;
    set_up(&x, NULL);
    expect(&x, NULL);
    x.trace.mask = TRACE_CPU;
    assert_int_equal(send(&x, 0xfee2c020, 0x31), 1);
    rig_wr(&x.r, 1, APIC_ICR, 0xc0045);
    fabric_irq_take(x.r.f, VCPU_IDX(3));
    rig_wr(&x.r, 3, APIC_EOI, 0);
    expect(&x, "");
    tear_down(&x);
}

/* ---- JSON ---- */

/* Skip one JSON value; NULL: malformed. Counts objects with "ph" by its letter. */
static const char *value(const char *s, unsigned *count);

static const char *space(const char *s)
{
    return s + strspn(s, " \t\r\n");
}

static const char *string(const char *s)
{
    for (s++; *s != '"'; s++) {
        s += *s == '\\';
        if ((unsigned char)*s < 0x20)
            return NULL;
    }
    return s + 1;
}

static const char *members(const char *s, char close, unsigned *count)
{
    s = space(s + 1);
    if (*s == close)
        return s + 1;
    for (;;) {
        if (close == '}') {
            const char *key = s;
            s = *s == '"' ? string(s) : NULL;
            s = s ? space(s) : s;
            if (!s || *s != ':')
                return NULL;
            s = space(s + 1);
            if (!strncmp(key, "\"ph\"", 4) && *s == '"')
                count[(unsigned char)s[1]]++;
        }
        s = value(s, count);
        if (!s || (*s != ',' && *s != close))
            return NULL;
        if (*s == close)
            return s + 1;
        s = space(s + 1);
    }
}

static const char *value(const char *s, unsigned *count)
{
    const char *end = NULL;
    s = space(s);
    if (*s == '{')
        end = members(s, '}', count);
    else if (*s == '[')
        end = members(s, ']', count);
    else if (*s == '"')
        end = string(s);
    else if (strspn(s, "0123456789.-"))
        end = s + strspn(s, "0123456789.-");
    return end ? space(end) : NULL;
}

static void check_json(const char *path, unsigned *count)
{
    static char text[1 << 20];
    memset(count, 0, 256 * sizeof *count);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    const char *end = value(text, count);
    if (!end || *end)
        fail_msg("not JSON: %s", text);
}

static void json_is_whole(void **state)
{
    char path[] = "/tmp/hec-way-XXXXXX";
    struct traced x;
    unsigned n[256];
    close(mkstemp(path));
    set_up(&x, path);
    check_json(path, n);
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(send(&x, 0xfee2c020, 0x31), 1);
        assert_int_equal(send(&x, 0xfee2c020, 0x31), 1);
        fabric_irq_take(x.r.f, VCPU_IDX(3));
        rig_wr(&x.r, 3, APIC_EOI, 0);
    }
    check_json(path, n);
    assert_true(n['X'] > 100 && n['X'] < 1000);
    trace_write(&x.trace, "a \"line\" of\\another\tcategory");
    tear_down(&x);
    check_json(path, n);
    assert_int_equal(n['X'], 1000);
    assert_int_equal(n['s'], 500);
    assert_int_equal(n['f'], 500);
    assert_int_equal(n['B'], 500);
    assert_int_equal(n['E'], 500);
    unlink(path);
}

/* A reset in the middle of a service leaves no slice open. */
static void json_reset(void **state)
{
    char path[] = "/tmp/hec-way-XXXXXX";
    struct traced x;
    unsigned n[256];
    uint8_t sipi;
    close(mkstemp(path));
    set_up(&x, path);
    send(&x, 0xfee2c020, 0x31);
    fabric_irq_take(x.r.f, VCPU_IDX(3));
    send(&x, 0xfee2c020, 0x81);
    fabric_irq_take(x.r.f, VCPU_IDX(3));
    rig_wr(&x.r, 0, APIC_ICR, UINT64_C(300) << 32 | 0x4500);
    fabric_events_take(x.r.f, VCPU_IDX(3), &sipi);
    send(&x, 0xfee03000, 0x33);
    fabric_irq_take(x.r.f, VCPU_IDX(1));
    fabric_reset(x.r.f);
    tear_down(&x);
    check_json(path, n);
    assert_int_equal(n['B'], 3);
    assert_int_equal(n['E'], 3);
    unlink(path);
}

static void json_cannot_be_written(void **state)
{
    struct trace t;
    struct err e = {""};
    assert_true(trace_open(&t, TRACE_IRQ, "/nonexistent/trace", true, &e) < 0);
    assert_non_null(strstr(e.msg, "/nonexistent/trace"));
    trace_close(&t);
    assert_int_equal(trace_open(&t, TRACE_IRQ, "/dev/full", true, &e), 0);
    for (unsigned i = 0; i < 5000; i++)
        trace_write(&t, "a full disk is no reason to stop");
    trace_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message),  cmocka_unit_test(ipis),
        cmocka_unit_test(a_pin),      cmocka_unit_test(a_broadcast_is_cut),
        cmocka_unit_test(off_is_off), cmocka_unit_test(json_is_whole),
        cmocka_unit_test(json_reset), cmocka_unit_test(json_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
