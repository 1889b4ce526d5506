/* What a machine is made of: plain data that cli/ fills from the command line and vm/ builds a machine from.
 *
 * Lifecycle: vm_config_init() gives a machine with no arguments, cli/ fills it, config_check() refuses what can't work,
 * vm_config_fini() frees. Constant once vm_run() has it.
 */
#ifndef HEC_VM_CONFIG_H
#define HEC_VM_CONFIG_H

#include "base/err.h"
#include "base/types.h"
#include "vm/config_devices.h"

#include <stdbool.h>
#include <stdint.h>

#define VM_CPUS_MAX    (HEC_APIC_ID_MAX + 1)
#define VM_MEM_DEFAULT (UINT64_C(512) << 20)
#define VM_MEM_MIN     (UINT64_C(2) << 20)
#define VM_MEM_MAX     (UINT64_C(1) << 45) /* guest-physical space less room for what sits above RAM */
#define VM_WORKERS_MAX 200                 /* each worker is a reader of the epoch, as are a few service threads */
#define VM_SERIAL_MAX  1                   /* COM1 */
#define VM_ACCEL_MAX   4
#define VM_NAME_MAX    64

enum vm_onoffauto { VM_AUTO, VM_ON, VM_OFF };
enum vm_time { VM_TIME_AUTO, VM_TIME_REAL, VM_TIME_VIRTUAL }; /* auto: virtual when vCPUs > workers */
enum vm_accel { VM_ACCEL_SOFT, VM_ACCEL_KVM };
/* Whose I/O APIC the guest has, as QEMU's users know it: the kernel's (on) and a whole user-space set (off) have no
 * extended destination bits, so that only split can offer 15-bit IDs. The same under every engine. */
enum vm_irqchip { VM_IRQCHIP_SPLIT, VM_IRQCHIP_ON, VM_IRQCHIP_OFF };

/* FADT flags 19 and 18; auto: cluster if interrupts are remapped with 32-bit destinations, else physical past ID 254.
 */
enum vm_apic_destination { VM_DEST_AUTO, VM_DEST_PHYSICAL, VM_DEST_CLUSTER };

/* A machine has one remapping unit at most. */
enum vm_iommu_kind { VM_IOMMU_NONE, VM_IOMMU_INTEL, VM_IOMMU_AMD };
enum vm_iommu_scope { VM_SCOPE_ALL, VM_SCOPE_IOAPIC }; /* who is behind it: everybody, or the I/O APIC alone */

struct vm_iommu {
    enum vm_iommu_kind kind;
    bool intremap;
    enum vm_onoffauto eim; /* 32-bit destinations (amd-iommu: xtsup); auto: as intremap */
    bool caching_mode;     /* intel-iommu */
    bool dma_translation;
    uint32_t aw_bits; /* intel-iommu: 39 or 48 */
    enum vm_iommu_scope scope;
};

/* How a Linux kernel is entered: as enum boot_protocol of boot/. */
enum vm_boot { VM_BOOT_AUTO, VM_BOOT_PVH, VM_BOOT_LINUX64 };

/* sockets x dies x cores x threads == maxcpus; cpus <= maxcpus. All > 0 after vm_config_topology(). */
struct vm_smp {
    uint32_t cpus, maxcpus;
    uint32_t sockets, dies, cores, threads; /* dies a socket, cores a die, threads a core */
};

enum vm_serial_kind { VM_SERIAL_NULL, VM_SERIAL_STDIO, VM_SERIAL_FILE, VM_SERIAL_PTY, VM_SERIAL_UNIX };

struct vm_serial {
    enum vm_serial_kind kind;
    char *spec; /* for chardev_config.spec: "stdio", "file:PATH", "pty", "unix:PATH"; owned; NULL: "null" */
};

/* Progress of a machine, as the status line shows it. */
struct vm_stats {
    uint32_t cpus;         /* vCPUs of the machine */
    uint32_t cpus_started; /* left the wait-for-SIPI state at least once */
    uint64_t guest_ns;     /* guest time since power-on */
    uint64_t host_ns;      /* host time since vm_run() */
    uint64_t instructions; /* executed by all vCPUs; 0: not counted */
    uint64_t exits;        /* of KVM to user space, all vCPUs; 0: not counted */
};

struct vm_config {
    struct vm_smp smp;
    uint64_t mem_size;    /* bytes, a multiple of 4 KiB */
    const char *kernel;   /* path; borrowed, as every const char * here; NULL: none */
    const uint8_t *image; /* a payload of our own instead of a file, named by `kernel`; borrowed */
    uint64_t image_size;
    const char *initrd;                /* path, or a Multiboot module list "FILE ARGS,FILE ARGS"; NULL: none */
    const char *append;                /* kernel command line; NULL: empty */
    enum vm_boot boot;                 /* -machine boot= */
    const char *cpu;                   /* -cpu as given, for cpuid_model_init(); NULL: the default model */
    enum vm_accel accel[VM_ACCEL_MAX]; /* tried in this order */
    unsigned accels;                   /* 0: whatever runs this machine best on this host */
    enum vm_accel engine;              /* the one that runs it: accel_choose()'s answer */
    bool kvm_in_software;              /* likewise: this host's KVM runs no unmodified kernel */
    enum vm_onoffauto jit;             /* -accel soft,jit=; auto: on, but off in a deterministic machine */
    uint32_t jit_heat;                 /* as engine_config.jit_heat */

    enum vm_time time;
    bool deterministic;
    uint64_t seed;                     /* of RDRAND and friends in a deterministic machine */
    uint32_t workers;                  /* threads that run vCPUs; 0: one a host CPU this process may use */
    enum vm_onoffauto firmware_x2apic; /* APs start in x2APIC mode; auto: iff an ID is past 254 */
    enum vm_irqchip irqchip;
    enum vm_apic_destination apic_destination; /* -machine apic-destination= */
    struct vm_iommu iommu;
    bool apicv_off;              /* interrupts are never posted straight into their target's IRR */
    bool windows_msi_high_bits;  /* messages may have dest[31:8] in address bits 55:32 */
    bool windows_amd_msi;        /* the I/O APIC may name VT-d's entries as AMD's are named */
    bool x2apic_8bit_ids;        /* x2apic-32bit-ids=off: in xAPIC mode an APIC has 8 bits of ID and shares them */
    bool x2apic_broadcast_quirk; /* FFh in a message is everyone, in x2APIC mode too */
    uint32_t *apic_ids;          /* [apic_ids_n], owned; NULL: from the topology */
    uint32_t apic_ids_n;

    struct vm_serial serial[VM_SERIAL_MAX];
    bool nographic;
    char name[VM_NAME_MAX];    /* empty: none */
    bool debug_threads;        /* name the threads after their job */
    bool paused;               /* -S: built, and no vCPU runs before SIGCONT */
    enum vm_onoffauto sandbox; /* auto: on if the host's kernel can */
    bool no_reboot;            /* a guest reset ends the process */
    bool no_shutdown;          /* a guest power-off stops the machine, and the process stays */

    bool debug_exit;                           /* isa-debug-exit */
    uint16_t debug_exit_base, debug_exit_size; /* ports */
    bool pc_testdev;
    bool irq_test;
    struct vm_devices dev; /* disks, networks, PCI devices */

    uint32_t trace_mask;    /* enum trace_cat */
    bool trace_json;        /* as a Chrome/Perfetto trace, to trace_file */
    const char *trace_file; /* NULL: standard error */

    /* Called about ten times a second on the thread that called vm_run(); NULL: not wanted. With `s` NULL before vm/
     * writes a message of its own to standard error, so that the status line can make way. */
    void (*progress)(void *opaque, const struct vm_stats *s);
    void *progress_opaque;
};

struct cpuid_model;

/* ---- lifecycle ---- */
void vm_config_init(struct vm_config *c);
void vm_config_fini(struct vm_config *c);

/* ---- any thread; pure ---- */
/* Fill what -smp left open (0) as QEMU does, one socket preferred, then SMT pairs. -EINVAL if the product is not
 * maxcpus, or a number is out of range. */
int vm_config_topology(struct vm_smp *s, struct err *e);
/* APIC IDs of vCPUs 0 .. smp.cpus-1 (vCPU 0 is the boot CPU) into `ids`: the list of -machine apic-ids=, or package,
 * die, core and thread number in bit fields wide enough for each (SDM 3A, "Hierarchical Mapping of Shared Resources"),
 * which leaves holes where a count is no power of two. */
void vm_config_ids(const struct vm_config *c, apic_id_t *ids);
uint32_t vm_config_max_id(const struct vm_config *c);
/* Whether the machine's APs start in x2APIC mode: firmware_x2apic with `auto` resolved. */
bool vm_config_firmware_x2apic(const struct vm_config *c);
/* Whether the FADT asks for physical destination mode: apic_destination with `auto` resolved. */
bool vm_config_physical_destination(const struct vm_config *c);
/* Whether a remapping unit reaches every 32-bit APIC ID. */
bool vm_config_remaps_wide(const struct vm_config *c);
/* The CPU model as the guest sees it: -cpu, less what the machine's interrupt controllers can't keep. */
int vm_config_cpuid(const struct vm_config *c, struct cpuid_model *m, struct err *e);
/* The largest APIC ID an interrupt message can name. */
uint32_t vm_config_usable_id(const struct vm_config *c, const struct cpuid_model *m);
/* How many CPUs a Linux guest can use: those whose ID an interrupt can name, as far as it is told. Less than smp.cpus
 * is worth a warning. */
uint32_t vm_config_reach(const struct vm_config *c, const struct cpuid_model *m);
/* One line, without a newline, if the guest will reach fewer CPUs than there are, or a promise asked for by name can't
 * be kept; 0 if there is nothing to say. The configuration has passed config_check(). */
int config_warning(const struct vm_config *c, char *buf, size_t size);
/* Refuse a machine that can't work: -EINVAL, and one line with the reason and the remedy. */
int config_check(const struct vm_config *c, struct err *e);
/* As config_check(), for what only a Linux guest needs: memory for that many CPUs. For vm/, once the kernel is known.
 */
int config_check_linux(const struct vm_config *c, struct err *e);
/* Bytes of memory Linux is comfortable with on a machine of `cpus` CPUs: a rule of thumb, in whole MiB. */
uint64_t vm_config_linux_mem(uint32_t cpus);

#endif
