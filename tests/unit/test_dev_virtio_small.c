/* The small ones: entropy, consoles, pvpanic. */
#include "virtio_rig.h"

#include "dev/pvpanic.h"
#include "dev/virtio_console.h"
#include "dev/virtio_rng.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEVFN PCI_DEVFN(7, 0)

/* ---- entropy ---- */

static void entropy_fills_buffers(void **state)
{
    struct vrig r;
    struct vdev d;
    struct vq q;
    struct virtio_rng *rng;
    vr_init(&r);
    struct virtio_rng_config c = {.host = &r.pci.host, .devfn = DEVFN, .loop = r.loop};
    assert_int_equal(virtio_rng_create(&c, &rng, &r.pci.f.err), 0);
    vr_power_on(&r);
    vd_find(&d, &r, DEVFN, true);
    assert_int_equal(cfg_rd(&r.pci, 0, DEVFN, 2, 2), 0x1044);
    vd_agree(&d, ~UINT64_C(0));
    vq_init(&q, &d, 0, 8);
    vd_go(&d);
    uint64_t gpa = vr_alloc(&r, 1 << 20);
    uint8_t *p = vr_hva(&r, gpa);
    uint32_t used;
    for (unsigned i = 0; i < 20; i++) {
        uint8_t before[64];
        memcpy(before, p, 64);
        assert_true(vq_add(&q, (struct vbuf[]){{gpa, 33}, {gpa + 33, 31}}, 0, 2, p, i & 1));
        vq_kick(&q);
        assert_ptr_equal(vq_wait(&q, &used), p);
        assert_int_equal(used, 64);
        assert_memory_not_equal(p, before, 64);
        assert_int_equal(p[64], 0);
    }
    assert_true(vq_add(&q, (struct vbuf[]){{gpa, 1 << 20}}, 0, 1, p, false));
    vq_kick(&q);
    assert_ptr_equal(vq_wait(&q, &used), p);
    assert_true(used > 0 && used <= 1 << 20);
    assert_true(vq_add(&q, (struct vbuf[]){{gpa, 16}}, 1, 0, p, false)); /* nothing to write to */
    vq_kick(&q);
    assert_ptr_equal(vq_wait(&q, &used), p);
    assert_int_equal(used, 0);
    virtio_rng_reset(rng);
    assert_int_equal(vd_status(&d), 0);
    virtio_rng_destroy(rng);
    vr_fini(&r);
}

/* ---- consoles ---- */

struct con {
    struct vrig r;
    struct vdev d;
    struct virtio_console *c;
    struct chardev *chardev[2];
    char path[2][64];
    int fd[2]; /* the other ends */
    struct vq rx, tx, control_rx, control_tx, rx1, tx1;
    uint64_t gpa;
    uint8_t *hva;
};

static void con_connect(struct con *c, unsigned i)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char spec[80];
    snprintf(c->path[i], sizeof c->path[i], "/tmp/hecaton-con-%d-%u", (int)getpid(), i);
    snprintf(spec, sizeof spec, "unix:%s", c->path[i]);
    struct chardev_config cc = {.spec = spec};
    assert_int_equal(chardev_create(&cc, &c->chardev[i], &c->r.pci.f.err), 0);
    strcpy(a.sun_path, c->path[i]);
    c->fd[i] = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(c->fd[i] >= 0 && connect(c->fd[i], (struct sockaddr *)&a, sizeof a) == 0);
}

/* Until the chardev has its peer, output goes nowhere: say something until some of it arrives, then all of it does. */
static void con_sync(struct con *c)
{
    struct pollfd p = {.fd = c->fd[0], .events = POLLIN};
    char byte = 0;
    do
        mem_wr(&c->r.pci, c->d.config + 8, 4, '.');
    while (poll(&p, 1, 1) == 0);
    mem_wr(&c->r.pci, c->d.config + 8, 4, '!');
    while (byte != '!')
        assert_int_equal(read(c->fd[0], &byte, 1), 1);
}

static void con_init(struct con *c, const struct virtio_console_port *ports, unsigned n)
{
    struct virtio_console_port p[2];
    memset(c, 0, sizeof *c);
    vr_init(&c->r);
    for (unsigned i = 0; i < n; i++) {
        con_connect(c, i);
        p[i] = ports[i];
        p[i].chardev = c->chardev[i];
    }
    struct virtio_console_config cc = {
        .host = &c->r.pci.host, .devfn = DEVFN, .loop = c->r.loop, .ports = p, .nports = n};
    assert_int_equal(virtio_console_create(&cc, &c->c, &c->r.pci.f.err), 0);
    vr_power_on(&c->r);
    vd_find(&c->d, &c->r, DEVFN, true);
    c->gpa = vr_alloc(&c->r, 1 << 20);
    c->hva = vr_hva(&c->r, c->gpa);
    con_sync(c);
}

static void con_fini(struct con *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(c->fd[i]);
        chardev_destroy(c->chardev[i]);
    }
    virtio_console_destroy(c->c);
    vr_fini(&c->r);
}

static void send_text(struct con *c, struct vq *q, const void *text, uint32_t n)
{
    memcpy(c->hva, text, n);
    assert_true(vq_add(q, (struct vbuf[]){{c->gpa, n}}, 1, 0, c->hva, false));
    vq_kick(q);
    assert_ptr_equal(vq_wait(q, NULL), c->hva);
}

static void expect_text(int fd, const char *text)
{
    char buf[256] = "";
    size_t n = 0;
    while (n < strlen(text)) {
        ssize_t got = read(fd, buf + n, strlen(text) - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    assert_string_equal(buf, text);
}

/* Receive into buffers of 3 bytes. */
static void receive_text(struct con *c, struct vq *q, const char *text)
{
    for (size_t n = 0; n < strlen(text);) {
        uint32_t used;
        uint8_t *p = c->hva + 4096;
        assert_true(vq_add(q, (struct vbuf[]){{c->gpa + 4096, 3}}, 0, 1, p, false));
        vq_kick(q);
        assert_ptr_equal(vq_wait(q, &used), p);
        assert_true(used >= 1 && used <= 3 && n + used <= strlen(text));
        assert_memory_equal(p, text + n, used);
        n += used;
    }
}

static void one_console_without_ports(void **state)
{
    struct con c;
    con_init(&c, &(struct virtio_console_port){.console = true}, 1);
    vd_agree(&c.d, ~UINT64_C(0));
    assert_false(c.d.offered & BIT(1));
    vq_init(&c.rx, &c.d, 0, 128);
    vq_init(&c.tx, &c.d, 1, 128);
    assert_int_equal(write(c.fd[0], "early ", 6), 6); /* before anybody listens */
    vd_go(&c.d);
    send_text(&c, &c.tx, "hello", 5);
    expect_text(c.fd[0], "hello");
    assert_int_equal(write(c.fd[0], "bird", 4), 4);
    receive_text(&c, &c.rx, "early bird");
    virtio_console_reset(c.c);
    assert_int_equal(vd_status(&c.d), 0);
    con_fini(&c, 1);
}

/* More than the chardev's ring while nobody reads; then all of it, in order. */
static void output_waits_for_its_reader(void **state)
{
    enum { N = 400000, CHUNK = 40000 };
    struct con c;
    con_init(&c, &(struct virtio_console_port){.console = true}, 1);
    vd_agree(&c.d, ~VIRTIO_F_EVENT_IDX);
    vq_init(&c.rx, &c.d, 0, 128);
    vq_init(&c.tx, &c.d, 1, 128);
    vd_go(&c.d);
    for (unsigned i = 0; i < N; i++)
        c.hva[i] = (uint8_t)(i * 13 + i / 251);
    for (unsigned i = 0; i < N; i += CHUNK) {
        struct vbuf b[] = {{c.gpa + i, 7}, {c.gpa + i + 7, CHUNK - 7}};
        assert_true(vq_add(&c.tx, b, 2, 0, c.hva + i, false));
        vq_kick(&c.tx);
    }
    vr_settle(&c.r);
    uint8_t buf[8192];
    for (unsigned n = 0; n < N;) {
        ssize_t got = read(c.fd[0], buf, sizeof buf);
        assert_true(got > 0);
        assert_memory_equal(buf, c.hva + n, (size_t)got);
        n += (unsigned)got;
    }
    for (unsigned i = 0; i < N; i += CHUNK)
        assert_ptr_equal(vq_wait(&c.tx, NULL), c.hva + i);
    con_fini(&c, 1);
}

/* Input that the driver takes slowly, more than fits into the port. */
static void input_waits_for_its_reader(void **state)
{
    enum { N = 20000 };
    struct con c;
    static char text[N + 1];
    con_init(&c, &(struct virtio_console_port){.console = true}, 1);
    vd_agree(&c.d, ~UINT64_C(0));
    vq_init(&c.rx, &c.d, 0, 128);
    vq_init(&c.tx, &c.d, 1, 128);
    vd_go(&c.d);
    for (unsigned i = 0; i < N; i++)
        text[i] = (char)('a' + i % 23);
    assert_int_equal(write(c.fd[0], text, N), N);
    receive_text(&c, &c.rx, text);
    con_fini(&c, 1);
}

static void control(struct con *c, uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t m[8];
    st32(m, port);
    st16(m + 4, event);
    st16(m + 6, value);
    send_text(c, &c->control_tx, m, 8);
}

static void expect_control(struct con *c, uint32_t port, uint16_t event, const char *name)
{
    uint8_t *p = c->hva + 8192;
    uint32_t used;
    assert_true(vq_add(&c->control_rx, (struct vbuf[]){{c->gpa + 8192, 64}}, 0, 1, p, false));
    vq_kick(&c->control_rx);
    assert_ptr_equal(vq_wait(&c->control_rx, &used), p);
    assert_int_equal(ld32(p), port);
    assert_int_equal(ld16(p + 4), event);
    assert_int_equal(used, 8 + strlen(name));
    assert_memory_equal(p + 8, name, strlen(name));
}

static void ports_have_names(void **state)
{
    struct con c;
    con_init(&c, (struct virtio_console_port[]){{.console = true}, {.name = "org.test.0"}}, 2);
    vd_agree(&c.d, ~UINT64_C(0));
    assert_int_equal(vd_config(&c.d, 4, 4), 2);
    assert_int_equal(vd_rd(&c.d, 18, 2), 6);
    struct vq *q[] = {&c.rx, &c.tx, &c.control_rx, &c.control_tx, &c.rx1, &c.tx1};
    for (unsigned i = 0; i < 6; i++)
        vq_init(q[i], &c.d, i, 32);
    vd_go(&c.d);
    control(&c, 0, 0, 1);
    expect_control(&c, 0, 1, "");
    expect_control(&c, 1, 1, "");
    control(&c, 0, 3, 1);
    expect_control(&c, 0, 4, "");
    expect_control(&c, 0, 6, "");
    control(&c, 1, 3, 1);
    expect_control(&c, 1, 6, "");
    expect_control(&c, 1, 7, "org.test.0");
    control(&c, 7, 3, 1); /* no such port */
    control(&c, UINT32_MAX, 6, 1);
    assert_int_equal(write(c.fd[1], "before", 6), 6);
    control(&c, 1, 6, 1);
    receive_text(&c, &c.rx1, "before");
    send_text(&c, &c.tx1, "port one", 8);
    expect_text(c.fd[1], "port one");
    send_text(&c, &c.tx, "port zero", 9);
    expect_text(c.fd[0], "port zero");
    con_fini(&c, 2);
}

static void a_driver_without_ports_sees_the_first(void **state)
{
    struct con c;
    con_init(&c, (struct virtio_console_port[]){{.console = true}, {.name = "org.test.0"}}, 2);
    vd_agree(&c.d, ~BIT(1));
    struct vq *q[] = {&c.rx, &c.tx, &c.control_rx, &c.control_tx};
    for (unsigned i = 0; i < 4; i++)
        vq_init(q[i], &c.d, i, 32);
    vd_go(&c.d);
    send_text(&c, &c.tx, "hvc0", 4);
    expect_text(c.fd[0], "hvc0");
    vq_notify(&c.control_tx);
    vq_notify(&c.control_rx);
    vr_settle(&c.r);
    assert_int_equal(vd_status(&c.d), 15);
    con_fini(&c, 2);
}

static void consoles_are_checked(void **state)
{
    struct vrig r;
    struct virtio_console *c;
    vr_init(&r);
    struct virtio_console_config cc = {.host = &r.pci.host, .devfn = DEVFN, .loop = r.loop};
    assert_int_equal(virtio_console_create(&cc, &c, &r.pci.f.err), -EINVAL);
    assert_null(c);
    cc.nports = VIRTIO_CONSOLE_PORTS + 1;
    assert_int_equal(virtio_console_create(&cc, &c, NULL), -EINVAL);
    vr_fini(&r);
}

/* ---- pvpanic ---- */

static void a_panic_is_told(void **state)
{
    struct pci_rig r;
    struct pvpanic *p;
    rig_init(&r);
    struct pvpanic_config c = {.host = &r.host, .devfn = DEVFN, .control = &r.f.control};
    assert_int_equal(pvpanic_create(&c, &p, &r.f.err), 0);
    pci_host_reset(&r.host);
    assert_int_equal(pci_host_assign(&r.host, &r.f.err), 0);
    assert_int_equal(cfg_rd(&r, 0, DEVFN, 0, 4), 0x00111b36);
    uint64_t bar = cfg_rd(&r, 0, DEVFN, PCI_BAR0, 4) & ~UINT64_C(15);
    assert_int_equal(mem_rd(&r, bar, 1), 7);
    mem_wr(&r, bar, 1, PVPANIC_CRASHLOADED);
    mem_wr(&r, bar + 1, 1, PVPANIC_PANICKED);
    mem_wr(&r, bar, 1, 0xf8);
    assert_int_equal(r.f.requests, 0);
    mem_wr(&r, bar, 1, PVPANIC_PANICKED);
    assert_int_equal(r.f.requests, 1);
    assert_int_equal(r.f.last_request, VM_REQ_PANIC);
    mem_wr(&r, bar, 1, PVPANIC_SHUTDOWN);
    assert_int_equal(r.f.last_request, VM_REQ_POWEROFF);
    pvpanic_destroy(p);
    rig_fini(&r);
}

static void a_panic_that_is_not_offered(void **state)
{
    struct pci_rig r;
    struct pvpanic *p;
    rig_init(&r);
    struct pvpanic_config c = {.host = &r.host, .devfn = DEVFN, .control = &r.f.control, .events = PVPANIC_CRASHLOADED};
    assert_int_equal(pvpanic_create(&c, &p, &r.f.err), 0);
    pci_host_reset(&r.host);
    assert_int_equal(pci_host_assign(&r.host, &r.f.err), 0);
    uint64_t bar = cfg_rd(&r, 0, DEVFN, PCI_BAR0, 4) & ~UINT64_C(15);
    assert_int_equal(mem_rd(&r, bar, 1), 2);
    mem_wr(&r, bar, 1, 0xff);
    assert_int_equal(r.f.requests, 0);
    pvpanic_destroy(p);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entropy_fills_buffers),
        cmocka_unit_test(one_console_without_ports),
        cmocka_unit_test(output_waits_for_its_reader),
        cmocka_unit_test(input_waits_for_its_reader),
        cmocka_unit_test(ports_have_names),
        cmocka_unit_test(a_driver_without_ports_sees_the_first),
        cmocka_unit_test(consoles_are_checked),
        cmocka_unit_test(a_panic_is_told),
        cmocka_unit_test(a_panic_that_is_not_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
