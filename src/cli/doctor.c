#include "cli/doctor.h"

#include "base/bits.h"
#include "cli/command.h"
#include "cpu/kvm/kvm.h"
#include "vm/accel.h"
#include "vm/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#define DEFAULT_CPUS 300
#define MIB          (UINT64_C(1) << 20)
#define GIB          (UINT64_C(1) << 30)

/* What the engine takes besides guest memory, measured while Debian boots: caches and the machine, then each CPU's
 * share. */
#define ENGINE_BASE (UINT64_C(24) << 20)
#define ENGINE_CPU  (UINT64_C(64) << 10)

static void line(FILE *out, const char *head, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void line(FILE *out, const char *head, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(out, "  %-15s ", head);
    vfprintf(out, fmt, ap);
    putc('\n', out);
    va_end(ap);
}

/* "3.9 GiB", "512 MiB", "no limit" */
static const char *size_text(uint64_t bytes, char buf[32])
{
    if (bytes == HOST_UNLIMITED)
        snprintf(buf, 32, "no limit");
    else if (bytes >= 10 * GIB)
        snprintf(buf, 32, "%llu GiB", (unsigned long long)(bytes / GIB));
    else if (bytes >= GIB)
        snprintf(buf, 32, "%llu.%llu GiB", (unsigned long long)(bytes / GIB),
                 (unsigned long long)(bytes % GIB * 10 / GIB));
    else
        snprintf(buf, 32, "%llu MiB", (unsigned long long)(bytes / MIB));
    return buf;
}

static const char *count_text(uint64_t n, char buf[32])
{
    snprintf(buf, 32, n == HOST_UNLIMITED ? "no limit" : "%llu", (unsigned long long)n);
    return buf;
}

/* ---- the host ---- */

void doctor_host(FILE *out, const struct host *h)
{
    char a[32], b[32];
    fputs("Host\n", out);
    line(out, "kernel", "%s%s", h->kernel, h->hypervisor ? ", in a virtual machine itself" : "");
    line(out, "CPUs", "%u, %u usable by this process%s%s", h->cpus, h->cpus_usable, h->cpu[0] ? ": " : "", h->cpu);
    line(out, "memory", "%s, %s available", size_text(h->mem_total, a), size_text(h->mem_available, b));
    if (h->mem_limit != HOST_UNLIMITED)
        line(out, "control group", "%s of memory left before its limit", size_text(h->mem_limit, a));
    line(out, "address space", "%s (ulimit -v)%s", size_text(h->limit_as, a),
         h->overcommit == 2 ? "; vm.overcommit_memory=2: all guest memory is committed at once" : "");
    line(out, "processes", "%s (ulimit -u): hecaton needs a thread a host CPU; KVM one a vCPU",
         count_text(h->limit_nproc, a));
    line(out, "open files", "%s (ulimit -n), %s at most (ulimit -Hn): KVM needs one a vCPU",
         count_text(h->limit_nofile, a), count_text(h->limit_nofile_hard, b));
}

/* ---- the built-in engine ---- */

/* The machine as a user would ask for it. */
static struct vm_config plain_machine(uint32_t n)
{
    struct vm_config c;
    vm_config_init(&c);
    c.smp = (struct vm_smp){.cpus = n};
    c.mem_size = max_u64(vm_config_linux_mem(n), VM_MEM_DEFAULT);
    c.kernel = "vmlinuz";
    return c;
}

/* Judged by the same check as a run. */
static bool config_works(FILE *out, uint32_t n)
{
    struct err e = {{0}};
    struct vm_config c = plain_machine(n);
    bool ok = !vm_config_topology(&c.smp, &e) && !config_check(&c, &e);
    if (ok)
        line(out, "machine", "%u CPUs, APIC IDs up to %u%s", n, vm_config_max_id(&c),
             vm_config_max_id(&c) > 254 ? ": x2APIC, 15-bit destination IDs (ext-dest-id)" : "");
    else
        line(out, "machine", "refused: %s", e.msg);
    vm_config_fini(&c);
    return ok;
}

bool doctor_engine(FILE *out, const struct host *h, uint32_t n)
{
    char a[32], b[32], c[32], d[32];
    uint64_t guest = vm_config_linux_mem(n), engine = ENGINE_BASE + n * ENGINE_CPU, have = host_memory(h);
    fprintf(out, "hecaton's own engine (needs no KVM, no privilege), %u CPUs\n", n);
    bool ok = config_works(out, n);
    bool fits = guest + engine <= have, mapped = guest + engine <= h->limit_as;
    line(out, "memory", "%s for Linux (-m), %s for the engine: %s, and %s %s", size_text(guest, a),
         size_text(engine, b), size_text(guest + engine, c), size_text(have, d), fits ? "is there" : "is all there is");
    if (!fits)
        line(out, "remedy", "fewer CPUs, more memory, or swap (%s free)", size_text(h->swap_free, a));
    if (!mapped)
        line(out, "remedy", "raise the address space limit: ulimit -v unlimited");
    line(out, "time", "%s",
         n > h->cpus_usable ? "virtual: guest time counts instructions, as CPUs share host CPUs"
                            : "real: a host CPU for each");
    line(out, "verdict", "%s", ok && mapped ? fits ? "works" : "starts, but will be short of memory" : "does not work");
    return ok && mapped;
}

/* ---- which of the two ---- */

static const char *reason(const struct vm_config *c, const struct kvm_probe *p, const struct err *said)
{
    if (said->msg[0])
        return said->msg;
    if (c->engine == VM_ACCEL_KVM)
        return "this host's KVM runs unmodified guests";
    if (p->open_errno)
        return "/dev/kvm does not open";
    return "this host's KVM is one in software, which runs no unmodified kernel; -accel kvm takes it all the same, for "
           "bare-metal programs";
}

void doctor_choice(FILE *out, const struct kvm_probe *p, uint32_t n)
{
    struct err said = {{0}}, e = {{0}};
    struct vm_config c = plain_machine(n);
    fprintf(out, "Without -accel, %u CPUs\n", n);
    if (vm_config_topology(&c.smp, &e) || accel_choose(&c, p, &said, &e)) {
        line(out, "engine", "none: %s", e.msg);
    } else {
        line(out, "engine", "%s", c.engine == VM_ACCEL_KVM ? "KVM" : "hecaton's own");
        line(out, "because", "%s", reason(&c, p, &said));
    }
    vm_config_fini(&c);
}

/* ---- the command ---- */

static int count(const char *s, uint32_t *n, struct err *e)
{
    char *end;
    unsigned long v = strtoul(s, &end, 10);
    if (*s < '0' || *s > '9' || *end || !v || v > VM_CPUS_MAX)
        return err_set(e, -EINVAL, "doctor: '%s' is not a number of CPUs from 1 to %u", s, VM_CPUS_MAX);
    *n = (uint32_t)v;
    return 0;
}

static int report(FILE *out, uint32_t n)
{
    struct host h;
    struct host_kvm k;
    struct kvm_probe p;
    host_read(&h, "");
    host_kvm_read(&k, "/dev/kvm");
    doctor_host(out, &h);
    putc('\n', out);
    bool ok = doctor_engine(out, &h, n);
    putc('\n', out);
    doctor_kvm(out, &h, &k, n);
    putc('\n', out);
    kvm_probe(&p);
    doctor_choice(out, &p, n);
    putc('\n', out);
    doctor_settings(out, n);
    return ok ? 0 : EXIT_RUNTIME;
}

int command_doctor(int argc, char **argv, FILE *out)
{
    struct err e = {{0}};
    uint32_t n = DEFAULT_CPUS;
    if (argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "-help") || !strcmp(argv[1], "--help"))) {
        fputs("hecaton doctor [N]\n"
              "What this host can do: CPUs, memory, limits, KVM and its limits; and the settings that\n"
              "bring up N (300) CPUs with hecaton, QEMU and libvirt. Needs no privilege.\n"
              "Exit status 1: hecaton can't run N CPUs here.\n",
              out);
        return 0;
    }
    if (argc > 2 || (argc == 2 && count(argv[1], &n, &e)))
        return err_set(&e, -EINVAL, "doctor: give one number of CPUs, or none"), complain(&e, EXIT_USAGE);
    return report(out, n);
}
