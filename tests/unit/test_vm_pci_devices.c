/* What a command line's devices come to on the buses, and that nothing is left of them: threads, descriptors, locks. */
#include "pci_rig.h"

#include "cli/options.h"
#include "vm/pci_devices.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct rig {
    struct pci_rig pci;
    struct vm_config c;
    struct pci_devices *d;
    struct err e;
    char dir[32], *line;
};

static unsigned entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static unsigned held(void)
{
    return entries("/proc/self/fd") + 1000 * entries("/proc/self/task");
}

static void image(const struct rig *r, const char *name, unsigned sectors)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)sectors * 512), 0);
    close(fd);
}

/* Make what `fmt` describes, where %s is the directory the images are in. */
static int make(struct rig *r, const char *fmt)
{
    char *argv[32] = {"hecaton", "-kernel", "k"}, *save = NULL;
    int argc = 3;
    r->line = strdup(fmt);
    for (char *w = strtok_r(r->line, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    if (options_parse(argc, argv, &r->c, stderr, &r->e) != OPTIONS_RUN)
        fail_msg("%s", r->e.msg);
    const struct pci_devices_config c = {.cfg = &r->c, .host = &r->pci.host, .epoch = &r->pci.f.epoch};
    return pci_devices_create(&c, &r->d, &r->e);
}

static void unmake(struct rig *r)
{
    pci_devices_destroy(r->d);
    r->d = NULL;
    vm_config_fini(&r->c);
    free(r->line);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    rig_init(&r->pci);
    strcpy(r->dir, "/tmp/hec-devices-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(chdir(r->dir), 0);
    image(r, "a.img", 64);
    image(r, "b.img", 64);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    rig_fini(&r->pci);
    unlink("a.img");
    unlink("b.img");
    assert_int_equal(chdir("/"), 0);
    rmdir(r->dir);
    free(r);
    return 0;
}

static uint32_t id_at(struct rig *r, unsigned bus, unsigned dev, unsigned fn)
{
    return (uint32_t)cfg_rd(&r->pci, bus, PCI_DEVFN(dev, fn), 0, 4);
}

static void functions_are_where_the_options_put_them(void **state)
{
    struct rig *r = *state;
    unsigned before = held();
    assert_int_equal(make(r, "-device irq-test-pci,bus=rp,addr=0.1 -device pcie-root-port,id=rp,addr=5 "
                             "-device virtio-rng-pci,bus=rp -device virtio-rng-pci,addr=7.3 "
                             "-device irq-test-pci,addr=7 -drive file=a.img,format=raw -device pvpanic-pci"),
                     0);
    pci_host_reset(&r->pci.host);
    assert_int_equal(pci_host_assign(&r->pci.host, &r->e), 0);
    assert_int_equal(id_at(r, 0, 0x1f, 2), 0x29228086); /* the SATA controller */
    assert_int_equal(id_at(r, 0, 2, 0), 0x00111b36);    /* pvpanic: the first free one */
    assert_int_equal(id_at(r, 0, 5, 0), 0x000c1b36);    /* the root port */
    assert_int_equal(id_at(r, 0, 7, 0), 0x48451234);
    assert_int_equal(id_at(r, 0, 7, 3), 0x10441af4);
    assert_int_equal(id_at(r, 1, 0, 0), 0x10441af4); /* function 0 is made first, whoever was described first */
    assert_int_equal(id_at(r, 1, 0, 1), 0x48451234);
    assert_int_equal(id_at(r, 0, 3, 0), 0xffffffff);
    pci_devices_reset(r->d);
    unmake(r);
    assert_int_equal(held(), before);
}

static void consoles_may_have_gaps_and_no_ports(void **state)
{
    struct rig *r = *state;
    unsigned before = held();
    assert_int_equal(make(r, "-chardev null,id=a -device virtio-serial-pci -device virtconsole,chardev=a,nr=3 "
                             "-device virtio-serial-pci,id=none"),
                     0);
    pci_devices_reset(r->d);
    unmake(r);
    assert_int_equal(held(), before);
}

static void a_failure_half_way_leaves_nothing(void **state)
{
    static const char *const lines[] = {
        "-drive file=a.img,format=raw -device virtio-rng-pci -hdb missing.img",
        "-drive file=a.img,format=raw -drive file=a.img,format=raw", /* its lock */
        "-device virtio-rng-pci -chardev file,id=c,path=/nowhere/x -device virtio-serial-pci "
        "-device virtconsole,chardev=c",
        "-drive file=a.img,format=raw -nic socket,model=virtio,connect=nonsense",
    };
    struct rig *r = *state;
    unsigned before = held();
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
        r->e.msg[0] = 0;
        assert_true(make(r, lines[i]) < 0);
        assert_null(r->d);
        assert_true(r->e.msg[0] && !strchr(r->e.msg, '\n'));
        unmake(r);
        assert_int_equal(held(), before);
        rig_fini(&r->pci);
        rig_init(&r->pci);
    }
    assert_int_equal(make(r, "-drive file=a.img,format=raw -drive file=b.img,format=raw"), 0); /* nobody holds them */
    unmake(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(functions_are_where_the_options_put_them, setup, teardown),
        cmocka_unit_test_setup_teardown(consoles_may_have_gaps_and_no_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_half_way_leaves_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
