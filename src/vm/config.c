#include "vm/config.h"

#include "cpu/cpuid.h"
#include "cpu/kvm/kvm.h"
#include "vm/accel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define MIB (UINT64_C(1) << 20)

/* What Linux takes: measured 1.9 MiB a CPU. Refused is only what can't do, less than half of that. */
#define LINUX_CPU_KIB       1946
#define LINUX_BASE_MIB      96
#define IMPOSSIBLE_CPU_KIB  768
#define IMPOSSIBLE_BASE_MIB 40

void vm_config_init(struct vm_config *c)
{
    *c = (struct vm_config){
        .smp = {.cpus = 1, .maxcpus = 1, .sockets = 1, .dies = 1, .cores = 1, .threads = 1},
        .mem_size = VM_MEM_DEFAULT,
        .iommu = {.intremap = true, .dma_translation = true, .aw_bits = 48},
        .debug_exit_base = 0xf4,
        .debug_exit_size = 4,
    };
}

void vm_config_fini(struct vm_config *c)
{
    free(c->apic_ids);
    for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
        free(c->serial[i].spec);
    vm_devices_fini(&c->dev);
    *c = (struct vm_config){0};
}

/* ---- topology ---- */

static void fill_topology(struct vm_smp *s)
{
    uint32_t packages = s->sockets ? s->sockets : 1;
    if (!s->cores) {
        s->sockets = packages;
        uint64_t socket_dies = (uint64_t)packages * s->dies;
        if (!s->threads)
            s->threads = s->maxcpus % (socket_dies * 2) == 0 ? 2 : 1;
        s->cores = (uint32_t)(s->maxcpus / (socket_dies * s->threads));
    } else if (!s->sockets) {
        s->threads = s->threads ? s->threads : 1;
        s->sockets = (uint32_t)(s->maxcpus / ((uint64_t)s->dies * s->cores * s->threads));
    } else if (!s->threads) {
        s->threads = (uint32_t)(s->maxcpus / ((uint64_t)s->sockets * s->dies * s->cores));
    }
}

static int too_many(struct err *e)
{
    return err_set(e, -EINVAL, "-smp: more than %u CPUs: 15-bit destination IDs name no more", VM_CPUS_MAX);
}

int vm_config_topology(struct vm_smp *s, struct err *e)
{
    if (s->sockets > VM_CPUS_MAX || s->dies > VM_CPUS_MAX || s->cores > VM_CPUS_MAX || s->threads > VM_CPUS_MAX ||
        s->cpus > VM_CPUS_MAX || s->maxcpus > VM_CPUS_MAX)
        return too_many(e);
    s->dies = s->dies ? s->dies : 1;
    if (!s->cpus && !s->maxcpus) {
        uint64_t packages = (uint64_t)(s->sockets ? s->sockets : 1) * s->dies;
        uint64_t pairs = (uint64_t)(s->cores ? s->cores : 1) * (s->threads ? s->threads : 1);
        if (packages > VM_CPUS_MAX || pairs > VM_CPUS_MAX || packages * pairs > VM_CPUS_MAX)
            return too_many(e);
        s->cpus = (uint32_t)(packages * pairs);
    }
    if (!s->maxcpus)
        s->maxcpus = s->cpus;
    if (!s->cpus)
        s->cpus = s->maxcpus;
    if (s->maxcpus < s->cpus)
        return err_set(e, -EINVAL, "-smp: maxcpus=%u is less than cpus=%u: raise maxcpus", s->maxcpus, s->cpus);
    fill_topology(s);
    uint64_t pairs = (uint64_t)s->cores * s->threads, dies = (uint64_t)s->sockets * s->dies;
    if (dies > VM_CPUS_MAX || pairs > VM_CPUS_MAX || dies * pairs != s->maxcpus)
        return err_set(
            e, -EINVAL,
            "-smp: sockets (%u) x dies (%u) x cores (%u) x threads (%u) is not the number of CPUs (%u): make "
            "the product match, or leave some out",
            s->sockets, s->dies, s->cores, s->threads, s->maxcpus);
    return 0;
}

/* Bits that hold 0 .. n-1. */
static unsigned width(uint32_t n)
{
    return n > 1 ? 32 - (unsigned)__builtin_clz(n - 1) : 0;
}

static uint32_t topology_id(const struct vm_smp *s, uint32_t i)
{
    uint32_t thread = i % s->threads, core = i / s->threads % s->cores;
    uint32_t die = i / s->threads / s->cores % s->dies, socket = i / s->threads / s->cores / s->dies;
    uint64_t id = socket;
    id = id << width(s->dies) | die;
    id = id << width(s->cores) | core;
    id = id << width(s->threads) | thread;
    return id > UINT32_MAX ? UINT32_MAX : (uint32_t)id;
}

/* A list that is too short is config_check()'s to refuse. */
static uint32_t id_of(const struct vm_config *c, uint32_t i)
{
    if (c->apic_ids)
        return i < c->apic_ids_n ? c->apic_ids[i] : 0;
    return topology_id(&c->smp, i);
}

void vm_config_ids(const struct vm_config *c, apic_id_t *ids)
{
    for (uint32_t i = 0; i < c->smp.cpus; i++)
        ids[i] = APIC_ID(id_of(c, i));
}

uint32_t vm_config_max_id(const struct vm_config *c)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < c->smp.cpus; i++)
        max = id_of(c, i) > max ? id_of(c, i) : max;
    return max;
}

bool vm_config_firmware_x2apic(const struct vm_config *c)
{
    return c->firmware_x2apic == VM_ON || (c->firmware_x2apic == VM_AUTO && vm_config_max_id(c) > 254);
}

bool vm_config_remaps_wide(const struct vm_config *c)
{
    return c->iommu.kind != VM_IOMMU_NONE && c->iommu.intremap && c->iommu.eim != VM_OFF;
}

bool vm_config_physical_destination(const struct vm_config *c)
{
    if (c->apic_destination != VM_DEST_AUTO)
        return c->apic_destination == VM_DEST_PHYSICAL;
    return vm_config_max_id(c) > 254 && !vm_config_remaps_wide(c);
}

/* ---- checks ---- */

/* The list's length fits, and no ID comes twice. */
static int check_list(const struct vm_config *c, struct err *e)
{
    static const char many[] = "-machine apic-ids=: it lists %u IDs, but there are %u CPUs: give as many as -smp says";
    uint8_t seen[VM_CPUS_MAX / 8] = {0};
    if (!c->apic_ids)
        return 0;
    if (c->apic_ids_n != c->smp.cpus)
        return err_set(e, -EINVAL, many, c->apic_ids_n, c->smp.cpus);
    for (uint32_t i = 0; i < c->apic_ids_n; i++) {
        uint32_t id = c->apic_ids[i];
        if (id > HEC_APIC_ID_MAX)
            return err_set(e, -EINVAL, "-machine apic-ids=: ID %u is past %u, the largest a 15-bit destination names",
                           id, HEC_APIC_ID_MAX);
        if (seen[id / 8] & 1u << id % 8)
            return err_set(e, -EINVAL, "-machine apic-ids=: ID %u comes twice: each CPU needs its own", id);
        seen[id / 8] |= (uint8_t)(1u << id % 8);
    }
    return 0;
}

static bool has_id(const struct vm_config *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->smp.cpus; i++)
        if (id_of(c, i) == id)
            return true;
    return false;
}

static int check_amd_iommu(const struct vm_config *c, struct err *e)
{
    const struct vm_iommu *u = &c->iommu;
    if (u->eim == VM_ON && !u->intremap)
        return err_set(e, -EINVAL, "-device amd-iommu: xtsup=on needs interrupt remapping: say intremap=on");
    if (u->intremap && u->eim == VM_OFF && vm_config_max_id(c) > 254)
        return err_set(e, -EINVAL,
                       "-device amd-iommu: with xtsup=off it remaps interrupts to 8-bit IDs, and there are APIC IDs up "
                       "to %u: say intremap=on,xtsup=on, or use no ID past 254",
                       vm_config_max_id(c));
    return 0;
}

static int check_iommu(const struct vm_config *c, struct err *e)
{
    const struct vm_iommu *u = &c->iommu;
    if (u->kind != VM_IOMMU_NONE && u->intremap && c->irqchip == VM_IRQCHIP_ON)
        return err_set(e, -EINVAL,
                       "kernel-irqchip=on has an I/O APIC whose entries can't name a remapping table's: say "
                       "kernel-irqchip=split, or intremap=off");
    if (c->windows_amd_msi && (u->kind != VM_IOMMU_INTEL || !u->intremap))
        return err_set(e, -EINVAL,
                       "-machine windows-amd-msi=on is about an Intel unit's table: add -device "
                       "intel-iommu,intremap=on, or drop it");
    if (c->windows_msi_high_bits && u->kind != VM_IOMMU_NONE && u->intremap)
        return err_set(e, -EINVAL,
                       "-machine windows-msi-high-bits=on is for machines without interrupt remapping: drop it, or "
                       "say intremap=off");
    if (u->kind == VM_IOMMU_AMD)
        return check_amd_iommu(c, e);
    if (u->kind != VM_IOMMU_INTEL)
        return 0;
    if (u->aw_bits != 39 && u->aw_bits != 48)
        return err_set(e, -EINVAL, "-device intel-iommu: aw-bits=%u: give 39 or 48", u->aw_bits);
    if (u->eim == VM_ON && !u->intremap)
        return err_set(e, -EINVAL, "-device intel-iommu: eim=on needs interrupt remapping: say intremap=on");
    if (u->intremap && u->eim == VM_OFF && vm_config_max_id(c) > 254)
        return err_set(e, -EINVAL,
                       "-device intel-iommu: with eim=off it remaps interrupts to 8-bit IDs, and there are APIC IDs up "
                       "to %u: say intremap=on,eim=on, or use no ID past 254",
                       vm_config_max_id(c));
    return 0;
}

int vm_config_cpuid(const struct vm_config *c, struct cpuid_model *m, struct err *e)
{
    const struct vm_smp *s = &c->smp;
    const struct cpu_topology topo = {s->sockets, s->dies, s->cores, s->threads};
    int rc = c->engine == VM_ACCEL_KVM ? kvm_cpuid_model(m, c->cpu, &topo, s->cpus, vm_config_max_id(c), e)
                                       : cpuid_model_init(m, c->cpu, &topo, s->cpus, vm_config_max_id(c), e);
    if (!rc && c->irqchip != VM_IRQCHIP_SPLIT)
        cpuid_withdraw_ext_dest(m);
    return rc;
}

/* Without the promise or a remapping unit a message's destination has 8 bits, of which FFh may mean everyone: 0 to 254
 * are left. */
uint32_t vm_config_usable_id(const struct vm_config *c, const struct cpuid_model *m)
{
    return cpuid_ext_dest(m) || vm_config_remaps_wide(c) ? HEC_APIC_ID_MAX : 254;
}

/* Linux reads the leaves of the hypervisor it takes this for, which is KVM if KVM's are there; the promise of others'
 * leaves is for other guests. */
static bool promise_unread(const struct vm_config *c, const struct cpuid_model *m)
{
    unsigned promised = cpuid_ext_dest(m);
    return promised && m->kvm_features && !(promised & CPUID_EXT_DEST_KVM) && !vm_config_remaps_wide(c);
}

uint32_t vm_config_reach(const struct vm_config *c, const struct cpuid_model *m)
{
    uint32_t max = promise_unread(c, m) ? 255 : vm_config_usable_id(c, m);
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->smp.cpus; i++)
        n += id_of(c, i) <= max;
    return n;
}

/* The flags that were switched on by name, as a user wrote them. */
static const char *asked_names(uint32_t asked)
{
    static const char *const names[8] = {"",
                                         "kvm-msi-ext-dest-id",
                                         "hv-ext-dest-id",
                                         "kvm-msi-ext-dest-id and hv-ext-dest-id",
                                         "xen-ext-dest-id",
                                         "kvm-msi-ext-dest-id and xen-ext-dest-id",
                                         "hv-ext-dest-id and xen-ext-dest-id",
                                         "kvm-msi-ext-dest-id, hv-ext-dest-id and xen-ext-dest-id"};
    return names[asked & 7];
}

int config_warning(const struct vm_config *c, char *buf, size_t size)
{
    struct cpuid_model m;
    if (vm_config_cpuid(c, &m, NULL))
        return 0;
    uint32_t reach = vm_config_reach(c, &m), n = c->smp.cpus;
    const char *chip = c->irqchip == VM_IRQCHIP_ON ? "on" : "off";
    bool split = c->irqchip == VM_IRQCHIP_SPLIT;
    if (!split && m.ext_dest_asked)
        return snprintf(buf, size,
                        "kernel-irqchip=%s has no extended destination IDs, so -cpu %s (KVM's leaf 40000001h EAX bit "
                        "15) is not offered and the guest will use %u of %u CPUs: use kernel-irqchip=split",
                        chip, asked_names(m.ext_dest_asked), reach, n);
    if (reach == n)
        return 0;
    if (!split)
        return snprintf(buf, size,
                        "the guest will use %u of %u CPUs: kernel-irqchip=%s has no extended destination IDs (KVM's "
                        "leaf 40000001h EAX bit 15), and no interrupt reaches an APIC ID past 254: use "
                        "kernel-irqchip=split",
                        reach, n, chip);
    if (promise_unread(c, &m))
        return snprintf(
            buf, size,
            "a Linux guest will use %u of %u CPUs: it reads KVM's leaves, and extended destination IDs are "
            "not offered there (40000001h EAX bit 15, 100h up for each interface before it): let -cpu offer "
            "kvm-msi-ext-dest-id too",
            reach, n);
    return snprintf(buf, size,
                    "the guest will use %u of %u CPUs: without extended destination IDs (KVM's leaf 40000001h EAX bit "
                    "15) no interrupt reaches an APIC ID past 254: let -cpu offer kvm-msi-ext-dest-id, or add -device "
                    "intel-iommu,intremap=on,eim=on",
                    reach, n);
}

/* Every CPU must be reachable by IPIs, and the boot CPU by device interrupts; config_warning() tells of the others. */
static int check_route(const struct vm_config *c, const struct cpuid_model *m, struct err *e)
{
    uint32_t max = vm_config_max_id(c), n = c->smp.cpus;
    bool x2apic = m->std1_ecx & CPUID_1_ECX_X2APIC;
    if (max > HEC_APIC_ID_MAX)
        return err_set(e, -EINVAL,
                       "this topology gives APIC IDs up to %u, past %u: use fewer sockets or dies, or counts "
                       "that are powers of two",
                       max, HEC_APIC_ID_MAX);
    if (max > 254 && !x2apic)
        return err_set(e, -EINVAL,
                       "%u CPUs with APIC IDs up to %u need x2APIC, which -cpu turns off: drop x2apic=off, or "
                       "use no ID past 254",
                       n, max);
    if (max > 254 && c->firmware_x2apic == VM_OFF && id_of(c, 0) > 254)
        return err_set(e, -EINVAL, "boot CPU with APIC ID %u can't start in xAPIC mode: drop firmware-x2apic=off",
                       id_of(c, 0));
    if (c->firmware_x2apic == VM_ON && !x2apic)
        return err_set(e, -EINVAL, "-machine firmware-x2apic=on needs x2APIC, which -cpu turns off: drop one of them");
    if (id_of(c, 0) > vm_config_usable_id(c, m))
        return err_set(e, -EINVAL,
                       "boot CPU with APIC ID %u: without extended destination IDs no interrupt reaches an ID past "
                       "254: let -cpu offer kvm-msi-ext-dest-id with kernel-irqchip=split, add -device "
                       "intel-iommu,intremap=on,eim=on, or give it another ID",
                       id_of(c, 0));
    if (c->x2apic_broadcast_quirk && has_id(c, 255))
        return err_set(e, -EINVAL,
                       "-machine x2apic-broadcast-quirk=on: a message to APIC ID 255 goes to every CPU: drop it, or "
                       "leave 255 out with apic-ids=");
    return 0;
}

static int check_time(const struct vm_config *c, struct err *e)
{
    if (c->deterministic && c->time == VM_TIME_REAL)
        return err_set(e, -EINVAL, "-machine deterministic=on can't follow real time: drop time=real");
    if (c->deterministic && c->workers > 1)
        return err_set(e, -EINVAL, "-machine deterministic=on runs on one worker: drop workers=%u", c->workers);
    if (c->workers > VM_WORKERS_MAX)
        return err_set(e, -EINVAL, "-machine workers=%u: at most %u", c->workers, VM_WORKERS_MAX);
    return 0;
}

static int check_memory(const struct vm_config *c, struct err *e)
{
    if (c->mem_size < VM_MEM_MIN || c->mem_size > VM_MEM_MAX || c->mem_size % 4096)
        return err_set(e, -EINVAL, "-m: %llu bytes: give a multiple of 4 KiB from %lluM to %lluG",
                       (unsigned long long)c->mem_size, (unsigned long long)(VM_MEM_MIN / MIB),
                       (unsigned long long)(VM_MEM_MAX >> 30));
    return 0;
}

static int check_files(const struct vm_config *c, struct err *e)
{
    struct sockaddr_un un;
    if (!c->kernel)
        return err_set(e, -EINVAL, "nothing to start: give -kernel FILE (this version has no firmware)");
    for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
        if (c->serial[i].kind == VM_SERIAL_UNIX && strlen(c->serial[i].spec) >= sizeof un.sun_path + strlen("unix:"))
            return err_set(e, -EINVAL, "-serial %s: a socket's path has at most %zu characters: use a shorter one",
                           c->serial[i].spec, sizeof un.sun_path - 1);
    if (c->debug_exit && (!c->debug_exit_size || c->debug_exit_base + c->debug_exit_size > 0x10000))
        return err_set(e, -EINVAL, "-device isa-debug-exit: ports %xh+%xh are not within 0-FFFFh", c->debug_exit_base,
                       c->debug_exit_size);
    return 0;
}

int config_check(const struct vm_config *c, struct err *e)
{
    struct cpuid_model m;
    struct vm_smp smp = c->smp;
    int rc = vm_config_topology(&smp, e);
    if (rc || (rc = check_files(c, e)) || (rc = check_memory(c, e)) || (rc = check_time(c, e)) ||
        (c->engine == VM_ACCEL_KVM && (rc = accel_check_kvm(c, e))) || (rc = check_list(c, e)))
        return rc;
    rc = check_iommu(c, e);
    if (!rc)
        rc = config_devices_check(c, e);
    if (!rc)
        rc = vm_config_cpuid(c, &m, e);
    return rc ? rc : check_route(c, &m, e);
}

uint64_t vm_config_linux_mem(uint32_t cpus)
{
    return (LINUX_BASE_MIB + (uint64_t)cpus * LINUX_CPU_KIB / 1024 + 1) * MIB;
}

int config_check_linux(const struct vm_config *c, struct err *e)
{
    uint64_t n = c->smp.cpus;
    if (c->mem_size >= IMPOSSIBLE_BASE_MIB * MIB + n * IMPOSSIBLE_CPU_KIB * 1024)
        return 0;
    return err_set(e, -ENOMEM,
                   "-m %lluM is too little for %llu CPUs: Linux needs about 1.9 MiB a CPU and %u MiB besides: "
                   "give -m %lluM",
                   (unsigned long long)(c->mem_size / MIB), (unsigned long long)n, LINUX_BASE_MIB,
                   (unsigned long long)(vm_config_linux_mem(c->smp.cpus) / MIB));
}
