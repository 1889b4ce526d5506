#include "cpu/kvm/kvm_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static int host_open(void *opaque)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int host_ioctl(void *opaque, int fd, unsigned long request, uintptr_t arg)
{
    int rc = ioctl(fd, request, arg);
    return rc < 0 ? -errno : rc;
}

static int host_map(void *opaque, int vcpu_fd, size_t size, void **out)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *out = p;
    return 0;
}

const struct kvm_sys kvm_sys_host = {.open = host_open, .ioctl = host_ioctl, .map = host_map};

int kvm_cap(const struct kvm_sys *s, int fd, unsigned cap)
{
    int v = kvm_io(s, fd, KVM_CHECK_EXTENSION, cap);
    return v < 0 ? 0 : v;
}

int kvm_enable(const struct kvm_sys *s, int fd, unsigned cap, uint64_t arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};
    return kvm_iop(s, fd, KVM_ENABLE_CAP, &c);
}
