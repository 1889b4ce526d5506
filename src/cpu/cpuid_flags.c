/* The -cpu option: models, and flags by the names QEMU gives them. */
#include "cpu/cpuid.h"

#include "base/bits.h"
#include "base/suggest.h"
#include "cpu/pv.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum word {
    W_1C,
    W_1D,
    W_7B,
    W_7C,
    W_7D,
    W_71A,
    W_72D,
    W_E1C,
    W_E1D,
    W_6A,
    W_E7D,
    W_KVM,
    W_HVR,
    W_HVS,
    W_XEN,
    W_ARCH,
    W_COUNT
};

struct flag {
    const char *name;
    uint8_t word;
    uint8_t bit;
};

/* clang-format off */
/* What the engine does, and hence what may be switched on. */
#define DO_1C  (BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(21) | BIT(22) | BIT(23) | BIT(24) | BIT(25) |   \
                BIT(30) | BIT(31))
#define DO_1D  (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(12) |         \
                BIT(13) | BIT(14) | BIT(15) | BIT(16) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26) | BIT(27) | BIT(28))
#define DO_7B  (BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(13) | BIT(18) | BIT(19) | BIT(23) | BIT(24) | BIT(29))
#define DO_7C  (BIT(2) | BIT(5) | BIT(22))
#define DO_7D  (BIT(4) | BIT(14) | BIT(26) | BIT(27) | BIT(29))
#define DO_E1C (BIT(0) | BIT(5) | BIT(8))
#define DO_E1D (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29))
#define DO_KVM (PV_CLOCKSOURCE | PV_NOP_IO_DELAY | PV_CLOCKSOURCE2 | PV_STEAL_TIME | PV_EOI | PV_UNHALT | PV_TLB_FLUSH |             \
                PV_SEND_IPI | PV_SCHED_YIELD | PV_EXT_DEST_ID | PV_CLOCKSOURCE_STABLE)
#define DO_ARCH (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) |      \
                 BIT(24) | BIT(26) | BIT(27) | BIT(62))

static const uint64_t implemented[W_COUNT] = {
    [W_1C] = DO_1C, [W_1D] = DO_1D, [W_7B] = DO_7B, [W_7C] = DO_7C, [W_7D] = DO_7D, [W_71A] = BIT(10) | BIT(11) | BIT(12),
    [W_72D] = BIT(4) | BIT(5),
    [W_E1C] = DO_E1C, [W_E1D] = DO_E1D,
    [W_6A] = BIT(2), [W_E7D] = BIT(8), [W_KVM] = DO_KVM,
    [W_HVR] = HV_RECOMMEND_RELAXED, [W_HVS] = HV_STACK_EXT_DEST_ID, [W_XEN] = XEN_FEATURE_EXT_DEST_ID, [W_ARCH] = DO_ARCH,
};

/* Instructions that the engine executes with the host's own. */
#define HOST_1C (BIT(0) | BIT(1) | BIT(9) | BIT(19) | BIT(20) | BIT(25))
#define HOST_7B BIT(29)

static const struct flag flags[] = {
    {"pni", W_1C, 0}, {"sse3", W_1C, 0}, {"pclmulqdq", W_1C, 1}, {"pclmuldq", W_1C, 1}, {"dtes64", W_1C, 2},
    {"monitor", W_1C, 3}, {"ds-cpl", W_1C, 4}, {"vmx", W_1C, 5}, {"smx", W_1C, 6}, {"est", W_1C, 7}, {"tm2", W_1C, 8},
    {"ssse3", W_1C, 9}, {"cid", W_1C, 10}, {"fma", W_1C, 12}, {"cx16", W_1C, 13}, {"xtpr", W_1C, 14}, {"pdcm", W_1C, 15},
    {"pcid", W_1C, 17}, {"dca", W_1C, 18}, {"sse4.1", W_1C, 19}, {"sse4-1", W_1C, 19}, {"sse4.2", W_1C, 20},
    {"sse4-2", W_1C, 20}, {"x2apic", W_1C, 21}, {"movbe", W_1C, 22}, {"popcnt", W_1C, 23}, {"tsc-deadline", W_1C, 24},
    {"aes", W_1C, 25}, {"xsave", W_1C, 26}, {"avx", W_1C, 28}, {"f16c", W_1C, 29}, {"rdrand", W_1C, 30},
    {"hypervisor", W_1C, 31},
    {"fpu", W_1D, 0}, {"vme", W_1D, 1}, {"de", W_1D, 2}, {"pse", W_1D, 3}, {"tsc", W_1D, 4}, {"msr", W_1D, 5},
    {"pae", W_1D, 6}, {"mce", W_1D, 7}, {"cx8", W_1D, 8}, {"apic", W_1D, 9}, {"sep", W_1D, 11}, {"mtrr", W_1D, 12},
    {"pge", W_1D, 13}, {"mca", W_1D, 14}, {"cmov", W_1D, 15}, {"pat", W_1D, 16}, {"pse36", W_1D, 17}, {"pn", W_1D, 18},
    {"clflush", W_1D, 19}, {"ds", W_1D, 21}, {"acpi", W_1D, 22}, {"mmx", W_1D, 23}, {"fxsr", W_1D, 24}, {"sse", W_1D, 25},
    {"sse2", W_1D, 26}, {"ss", W_1D, 27}, {"ht", W_1D, 28}, {"tm", W_1D, 29}, {"ia64", W_1D, 30}, {"pbe", W_1D, 31},
    {"fsgsbase", W_7B, 0}, {"tsc-adjust", W_7B, 1}, {"sgx", W_7B, 2}, {"bmi1", W_7B, 3}, {"hle", W_7B, 4},
    {"avx2", W_7B, 5}, {"smep", W_7B, 7}, {"bmi2", W_7B, 8}, {"erms", W_7B, 9}, {"invpcid", W_7B, 10}, {"rtm", W_7B, 11},
    {"zero-fcs-fds", W_7B, 13},
    {"mpx", W_7B, 14}, {"avx512f", W_7B, 16}, {"avx512dq", W_7B, 17}, {"rdseed", W_7B, 18}, {"adx", W_7B, 19},
    {"smap", W_7B, 20}, {"avx512ifma", W_7B, 21}, {"pcommit", W_7B, 22}, {"clflushopt", W_7B, 23}, {"clwb", W_7B, 24},
    {"intel-pt", W_7B, 25}, {"avx512pf", W_7B, 26}, {"avx512er", W_7B, 27}, {"avx512cd", W_7B, 28}, {"sha-ni", W_7B, 29},
    {"avx512bw", W_7B, 30}, {"avx512vl", W_7B, 31},
    {"avx512vbmi", W_7C, 1}, {"umip", W_7C, 2}, {"pku", W_7C, 3}, {"ospke", W_7C, 4}, {"waitpkg", W_7C, 5},
    {"avx512vbmi2", W_7C, 6}, {"gfni", W_7C, 8}, {"vaes", W_7C, 9}, {"vpclmulqdq", W_7C, 10}, {"avx512vnni", W_7C, 11},
    {"avx512bitalg", W_7C, 12}, {"avx512-vpopcntdq", W_7C, 14}, {"la57", W_7C, 16}, {"rdpid", W_7C, 22},
    {"bus-lock-detect", W_7C, 24}, {"cldemote", W_7C, 25}, {"movdiri", W_7C, 27}, {"movdir64b", W_7C, 28},
    {"sgxlc", W_7C, 30}, {"pks", W_7C, 31},
    {"avx512-4vnniw", W_7D, 2}, {"avx512-4fmaps", W_7D, 3}, {"fsrm", W_7D, 4}, {"avx512-vp2intersect", W_7D, 8},
    {"md-clear", W_7D, 10}, {"serialize", W_7D, 14}, {"tsx-ldtrk", W_7D, 16}, {"arch-lbr", W_7D, 19},
    {"amx-bf16", W_7D, 22}, {"avx512-fp16", W_7D, 23}, {"amx-tile", W_7D, 24}, {"amx-int8", W_7D, 25},
    {"spec-ctrl", W_7D, 26}, {"stibp", W_7D, 27}, {"flush-l1d", W_7D, 28}, {"arch-capabilities", W_7D, 29},
    {"core-capability", W_7D, 30}, {"ssbd", W_7D, 31},
    {"psfd", W_72D, 0}, {"ipred-ctrl", W_72D, 1}, {"rrsba-ctrl", W_72D, 2}, {"ddpd-u", W_72D, 3}, {"bhi-ctrl", W_72D, 4},
    {"mcdt-no", W_72D, 5},
    {"lahf-lm", W_E1C, 0}, {"cmp-legacy", W_E1C, 1}, {"svm", W_E1C, 2}, {"extapic", W_E1C, 3}, {"cr8legacy", W_E1C, 4},
    {"abm", W_E1C, 5}, {"lzcnt", W_E1C, 5}, {"sse4a", W_E1C, 6}, {"misalignsse", W_E1C, 7}, {"3dnowprefetch", W_E1C, 8},
    {"osvw", W_E1C, 9}, {"ibs", W_E1C, 10}, {"xop", W_E1C, 11}, {"skinit", W_E1C, 12}, {"wdt", W_E1C, 13},
    {"lwp", W_E1C, 15}, {"fma4", W_E1C, 16}, {"tce", W_E1C, 17}, {"nodeid-msr", W_E1C, 19}, {"tbm", W_E1C, 21},
    {"topoext", W_E1C, 22}, {"perfctr-core", W_E1C, 23}, {"perfctr-nb", W_E1C, 24},
    {"syscall", W_E1D, 11}, {"nx", W_E1D, 20}, {"xd", W_E1D, 20}, {"mmxext", W_E1D, 22}, {"fxsr-opt", W_E1D, 25},
    {"ffxsr", W_E1D, 25}, {"pdpe1gb", W_E1D, 26}, {"rdtscp", W_E1D, 27}, {"lm", W_E1D, 29}, {"i64", W_E1D, 29},
    {"3dnowext", W_E1D, 30}, {"3dnow", W_E1D, 31},
    {"fzrm", W_71A, 10}, {"fsrs", W_71A, 11}, {"fsrc", W_71A, 12},
    {"arat", W_6A, 2}, {"invtsc", W_E7D, 8},
    {"kvmclock", W_KVM, 3}, {"kvm-nopiodelay", W_KVM, 1}, {"kvm-mmu", W_KVM, 2}, {"kvm-asyncpf", W_KVM, 4},
    {"kvm-steal-time", W_KVM, 5}, {"kvm-pv-eoi", W_KVM, 6}, {"kvm-pv-unhalt", W_KVM, 7}, {"kvm-pv-tlb-flush", W_KVM, 9},
    {"kvm-asyncpf-vmexit", W_KVM, 10}, {"kvm-pv-ipi", W_KVM, 11}, {"kvm-poll-control", W_KVM, 12},
    {"kvm-pv-sched-yield", W_KVM, 13}, {"kvm-asyncpf-int", W_KVM, 14}, {"kvm-msi-ext-dest-id", W_KVM, 15},
    {"kvm-hc-map-gpa-range", W_KVM, 16}, {"kvmclock-stable-bit", W_KVM, 24},
    {"hv-relaxed", W_HVR, 5}, {"hv-ext-dest-id", W_HVS, 2}, {"xen-ext-dest-id", W_XEN, 5},
    {"rdctl-no", W_ARCH, 0}, {"ibrs-all", W_ARCH, 1}, {"rsba", W_ARCH, 2}, {"skip-l1dfl-vmentry", W_ARCH, 3},
    {"ssb-no", W_ARCH, 4}, {"mds-no", W_ARCH, 5}, {"pschange-mc-no", W_ARCH, 6}, {"tsx-ctrl", W_ARCH, 7},
    {"taa-no", W_ARCH, 8}, {"sbdr-ssdp-no", W_ARCH, 13}, {"fbsdp-no", W_ARCH, 14}, {"psdp-no", W_ARCH, 15},
    {"fb-clear", W_ARCH, 17}, {"bhi-no", W_ARCH, 20}, {"pbrsb-no", W_ARCH, 24}, {"gds-no", W_ARCH, 26},
    {"rfds-no", W_ARCH, 27}, {"its-no", W_ARCH, 62},
};
/* clang-format on */

static const char *const models[] = {"max", "host", "qemu64"};
static const char *const properties[] = {"kvm", "vendor", "phys-bits", "model-id"};

struct parse {
    struct cpuid_model *m;
    uint64_t word[W_COUNT];
    uint64_t given[W_COUNT];       /* what is on unless flags say otherwise */
    uint64_t implemented[W_COUNT]; /* what the engine has */
    uint64_t possible[W_COUNT];    /* what it has on this host */
    const char *who;               /* the engine */
    struct err *e;
};

/* ---- words ---- */

static void host_limits(uint64_t possible[W_COUNT])
{
    unsigned a, b, c, d;
    memcpy(possible, implemented, sizeof implemented);
    if (!__get_cpuid(1, &a, &b, &c, &d))
        c = 0;
    possible[W_1C] &= c | ~(uint64_t)HOST_1C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        b = 0;
    possible[W_7B] &= b | ~(uint64_t)HOST_7B;
}

/* The way back; what is behind a flag that is off counts as absent. */
static void model_to_words(const struct cpuid_model *m, uint64_t w[W_COUNT])
{
    w[W_1C] = m->std1_ecx;
    w[W_1D] = m->std1_edx;
    w[W_7B] = m->std7_ebx;
    w[W_7C] = m->std7_ecx;
    w[W_7D] = m->std7_edx;
    w[W_71A] = m->std7_1_eax;
    w[W_72D] = m->std7_2_edx;
    w[W_E1C] = m->ext1_ecx;
    w[W_E1D] = m->ext1_edx;
    w[W_6A] = m->std6_eax;
    w[W_E7D] = m->ext7_edx;
    w[W_KVM] = m->kvm_features;
    w[W_HVR] = m->hv_recommend;
    w[W_HVS] = m->hv_stack;
    w[W_XEN] = m->xen_features;
    w[W_ARCH] = m->arch_capabilities;
}

static void words_to_model(const uint64_t w[W_COUNT], struct cpuid_model *m)
{
    m->std1_ecx = (uint32_t)w[W_1C];
    m->std1_edx = (uint32_t)w[W_1D];
    m->std7_ebx = (uint32_t)w[W_7B];
    m->std7_ecx = (uint32_t)w[W_7C];
    m->std7_edx = (uint32_t)w[W_7D];
    m->std7_1_eax = (uint32_t)w[W_71A];
    m->std7_2_edx = (uint32_t)w[W_72D];
    m->ext1_ecx = (uint32_t)w[W_E1C];
    m->ext1_edx = (uint32_t)w[W_E1D];
    m->std6_eax = (uint32_t)w[W_6A];
    m->ext7_edx = (uint32_t)w[W_E7D];
    m->hypervisor = w[W_1C] >> 31 & 1;
    m->kvm_features = m->hypervisor ? (uint32_t)w[W_KVM] : 0;
    m->hv_recommend = m->hypervisor ? (uint32_t)w[W_HVR] : 0;
    m->hv_stack = m->hypervisor ? (uint32_t)w[W_HVS] : 0;
    m->xen_features = m->hypervisor ? (uint32_t)w[W_XEN] : 0;
    m->arch_capabilities = m->std7_edx & CPUID_7_EDX_ARCH_CAPS ? w[W_ARCH] : 0;
}

/* ---- one item of the list ---- */

static const struct flag *find_flag(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        if (!strcmp(flags[i].name, name))
            return &flags[i];
    return NULL;
}

static int unknown_flag(struct parse *p, const char *name)
{
    const char *known[ARRAY_SIZE(flags) + ARRAY_SIZE(properties)];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        known[n++] = flags[i].name;
    for (size_t i = 0; i < ARRAY_SIZE(properties); i++)
        known[n++] = properties[i];
    return err_set(p->e, -EINVAL, "-cpu: unknown flag '%s'; did you mean '%s'?", name, suggest_nearest(name, known, n));
}

/* kvmclock is two bits: the old pair of MSRs and the new. */
static uint64_t flag_mask(const struct flag *f)
{
    return BIT(f->bit) | (f->word == W_KVM && f->bit == 3 ? PV_CLOCKSOURCE : 0);
}

/* Which interface's promise of 15-bit destination IDs a flag is; 0: none. */
static uint32_t ext_dest_of(const struct flag *f)
{
    if (f->word == W_KVM && f->bit == 15)
        return CPUID_EXT_DEST_KVM;
    return f->word == W_HVS ? CPUID_EXT_DEST_HV : f->word == W_XEN ? CPUID_EXT_DEST_XEN : 0;
}

static int set_flag(struct parse *p, const char *name, bool on)
{
    if (!strcmp(name, "kvm")) {
        p->word[W_KVM] = on ? p->given[W_KVM] : 0;
        return 0;
    }
    const struct flag *f = find_flag(name);
    if (!f)
        return unknown_flag(p, name);
    uint64_t mask = flag_mask(f);
    if (on && mask & ~p->implemented[f->word])
        return err_set(p->e, -ENOTSUP, "-cpu: %s has no '%s'; leave it out", p->who, name);
    if (on && mask & ~p->possible[f->word])
        return err_set(p->e, -ENOTSUP, "-cpu: '%s' needs a host CPU that has it; leave it out", name);
    p->word[f->word] = on ? p->word[f->word] | mask : p->word[f->word] & ~mask;
    p->m->ext_dest_asked &= ~ext_dest_of(f);
    p->m->ext_dest_asked |= on ? ext_dest_of(f) : 0;
    return 0;
}

static int set_vendor(struct parse *p, const char *val)
{
    if (strlen(val) != 12)
        return err_set(p->e, -EINVAL, "-cpu: vendor '%s' is not 12 characters long, like GenuineIntel", val);
    memcpy(p->m->vendor, val, 13);
    if (!strcmp(val, "AuthenticAMD"))
        p->m->signature = 0x00a10f11; /* family 19h: family 6 would be a K7 */
    return 0;
}

static int set_phys_bits(struct parse *p, const char *val)
{
    char *end;
    unsigned long n = strtoul(val, &end, 10);
    if (!*val || *end || n < 36 || n > 52)
        return err_set(p->e, -EINVAL, "-cpu: phys-bits '%s' is not a number from 36 to 52", val);
    p->m->phys_bits = (uint8_t)n;
    return 0;
}

static int set_property(struct parse *p, const char *name, const char *val)
{
    if (!strcmp(name, "vendor"))
        return set_vendor(p, val);
    if (!strcmp(name, "phys-bits"))
        return set_phys_bits(p, val);
    if (!strcmp(name, "model-id")) {
        snprintf(p->m->brand, sizeof p->m->brand, "%s", val);
        return 0;
    }
    bool on = !strcmp(val, "on") || !strcmp(val, "true") || !strcmp(val, "yes");
    bool off = !strcmp(val, "off") || !strcmp(val, "false") || !strcmp(val, "no");
    if (strcmp(name, "kvm") && !find_flag(name))
        return unknown_flag(p, name);
    if (!on && !off)
        return err_set(p->e, -EINVAL, "-cpu: '%s=%s' is neither on nor off", name, val);
    return set_flag(p, name, on);
}

/* QEMU takes an underscore wherever a name has a dash. */
static void dashes(char *name)
{
    for (; *name && *name != '='; name++)
        if (*name == '_')
            *name = '-';
}

static int parse_item(struct parse *p, char *item)
{
    char *eq = strchr(item, '=');
    dashes(item);
    if (item[0] == '+' || item[0] == '-')
        return eq ? err_set(p->e, -EINVAL, "-cpu: '%s' has both a sign and a value; write '%.*s=on' or '=off'", item,
                            (int)(eq - item - 1), item + 1)
                  : set_flag(p, item + 1, item[0] == '+');
    if (!eq)
        return find_flag(item) || !strcmp(item, "kvm") ? set_flag(p, item, true) : unknown_flag(p, item);
    *eq = 0;
    return set_property(p, item, eq + 1);
}

static int parse_model(struct parse *p, const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(models); i++)
        if (!strcmp(models[i], name))
            return 0;
    return err_set(p->e, -EINVAL, "-cpu: unknown model '%s'; did you mean '%s'?", name,
                   suggest_nearest(name, models, ARRAY_SIZE(models)));
}

static int parse_list(struct parse *p, char *list)
{
    char *rest = list;
    int rc = parse_model(p, strsep(&rest, ","));
    while (!rc && rest)
        rc = parse_item(p, strsep(&rest, ","));
    return rc;
}

/* ---- lifecycle ---- */

static int parse_spec(struct parse *p, const char *spec)
{
    char *list = strdup(spec ? spec : "max");
    if (!list)
        return err_set(p->e, -ENOMEM, "out of memory for -cpu");
    memcpy(p->word, p->given, sizeof p->word);
    int rc = parse_list(p, list);
    free(list);
    words_to_model(p->word, p->m);
    return rc;
}

int cpuid_model_init(struct cpuid_model *m, const char *spec, const struct cpu_topology *topo, uint32_t vcpus,
                     uint32_t max_apic_id, struct err *e)
{
    struct parse p = {.m = m, .e = e, .who = "the built-in engine"};
    *m = (struct cpuid_model){.topo = *topo,
                              .vcpus = vcpus,
                              .max_apic_id = max_apic_id,
                              .signature = 0x00080661, /* family 6, model 86h, stepping 1 */
                              .phys_bits = 46,
                              .vendor = "GenuineIntel",
                              .brand = "Hecaton Virtual CPU"};
    memcpy(p.implemented, implemented, sizeof p.implemented);
    host_limits(p.possible);
    memcpy(p.given, p.possible, sizeof p.given);
    p.given[W_HVR] = p.given[W_HVS] = p.given[W_XEN] = 0; /* other hypervisors' leaves are for those who ask */
    return parse_spec(&p, spec);
}

int cpuid_model_init_from(struct cpuid_model *m, const struct cpuid_offer *o, const char *spec,
                          const struct cpu_topology *topo, uint32_t vcpus, uint32_t max_apic_id, struct err *e)
{
    struct parse p = {.m = m, .e = e, .who = o->who};
    *m = o->gives;
    m->topo = *topo;
    m->vcpus = vcpus;
    m->max_apic_id = max_apic_id;
    model_to_words(&o->gives, p.given);
    model_to_words(&o->can, p.possible);
    memcpy(p.implemented, p.possible, sizeof p.implemented);
    return parse_spec(&p, spec);
}

/* ---- any thread ---- */

static const char *const word_names[W_COUNT] = {
    [W_1C] = "1 ECX",         [W_1D] = "1 EDX",         [W_7B] = "7 EBX",         [W_7C] = "7 ECX",
    [W_7D] = "7 EDX",         [W_71A] = "7.1 EAX",      [W_72D] = "7.2 EDX",      [W_6A] = "6 EAX",
    [W_E1C] = "80000001 ECX", [W_HVR] = "40000004 EAX", [W_HVS] = "40000082 EAX", [W_XEN] = "4000xx04 EAX",
    [W_E1D] = "80000001 EDX", [W_E7D] = "80000007 EDX", [W_KVM] = "40000001 EAX", [W_ARCH] = "MSR 10A",
};

void cpuid_print_flags(void (*line)(void *opaque, const char *text), void *opaque)
{
    char text[96];
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        const struct flag *f = &flags[i];
        snprintf(text, sizeof text, "%-22s %-13s bit %2u%s", f->name, word_names[f->word], f->bit,
                 implemented[f->word] >> f->bit & 1 ? "" : "  (off only)");
        line(opaque, text);
    }
}
