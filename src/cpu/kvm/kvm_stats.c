/* KVM's binary statistics of vCPUs. Linux, Documentation/virt/kvm/api.rst, "KVM_GET_STATS_FD". The layout is the same
 * for all vCPUs, so it is read once. Asking for a vCPU's file waits until the vCPU is out of KVM_RUN, and a halted one
 * may be there for ever: so the files are opened while the machine is made. Reading them waits for nobody. */
#include "cpu/kvm/kvm_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { S_EXITS, S_MMIO, S_PIO, S_IRQ, S_HALT, S_SIGNAL, S_INJECTED };

static const char *const names[] = {
    [S_EXITS] = "exits",
    [S_MMIO] = "mmio_exits",
    [S_PIO] = "io_exits",
    [S_IRQ] = "irq_exits",
    [S_HALT] = "halt_exits",
    [S_SIGNAL] = "signal_exits",
    [S_INJECTED] = "irq_injections",
};

#define DESCS_MAX 4096u

static void note(struct kvm_stats *s, const struct kvm_stats_header *h, const struct kvm_stats_desc *d)
{
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (!strncmp(d->name, names[i], h->name_size) && d->size == 1)
            s->at[i] = h->data_offset + (uint64_t)d->offset;
}

static void learn(struct kvm_stats *s, int fd)
{
    struct kvm_stats_header h;
    if (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h || h.num_desc > DESCS_MAX || h.name_size > 256)
        return;
    size_t step = sizeof(struct kvm_stats_desc) + h.name_size, size = step * h.num_desc;
    char *all = malloc(size);
    if (all && pread(fd, all, size, h.desc_offset) == (ssize_t)size)
        for (uint32_t i = 0; i < h.num_desc; i++)
            note(s, &h, (const struct kvm_stats_desc *)(all + i * step));
    free(all);
}

void kvm_stats_open(struct kvm_vcpu *v)
{
    struct kvm_stats *s = &v->vm->stats;
    if (!v->vm->has_stats)
        return;
    int fd = kvm_io(v->vm->sys, v->fd, KVM_GET_STATS_FD, 0);
    v->stats_fd = fd < 0 ? -1 : fd;
    if (fd >= 0 && !s->at[S_EXITS])
        learn(s, fd);
}

static void read_vcpu(struct kvm_vcpu *v, uint64_t out[ARRAY_SIZE(names)])
{
    const struct kvm_stats *s = &v->vm->stats;
    for (unsigned i = 0; v->stats_fd >= 0 && i < ARRAY_SIZE(names); i++)
        if (!s->at[i] || pread(v->stats_fd, &out[i], sizeof out[i], (off_t)s->at[i]) != (ssize_t)sizeof out[i])
            out[i] = 0;
}

/* What came to this process is counted here, and never less than what the kernel says: it may not count it. */
static void own_counts(struct kvm_vcpu *v, uint64_t out[ARRAY_SIZE(names)])
{
    out[S_EXITS] = max_u64(out[S_EXITS], atomic_load(&v->exits));
    out[S_MMIO] = max_u64(out[S_MMIO], atomic_load(&v->mmio));
    out[S_PIO] = max_u64(out[S_PIO], atomic_load(&v->pio));
    out[S_SIGNAL] = max_u64(out[S_SIGNAL], atomic_load(&v->signals));
}

static void add(struct engine_stats *o, const uint64_t n[ARRAY_SIZE(names)])
{
    o->exits += n[S_EXITS];
    o->mmio += n[S_MMIO];
    o->pio += n[S_PIO];
    o->irq_exits += n[S_IRQ];
    o->halts += n[S_HALT];
    o->signal_exits += n[S_SIGNAL];
    o->injected += n[S_INJECTED];
    o->started += n[S_EXITS] != 0;
}

void kvm_stats_get(struct engine_vm *evm, struct engine_stats *out)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    *out = (struct engine_stats){0};
    pthread_mutex_lock(&vm->stats_lock);
    for (uint32_t i = 0; i < vm->cfg.vcpus; i++) {
        uint64_t n[ARRAY_SIZE(names)] = {0};
        read_vcpu(&vm->vcpu[i], n);
        own_counts(&vm->vcpu[i], n);
        add(out, n);
    }
    out->inhibits_known = kvm_inhibit_read(vm, &out->inhibits);
    pthread_mutex_unlock(&vm->stats_lock);
}
