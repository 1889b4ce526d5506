#include "dev_fixture.h"

#include "dev/chardev.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* A session on a terminal of its own: a leader that stays, as a shell does, and under it a process that runs `body`.
 * What they write to `say` the test reads from `hear`; the leader's last word is how the process ended: 'S' by a
 * signal, or its exit status as a digit. */
struct session {
    pid_t leader;
    int master, slave, hear;
    struct termios before;
};

static void tell(int fd, char c)
{
    if (write(fd, &c, 1) != 1)
        _exit(9);
}

static void lead(int slave, int say, void (*body)(int say))
{
    int status;
    setsid();
    ioctl(slave, TIOCSCTTY, 0);
    dup2(slave, 0);
    dup2(slave, 1);
    signal(SIGSEGV, SIG_DFL); /* cmocka's handler would turn it into an exit */
    pid_t pid = fork();
    if (pid == 0) {
        body(say);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0)
        ;
    tell(say, WIFSIGNALED(status) ? 'S' : (char)('0' + WEXITSTATUS(status)));
    close(say);
    for (;;)
        pause();
}

static void start(struct session *s, void (*body)(int say))
{
    int p[2];
    s->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(s->master >= 0);
    assert_int_equal(grantpt(s->master) | unlockpt(s->master), 0);
    s->slave = open(ptsname(s->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(s->slave >= 0);
    assert_int_equal(tcgetattr(s->slave, &s->before), 0);
    assert_int_equal(pipe(p), 0);
    s->leader = fork();
    if (s->leader == 0) {
        close(p[0]);
        close(s->master);
        lead(s->slave, p[1], body);
    }
    close(p[1]);
    s->hear = p[0];
}

static char hear(struct session *s)
{
    char c = 0;
    return read(s->hear, &c, 1) == 1 ? c : 0;
}

static bool is_raw(const struct session *s)
{
    struct termios t;
    return tcgetattr(s->slave, &t) == 0 && !(t.c_lflag & (ICANON | ECHO | ISIG));
}

/* Returns when the terminal is as it was; the test's time limit is the only clock. */
static void wait_restored(const struct session *s)
{
    struct termios t;
    do {
        sched_yield();
        assert_int_equal(tcgetattr(s->slave, &t), 0);
    } while (t.c_lflag != s->before.c_lflag || t.c_iflag != s->before.c_iflag);
}

static void finish(struct session *s)
{
    kill(s->leader, SIGKILL);
    waitpid(s->leader, NULL, 0);
    close(s->hear);
    close(s->slave);
    close(s->master);
}

/* ---- bodies ---- */

struct heard {
    int say;
    atomic_bool quit;
};

static size_t on_input(void *opaque, const uint8_t *buf, size_t n)
{
    struct heard *h = opaque;
    tell(h->say, (char)buf[0]);
    return 1; /* a byte at a time: the rest is offered again */
}

static void on_break(void *opaque)
{
    tell(((struct heard *)opaque)->say, '!');
}

static void on_request(void *opaque, enum vm_request req, int code)
{
    struct heard *h = opaque;
    tell(h->say, req == VM_REQ_EXIT && code == 0 ? 'X' : '?');
    h->quit = true;
}

static struct chardev *open_stdio(struct heard *h, struct vm_control *control)
{
    struct chardev *chr = NULL;
    *control = (struct vm_control){on_request, h};
    const struct chardev_config c = {.spec = "stdio", .control = control};
    const struct chardev_client client = {.input = on_input, .brk = on_break, .opaque = h};
    if (chardev_create(&c, &chr, NULL) < 0 || chardev_attach(chr, &client, NULL) < 0)
        _exit(8);
    return chr;
}

/* The letter typed, counted from '@', is the signal to die by. */
static size_t die(void *opaque, const uint8_t *buf, size_t n)
{
    kill(getpid(), buf[0] - '@');
    return n;
}

static void body_waits_for_death(int say)
{
    struct chardev *chr;
    const struct chardev_config c = {.spec = "stdio"};
    const struct chardev_client client = {.input = die};
    if (chardev_create(&c, &chr, NULL) < 0 || chardev_attach(chr, &client, NULL) < 0)
        _exit(8);
    tell(say, 'R');
    for (;;)
        pause();
}

static void body_runs_until_told_to_quit(int say)
{
    struct heard h = {.say = say};
    struct vm_control control;
    struct chardev *chr = open_stdio(&h, &control);
    for (const char *p = "hello\n"; *p; p++)
        chardev_put(chr, (uint8_t)*p);
    tell(say, 'R');
    while (!h.quit)
        sched_yield();
    chardev_destroy(chr);
    tell(say, 'D');
}

/* ---- tests ---- */

static void terminal_is_restored_after_any_death(void **state)
{
    static const char signals[] = {'@' + SIGKILL, '@' + SIGTERM, '@' + SIGSEGV, '@' + SIGHUP};
    for (size_t i = 0; i < sizeof signals; i++) {
        struct session s;
        start(&s, body_waits_for_death);
        assert_int_equal(hear(&s), 'R');
        assert_true(is_raw(&s));
        assert_int_equal(write(s.master, &signals[i], 1), 1);
        assert_int_equal(hear(&s), 'S');
        wait_restored(&s);
        finish(&s);
    }
}

static void escapes_act_and_everything_else_passes(void **state)
{
    struct session s;
    start(&s, body_runs_until_told_to_quit);
    assert_int_equal(hear(&s), 'R');
    assert_int_equal(write(s.master, "a\003\001\001z\001bq\001x", 10), 10);
    /* Escapes act when they are read, before the bytes read with them are offered; those keep their order. */
    char rest[9] = "", c;
    size_t n = 0;
    unsigned breaks = 0, quits = 0;
    while ((c = hear(&s)) != 0) {
        breaks += c == '!';
        quits += c == 'X';
        if (c != '!' && c != 'X' && n < sizeof rest)
            rest[n++] = c;
    }
    assert_int_equal(breaks, 1);
    assert_int_equal(quits, 1);
    assert_int_equal(n, 7);
    assert_memory_equal(rest, "a\003\001zqD0", 7);
    wait_restored(&s);
    char out[16] = "";
    assert_true(read(s.master, out, sizeof out) >= 7);
    assert_memory_equal(out, "hello\r\n", 7);
    finish(&s);
}

static void without_a_terminal_control_a_is_a_byte(void **state)
{
    int in[2], say[2];
    assert_int_equal(pipe(in) | pipe(say), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(in[0], 0);
        dup2(null, 1);
        struct heard h = {.say = say[1]};
        struct vm_control control;
        struct chardev *chr = open_stdio(&h, &control);
        while (!h.quit) /* for ever: the parent ends it */
            pause();
        chardev_destroy(chr);
        _exit(0);
    }
    assert_int_equal(write(in[1], "\001x\001\001", 4), 4);
    char got[4];
    for (size_t n = 0; n < sizeof got;) {
        ssize_t r = read(say[0], got + n, sizeof got - n);
        assert_true(r > 0);
        n += (size_t)r;
    }
    assert_memory_equal(got, "\001x\001\001", 4);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static size_t swallow(void *opaque, const uint8_t *buf, size_t n)
{
    return n;
}

/* A pty nobody has open takes any amount of output; once it is open, output arrives. */
static void a_pty_drops_output_until_somebody_opens_it(void **state)
{
    struct err e = {.msg = ""};
    struct chardev *chr;
    char *line = NULL, name[64] = "";
    size_t len;
    FILE *notes = open_memstream(&line, &len);
    const struct chardev_config c = {.spec = "pty", .notes = notes};
    const struct chardev_client client = {.input = swallow};
    assert_int_equal(chardev_create(&c, &chr, &e), 0);
    assert_int_equal(chardev_attach(chr, &client, &e), 0);
    fclose(notes);
    assert_int_equal(sscanf(line, "serial line on %63s", name), 1);
    for (unsigned i = 0; i < 3 * CHARDEV_RING;) {
        if (chardev_put(chr, 'x'))
            i++;
        else
            chardev_wait_room(chr, -1);
    }
    int fd = open(name, O_RDWR | O_NOCTTY);
    assert_true(fd >= 0);
    /* The opening is noticed in time; until then bytes are dropped. */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    do
        chardev_put(chr, 'y');
    while (poll(&p, 1, 20) == 0);
    char got;
    assert_int_equal(read(fd, &got, 1), 1);
    assert_true(got == 'x' || got == 'y'); /* the last x may still have been on their way */
    chardev_destroy(chr);
    close(fd);
    free(line);
}

static void heard_of_room(void *opaque)
{
    atomic_store((atomic_bool *)opaque, true);
}

/* As much as the ring holds is taken at once, and the rest when there is room: nothing lost, in order, round and round.
 */
static void pieces_of_any_length_arrive(void **state)
{
    enum { ALL = 10 * CHARDEV_RING + 12345 };
    char path[] = "/tmp/hec-chardev-XXXXXX", spec[64];
    uint8_t *bytes = malloc(ALL), *got = malloc(ALL);
    atomic_bool room = false;
    const struct chardev_client client = {.input = swallow, .room = heard_of_room, .opaque = &room};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(spec, sizeof spec, "file:%s", path);
    const struct chardev_config c = {.spec = spec};
    struct chardev *chr = NULL;
    for (unsigned i = 0; i < ALL; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    assert_int_equal(chardev_create(&c, &chr, NULL), 0);
    assert_int_equal(chardev_write(chr, bytes, 0), 0);
    size_t n = chardev_write(chr, bytes, CHARDEV_RING + 1);
    assert_int_equal(n, CHARDEV_RING); /* nobody drains it yet */
    assert_false(chardev_put(chr, 0));
    assert_int_equal(chardev_attach(chr, &client, NULL), 0);
    for (size_t len = 1; n < ALL; len = len * 3 % 100003) {
        chardev_wait_room(chr, -1);
        n += chardev_write(chr, bytes + n, len < ALL - n ? len : ALL - n);
    }
    while (!atomic_load(&room)) /* of the first refusal, at the latest */
        sched_yield();
    chardev_destroy(chr);
    assert_int_equal(read(fd, got, ALL), ALL);
    assert_memory_equal(got, bytes, ALL);
    assert_int_equal(read(fd, got, 1), 0);
    close(fd);
    unlink(path);
    free(bytes);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terminal_is_restored_after_any_death),
        cmocka_unit_test(escapes_act_and_everything_else_passes),
        cmocka_unit_test(without_a_terminal_control_a_is_a_byte),
        cmocka_unit_test(a_pty_drops_output_until_somebody_opens_it),
        cmocka_unit_test(pieces_of_any_length_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
