#include "cli_rig.h"

#include "base/trace.h"
#include "cli/status.h"

static void the_users_line_is_understood(void **state)
{
    struct cli *x = good("-smp 300 -m 4G -kernel vmlinuz -initrd initrd.gz -append console=ttyS0 -serial stdio");
    assert_int_equal(x->c.smp.cpus, 300);
    assert_int_equal(x->c.smp.maxcpus, 300);
    assert_int_equal(x->c.mem_size, UINT64_C(4) << 30);
    assert_string_equal(x->c.kernel, "vmlinuz");
    assert_string_equal(x->c.initrd, "initrd.gz");
    assert_string_equal(x->c.append, "console=ttyS0");
    assert_int_equal(x->c.serial[0].kind, VM_SERIAL_STDIO);
    assert_string_equal(x->c.serial[0].spec, "stdio");
    assert_int_equal(x->c.accels, 0); /* the host's best */
    assert_int_equal(x->c.sandbox, VM_AUTO);
    assert_false(x->c.paused);
    assert_false(x->c.no_reboot || x->c.deterministic || x->c.debug_exit || x->c.pc_testdev);
    done(x);
}

static void every_option_reaches_the_configuration(void **state)
{
    struct cli *x =
        good("-M q35,accel=kvm:tcg,time=virtual,deterministic=on,seed=0x10,workers=3,firmware-x2apic=off,"
             "kernel-irqchip=off,boot=linux64,apic-ids=0,7,256-258,smm=off -smp 5 --kernel k -cpu max,x2apic=on "
             "-device isa-debug-exit,iobase=0x501,iosize=2 -device pc-testdev -name box,debug-threads=on "
             "-no-reboot -no-shutdown -S -sandbox on,spawn=deny -d irq,in_asm -D trace.log -serial file:/tmp/a=b,c");
    assert_int_equal(x->c.accels, 2);
    assert_int_equal(x->c.accel[0], VM_ACCEL_KVM);
    assert_int_equal(x->c.accel[1], VM_ACCEL_SOFT);
    assert_int_equal(x->c.time, VM_TIME_VIRTUAL);
    assert_true(x->c.deterministic);
    assert_int_equal(x->c.seed, 16);
    assert_int_equal(x->c.workers, 3);
    assert_int_equal(x->c.firmware_x2apic, VM_OFF);
    assert_int_equal(x->c.irqchip, VM_IRQCHIP_OFF);
    assert_int_equal(x->c.boot, VM_BOOT_LINUX64);
    static const uint32_t ids[] = {0, 7, 256, 257, 258};
    assert_int_equal(x->c.apic_ids_n, 5);
    assert_memory_equal(x->c.apic_ids, ids, sizeof ids);
    assert_string_equal(x->c.cpu, "max,x2apic=on");
    assert_true(x->c.debug_exit && x->c.pc_testdev);
    assert_int_equal(x->c.debug_exit_base, 0x501);
    assert_int_equal(x->c.debug_exit_size, 2);
    assert_string_equal(x->c.name, "box");
    assert_true(x->c.debug_threads && x->c.no_reboot && x->c.no_shutdown && x->c.paused);
    assert_int_equal(x->c.sandbox, VM_ON);
    assert_int_equal(x->c.trace_mask, TRACE_IRQ | TRACE_IN_ASM);
    assert_string_equal(x->c.trace_file, "trace.log");
    assert_string_equal(x->c.serial[0].spec, "file:/tmp/a=b,c");
    done(x);
}

static void an_iommu_as_in_qemu(void **state)
{
    struct cli *x =
        good("-kernel k -device intel-iommu,intremap=on,eim=on,caching-mode=on,dma-translation=off,aw-bits=39,"
             "scope=ioapic -machine apic-destination=physical");
    const struct vm_iommu *u = &x->c.iommu;
    assert_int_equal(u->kind, VM_IOMMU_INTEL);
    assert_true(u->intremap && u->caching_mode && !u->dma_translation);
    assert_int_equal(u->eim, VM_ON);
    assert_int_equal(u->aw_bits, 39);
    assert_int_equal(u->scope, VM_SCOPE_IOAPIC);
    assert_int_equal(x->c.apic_destination, VM_DEST_PHYSICAL);
    done(x);
    x = good("-kernel k -device intel-iommu");
    u = &x->c.iommu;
    assert_true(u->intremap && u->dma_translation && !u->caching_mode);
    assert_int_equal(u->eim, VM_AUTO);
    assert_int_equal(u->aw_bits, 48);
    assert_int_equal(x->c.apic_destination, VM_DEST_AUTO);
    done(x);
}

static void habits_from_qemu_are_understood(void **state)
{
    static const struct {
        const char *m;
        uint64_t size;
    } sizes[] = {{"4096", UINT64_C(4) << 30}, {"512M", 512 << 20}, {"size=4G", UINT64_C(4) << 30},
                 {"1T", UINT64_C(1) << 40},   {"8192k", 8 << 20},  {"2GiB", UINT64_C(2) << 30}};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "-kernel k -m %s", sizes[i].m);
        struct cli *x = good(line);
        assert_int_equal(x->c.mem_size, sizes[i].size);
        done(x);
    }
    struct cli *x =
        good("-kernel k -nodefaults -no-user-config -display none -vga none -monitor none -parallel none -net none "
             "-nographic -machine type=q35,accel=tcg -accel tcg,thread=multi -smp cpus=4,maxcpus=8");
    assert_int_equal(x->c.serial[0].kind, VM_SERIAL_STDIO);
    assert_int_equal(x->c.smp.cpus, 4);
    assert_int_equal(x->c.smp.maxcpus, 8);
    done(x);
    x = good("-kernel k -nographic -serial unix:/tmp/s,server,nowait -enable-kvm");
    assert_int_equal(x->c.serial[0].kind, VM_SERIAL_UNIX);
    assert_string_equal(x->c.serial[0].spec, "unix:/tmp/s");
    assert_int_equal(x->c.accel[0], VM_ACCEL_KVM);
    done(x);
    x = good("-kernel k -machine apic-ids=0,256-554,time=real");
    assert_int_equal(x->c.smp.cpus, 300); /* the list says how many */
    assert_int_equal(x->c.time, VM_TIME_REAL);
    done(x);
}

static void mistakes_name_the_nearest_word(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"-kernle k", "-kernel"},
        {"--smpp 4", "-smp"},
        {"-machine q36", "'q35'"},
        {"-machine q35,deterministc=on", "'deterministic'"},
        {"-machine time=vitrual", "'virtual'"},
        {"-machine deterministic=onn", "'on'"},
        {"-machine boot=phv", "'pvh'"},
        {"-accel sotf", "'soft'"},
        {"-sandbox onn", "'on'"},
        {"-sandbox on,spawn=allow", "-sandbox off"},
        {"-sandbox on,spwan=deny", "'spawn'"},
        {"-machine accel=kvn", "'kvm'"},
        {"-cpu maxx", "'max'"},
        {"-cpu max,x2apci=off", "'x2apic'"},
        {"-smp 4,socket=2", "'sockets'"},
        {"-m 4G,slot=2", "'size'"},
        {"-serial stdoi", "'stdio'"},
        {"-device isa-debug-exit,iobas=1", "'iobase'"},
        {"-device pc-testdve", "'pc-testdev'"},
        {"-device intel-iomu", "'intel-iommu'"},
        {"-device intel-iommu,intermap=on", "'intremap'"},
        {"-name x,debug-thread=on", "'debug-threads'"},
        {"-d irk", "'irq'"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cli *x = parse(cases[i].line);
        assert_int_equal(x->result, OPTIONS_BAD);
        if (!strstr(x->e.msg, cases[i].says))
            fail_msg("%s: '%s' does not name %s", cases[i].line, x->e.msg, cases[i].says);
        assert_null(strchr(x->e.msg, '\n'));
        done(x);
    }
}

static void nonsense_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "vmlinuz",
        "-kernel",
        "-nographic",
        "-kernel k -nographic -d irq,json",
        "-kernel k -smp",
        "-kernel k -smp 0",
        "-kernel k -smp 32769",
        "-kernel k -smp -1",
        "-kernel k -smp 4x",
        "-kernel k -smp 4,cores=3",
        "-kernel k -smp cpus=8,maxcpus=4",
        "-kernel k -smp sockets=32768,dies=32768,cores=32768,threads=32768",
        "-kernel k -m 0",
        "-kernel k -m 1M",
        "-kernel k -m 4X",
        "-kernel k -m -4G",
        "-kernel k -m 99999999999999999999",
        "-kernel k -m 18446744073709551615G",
        "-kernel k -machine apic-ids=",
        "-kernel k -machine apic-ids=5-3",
        "-kernel k -machine apic-ids=32768",
        "-kernel k -machine apic-ids=0-32767,1",
        "-kernel k -machine apic-ids=99999999999999999999",
        "-kernel k -machine apic-ids=1-",
        "-kernel k -machine workers=0",
        "-kernel k -machine workers=1e3",
        "-kernel k -machine smm=on",
        "-kernel k -serial stdio -serial null",
        "-kernel k -serial file:",
        "-kernel k -serial unix:",
        "-kernel k -serial unix:/tmp/x,server=off",
        "-kernel k -serial unix:/tmp/x,wait=on",
        "-kernel k -display gtk",
        "-kernel k -device pc-testdev,a=b",
        "-kernel k -device intel-iommu,aw-bits=38",
        "-kernel k -device intel-iommu -device intel-iommu",
        "-kernel k -device isa-debug-exit,iobase=0x10000",
        "-kernel k -accel kvm:",
        "-kernel k -accel soft:soft:soft:soft:soft",
        "-kernel k -name 0123456789012345678901234567890123456789012345678901234567890123456789",
    };
    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct cli *x = parse(lines[i]);
        if (x->result != OPTIONS_BAD)
            fail_msg("'%s' was accepted", lines[i]);
        assert_true(x->e.msg[0]);
        done(x);
    }
}

static void long_items_are_refused(void **state)
{
    char line[20000];
    memset(line, 'a', sizeof line);
    memcpy(line, "-machine ", 9);
    line[sizeof line - 1] = 0;
    struct cli *x = parse(line);
    assert_int_equal(x->result, OPTIONS_BAD);
    done(x);
}

static void help_is_whole_and_fits(void **state)
{
    static const char *const lists[] = {"-h",        "-help",     "-version", "-machine help", "-accel help",
                                        "-smp help", "-cpu help", "-d help",  "-device help",  "-serial help"};
    static const char *const words[] = {"-machine",   "-accel",       "-cpu",    "-smp",    "-m ",        "-name",
                                        "-kernel",    "-initrd",      "-append", "-serial", "-nographic", "-device",
                                        "-no-reboot", "-no-shutdown", "-d ",     "-D ",     "-h",         "-version"};
    for (unsigned i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct cli *x = parse(lists[i]);
        assert_int_equal(x->result, OPTIONS_DONE);
        assert_true(x->printed_n > 0 && x->printed[x->printed_n - 1] == '\n');
        for (char *l = x->printed, *end; *l; l = end + 1) {
            end = strchr(l, '\n');
            if (end - l > 80)
                fail_msg("%s: %.*s", lists[i], (int)(end - l), l);
        }
        for (unsigned w = 0; i == 0 && w < sizeof words / sizeof words[0]; w++)
            if (!strstr(x->printed, words[w]))
                fail_msg("-h does not tell of %s", words[w]);
        done(x);
    }
}

static void the_status_line_fits_and_makes_way(void **state)
{
    struct vm_stats st = {
        .cpus = 300, .cpus_started = 42, .guest_ns = 1234567890, .host_ns = 1000000000, .instructions = 500000000};
    char buf[200], *text = NULL;
    size_t n;
    assert_true(status_format(buf, sizeof buf, &st, 5e8, 120) < 120);
    assert_non_null(strstr(buf, "42 of 300"));
    assert_non_null(strstr(buf, "1.2 s"));
    assert_non_null(strstr(buf, "500 M"));
    assert_int_equal(status_format(buf, sizeof buf, &st, 5e8, 20), 19);
    FILE *out = open_memstream(&text, &n);
    struct status s = {.out = out, .on = true, .columns = 80};
    status_show(&s, &st);
    assert_true(s.shown);
    status_show(&s, NULL);
    assert_false(s.shown);
    status_erase(&s);
    fclose(out);
    assert_string_equal(text + n - 4, "\r\033[K");
    assert_null(strchr(text, '\n'));
    free(text);
}

static void no_status_line_where_others_write(void **state)
{
    struct cli *x = good("-kernel k");
    struct status s;
    FILE *file = tmpfile();
    status_init(&s, &x->c, file); /* not a terminal */
    assert_false(s.on);
    assert_null(x->c.progress);
    fclose(file);
    done(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_users_line_is_understood),
        cmocka_unit_test(every_option_reaches_the_configuration),
        cmocka_unit_test(an_iommu_as_in_qemu),
        cmocka_unit_test(habits_from_qemu_are_understood),
        cmocka_unit_test(mistakes_name_the_nearest_word),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(long_items_are_refused),
        cmocka_unit_test(help_is_whole_and_fits),
        cmocka_unit_test(the_status_line_fits_and_makes_way),
        cmocka_unit_test(no_status_line_where_others_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
