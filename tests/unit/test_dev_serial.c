#include "dev_fixture.h"

#include "dev/serial.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define COM1 SERIAL_COM1

enum {
    DATA = COM1,
    IER = COM1 + 1,
    IIR = COM1 + 2,
    FCR = COM1 + 2,
    LCR = COM1 + 3,
    MCR = COM1 + 4,
    LSR = COM1 + 5,
    MSR = COM1 + 6,
    SCR = COM1 + 7
};

static void setup(struct fixture *f, struct serial *s, struct chardev *chr)
{
    const struct serial_config c = {.ports = &f->ports,
                                    .base = COM1,
                                    .irq = f->line,
                                    .chr = chr,
                                    .timerq = &f->timerq,
                                    .clock = &f->clock,
                                    .epoch = &f->epoch};
    assert_int_equal(serial_init(s, &c, &f->err), 0);
}

static bool irq4(struct fixture *f)
{
    return f->level & 1u << 4;
}

static void identifies_itself_as_a_16550a(void **state)
{
    struct fixture f;
    struct serial s;
    fixture_init(&f);
    setup(&f, &s, NULL);
    outb(&f, IER, 0xff);
    assert_int_equal(inb(&f, IER), 0x0f);
    outb(&f, IER, 0);
    outb(&f, FCR, 1);
    assert_int_equal(inb(&f, IIR), 0xc1);
    outb(&f, FCR, 0x21); /* a 16750 would show its 64-byte FIFO */
    assert_int_equal(inb(&f, IIR) >> 5, 6);
    outb(&f, FCR, 0);
    assert_int_equal(inb(&f, IIR), 0x01);
    outb(&f, LCR, 0x80);
    outb(&f, DATA, 0x34);
    outb(&f, IER, 0x12);
    assert_int_equal(inb(&f, DATA), 0x34);
    assert_int_equal(inb(&f, IER), 0x12);
    outb(&f, LCR, 3);
    assert_int_equal(inb(&f, IER), 0);
    outb(&f, SCR, 0xa5);
    assert_int_equal(inb(&f, SCR), 0xa5);
    assert_int_equal(inb(&f, LSR), 0x60);
    assert_int_equal(inb(&f, MSR), 0xb0);
    serial_fini(&s);
    fixture_fini(&f);
}

static void thre_interrupt_pends_until_iir_is_read_and_again_when_enabled(void **state)
{
    struct fixture f;
    struct serial s;
    fixture_init(&f);
    setup(&f, &s, NULL);
    outb(&f, IER, 2);
    assert_true(irq4(&f));
    assert_int_equal(inb(&f, IIR), 0x02);
    assert_false(irq4(&f));
    assert_int_equal(inb(&f, IIR), 0x01);
    outb(&f, IER, 0);
    outb(&f, IER, 2);
    assert_int_equal(inb(&f, IIR), 0x02);
    outb(&f, DATA, 'x');
    assert_true(irq4(&f));
    assert_int_equal(inb(&f, IIR), 0x02);
    serial_fini(&s);
    fixture_fini(&f);
}

static void loopback_carries_data_and_modem_lines(void **state)
{
    struct fixture f;
    struct serial s;
    fixture_init(&f);
    setup(&f, &s, NULL);
    outb(&f, MCR, 0x1a);
    assert_int_equal(inb(&f, MSR) & 0xf0, 0x90); /* RTS -> CTS, OUT2 -> DCD */
    outb(&f, MCR, 0x15);
    assert_int_equal(inb(&f, MSR), 0x60 | 0x0b); /* DTR, OUT1; CTS, DSR, DCD changed */
    outb(&f, MCR, 0x11);
    assert_int_equal(inb(&f, MSR), 0x20 | 0x04); /* RI's trailing edge */
    outb(&f, DATA, 0x5a);
    assert_int_equal(inb(&f, LSR) & 1, 1);
    outb(&f, DATA, 0x5b); /* one byte deep without the FIFO */
    assert_int_equal(inb(&f, LSR) & 2, 2);
    assert_int_equal(inb(&f, LSR) & 2, 0);
    assert_int_equal(inb(&f, DATA), 0x5a);
    serial_fini(&s);
    fixture_fini(&f);
}

static void receive_fifo_interrupts_at_its_trigger_and_after_four_characters_of_silence(void **state)
{
    struct fixture f;
    struct serial s;
    fixture_init(&f);
    setup(&f, &s, NULL);
    outb(&f, LCR, 3);
    outb(&f, FCR, 0x81); /* trigger at 8 */
    outb(&f, IER, 1);
    outb(&f, MCR, 0x10);
    for (unsigned i = 0; i < 7; i++)
        outb(&f, DATA, i);
    assert_false(irq4(&f));
    fixture_pass(&f, UINT64_C(4) * 10 * 12 * NS_PER_SEC / 115200 - 1000);
    assert_false(irq4(&f));
    fixture_pass(&f, 2000);
    assert_int_equal(inb(&f, IIR), 0xcc);
    assert_int_equal(inb(&f, DATA), 0);
    assert_int_equal(inb(&f, IIR), 0xc1);
    outb(&f, DATA, 7);
    outb(&f, DATA, 8);
    assert_int_equal(inb(&f, IIR), 0xc4);
    for (unsigned i = 1; i <= 8; i++)
        assert_int_equal(inb(&f, DATA), i);
    assert_false(irq4(&f));
    assert_true(timerq_next(&f.timerq) == HEC_NS_NEVER);
    serial_fini(&s);
    fixture_fini(&f);
}

static void line_status_outranks_data(void **state)
{
    struct fixture f;
    struct serial s;
    fixture_init(&f);
    setup(&f, &s, NULL);
    outb(&f, FCR, 1);
    outb(&f, IER, 7);
    outb(&f, MCR, 0x10);
    for (unsigned i = 0; i < 17; i++)
        outb(&f, DATA, i);
    assert_int_equal(inb(&f, IIR), 0xc6);
    assert_int_equal(inb(&f, LSR) & 2, 2);
    assert_int_equal(inb(&f, IIR), 0xc4);
    outb(&f, FCR, 3);
    assert_int_equal(inb(&f, LSR) & 1, 0);
    assert_int_equal(inb(&f, IIR), 0xc2);
    serial_fini(&s);
    fixture_fini(&f);
}

/* ---- with a host behind it ---- */

static struct chardev *open_chardev(struct fixture *f, const char *spec)
{
    struct chardev *chr = NULL;
    const struct chardev_config c = {.spec = spec, .control = &f->control};
    assert_int_equal(chardev_create(&c, &chr, &f->err), 0);
    return chr;
}

static char *temp_path(char *buf, size_t n)
{
    const char *dir = getenv("TMPDIR");
    snprintf(buf, n, "%s/hec-serial-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(buf);
    assert_true(fd >= 0);
    close(fd);
    return buf;
}

static void everything_written_is_in_the_file_after_destroy(void **state)
{
    struct fixture f;
    struct serial s;
    char path[128], spec[140];
    fixture_init(&f);
    snprintf(spec, sizeof spec, "file:%s", temp_path(path, sizeof path));
    struct chardev *chr = open_chardev(&f, spec);
    setup(&f, &s, chr);
    const unsigned total = 3 * CHARDEV_RING + 17;
    for (unsigned i = 0; i < total; i++)
        outb(&f, DATA, i * 7 % 251);
    chardev_destroy(chr);
    serial_fini(&s);
    int fd = open(path, O_RDONLY);
    uint8_t *got = malloc(total + 1);
    ssize_t n = 0, r;
    while ((r = read(fd, got + n, total + 1 - (size_t)n)) > 0)
        n += r;
    assert_int_equal(n, total);
    for (unsigned i = 0; i < total; i++)
        assert_int_equal(got[i], i * 7 % 251);
    free(got);
    close(fd);
    unlink(path);
    fixture_fini(&f);
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* The guest echoes a byte as soon as it has one: proof that both sides see the connection. */
static void echo(struct fixture *f, int fd, uint8_t byte)
{
    uint8_t back = 0;
    assert_int_equal(write(fd, &byte, 1), 1);
    while (!(inb(f, LSR) & 1))
        sched_yield();
    outb(f, DATA, inb(f, DATA));
    assert_int_equal(read(fd, &back, 1), 1);
    assert_int_equal(back, byte);
}

static void a_socket_serves_one_client_after_another(void **state)
{
    struct fixture f;
    struct serial s;
    char path[100], spec[140];
    fixture_init(&f);
    unlink(temp_path(path, sizeof path));
    snprintf(spec, sizeof spec, "unix:%s,server=on,wait=off", path);
    struct chardev *chr = open_chardev(&f, spec);
    setup(&f, &s, chr);
    for (unsigned i = 0; i < 3; i++) {
        int fd = connect_to(path);
        echo(&f, fd, (uint8_t)('a' + i));
        close(fd);
    }
    chardev_destroy(chr);
    serial_fini(&s);
    assert_int_equal(access(path, F_OK), -1);
    fixture_fini(&f);
}

struct reader {
    int fd;
    size_t want, got;
    bool in_order;
};

static void *read_all(void *opaque)
{
    struct reader *r = opaque;
    uint8_t buf[1000];
    r->in_order = true;
    while (r->got < r->want) {
        ssize_t n = read(r->fd, buf, sizeof buf);
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++)
            r->in_order &= buf[i] == (r->got + (size_t)i) % 253;
        r->got += (size_t)n;
    }
    return NULL;
}

static void a_reader_that_stops_holds_thre_low_and_loses_nothing(void **state)
{
    struct fixture f;
    struct serial s;
    char path[100], spec[140];
    fixture_init(&f);
    unlink(temp_path(path, sizeof path));
    snprintf(spec, sizeof spec, "unix:%s", path);
    struct chardev *chr = open_chardev(&f, spec);
    setup(&f, &s, chr);
    int fd = connect_to(path);
    echo(&f, fd, 'k');
    outb(&f, FCR, 1);
    size_t sent = 0;
    while (inb(&f, LSR) & 0x20)
        outb(&f, DATA, sent++ % 253);
    assert_true(sent > CHARDEV_RING);
    outb(&f, IER, 2); /* no interrupt before there is room */
    assert_false(irq4(&f));
    /* Half a FIFO more without looking at THRE, as drivers do after a timeout. */
    for (unsigned i = 0; i < 8; i++)
        outb(&f, DATA, sent++ % 253);
    struct reader r = {.fd = fd, .want = sent};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, read_all, &r), 0);
    while (!irq4(&f))
        sched_yield();
    pthread_join(t, NULL);
    assert_int_equal(r.got, sent);
    assert_true(r.in_order);
    close(fd);
    chardev_destroy(chr);
    serial_fini(&s);
    fixture_fini(&f);
}

static void hurry_frees_a_waiting_writer(void **state)
{
    struct fixture f;
    struct serial s;
    char path[100], spec[140];
    fixture_init(&f);
    unlink(temp_path(path, sizeof path));
    snprintf(spec, sizeof spec, "unix:%s", path);
    struct chardev *chr = open_chardev(&f, spec);
    setup(&f, &s, chr);
    int fd = connect_to(path);
    echo(&f, fd, 'k');
    while (inb(&f, LSR) & 0x20)
        outb(&f, DATA, 'z');
    chardev_hurry(chr);
    for (unsigned i = 0; i < 100; i++)
        outb(&f, DATA, 'z'); /* would wait for ever */
    chardev_discard(chr);
    chardev_destroy(chr);
    serial_fini(&s);
    close(fd);
    fixture_fini(&f);
}

static void long_input_waits_for_the_fifo(void **state)
{
    struct fixture f;
    struct serial s;
    char path[100], spec[140];
    fixture_init(&f);
    unlink(temp_path(path, sizeof path));
    snprintf(spec, sizeof spec, "unix:%s", path);
    struct chardev *chr = open_chardev(&f, spec);
    setup(&f, &s, chr);
    int fd = connect_to(path);
    uint8_t out[3000];
    for (unsigned i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 11);
    assert_int_equal(write(fd, out, sizeof out), sizeof out);
    outb(&f, FCR, 1);
    inb(&f, LSR);
    /* Switching the FIFO on may have dropped the one byte that was already in. */
    unsigned at = UINT32_MAX;
    while (at != sizeof out - 1) {
        while (!(inb(&f, LSR) & 1))
            sched_yield();
        uint8_t got = (uint8_t)inb(&f, DATA);
        at = at == UINT32_MAX ? (got == out[1]) : at + 1;
        assert_int_equal(got, out[at]);
    }
    assert_int_equal(inb(&f, LSR) & 3, 0); /* nothing left, nothing overrun */
    close(fd);
    chardev_destroy(chr);
    serial_fini(&s);
    fixture_fini(&f);
}

static void bad_backends_are_refused(void **state)
{
    static const char *const bad[] = {"stdoi", "", "file:/nonexistent-dir/x", "unix:", "unix:/tmp/x,servre=on"};
    struct fixture f;
    fixture_init(&f);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct chardev *chr = NULL;
        struct err e = {.msg = ""};
        const struct chardev_config c = {.spec = bad[i]};
        assert_true(chardev_create(&c, &chr, &e) < 0);
        assert_null(chr);
        assert_int_not_equal(e.msg[0], 0);
    }
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identifies_itself_as_a_16550a),
        cmocka_unit_test(thre_interrupt_pends_until_iir_is_read_and_again_when_enabled),
        cmocka_unit_test(loopback_carries_data_and_modem_lines),
        cmocka_unit_test(receive_fifo_interrupts_at_its_trigger_and_after_four_characters_of_silence),
        cmocka_unit_test(line_status_outranks_data),
        cmocka_unit_test(everything_written_is_in_the_file_after_destroy),
        cmocka_unit_test(a_socket_serves_one_client_after_another),
        cmocka_unit_test(a_reader_that_stops_holds_thre_low_and_loses_nothing),
        cmocka_unit_test(hurry_frees_a_waiting_writer),
        cmocka_unit_test(long_input_waits_for_the_fifo),
        cmocka_unit_test(bad_backends_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
