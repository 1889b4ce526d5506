/* The one way this engine talks to the kernel, so that tests can stand in for it. Private to cpu/kvm and its tests. */
#ifndef HEC_CPU_KVM_KVM_SYS_H
#define HEC_CPU_KVM_KVM_SYS_H

#include <stddef.h>
#include <stdint.h>

/* Results are the system calls', but -errno instead of -1 and errno. Any thread. */
struct kvm_sys {
    int (*open)(void *opaque); /* /dev/kvm */
    int (*ioctl)(void *opaque, int fd, unsigned long request, uintptr_t arg);
    int (*map)(void *opaque, int vcpu_fd, size_t size, void **out); /* struct kvm_run and what follows */
    void *opaque;
};

extern const struct kvm_sys kvm_sys_host;

static inline int kvm_io(const struct kvm_sys *s, int fd, unsigned long request, uintptr_t arg)
{
    return s->ioctl(s->opaque, fd, request, arg);
}

static inline int kvm_iop(const struct kvm_sys *s, int fd, unsigned long request, void *arg)
{
    return s->ioctl(s->opaque, fd, request, (uintptr_t)arg);
}

/* KVM_CHECK_EXTENSION on /dev/kvm or a machine; 0 if it is not known. */
int kvm_cap(const struct kvm_sys *s, int fd, unsigned cap);
/* KVM_ENABLE_CAP with one argument. */
int kvm_enable(const struct kvm_sys *s, int fd, unsigned cap, uint64_t arg);

#endif
