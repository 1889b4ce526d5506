/* A host that is short of room, images that are broken, servers that go away: the request fails, the machine lives. */
#include "block_rig.h"

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MIB (1u << 20)

static const struct block_tuning plain = {.align = 1}, by_threads = {.no_uring = true, .align = 1};

/* ---- files ---- */

static void a_file_that_shrinks_gives_errors_until_it_grows(void **state)
{
    struct brig *r = *state;
    static char buf[MIB];
    for (int threads = 0; threads < 2; threads++) {
        brig_make_file(r, MIB);
        brig_open(r, &(struct block_config){.format = "raw"}, threads ? &by_threads : &plain);
        assert_int_equal(truncate(r->file, MIB / 2), 0);
        assert_int_equal(brig_read(r, MIB / 2, buf, 512), -EIO);
        assert_int_equal(brig_read(r, 0, buf, MIB), -EIO);
        assert_int_equal(brig_read(r, 0, buf, MIB / 2), 0);
        assert_int_equal(truncate(r->file, MIB), 0);
        assert_int_equal(brig_read(r, 0, buf, MIB), 0);
        brig_close(r);
    }
}

static void a_file_that_is_removed_works_on(void **state)
{
    struct brig *r = *state;
    char buf[512] = "here";
    brig_make_file(r, MIB);
    brig_open(r, &(struct block_config){.format = "raw"}, NULL);
    unlink(r->file);
    assert_int_equal(brig_write(r, 512, buf, 512), 0);
    assert_int_equal(brig_flush(r), 0);
    memset(buf, 0, sizeof buf);
    assert_int_equal(brig_read(r, 512, buf, 512), 0);
    assert_string_equal(buf, "here");
}

/* The limit is the process's, so a child has it. Its exit status is the number of the check that failed. */
static int under_a_limit(const char *file, bool threads)
{
    struct brig *r = brig_in_child(file);
    char buf[512] = "x";
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){MIB / 2, MIB / 2});
    if (brig_try(r, &(struct block_config){.format = "raw"}, threads ? &by_threads : &plain))
        return 2;
    if (brig_write(r, MIB / 2 - 512, buf, 512))
        return 3;
    if (brig_write(r, MIB / 2, buf, 512) != -EFBIG)
        return 4;
    if (brig_read(r, MIB / 2, buf, 512) || buf[0] || brig_flush(r))
        return 5;
    brig_close(r);
    return 0;
}

static void a_limit_on_file_sizes_is_an_error_and_no_signal(void **state)
{
    struct brig *r = *state;
    brig_make_file(r, MIB);
    assert_int_equal(brig_wait(brig_child("limit", r->file, 0, -1)), 0);
    assert_int_equal(brig_wait(brig_child("limit", r->file, 1, -1)), 0);
}

/* ---- a full disk: a small tmpfs in a mount namespace of the child's; 77: no right to make one ---- */

static int mount_small(const char *dir)
{
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", dir, "tmpfs", 0, "size=1m"))
        return -1;
    return 0;
}

/* Writes until it is full, then makes room. */
static int fill_and_go_on(struct brig *r, const char *in_the_way)
{
    static char buf[64 << 10], back[64 << 10];
    unsigned n = 0;
    int rc = 0;
    memset(buf, 5, sizeof buf);
    while (n < 128 && !(rc = brig_write(r, n * sizeof buf, buf, sizeof buf)))
        n++;
    if (rc != -ENOSPC || n < 2 || n > 16)
        return 10;
    if (brig_read(r, 0, back, sizeof back) || memcmp(back, buf, sizeof buf))
        return 11;
    if (brig_read(r, 64 * sizeof buf, back, sizeof back) || back[0])
        return 12;
    unlink(in_the_way);
    if (brig_write(r, n * sizeof buf, buf, sizeof buf) || brig_flush(r))
        return 13;
    return 0;
}

/* `file` lies in the directory that becomes small. */
static int on_a_full_disk(const char *file, bool snapshot)
{
    char dir[128], in_the_way[200], elsewhere[200];
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(file, '/') - file), file);
    snprintf(in_the_way, sizeof in_the_way, "%s/way", dir);
    snprintf(elsewhere, sizeof elsewhere, "%s.base", dir);
    struct brig *r = brig_in_child(snapshot ? elsewhere : file);
    if (mount_small(dir))
        return 77;
    brig_make_file(r, 8 * MIB);
    int fd = open(in_the_way, O_CREAT | O_WRONLY, 0600);
    if (posix_fallocate(fd, 0, 300 << 10))
        return 2;
    close(fd);
    setenv("TMPDIR", dir, 1);
    int rc = brig_try(r, &(struct block_config){.format = "raw", .snapshot = snapshot}, NULL);
    if (snapshot)
        unlink(elsewhere);
    return rc ? 3 : fill_and_go_on(r, in_the_way);
}

static void a_full_disk_is_an_error_until_there_is_room(void **state)
{
    struct brig *r = *state;
    int image = brig_wait(brig_child("full", r->file, false, -1)),
        overlay = brig_wait(brig_child("full", r->file, true, -1));
    if (image == 77)
        skip();
    assert_int_equal(image, 0);
    assert_int_equal(overlay, 0);
}

/* ---- images of other formats ---- */

static void need_tools(void)
{
    if (!brig_has("qemu-nbd") || !brig_has("qemu-img"))
        skip();
}

static void a_format_without_its_server_says_what_to_install(void **state)
{
    struct brig *r = *state;
    char *path = strdup(getenv("PATH"));
    brig_make_file(r, MIB);
    setenv("PATH", "/nonexistent", 1);
    int rc = brig_try(r, &(struct block_config){.format = "qcow2"}, NULL);
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(rc, -ENOENT);
    assert_non_null(strstr(r->e.msg, "apt install qemu-utils"));
}

static void a_broken_image_is_refused_with_the_servers_words(void **state)
{
    struct brig *r = *state;
    need_tools();
    brig_make_file(r, MIB);
    int fd = open(r->file, O_WRONLY);
    assert_int_equal(pwrite(fd, "QFI\xfb\0\0\0\x03\xff\xff\xff\xff\xff", 13, 0), 13);
    close(fd);
    assert_int_equal(brig_try(r, &(struct block_config){.format = NULL}, NULL), -EIO);
    assert_non_null(strstr(r->e.msg, "qemu-nbd: "));
    assert_null(strchr(r->e.msg, '\n'));
    assert_int_equal(brig_try(r, &(struct block_config){.format = "no-such-format"}, NULL), -EIO);
    assert_non_null(strstr(r->e.msg, "no-such-format"));
}

/* The L1 table is damaged: its entries point beyond the file. */
static void a_damaged_image_gives_errors_and_goes_on(void **state)
{
    struct brig *r = *state;
    char buf[512] = {1};
    need_tools();
    brig_shell(r, "qemu-img create -q -f qcow2 %s 64M && qemu-io -f qcow2 -c 'write 0 1M' %s >/dev/null", r->file,
               r->file);
    int fd = open(r->file, O_RDWR);
    unsigned char at[8];
    assert_int_equal(pread(fd, at, 8, 40), 8);
    uint64_t l1 = __builtin_bswap64(ld64(at));
    assert_int_equal(pwrite(fd, "\x80\0\0\x7f\xff\xff\xfe\0", 8, (off_t)l1), 8);
    close(fd);
    brig_open(r, &(struct block_config){.format = "qcow2"}, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(brig_read(r, 0, buf, 512), -EIO);
    assert_true(block_size(r->b) == 64 * MIB);
}

/* ---- servers ---- */

/* A child of this process that runs `name`, or 0. */
static pid_t find_child(pid_t parent, const char *name)
{
    DIR *d = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char path[300], line[300], comm[64];
        int ppid = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        if (fgets(line, sizeof line, f) && sscanf(line, "%*d (%63[^)]) %*c %d", comm, &ppid) == 2 && ppid == parent &&
            strcmp(comm, name) == 0)
            found = atoi(e->d_name);
        fclose(f);
    }
    if (d)
        closedir(d);
    return found;
}

static void open_qcow2(struct brig *r)
{
    brig_shell(r, "qemu-img create -q -f qcow2 %s 64M", r->file);
    brig_open(r, &(struct block_config){.format = "qcow2"}, NULL);
}

/* What is written to standard error goes to a file from one to the other. */
struct quiet {
    int log, was;
};

static struct quiet quiet_begin(void)
{
    struct quiet q = {memfd_create("stderr", MFD_CLOEXEC), dup(2)};
    assert_true(q.log >= 0 && q.was >= 0);
    dup2(q.log, 2);
    return q;
}

static void quiet_end(struct quiet *q, char *said, size_t size)
{
    dup2(q->was, 2);
    ssize_t n = pread(q->log, said, size - 1, 0);
    said[n > 0 ? n : 0] = 0;
    close(q->was);
    close(q->log);
}

/* It is waited for at once, not at the end, and one line says what became of it. */
static void a_server_that_dies_is_no_zombie(void **state)
{
    static const struct {
        int signal;
        const char *fate;
    } ends[] = {{SIGKILL, "qemu-nbd was killed by signal 9"}, {SIGTERM, "qemu-nbd has ended with status 0"}};
    struct brig *r = *state;
    char buf[512], said[1024], want[300];
    need_tools();
    for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
        open_qcow2(r);
        struct quiet q = quiet_begin();
        pid_t server = find_child(getpid(), "qemu-nbd");
        kill(server, ends[i].signal);
        while (!waitid(P_PID, (id_t)server, &(siginfo_t){0}, WEXITED | WNOHANG | WNOWAIT))
            sched_yield(); /* a zombie that stays hangs the test */
        int rc = brig_read(r, 0, buf, 512);
        quiet_end(&q, said, sizeof said);
        assert_int_equal(rc, -EIO);
        brig_close(r);
        snprintf(want, sizeof want, "hecaton: -hda: %s: %s", r->file, ends[i].fate);
        if (strncmp(said, want, strlen(want)) || strchr(said, '\n') != said + strlen(said) - 1)
            fail_msg("'%s' is not one line '%s..'", said, want);
    }
}

static void a_server_that_is_killed_leaves_errors_only(void **state)
{
    struct brig *r = *state;
    char buf[512] = {1};
    need_tools();
    open_qcow2(r);
    assert_int_equal(brig_write(r, 0, buf, 512), 0);
    pid_t server = find_child(getpid(), "qemu-nbd");
    assert_true(server > 0);
    assert_int_not_equal(getsid(server), getsid(0)); /* a terminal's Ctrl-C is not for it */
    kill(server, SIGKILL);
    waitid(P_PID, (id_t)server, &(siginfo_t){0}, WEXITED | WNOWAIT);
    assert_int_equal(brig_write(r, 0, buf, 512), -EIO);
    assert_int_equal(brig_read(r, 0, buf, 512), -EIO);
    assert_int_equal(brig_flush(r), -EIO);
    brig_close(r);
}

struct crowd {
    struct brig *r;
    struct breq q[400];
    char buf[512];
    sem_t over;
};

static void crowd_submit(void *opaque)
{
    struct crowd *c = opaque;
    for (unsigned i = 0; i < 400; i++) {
        struct breq *q = &c->q[i];
        *q = (struct breq){.over = &c->over, .iov = {c->buf, 512}};
        q->r = (struct block_request){
            .op = i % 3 ? BLOCK_READ : BLOCK_FLUSH, .offset = i * 512, .len = 512, .iov = &q->iov, .iovs = 1};
        q->r.done = breq_done;
        q->r.opaque = q;
        block_submit(c->r->b, &q->r);
    }
    block_kick(c->r->b);
}

static void what_is_under_way_when_the_server_goes_fails(void **state)
{
    struct brig *r = *state;
    need_tools();
    struct crowd *c = calloc(1, sizeof *c);
    c->r = r;
    sem_init(&c->over, 0, 0);
    open_qcow2(r);
    pid_t server = find_child(getpid(), "qemu-nbd");
    kill(server, SIGSTOP);
    waitid(P_PID, (id_t)server, &(siginfo_t){0}, WSTOPPED | WNOWAIT);
    ioloop_call(r->loop, crowd_submit, c);
    kill(server, SIGKILL);
    for (unsigned i = 0; i < 400; i++)
        sem_wait(&c->over);
    for (unsigned i = 0; i < 400; i++)
        assert_int_equal(c->q[i].result, -EIO);
    brig_close(r);
    sem_destroy(&c->over);
    free(c);
}

/* Opens the image, says so, and waits to be killed. */
static int hold_qcow2(const char *file)
{
    struct brig *r = brig_in_child(file);
    int rc = brig_try(r, &(struct block_config){.format = "qcow2"}, NULL);
    if (write(3, &rc, sizeof rc) == sizeof rc)
        pause();
    return 2;
}

static void the_server_goes_when_we_are_killed(void **state)
{
    struct brig *r = *state;
    int fd[2], rc;
    need_tools();
    brig_shell(r, "qemu-img create -q -f qcow2 %s 64M", r->file);
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    pid_t pid = brig_child("hold", r->file, 0, fd[1]);
    close(fd[1]);
    assert_int_equal(read(fd[0], &rc, sizeof rc), sizeof rc);
    assert_int_equal(rc, 0);
    pid_t server = find_child(pid, "qemu-nbd");
    assert_true(server > 0);
    int pidfd = (int)syscall(SYS_pidfd_open, server, 0);
    assert_true(pidfd >= 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, -1), 1); /* a server that stays hangs the test */
    close(pidfd);
    close(fd[0]);
    open_qcow2(r); /* and the image is free */
}

static void errors_of_a_server_are_the_requests(void **state)
{
    struct brig *r = *state;
    char address[200], socket[160], buf[4096];
    unsigned failed = 0, good = 0;
    if (!brig_has("nbdkit"))
        skip();
    snprintf(socket, sizeof socket, "%s/sock", r->dir);
    pid_t server = brig_serve(r, (char *[]){"nbdkit", "-f", "-U", socket, "--filter=error", "memory", "16M",
                                            "error=ENOSPC", "error-pread-rate=50%", "error-pwrite-rate=50%", NULL});
    snprintf(address, sizeof address, "nbd+unix:///?socket=%s/sock", r->dir);
    brig_open(r, &(struct block_config){.file = address}, NULL);
    for (unsigned i = 0; i < 100; i++) {
        int rc = i % 2 ? brig_read(r, i * 4096, buf, 4096) : brig_write(r, i * 4096, buf, 4096);
        assert_true(!rc || rc == -ENOSPC);
        failed += rc != 0;
        good += rc == 0;
    }
    assert_true(failed && good);
    brig_close(r);
    brig_unserve(r, server);
}

static void an_address_that_is_read_only_needs_to_be_taken_so(void **state)
{
    struct brig *r = *state;
    char address[200], socket[160], buf[512] = {1};
    if (!brig_has("nbdkit"))
        skip();
    snprintf(socket, sizeof socket, "%s/sock", r->dir);
    pid_t server = brig_serve(r, (char *[]){"nbdkit", "-f", "-r", "-U", socket, "memory", "16M", NULL});
    snprintf(address, sizeof address, "nbd+unix:///?socket=%s/sock", r->dir);
    assert_int_equal(brig_try(r, &(struct block_config){.file = address}, NULL), -EROFS);
    assert_non_null(strstr(r->e.msg, "readonly=on"));
    brig_open(r, &(struct block_config){.file = address, .snapshot = true}, NULL);
    assert_int_equal(brig_write(r, 0, buf, 512), 0);
    brig_close(r);
    brig_open(r, &(struct block_config){.file = address, .readonly = true}, NULL);
    assert_int_equal(brig_write(r, 0, buf, 512), -EROFS);
    assert_int_equal(brig_read(r, 0, buf, 512), 0);
    assert_int_equal(buf[0], 0);
    brig_close(r);
    brig_unserve(r, server);
}

#define T(f) cmocka_unit_test_setup_teardown(f, brig_set_up, brig_tear_down)

static int as_child(char **argv)
{
    if (!strcmp(argv[2], "limit"))
        return under_a_limit(argv[3], argv[4][0] == '1');
    if (!strcmp(argv[2], "full"))
        return on_a_full_disk(argv[3], argv[4][0] == '1');
    return hold_qcow2(argv[3]);
}

int main(int argc, char **argv)
{
    if (argc == 5)
        return as_child(argv);
    const struct CMUnitTest tests[] = {
        T(a_file_that_shrinks_gives_errors_until_it_grows),
        T(a_file_that_is_removed_works_on),
        T(a_limit_on_file_sizes_is_an_error_and_no_signal),
        T(a_full_disk_is_an_error_until_there_is_room),
        T(a_format_without_its_server_says_what_to_install),
        T(a_broken_image_is_refused_with_the_servers_words),
        T(a_damaged_image_gives_errors_and_goes_on),
        T(a_server_that_dies_is_no_zombie),
        T(a_server_that_is_killed_leaves_errors_only),
        T(what_is_under_way_when_the_server_goes_fails),
        T(the_server_goes_when_we_are_killed),
        T(errors_of_a_server_are_the_requests),
        T(an_address_that_is_read_only_needs_to_be_taken_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
