/* Facts about the host, as an ordinary user can learn them. One thread. Nothing here fails: what can't be read is
 * absent, with the reason where there is one.
 */
#ifndef HEC_CLI_HOST_H
#define HEC_CLI_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOST_UNLIMITED UINT64_MAX

struct host {
    char kernel[96]; /* "Linux 6.12.9" */
    char cpu[96];    /* model name */
    unsigned cpus, cpus_usable;
    bool vmx, svm, hypervisor;                    /* /proc/cpuinfo: for VMs of our own, and whether we are in one */
    uint64_t mem_total, mem_available, mem_limit; /* bytes; limit: the least of the control groups', or unlimited */
    uint64_t swap_free;
    uint64_t limit_as, limit_nproc, limit_nofile; /* rlimits */
    uint64_t limit_nofile_hard;                   /* as far as a process may raise it by itself */
    unsigned overcommit;                          /* 0 guess, 1 always, 2 never */
    char kvm_modules[96];                         /* "kvm kvm_amd", as loaded */
    char apicv[64], nested[64];                   /* "kvm_intel enable_apicv=Y"; empty: no such parameter */
    bool inhibit_event;                           /* tracefs shows KVM's inhibit trace point to this user */
};

/* What /dev/kvm says. */
struct host_kvm {
    int open_errno; /* 0: opened, the rest is valid */
    int api_version;
    int max_vcpus, nr_vcpus, max_vcpu_id, split, x2apic_api; /* KVM_CHECK_EXTENSION answers; < 0: -errno */
    int vm_errno;                                            /* KVM_CREATE_VM; 0: it worked, and the next are valid */
    int split_errno, x2apic_errno;                           /* enabling them on that machine */
};

/* `root` is put before every path ("" for the real ones). */
void host_read(struct host *h, const char *root);
void host_kvm_read(struct host_kvm *k, const char *path);

/* Bytes this process may still use. */
static inline uint64_t host_memory(const struct host *h)
{
    return h->mem_limit < h->mem_available ? h->mem_limit : h->mem_available;
}

#endif
