/* A host that runs out of memory, threads or descriptors, at every single place where building and booting a machine
 * can meet it: each is an error with one line, nothing crashes, and (under ASan) nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "boot_images.h"

#include "vm/machine.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cmocka.h>

/* Which call from now on fails: 1 is the next, 0 none. */
static atomic_long fuse;

static bool blown(void)
{
    return atomic_load(&fuse) > 0 && atomic_fetch_sub(&fuse, 1) == 1;
}

#define WRAP(type, name, params, args, failure, number)                                                                \
    type __real_##name params;                                                                                         \
    type __wrap_##name params;                                                                                         \
    type __wrap_##name params                                                                                          \
    {                                                                                                                  \
        if (blown()) {                                                                                                 \
            errno = number;                                                                                            \
            return failure;                                                                                            \
        }                                                                                                              \
        return __real_##name args;                                                                                     \
    }

WRAP(void *, malloc, (size_t n), (n), NULL, ENOMEM)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL, ENOMEM)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL, ENOMEM)
WRAP(void *, aligned_alloc, (size_t align, size_t n), (align, n), NULL, ENOMEM)
WRAP(char *, strdup, (const char *s), (s), NULL, ENOMEM)
WRAP(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t off), (at, n, prot, flags, fd, off),
     MAP_FAILED, ENOMEM)
WRAP(int, eventfd, (unsigned n, int flags), (n, flags), -1, EMFILE)
WRAP(int, pthread_create, (pthread_t * t, const pthread_attr_t *a, void *(*fn)(void *), void *arg), (t, a, fn, arg),
     EAGAIN, 0)

static struct vm_config config(const char *serial)
{
    struct vm_config c;
    vm_config_init(&c);
    c.smp = (struct vm_smp){.cpus = 3};
    assert_int_equal(vm_config_topology(&c.smp, NULL), 0);
    c.mem_size = 64 << 20;
    c.workers = 2;
    c.debug_exit = c.pc_testdev = true;
    c.debug_exit_base = 0xf4;
    c.debug_exit_size = 4;
    c.serial[0] = (struct vm_serial){.kind = VM_SERIAL_FILE, .spec = strdup(serial)};
    return c;
}

/* Returns 0 if the machine came to be and was taken down again. */
static int life(const struct vm_config *c, struct err *e)
{
    struct machine *m = NULL;
    int rc = machine_create(c, &m, e);
    if (rc)
        return rc;
    rc = machine_boot(m, e);
    if (!rc)
        rc = machine_start(m, e);
    machine_stop(m);
    machine_destroy(m);
    return rc;
}

/* The places are few hundred at most; a life without an end to them would be a test that never fails. */
static void every_failure_is_an_error(struct vm_config *c)
{
    long place = 1;
    for (;; place++) {
        struct err e = {{0}};
        atomic_store(&fuse, place);
        int rc = life(c, &e);
        bool survived = atomic_exchange(&fuse, 0) > 0;
        if (survived) {
            assert_int_equal(rc, 0);
            break;
        }
        if (rc) {
            assert_in_range(-rc, 1, 4095);
            assert_true(e.msg[0]);
            assert_null(strchr(e.msg, '\n'));
        }
        assert_in_range(place, 1, 2000);
    }
    assert_in_range(place, 20, 2000);
    vm_config_fini(c);
}

static void with_kernel(struct img img)
{
    struct vm_config c = config("file:/dev/null");
    char *path = img_file(img.p, img.n);
    c.kernel = c.initrd = path;
    every_failure_is_an_error(&c);
    unlink(path);
    free(path);
    free(img.p);
}

static void bzimages(void **state)
{
    with_kernel(img_bzimage_of(IMG_GZIP, true));
    with_kernel(img_bzimage_of(IMG_XZ, true));
    with_kernel(img_bzimage_of(IMG_ZSTD, true));
    with_kernel(img_bzimage_of(IMG_LZ4, true));
}

static void multiboot(void **state)
{
    with_kernel(img_multiboot(0x100000, 4096, 0));
}

/* The same with vCPUs that are KVM's, and a thread each. */
static void on_kvm(void **state)
{
    struct vm_config c = config("file:/dev/null");
    struct img img = img_multiboot(0x100000, 4096, 0);
    char *path = img_file(img.p, img.n);
    if (access("/dev/kvm", R_OK | W_OK))
        skip();
    c.engine = VM_ACCEL_KVM;
    c.kernel = path;
    every_failure_is_an_error(&c);
    unlink(path);
    free(path);
    free(img.p);
}

/* A reset that can't be done leaves a machine that is stopped; stopping it again is nothing. */
static void a_failed_reset_leaves_a_stopped_machine(void **state)
{
    struct vm_config c = config("file:/dev/null");
    struct img img = img_multiboot(0x100000, 4096, 0);
    char *path = img_file(img.p, img.n);
    struct err e = {{0}};
    struct machine *m = NULL;
    c.kernel = path;
    assert_int_equal(machine_create(&c, &m, &e), 0);
    assert_int_equal(machine_boot(m, &e), 0);
    assert_int_equal(machine_start(m, &e), 0);
    machine_stop(m);
    unlink(path);
    assert_true(machine_boot(m, &e) < 0);
    machine_stop(m);
    machine_stop(m);
    machine_destroy(m);
    vm_config_fini(&c);
    free(path);
    free(img.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bzimages),
        cmocka_unit_test(multiboot),
        cmocka_unit_test(on_kvm),
        cmocka_unit_test(a_failed_reset_leaves_a_stopped_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
