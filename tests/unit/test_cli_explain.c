/* hecaton explain: the way of messages, entries and ICR values, on machines whose IDs have holes. */
#include "cli/explain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the command printed, and its status. */
static char *explain(int *status, const char *line)
{
    char *text = NULL, *copy = strdup(line), *argv[64] = {"explain"};
    size_t size = 0;
    int argc = 1;
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    FILE *out = open_memstream(&text, &size);
    *status = command_explain(argc, argv, out);
    fclose(out);
    free(copy);
    return text;
}

static void expect(const char *line, const char *const *want)
{
    int status;
    char *text = explain(&status, line);
    for (; *want; want++)
        if (!strstr(text, *want))
            fail_msg("explain %s: no '%s' in:\n%s", line, *want, text);
    assert_int_equal(status, 0);
    free(text);
}

#define EXPECT(line, ...) expect(line, (const char *const[]){__VA_ARGS__, NULL})
#define HOLES             " -- -machine apic-ids=0,3,255-300,777"

static void test_msi(void **state)
{
    EXPECT("msi fee2b020 4024" HOLES, "format    extended destination", "destination 12Bh (299)",
           "taken by  CPU 46 (APIC ID 299, 12Bh): vector 24h");
    EXPECT("msi 0xfee03000 0x31" HOLES, "format    compatibility", "taken by  CPU 1 (APIC ID 3, 3h): vector 31h");
    EXPECT("msi fee05000 31" HOLES, "taken by  nobody", "no CPU has APIC ID 5 (5h); the highest is 777");
    EXPECT("msi fee09060 400" HOLES, "taken by  CPU 48 (APIC ID 777, 309h): NMI");
    EXPECT("msi fee03000 5" HOLES, "nobody", "illegal");
    EXPECT("msi fee03000 31 00:1f.2" HOLES, "from 00:1f.2");
}

static void test_msi_faults(void **state)
{
    EXPECT("msi fed00000 31", "fault     01h", "an ordinary memory write");
    EXPECT("msi 100fee00000 31" HOLES, "fault     03h", "address bits past 31", "(100h)");
    EXPECT("msi fee00000 341", "fault     02h");
    EXPECT("msi fee00018 0", "bit 4 asks for remapping, but no unit remaps", "-device intel-iommu");
}

/* The remedy for a machine that does not offer what the sender counts on. */
static void test_not_offered(void **state)
{
    EXPECT("msi fee2b020 24 -- -smp 50 -cpu max,kvm-msi-ext-dest-id=off", "format    compatibility",
           "does not offer ext-dest-id", "taken by  CPU 43 (APIC ID 43, 2Bh): vector 24h", "APIC ID 299 (12Bh)",
           "kvm-msi-ext-dest-id=on");
}

static void test_broadcast(void **state)
{
    EXPECT("msi feeff000 31 xapic -- -smp 6,sockets=1,cores=6", "taken by  CPUs 0-5 (APIC IDs 0-5, 0h-5h): vector 31h",
           "everyone in xAPIC mode");
    EXPECT("msi feeff000 31" HOLES, "taken by  CPU 2 (APIC ID 255, FFh): vector 31h");
    EXPECT("msi fee05004 31 xapic -- -smp 4", "logical destination 5h", "CPU 0 (", "CPU 2 (");
}

/* The unit's own look-up names the entry, and takes the one that is given. */
static void test_remapped(void **state)
{
#define INTEL " -- -smp 300 -device intel-iommu,intremap=on,eim=on"
    EXPECT("msi fee245dc 3" INTEL, "entry     37425 (9231h)", "data 15:0", "base + 92310h", "remappable",
           "irte=HIGH:LOW");
    EXPECT("msi fee245d4 3 irte=0:12b00310001" INTEL, "entry     37422 (922Eh)",
           "taken by  CPU 299 (APIC ID 299, 12Bh): vector 31h");
    EXPECT("msi fee00018 5 irte=0:12b00310000" INTEL, "entry     5 (5h)", "fault     22h", "not present");
    EXPECT("msi fee00018 5 00:03.0 irte=40100:12b00310001" INTEL, "fault     26h", "remedy");
    EXPECT("msi fee2b000 31" INTEL, "fault     25h", "remedy    write the remappable format");
    EXPECT("rte 000b000000000031 irte=0:700410001" INTEL, "entry     5 (5h)", "CPU 7 (APIC ID 7, 7h): vector 41h");
    EXPECT("msi fee00018 5 irte=0:70000310001 -- -smp 20 -device intel-iommu,intremap=on,eim=off", "entry     5 (5h)",
           "CPU 7 (APIC ID 7, 7h): vector 31h");
    EXPECT("msi fee00000 1f 00:02.0 irte=0000000000000031:0000000000012b01 -- -smp 300 -device amd-iommu,xtsup=on",
           "entry     31 (1Fh)", "CPU 299 (APIC ID 299, 12Bh): vector 31h");
    EXPECT("msi fee00000 1f 00:02.0 -- -smp 300 -device amd-iommu,xtsup=on", "base + 1F0h", "irte=HIGH:LOW");
}

static void test_rte(void **state)
{
    EXPECT("rte 2b02000000000024" HOLES, "entry 55:49", "from 00:14.0", "taken by  CPU 46 (APIC ID 299, 12Bh)");
    EXPECT("rte 2b02000000010024 -- -smp 50 -cpu max,kvm-msi-ext-dest-id=off", "is what this machine's I/O APIC keeps",
           "masked", "taken by  CPU 43");
}

static void test_icr(void **state)
{
    EXPECT("icr 12b00004500" HOLES, "written by CPU 0 in x2APIC mode", "taken by  CPU 46 (APIC ID 299, 12Bh): INIT");
    EXPECT("icr c0031" HOLES, "CPU 1 (APIC ID 3, 3h): vector 31h", "CPUs 2-47 (APIC IDs 255-300",
           "CPU 48 (APIC ID 777");
    EXPECT("icr ffffffff00000031" HOLES, "CPU 0 (", "CPU 48 (", "everyone in x2APIC mode");
    EXPECT("icr 0300000000000031 xapic -- -machine apic-ids=0,3,9", "in xAPIC mode", "taken by  CPU 1 (APIC ID 3");
    EXPECT("icr 102000" HOLES, "#GP");
    EXPECT("icr 100000021" HOLES, "taken by  nobody", "no CPU has APIC ID 1 (1h)");
    EXPECT("icr 1200000821" HOLES, "no APIC's logical ID");
    EXPECT("icr 1210000000821" HOLES, "nobody");
}

static void test_usage(void **state)
{
    static const char *const wrong[] = {"",
                                        "ms 0 0",
                                        "msi",
                                        "msi fee00000",
                                        "msi fee00000 100000000",
                                        "rte 0x",
                                        "icr 0 x3apic",
                                        "msi 0 0 z",
                                        "icr -1",
                                        "icr 0 -- -smp 0",
                                        "rte 10000000000000000"};
    int status;
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        free(explain(&status, wrong[i]));
        assert_int_equal(status, 2);
    }
    free(explain(&status, "icr 0 x2apic -- -cpu max,x2apic=off"));
    assert_int_equal(status, 1);
    EXPECT("-h", "hecaton explain msi");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msi),       cmocka_unit_test(test_msi_faults), cmocka_unit_test(test_not_offered),
        cmocka_unit_test(test_broadcast), cmocka_unit_test(test_remapped),   cmocka_unit_test(test_rte),
        cmocka_unit_test(test_icr),       cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
