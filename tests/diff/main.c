/* oracle: random tests against the host's CPU.
 *
 *     oracle [-j] [-h HEAT] [-g GROUP] [-n COUNT] [-s SEED] [-p PROCESSES] [-o DIRECTORY]   COUNT tests of each group
 *     oracle [-j] [-h HEAT] FILE...                                                        replay of the corpus
 *
 * The engine interprets; with -j it translates every block before its first execution, with -h before execution HEAT.
 * Exit code 0: equal; 1: a difference; 2: usage or the host failed. The seed is printed; the same seed, group and count
 * make the same tests. A failing test is made smaller and, with -o, written to DIRECTORY.
 */
#include "oracle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct options {
    const char *group, *dir;
    uint64_t count, seed;
    unsigned jobs, show;
    uint32_t heat; /* 0: interpret */
};

struct bench {
    struct native *native;
    struct guest *guest;
    const struct options *o;
    uint64_t tests, died;
    unsigned failures, slot, reports;
    uint8_t shown[4096];
};

static int bench_open(struct bench *b)
{
    int rc = native_open(&b->native);
    return rc ? rc : guest_open(&b->guest, b->o->heat);
}

static void bench_close(struct bench *b)
{
    native_close(b->native);
    guest_close(b->guest);
}

static void run_batch(struct bench *b, unsigned n, struct result *out)
{
    native_start(b->native, n);
    guest_run(b->guest, native_tests(b->native), n, out);
    native_wait(b->native);
}

/* One test alone. True: equal (or the host could not say). */
static bool run_one(struct bench *b, struct test *t, FILE *to)
{
    static struct result r;
    memcpy(native_tests(b->native), t, sizeof *t);
    run_batch(b, 1, &r);
    memcpy(&t->r, &native_tests(b->native)->r, sizeof t->r);
    return check_equal(native_tests(b->native), &r, to);
}

/* ---- making a failing test smaller ---- */

static bool still_fails(struct bench *b, const struct test *t)
{
    struct test copy = *t;
    return gen_judge(&copy) && !run_one(b, &copy, NULL);
}

static bool without_insn(struct test *t, unsigned drop)
{
    unsigned at = 0, len = t->insn_len[drop];
    if (t->insns < 2)
        return false;
    for (unsigned i = 0; i < drop; i++)
        at += t->insn_len[i];
    memmove(t->code + at, t->code + at + len, t->code_len - at - len);
    t->code_len -= len;
    return gen_judge(t);
}

static void shrink_code(struct bench *b, struct test *t)
{
    for (unsigned i = t->insns; i-- > 0;) {
        struct test less = *t;
        if (i < t->insns && without_insn(&less, i) && still_fails(b, &less))
            *t = less;
    }
}

static void shrink_values(struct bench *b, struct test *t)
{
    struct test less = *t;
    for (unsigned i = 0; i < 16; i++) {
        less = *t;
        less.gpr[i] = 0;
        if (t->gpr[i] && still_fails(b, &less))
            *t = less;
    }
    for (unsigned i = 0; i < DATA_LEN; i += 8) {
        less = *t;
        st64(less.data + i, 0);
        if (ld64(t->data + i) && still_fails(b, &less))
            *t = less;
    }
    for (unsigned i = 32; i < 416 && t->kind & KIND_FP; i += 8) {
        less = *t;
        st64(less.fx + i, 0);
        if (ld64(t->fx + i) && still_fails(b, &less))
            *t = less;
    }
    less = *t;
    less.rflags = 0x202;
    if (still_fails(b, &less))
        *t = less;
}

static void save(struct bench *b, const struct test *t)
{
    char path[4096];
    if (!b->o->dir)
        return;
    snprintf(path, sizeof path, "%s/%s-%016" PRIx64 ".txt", b->o->dir, group_name(t->group), t->seed);
    if (corpus_write(path, t))
        fprintf(stderr, "oracle: can't write %s\n", path);
    else
        printf("  written to %s\n", path);
}

/* A bug shows itself thousands of times: once for every last instruction is enough. */
static bool seen_before(struct bench *b, const struct test *t)
{
    unsigned at = 0;
    struct insn in;
    for (unsigned i = 0; i + 1 < t->insns; i++)
        at += t->insn_len[i];
    if (decode_insn(t->code + at, t->code_len - at, code_mode(t->kind), &in) != DECODE_OK)
        return false;
    unsigned key = (in.map << 10 | in.opcode << 2 | in.prefix) & 4095;
    if (b->shown[key])
        return true;
    b->shown[key] = 1;
    return b->reports++ >= b->o->show;
}

static void report(struct bench *b, const struct test *failed)
{
    struct test t = *failed;
    b->failures++;
    if (seen_before(b, failed))
        return;
    printf("DIFFERENCE: group %s seed %016" PRIx64 "\n", group_name(t.group), t.seed);
    if (!still_fails(b, &t)) {
        printf("  only in company: not reproduced alone\n");
        check_disassemble(&t, stdout);
        return;
    }
    if (t.insns > 1) {
        check_disassemble(&t, stdout);
        printf("  made smaller:\n");
    }
    shrink_code(b, &t);
    shrink_values(b, &t);
    gen_judge(&t);
    check_disassemble(&t, stdout);
    run_one(b, &t, stdout);
    for (unsigned i = 0; i < 16; i++)
        if (t.gpr[i])
            printf("  gpr[%u] %016" PRIx64 "\n", i, t.gpr[i]);
    printf("  rflags %" PRIx64 " rip %" PRIx64 "\n", t.rflags, t.rip);
    save(b, &t);
    fflush(stdout);
}

/* ---- random runs ---- */

static void batch(struct bench *b, unsigned group, uint64_t first, unsigned n)
{
    static struct result results[BATCH];
    static struct test failed[BATCH];
    unsigned bad = 0;
    struct test *t = native_tests(b->native);
    for (unsigned i = 0; i < n; i++)
        gen_test(&t[i], group, (b->o->seed << 40) + first + i, b->slot + i);
    b->slot = (b->slot + BATCH) % (CODE_LEN / SLOT - BATCH); /* the last test's code may run past its slot */
    run_batch(b, n, results);
    b->tests += n;
    for (unsigned i = 0; i < n; i++) {
        b->died += t[i].r.vec == VEC_DIED;
        if (!check_equal(&t[i], &results[i], NULL))
            failed[bad++] = t[i];
    }
    for (unsigned i = 0; i < bad; i++)
        report(b, &failed[i]);
}

static void random_group(struct bench *b, unsigned group, unsigned job)
{
    uint64_t each = b->o->count / b->o->jobs, from = job * each;
    uint64_t to = job + 1 == b->o->jobs ? b->o->count : from + each;
    unsigned before = b->failures;
    for (uint64_t i = from; i < to; i += BATCH)
        batch(b, group, i, (unsigned)min_u64(BATCH, to - i));
    printf("%-9s %10" PRIu64 " tests, %u differences\n", group_name(group), to - from, b->failures - before);
    fflush(stdout);
}

static int random_job(const struct options *o, unsigned job)
{
    struct bench b = {.o = o};
    if (bench_open(&b))
        return 2;
    for (unsigned g = 0; g < 2 * GROUPS32; g++)
        if (group_name(g) && (!o->group || !strcmp(o->group, group_name(g))) && gen_supported(g))
            random_group(&b, g, job);
    if (b.died)
        printf("%" PRIu64 " tests killed the native side\n", b.died);
    bench_close(&b);
    return b.failures || b.died ? 1 : 0;
}

static int random_run(const struct options *o)
{
    int worst = 0, status;
    printf("seed %" PRIu64 ", %" PRIu64 " tests a group\n", o->seed, o->count);
    fflush(stdout);
    if (o->jobs == 1)
        return random_job(o, 0);
    for (unsigned i = 0; i < o->jobs; i++)
        if (!fork())
            _exit(random_job(o, i));
    while (wait(&status) > 0) {
        int rc = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
        worst = rc > worst ? rc : worst;
    }
    return worst;
}

/* ---- corpus ---- */

static int replay(const struct options *o, char **files, int n)
{
    struct bench b = {.o = o};
    int rc = 0;
    if (bench_open(&b))
        return 2;
    for (int i = 0; i < n; i++) {
        struct test t;
        if (!corpus_read(files[i], &t)) {
            rc = 2;
        } else if (gen_supported(t.group) && !run_one(&b, &t, stdout)) {
            printf("DIFFERENCE: %s\n", files[i]);
            check_disassemble(&t, stdout);
            rc = rc ? rc : 1;
        }
    }
    printf("%d corpus files\n", n);
    bench_close(&b);
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: oracle [-j] [-h HEAT] [-g GROUP] [-n COUNT] [-s SEED] [-p PROCESSES] [-o DIRECTORY]\n"
                    "       oracle [-j] [-h HEAT] FILE...\n");
    return 2;
}

static bool known_group(const char *name)
{
    for (unsigned g = 0; g < 2 * GROUPS32; g++)
        if (group_name(g) && !strcmp(name, group_name(g)))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct options o = {.count = 100000, .seed = (uint64_t)time(NULL) & 0xffffff, .jobs = 1, .show = 40};
    int c;
    while ((c = getopt(argc, argv, "g:n:s:p:o:jh:")) != -1) {
        if (c == 'g')
            o.group = optarg;
        else if (c == 'n')
            o.count = strtoull(optarg, NULL, 0);
        else if (c == 's')
            o.seed = strtoull(optarg, NULL, 0);
        else if (c == 'j')
            o.heat = 1;
        else if (c == 'h')
            o.heat = (uint32_t)strtoul(optarg, NULL, 0);
        else if (c == 'p')
            o.jobs = (unsigned)strtoul(optarg, NULL, 0);
        else if (c == 'o')
            o.dir = optarg;
        else
            return usage();
    }
    if (!o.jobs || (o.group && !known_group(o.group)))
        return usage();
    gen_init();
    return optind < argc ? replay(&o, argv + optind, argc - optind) : random_run(&o);
}
