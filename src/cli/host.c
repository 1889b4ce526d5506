#include "cli/host.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

static FILE *open_at(const char *root, const char *path)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    return fopen(full, "re");
}

/* First line of a file, without its newline. */
static bool first_line(const char *root, const char *path, char *buf, size_t size)
{
    FILE *f = open_at(root, path);
    bool ok = f && fgets(buf, (int)size, f);
    if (f)
        fclose(f);
    if (ok)
        buf[strcspn(buf, "\n")] = 0;
    return ok;
}

static bool has_word(const char *line, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = line; (s = strstr(s, word)); s += n)
        if ((s == line || s[-1] == ' ' || s[-1] == '\t') && strchr(" \t\n", s[n]))
            return true;
    return false;
}

/* ---- /proc ---- */

static void read_cpuinfo(struct host *h, const char *root)
{
    FILE *f = open_at(root, "/proc/cpuinfo");
    char *line = NULL;
    size_t size = 0;
    while (f && getline(&line, &size, f) > 0) {
        char *val = strchr(line, ':');
        h->cpus += !strncmp(line, "processor", 9);
        if (!val || h->cpus > 1)
            continue;
        if (!strncmp(line, "model name", 10))
            snprintf(h->cpu, sizeof h->cpu, "%.*s", (int)strcspn(val + 2, "\n"), val + 2);
        if (!strncmp(line, "flags", 5)) {
            h->vmx = has_word(val + 1, "vmx");
            h->svm = has_word(val + 1, "svm");
            h->hypervisor = has_word(val + 1, "hypervisor");
        }
    }
    free(line);
    if (f)
        fclose(f);
}

static void read_meminfo(struct host *h, const char *root)
{
    FILE *f = open_at(root, "/proc/meminfo");
    char line[256];
    unsigned long long kib;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %llu", &kib) == 1)
            h->mem_total = kib << 10;
        else if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            h->mem_available = kib << 10;
        else if (sscanf(line, "SwapFree: %llu", &kib) == 1)
            h->swap_free = kib << 10;
    }
    if (f)
        fclose(f);
}

/* ---- control groups ---- */

/* A limit less what is used of it, lowered into *limit. */
static void limit_of(const char *root, const char *dir, const char *max_name, const char *used_name, uint64_t *limit)
{
    char path[512], text[64];
    uint64_t max = 0, used = 0;
    snprintf(path, sizeof path, "%.400s/%s", dir, max_name);
    if (!first_line(root, path, text, sizeof text) || *text < '0' || *text > '9')
        return;
    max = strtoull(text, NULL, 10);
    snprintf(path, sizeof path, "%.400s/%s", dir, used_name);
    if (first_line(root, path, text, sizeof text))
        used = strtoull(text, NULL, 10);
    if (max < UINT64_C(1) << 60)
        *limit = min_u64(*limit, max > used ? max - used : 0);
}

/* Every group from ours up to the root may have a limit. */
static void limits_up(const char *root, const char *mount, char *group, bool v2, uint64_t *limit)
{
    char dir[512];
    for (;;) {
        snprintf(dir, sizeof dir, "%s%.300s", mount, group);
        limit_of(root, dir, v2 ? "memory.max" : "memory.limit_in_bytes",
                 v2 ? "memory.current" : "memory.usage_in_bytes", limit);
        char *slash = strrchr(group, '/');
        if (!slash || !group[1])
            return;
        slash[slash == group] = 0;
    }
}

static void read_cgroups(struct host *h, const char *root)
{
    FILE *f = open_at(root, "/proc/self/cgroup");
    char line[512];
    h->mem_limit = HOST_UNLIMITED;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        if (!controllers[1])
            limits_up(root, "/sys/fs/cgroup", group, true, &h->mem_limit);
        else if (!strcmp(controllers + 1, "memory"))
            limits_up(root, "/sys/fs/cgroup/memory", group, false, &h->mem_limit);
    }
    if (f)
        fclose(f);
}

/* ---- KVM's modules ---- */

static void read_modules(struct host *h, const char *root)
{
    FILE *f = open_at(root, "/proc/modules");
    char line[512], name[64];
    size_t n = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s", name) == 1 && !strncmp(name, "kvm", 3) && n < sizeof h->kvm_modules)
            n += (size_t)snprintf(h->kvm_modules + n, sizeof h->kvm_modules - n, "%s%s", n ? " " : "", name);
    if (f)
        fclose(f);
}

static void read_parameter(const char *root, const char *module, const char *name, char *out, size_t size)
{
    char path[256], val[32];
    snprintf(path, sizeof path, "/sys/module/%s/parameters/%s", module, name);
    if (first_line(root, path, val, sizeof val))
        snprintf(out, size, "%s %s=%s", module, name, val);
}

static void read_kvm_modules(struct host *h, const char *root)
{
    read_modules(h, root);
    read_parameter(root, "kvm_intel", "enable_apicv", h->apicv, sizeof h->apicv);
    read_parameter(root, "kvm_amd", "avic", h->apicv, sizeof h->apicv);
    read_parameter(root, "kvm_intel", "nested", h->nested, sizeof h->nested);
    read_parameter(root, "kvm_amd", "nested", h->nested, sizeof h->nested);
    FILE *f = open_at(root, "/sys/kernel/tracing/events/kvm/kvm_apicv_inhibit_changed/id");
    h->inhibit_event = f != NULL;
    if (f)
        fclose(f);
}

static uint64_t rlimit_of(int what)
{
    struct rlimit r;
    return getrlimit((__rlimit_resource_t)what, &r) || r.rlim_cur == RLIM_INFINITY ? HOST_UNLIMITED : r.rlim_cur;
}

void host_read(struct host *h, const char *root)
{
    struct utsname u;
    cpu_set_t set;
    char text[32];
    *h = (struct host){0};
    if (!uname(&u))
        snprintf(h->kernel, sizeof h->kernel, "%.20s %.70s", u.sysname, u.release);
    read_cpuinfo(h, root);
    h->cpus_usable = sched_getaffinity(0, sizeof set, &set) ? h->cpus : (unsigned)CPU_COUNT(&set);
    read_meminfo(h, root);
    read_cgroups(h, root);
    read_kvm_modules(h, root);
    if (first_line(root, "/proc/sys/vm/overcommit_memory", text, sizeof text))
        h->overcommit = (unsigned)strtoul(text, NULL, 10);
    h->limit_as = rlimit_of(RLIMIT_AS);
    h->limit_nproc = rlimit_of(RLIMIT_NPROC);
    h->limit_nofile = rlimit_of(RLIMIT_NOFILE);
    struct rlimit files;
    bool unlimited = getrlimit(RLIMIT_NOFILE, &files) || files.rlim_max == RLIM_INFINITY;
    h->limit_nofile_hard = unlimited ? HOST_UNLIMITED : files.rlim_max;
}

/* ---- /dev/kvm ---- */

static int extension(int fd, long cap)
{
    int v = ioctl(fd, KVM_CHECK_EXTENSION, cap);
    return v < 0 ? -errno : v;
}

static int enable(int vm, uint32_t cap, uint64_t arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};
    return ioctl(vm, KVM_ENABLE_CAP, &c) < 0 ? errno : 0;
}

void host_kvm_read(struct host_kvm *k, const char *path)
{
    *k = (struct host_kvm){0};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        k->open_errno = errno;
        return;
    }
    k->api_version = ioctl(fd, KVM_GET_API_VERSION, 0L);
    k->nr_vcpus = extension(fd, KVM_CAP_NR_VCPUS);
    k->max_vcpus = extension(fd, KVM_CAP_MAX_VCPUS);
    k->max_vcpu_id = extension(fd, KVM_CAP_MAX_VCPU_ID);
    k->split = extension(fd, KVM_CAP_SPLIT_IRQCHIP);
    k->x2apic_api = extension(fd, KVM_CAP_X2APIC_API);
    int vm = ioctl(fd, KVM_CREATE_VM, 0L);
    k->vm_errno = vm < 0 ? errno : 0;
    if (vm >= 0) {
        k->split_errno = enable(vm, KVM_CAP_SPLIT_IRQCHIP, 24);
        k->x2apic_errno =
            enable(vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
        close(vm);
    }
    close(fd);
}
