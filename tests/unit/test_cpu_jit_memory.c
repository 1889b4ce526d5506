/* The memory that translated code is in: who may write it and who may run it, a host that refuses it, what happens when
 * it is full, and machines beside each other. */
#include "jit_rig.h"

#include "cpu/jit/jit_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the file behind the code ---- */

static int code_file = -1; /* a second descriptor of the last one made */

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
    int fd = __real_memfd_create(name, flags);
    int err = errno;
    if (code_file >= 0)
        close(code_file);
    code_file = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 100);
    errno = err;
    return fd;
}

/* ---- what is mapped ---- */

struct maps {
    unsigned executable, both; /* all there are; those writable, too */
    unsigned code;             /* those of code */
    uint64_t rx, rw, size;     /* of code */
};

static void add_mapping(struct maps *m, const char *line)
{
    uint64_t from, to;
    char perms[5];
    assert_int_equal(sscanf(line, "%lx-%lx %4s", &from, &to, perms), 3);
    bool w = perms[1] == 'w', x = perms[2] == 'x';
    m->executable += x;
    m->both += w && x;
    if (!strstr(line, "memfd:hecaton-code"))
        return;
    m->code++;
    m->size = to - from;
    if (x)
        m->rx = from;
    if (w)
        m->rw = from;
}

static struct maps maps(void)
{
    struct maps m = {.code = 0};
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        add_mapping(&m, line);
    fclose(f);
    return m;
}

static struct jit *jit_of(const struct jit_rig *r)
{
    return ((struct soft_vm *)r->rig.vm)->jit;
}

static struct jit_rig *open_machine(bool jit)
{
    struct jit_rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->r = &r->rig;
    rig_init(r->r, &(struct engine_config){.jit = jit, .jit_heat = 1});
    jit_long(r, 0);
    return r;
}

/* ---- guest code that needs much of it ---- */

enum { FUNCTIONS = 40 };

/* `calls` rounds of FUNCTIONS functions at `where`, each adding its number and `salt` to RAX. Returns what RAX is then.
 */
static uint64_t load_calls(struct jit_rig *r, uint64_t where, uint32_t salt, uint32_t calls)
{
    uint8_t code[16 + FUNCTIONS * 5], fn[7] = {0x48, 0x05, 0, 0, 0, 0, 0xc3}; /* add $imm32, %rax; ret */
    uint64_t sum = 0, at = 0;
    code[at++] = 0xb9; /* mov $calls, %ecx */
    st32(code + at, calls);
    at += 4;
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        uint64_t to = where + i * 64;
        st32(fn + 2, salt + i);
        jit_load_bytes(r, to, (const char *)fn, sizeof fn);
        code[at++] = 0xe8; /* call */
        st32(code + at, (uint32_t)(to - (J_CODE + at + 4)));
        at += 4;
        sum += salt + i;
    }
    memcpy(code + at, "\xff\xc9\x0f\x85", 4); /* dec %ecx; jnz to the first call */
    st32(code + at + 4, (uint32_t)(5 - (at + 8)));
    code[at + 8] = 0xf4; /* hlt */
    jit_load_bytes(r, J_CODE, (const char *)code, at + 9);
    r->r->v->st.gpr[RAX] = 0;
    jit_restart(r, J_CODE);
    return sum * calls;
}

static void run_calls(struct jit_rig *r, uint64_t where, uint32_t salt)
{
    uint64_t want = load_calls(r, where, salt, 5);
    jit_to_halt(r, 97);
    assert_int_equal(r->r->v->st.gpr[RAX], want);
}

/* ---- who may do what ---- */

static void check_mappings(const struct jit_rig *r, const struct maps *before)
{
    struct maps m = maps();
    assert_int_equal(m.code, 2);
    assert_int_equal(m.rx, (uintptr_t)jit_of(r)->rx);
    assert_int_equal(m.rw, (uintptr_t)jit_of(r)->rw);
    assert_int_not_equal(m.rx, m.rw);
    assert_int_equal(m.size, JIT_SIZE);
    assert_int_equal(m.executable, before->executable + 1);
    assert_int_equal(m.both, before->both);
}

static void no_code_is_writable_where_it_runs(void **state)
{
    struct maps before = maps();
    struct jit_rig *r = open_machine(true);
    check_mappings(r, &before);
    for (unsigned i = 0; i < 3; i++) {
        run_calls(r, J_FREE, i);
        check_mappings(r, &before);
        jit_of(r)->front = JIT_SIZE - 4096; /* full: emptied by what comes next */
    }
    jit_free(r);
    struct maps after = maps();
    assert_true(after.code == 0 && after.executable == before.executable);
}

/* The signal that ends a child. */
static int dies_of(void (*body)(const struct jit *), const struct jit *j)
{
    int status = 0;
    pid_t pid = fork();
    if (!pid) {
        signal(SIGSEGV, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        body(j);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void write_where_it_runs(const struct jit *j)
{
    *(volatile uint8_t *)j->rx = 0xc3;
}

static void write_where_it_is_written(const struct jit *j)
{
    *(volatile uint8_t *)(j->rw + j->front) = 0xc3;
}

static void run_where_it_is_written(const struct jit *j)
{
    void (*fn)(void);
    *(volatile uint8_t *)(j->rw + j->front) = 0xc3; /* ret */
    memcpy(&fn, &(uint8_t *){j->rw + j->front}, sizeof fn);
    fn();
}

static void the_mappings_are_what_they_say(void **state)
{
    struct jit_rig *r = open_machine(true);
    assert_int_equal(dies_of(write_where_it_is_written, jit_of(r)), 0);
    assert_int_equal(dies_of(write_where_it_runs, jit_of(r)), SIGSEGV);
    assert_int_equal(dies_of(run_where_it_is_written, jit_of(r)), SIGSEGV);
    jit_free(r);
}

/* Nobody who gets hold of it can cut it away below the mappings, or let it grow. */
static void the_file_is_sealed_and_closed(void **state)
{
    struct jit_rig *r = open_machine(true);
    char name[64], path[32];
    int seals = fcntl(code_file, F_GET_SEALS), want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    assert_int_equal(seals & want, want);
    assert_int_equal(ftruncate(code_file, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(code_file, 2 * JIT_SIZE), -1);
    assert_int_equal(fcntl(code_file, F_ADD_SEALS, F_SEAL_WRITE), -1);
    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, name, sizeof name - 1);
        name[n < 0 ? 0 : n] = 0;
        assert_true(fd == code_file || !strstr(name, "hecaton-code"));
    }
    jit_free(r);
}

static void without_a_translator_nothing_new_is_executable(void **state)
{
    struct maps before = maps();
    struct jit_rig *r = open_machine(false);
    run_calls(r, J_FREE, 7);
    struct maps m = maps();
    assert_null(jit_of(r));
    assert_true(m.code == 0 && m.executable == before.executable && m.both == before.both);
    jit_free(r);
}

/* ---- a host that refuses ---- */

enum { SKIPPED = 77 };
#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            return __LINE__ % 250 + 1;                                                                                 \
    } while (0)

/* Calls of that number, if `prot` is 0 or part of the third argument, fail. */
static int refuse(unsigned number, unsigned prot, unsigned error)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, prot, 1, 0),
        BPF_STMT(BPF_JMP | BPF_JA, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (!prot)
        f[2] = f[3] = f[4] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, 0);
    struct sock_fprog p = {ARRAY_SIZE(f), f};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) ? SKIPPED : 0;
}

static unsigned open_files(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static bool one_line(const char *s)
{
    return *s && !strchr(s, '\n') && strstr(s, "jit=off");
}

static struct ram small_ram; /* a child's */

static int without_code(void)
{
    struct block_cache *c = NULL;
    struct err e = {.msg = ""};
    MUST(block_cache_create(&small_ram, false, 0, &c, &e) == 0 && c && !block_jit(c));
    block_cache_destroy(c);
    return 0;
}

/* No cache with a translator for this reason, but one without. `lift`: what lets the child look at itself again. */
static int must_fail(int want, void (*lift)(void))
{
    unsigned files = open_files();
    struct block_cache *c = NULL;
    struct err e = {.msg = ""};
    int rc = block_cache_create(&small_ram, true, 0, &c, &e);
    int other = without_code();
    if (lift)
        lift();
    MUST(rc == want && !c);
    MUST(one_line(e.msg));
    MUST(open_files() == files + (code_file >= 0));
    MUST(maps().code == 0);
    return other;
}

static int no_memfd(void)
{
    int rc = refuse(SYS_memfd_create, 0, ENOSYS);
    return rc ? rc : must_fail(-ENOSYS, NULL);
}

static int no_execution(void)
{
    int rc = refuse(SYS_mmap, PROT_EXEC, EACCES);
    return rc ? rc : must_fail(-EACCES, NULL);
}

static int no_truncation(void)
{
    int rc = refuse(SYS_ftruncate, 0, ENOMEM);
    return rc ? rc : must_fail(-ENOMEM, NULL);
}

static void limit(int what, rlim_t soft)
{
    struct rlimit l;
    getrlimit(what, &l);
    l.rlim_cur = soft == RLIM_INFINITY || soft > l.rlim_max ? l.rlim_max : soft;
    setrlimit(what, &l);
}

static void lift_files(void)
{
    limit(RLIMIT_NOFILE, 1024);
}

static int no_descriptor(void)
{
    limit(RLIMIT_NOFILE, 0);
    return must_fail(-EMFILE, lift_files);
}

static int no_large_file(void)
{
    signal(SIGXFSZ, SIG_IGN); /* as main() does */
    limit(RLIMIT_FSIZE, 4096);
    return must_fail(-EFBIG, NULL);
}

/* A child's answer: 0, or where it found something else. */
static void in_child(int (*body)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (!pid) {
        struct err e;
        if (code_file >= 0)
            close(code_file);
        code_file = -1;
        _exit(ram_init(&small_ram, 1 << 20, &e) ? 1 : body());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED)
        skip();
    if (WEXITSTATUS(status))
        fail_msg("line %d (mod 250)", WEXITSTATUS(status) - 1);
}

static void a_host_without_memfd(void **state)
{
    in_child(no_memfd);
}

static void a_host_that_forbids_execution(void **state)
{
    in_child(no_execution);
}

static void a_host_without_memory(void **state)
{
    in_child(no_truncation);
}

static void a_process_without_descriptors(void **state)
{
    in_child(no_descriptor);
}

static void a_process_without_large_files(void **state)
{
    in_child(no_large_file);
}

/* Each limit of address space, from too little to enough, is an error or none. */
static int address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    MUST(f && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    for (rlim_t more = 0;; more += JIT_SIZE / 16) {
        struct block_cache *c = NULL;
        struct err e = {.msg = ""};
        limit(RLIMIT_AS, pages * 4096 + more);
        int rc = block_cache_create(&small_ram, true, 0, &c, &e);
        limit(RLIMIT_AS, RLIM_INFINITY);
        MUST(rc == 0 || (rc == -ENOMEM && !c && *e.msg && !strchr(e.msg, '\n') && maps().code == 0));
        if (rc == 0) {
            MUST(more >= 2 * JIT_SIZE);
            block_cache_destroy(c);
            return 0;
        }
    }
}

static void a_process_without_address_space(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they need some, too */
#endif
    in_child(address_space);
}

/* ---- full ---- */

static void full_memory_is_emptied(void **state)
{
    enum { ROUNDS = 60 };
    struct jit_rig *r = open_machine(true);
    struct jit *j = jit_of(r);
    struct soft_vm *vm = (struct soft_vm *)r->r->vm;
    uint32_t first = block_generation(vm);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (j->back - j->front > 40 << 10)
            j->front = align_down(j->back - (40 << 10), 64); /* as if other blocks were there */
        run_calls(r, J_FREE + i * FUNCTIONS * 64, i * 1000);
        assert_true(j->thunks <= j->front && j->front <= j->back && j->back <= JIT_SIZE);
        assert_true(j->back > JIT_SIZE - (64 << 10)); /* constants go, too */
    }
    assert_in_range(block_generation(vm) - first, ROUNDS / 2, ROUNDS * 4);
    jit_free(r);
}

/* ---- machines beside each other ---- */

static void machines_have_their_own_code(void **state)
{
    struct jit_rig *r[3];
    uint64_t want[ARRAY_SIZE(r)];
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        r[i] = open_machine(true);
        want[i] = load_calls(r[i], J_FREE, 100 * i, 50);
    }
    assert_int_equal(maps().code, 2 * ARRAY_SIZE(r));
    for (unsigned turn = 0; turn < 20; turn++)
        for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
            jit_go(r[i], 60 + i);
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        jit_to_halt(r[i], 500);
        assert_int_equal(r[i]->r->v->st.gpr[RAX], want[i]);
        if (i + 1 < ARRAY_SIZE(r))
            jit_free(r[i]); /* the others go on without it */
    }
    run_calls(r[2], J_FREE + 0x10000, 9);
    assert_int_equal(maps().code, 2);
    jit_free(r[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_code_is_writable_where_it_runs),
        cmocka_unit_test(the_mappings_are_what_they_say),
        cmocka_unit_test(the_file_is_sealed_and_closed),
        cmocka_unit_test(without_a_translator_nothing_new_is_executable),
        cmocka_unit_test(a_host_without_memfd),
        cmocka_unit_test(a_host_that_forbids_execution),
        cmocka_unit_test(a_host_without_memory),
        cmocka_unit_test(a_process_without_descriptors),
        cmocka_unit_test(a_process_without_large_files),
        cmocka_unit_test(a_process_without_address_space),
        cmocka_unit_test(full_memory_is_emptied),
        cmocka_unit_test(machines_have_their_own_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
