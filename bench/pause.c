/* ms to make a machine of 1024 vCPUs, and to pause it and let it go on, on each engine this host has. The boot CPU
 * starts all others, and all halt: on KVM each then sits in the host's kernel. */
#include "cpu/kvm/kvm.h"
#include "vm/accel.h"
#include "vm/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CPUS   1024u
#define ROUNDS 21u
#define LOAD   0x100000u

/* Multiboot header (its addresses follow), then code for a boot CPU in x2APIC mode: HLT; JMP back to 8000h, INIT and
 * SIPI to all others there, and the same at the end. */
static const uint8_t image[] = {
    0x02, 0xb0, 0xad, 0x1b, 0x00, 0x00, 0x01, 0x00, 0xfe, 0x4f, 0x51, 0xe4, /* magic, flags 10000h, checksum */
    0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, /* header, load, to the file's end */
    0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x10, 0x00,                         /* no bss, entry */
    0xc7, 0x05, 0x00, 0x80, 0x00, 0x00, 0xf4, 0xeb, 0xfd, 0x00,             /* movl $fdebf4h, 8000h */
    0xb9, 0x30, 0x08, 0x00, 0x00,                                           /* movl $830h, %ecx: ICR */
    0x31, 0xd2,                                                             /* xorl %edx, %edx */
    0xb8, 0x00, 0x45, 0x0c, 0x00, 0x0f, 0x30,                               /* INIT, all but self */
    0xb8, 0x08, 0x46, 0x0c, 0x00, 0x0f, 0x30,                               /* SIPI to page 8 */
    0xf4, 0xeb, 0xfd                                                        /* hlt; jmp */
};

static double now_ms(void)
{
    return (double)clock_host_ns() / 1e6;
}

static struct vm_config config(enum vm_accel engine)
{
    struct vm_config c;
    struct err e = {""};
    vm_config_init(&c);
    c.smp = (struct vm_smp){.cpus = CPUS};
    c.engine = engine;
    c.kernel = "(a bench payload)";
    c.image = image;
    c.image_size = sizeof image;
    c.mem_size = UINT64_C(64) << 20;
    if (vm_config_topology(&c.smp, &e) || accel_raise_limits(&c, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    return c;
}

static void wait_until_all_run(struct machine *m)
{
    struct vm_stats s = {.cpus_started = 0};
    const struct timespec nap = {.tv_nsec = 20000000};
    for (unsigned i = 0; i < 500 && s.cpus_started < CPUS; i++) {
        nanosleep(&nap, NULL);
        machine_stats(m, &s);
    }
    if (s.cpus_started < CPUS)
        printf("(%u of %u vCPUs have started) ", s.cpus_started, CPUS);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int pause_and_go_on(struct machine *m, double ms[ROUNDS], struct err *e)
{
    int rc = 0;
    for (unsigned i = 0; i < ROUNDS && !rc; i++) {
        double t = now_ms();
        machine_stop(m);
        rc = machine_start(m, e);
        ms[i] = now_ms() - t;
    }
    qsort(ms, ROUNDS, sizeof *ms, by_size);
    return rc;
}

static void measure(enum vm_accel engine)
{
    struct vm_config c = config(engine);
    struct machine *m = NULL;
    struct err e = {""};
    double ms[ROUNDS], t = now_ms(), made;
    int rc = machine_create(&c, &m, &e);
    rc = rc ? rc : machine_boot(m, &e);
    rc = rc ? rc : machine_prepare(m, &e);
    made = now_ms() - t;
    rc = rc ? rc : machine_start(m, &e);
    if (!rc) {
        wait_until_all_run(m);
        rc = pause_and_go_on(m, ms, &e);
        machine_stop(m);
    }
    if (rc)
        printf("%-6s %s\n", accel_engine(engine)->name, e.msg);
    else
        printf("%-6s %8.1f %16.2f %8.2f %8.2f\n", accel_engine(engine)->name, made, ms[0], ms[ROUNDS / 2],
               ms[ROUNDS - 1]);
    if (m)
        machine_destroy(m);
    vm_config_fini(&c);
}

int main(void)
{
    struct kvm_probe p;
    struct err e = {""};
    kvm_probe(&p);
    printf("%u vCPUs, ms\n%-6s %8s %16s %8s %8s\n", CPUS, "", "create", "pause+go on: min", "median", "max");
    measure(VM_ACCEL_SOFT);
    if (kvm_probe_check(&p, CPUS, CPUS - 1, &e))
        printf("kvm    %s\n", e.msg);
    else
        measure(VM_ACCEL_KVM);
    return 0;
}
