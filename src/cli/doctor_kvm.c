/* The doctor on KVM, and the settings for others: what KVM's limits mean for N CPUs. */
#include "cli/doctor.h"

#include "vm/config.h"

#include <errno.h>
#include <string.h>

#define KVM_API_VERSION_WANTED 12

static const char *onoff(bool on)
{
    return on ? "yes" : "no";
}

/* Largest APIC ID of N CPUs by the default topology: IDs have holes where a count is no power of two. */
static uint32_t max_id_of(uint32_t n)
{
    struct vm_config c;
    struct err e = {{0}};
    vm_config_init(&c);
    c.smp = (struct vm_smp){.cpus = n};
    uint32_t max = vm_config_topology(&c.smp, &e) ? n - 1 : vm_config_max_id(&c);
    vm_config_fini(&c);
    return max;
}

/* ---- /dev/kvm ---- */

static void not_opened(FILE *out, const struct host *h, int error)
{
    fprintf(out, "  /dev/kvm        does not open: %s\n", strerror(error));
    if (error == EACCES || error == EPERM)
        fputs("  remedy          join the group that owns /dev/kvm (usermod -aG kvm USER), then log in again\n", out);
    else if (error == ENODEV || error == ENXIO)
        fputs("  remedy          the kvm module is there but its back end is not: modprobe kvm_intel or kvm_amd\n",
              out);
    else if (!h->vmx && !h->svm)
        fprintf(out, "  remedy          /proc/cpuinfo has neither vmx nor svm: switch virtualization on in the %s\n",
                h->hypervisor ? "hypervisor this host runs on (nested virtualization)" : "firmware's setup");
    else
        fprintf(out, "  remedy          modprobe %s\n", h->vmx ? "kvm_intel" : "kvm_amd");
}

static void show_hardware(FILE *out, const struct host *h)
{
    if (h->vmx || h->svm)
        fprintf(out, "  hardware        %s%s\n", h->vmx ? "VMX (Intel)" : "SVM (AMD)",
                h->hypervisor ? ", nested: this host is a guest" : "");
    else
        fputs("  hardware        neither VMX nor SVM in /proc/cpuinfo, and yet a KVM: one in software. Guests that are "
              "not\n"
              "                  of its own paravirtual kind are emulated at a few million instructions a second, and\n"
              "                  stop where it has not an instruction: bare-metal programs run, kernels do not\n",
              out);
    fprintf(out, "  modules         %s\n", h->kvm_modules[0] ? h->kvm_modules : "built in, or not listed");
    if (h->nested[0])
        fprintf(out, "  nested          %s\n", h->nested);
}

static void show_extension(FILE *out, const char *head, const char *name, int v)
{
    if (v < 0)
        fprintf(out, "  %-15s %s: %s\n", head, name, strerror(-v));
    else
        fprintf(out, "  %-15s %s = %d\n", head, name, v);
}

static void show_enabled(FILE *out, const char *head, int cap, int error, const char *what)
{
    if (cap <= 0)
        fprintf(out, "  %-15s not offered\n", head);
    else if (error)
        fprintf(out, "  %-15s offered, but enabling it failed: %s\n", head, strerror(error));
    else
        fprintf(out, "  %-15s works: %s\n", head, what);
}

static void show_apicv(FILE *out, const struct host *h)
{
    fprintf(out, "  APICv/AVIC      %s\n", h->apicv[0] ? h->apicv : "no module parameter to read");
    if (h->inhibit_event)
        fputs("  inhibits        trace-cmd stream -e kvm:kvm_apicv_inhibit_changed shows them as they change\n", out);
    else
        fputs("  inhibits        not readable by this user (as root: trace-cmd stream -e "
              "kvm:kvm_apicv_inhibit_changed)\n",
              out);
}

/* The limit that stops `n` CPUs, or NULL. KVM's own defaults stand in for extensions that it does not know. */
static const char *stopped_by(const struct host *h, const struct host_kvm *k, uint32_t n)
{
    uint32_t max_id = max_id_of(n);
    int cpus = k->max_vcpus > 0 ? k->max_vcpus : k->nr_vcpus > 0 ? k->nr_vcpus : 4;
    int ids = k->max_vcpu_id > 0 ? k->max_vcpu_id : cpus;
    if (k->api_version != KVM_API_VERSION_WANTED)
        return "its API version is not 12";
    if (k->vm_errno)
        return "no machine can be created";
    if (n > (uint32_t)cpus)
        return "KVM_CAP_MAX_VCPUS is less";
    if (max_id >= (uint32_t)ids)
        return "the highest APIC ID is not below KVM_CAP_MAX_VCPU_ID: fewer sockets, or counts that are powers of two";
    if (max_id > 254 && (k->split <= 0 || k->split_errno))
        return "IDs past 254 need the split irqchip";
    if (max_id > 254 && (k->x2apic_api <= 0 || k->x2apic_errno))
        return "IDs past 254 need KVM_CAP_X2APIC_API";
    if (n > h->limit_nproc)
        return "a thread a vCPU is more than ulimit -u";
    if (n + UINT64_C(64) > h->limit_nofile_hard)
        return "a file a vCPU is more than ulimit -Hn: raise it";
    return NULL;
}

bool doctor_kvm(FILE *out, const struct host *h, const struct host_kvm *k, uint32_t n)
{
    fprintf(out, "KVM, %u CPUs with APIC IDs up to %u\n", n, max_id_of(n));
    if (k->open_errno) {
        not_opened(out, h, k->open_errno);
        return false;
    }
    fprintf(out, "  /dev/kvm        opens; API version %d\n", k->api_version);
    show_hardware(out, h);
    show_extension(out, "vCPUs", "recommended, KVM_CAP_NR_VCPUS", k->nr_vcpus);
    show_extension(out, "", "at most, KVM_CAP_MAX_VCPUS", k->max_vcpus);
    show_extension(out, "", "IDs below, KVM_CAP_MAX_VCPU_ID", k->max_vcpu_id);
    if (k->vm_errno)
        fprintf(out, "  a machine       can't be created: %s\n", strerror(k->vm_errno));
    else {
        show_enabled(out, "split irqchip", k->split, k->split_errno,
                     "the I/O APIC is the VMM's, so its entries can be wide");
        show_enabled(out, "X2APIC_API", k->x2apic_api, k->x2apic_errno, "32-bit IDs, no broadcast quirk");
    }
    fputs("  ext-dest-id     not KVM's to report: a promise of the VMM, which has to convert the messages\n", out);
    show_apicv(out, h);
    const char *why = stopped_by(h, k, n);
    fprintf(out, "  %u CPUs%*s %s%s%s\n", n,
            n > 9999  ? 5
            : n > 999 ? 6
            : n > 99  ? 7
            : n > 9   ? 8
                      : 9,
            "", onoff(!why), why ? ": " : "", why ? why : "");
    return !why;
}

/* ---- settings ---- */

static void hecaton_settings(FILE *out, uint32_t n, unsigned long long mib)
{
    fprintf(out,
            "hecaton\n"
            "  hecaton -smp %u -m %lluM -kernel vmlinuz -initrd initrd.gz -append console=ttyS0 -serial stdio\n",
            n, mib);
    if (n > 255)
        fputs("  ... guests that do not know 15-bit destination IDs: -device intel-iommu,intremap=on,eim=on,\n"
              "      or -device amd-iommu,xtsup=on\n",
              out);
}

static void qemu_settings(FILE *out, uint32_t n, unsigned long long mib)
{
    if (n <= 255) {
        fprintf(out, "QEMU\n  qemu-system-x86_64 -accel kvm -machine q35 -cpu host -smp %u -m %lluM ...\n", n, mib);
        return;
    }
    fprintf(out,
            "QEMU, guests that know 15-bit destination IDs (Linux 5.11 and later)\n"
            "  qemu-system-x86_64 -accel kvm -machine q35,kernel-irqchip=split \\\n"
            "      -cpu host,x2apic=on,kvm-msi-ext-dest-id=on -smp %u -m %lluM ...\n"
            "QEMU, other guests: an IOMMU that remaps interrupts\n"
            "  ... -machine q35,kernel-irqchip=split -cpu host,x2apic=on \\\n"
            "      -device intel-iommu,intremap=on,eim=on,caching-mode=on ...\n"
            "  ... or, QEMU 9.0 and later: -device amd-iommu,intremap=on,xtsup=on ...\n",
            n, mib);
    if (n > 4096)
        fputs("  No version of QEMU's q35 has that many: 4096 from 9.0, 1024 from 8.1, 288 before.\n", out);
    else
        fprintf(out, "  Needs QEMU %s: q35 has 4096 CPUs from 9.0, 1024 from 8.1, 288 before.\n",
                n > 1024  ? "9.0"
                : n > 288 ? "8.1"
                          : "5.2");
}

static void libvirt_settings(FILE *out, uint32_t n)
{
    fprintf(out,
            "libvirt\n"
            "  <vcpu placement='static'>%u</vcpu>\n"
            "  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n"
            "  <features><acpi/><apic/>%s</features>\n"
            "  <cpu mode='host-passthrough'%s",
            n, n > 255 ? "<ioapic driver='qemu'/>" : "",
            n > 255 ? "><feature policy='require' name='x2apic'/></cpu>\n" : "/>\n");
    if (n > 255)
        fputs("  <devices><iommu model='intel'>\n"
              "    <driver intremap='on' eim='on' caching_mode='on'/>\n"
              "  </iommu></devices>\n"
              "  libvirt asks for an IOMMU with eim='on' past 255 CPUs; driver='qemu' is the split irqchip.\n",
              out);
}

void doctor_settings(FILE *out, uint32_t n)
{
    unsigned long long mib = vm_config_linux_mem(n) >> 20;
    if (mib < 512)
        mib = 512;
    fprintf(out, "Settings for %u CPUs\n\n", n);
    hecaton_settings(out, n, mib);
    qemu_settings(out, n, mib);
    libvirt_settings(out, n);
}
