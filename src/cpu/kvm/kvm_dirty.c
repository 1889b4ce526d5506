/* Guest memory: the two slots, and what was written to them since somebody last asked. KVM logs what vCPUs write; what
 * devices and loaders write through the host's mapping comes by ram_written(). */
#include "cpu/kvm/kvm_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_LOW, SLOT_HIGH };

struct slot {
    uint32_t n;
    gpa_t gpa;
    uint64_t size;
    uint8_t *hva;
};

static struct slot slot_of(const struct ram *r, unsigned n)
{
    return n == SLOT_LOW ? (struct slot){SLOT_LOW, 0, r->low_size, r->low}
                         : (struct slot){SLOT_HIGH, RAM_HIGH_GPA, r->high_size, r->high};
}

int kvm_slots_set(struct kvm_vm *vm, bool log)
{
    int rc = 0;
    for (unsigned i = 0; i < 2 && rc >= 0; i++) {
        struct slot s = slot_of(vm->cfg.ram, i);
        struct kvm_userspace_memory_region r = {.slot = s.n,
                                                .flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
                                                .guest_phys_addr = s.gpa,
                                                .memory_size = s.size,
                                                .userspace_addr = (uintptr_t)s.hva};
        if (s.size)
            rc = kvm_vm_iop(vm, KVM_SET_USER_MEMORY_REGION, &r);
    }
    return rc < 0 ? rc : 0;
}

void kvm_dirty_init(struct kvm_vm *vm)
{
    pthread_mutex_init(&vm->dirty.lock, NULL);
}

void kvm_dirty_fini(struct kvm_vm *vm)
{
    free((void *)vm->dirty.device);
    free(vm->dirty.log);
    pthread_mutex_destroy(&vm->dirty.lock);
}

/* The bitmap stays once it is there, because a device may be about to write to it. */
static int allocate(struct kvm_vm *vm)
{
    struct kvm_dirty *d = &vm->dirty;
    uint64_t words = (ram_pages(vm->cfg.ram) + 63) / 64 + 1;
    if (!d->device)
        d->device = calloc(words, sizeof *d->device);
    if (!d->log)
        d->log = calloc(words, sizeof *d->log);
    return d->device && d->log ? 0 : -ENOMEM;
}

int kvm_dirty_track(struct engine_vm *evm, bool on, struct err *e)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    pthread_mutex_lock(&vm->dirty.lock);
    int rc = on ? allocate(vm) : 0;
    if (!rc)
        rc = kvm_slots_set(vm, on);
    if (!rc)
        atomic_store(&vm->dirty.on, on);
    pthread_mutex_unlock(&vm->dirty.lock);
    return rc ? err_set(e, rc, "KVM does not log which memory is written: %s", strerror(-rc)) : 0;
}

void kvm_ram_written(struct engine_vm *evm, gpa_t gpa, uint64_t len)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    if (likely(!atomic_load_explicit(&vm->dirty.on, memory_order_acquire)) || !len || !ram_hva(vm->cfg.ram, gpa, len))
        return;
    uint64_t first = ram_page_index(vm->cfg.ram, gpa), last = ram_page_index(vm->cfg.ram, gpa + len - 1);
    for (uint64_t p = first; p <= last; p++)
        atomic_fetch_or_explicit(&vm->dirty.device[p / 64], BIT(p % 64), memory_order_relaxed);
}

/* ---- fetching; under the lock ---- */

/* KVM's log of a slot into d->log. Where GET does not clear, CLEAR does, before anybody looks at the pages. */
static int fetch_log(struct kvm_vm *vm, const struct slot *s)
{
    struct kvm_dirty_log get = {.slot = s->n, .dirty_bitmap = vm->dirty.log};
    int rc = kvm_vm_iop(vm, KVM_GET_DIRTY_LOG, &get);
    if (rc < 0 || !vm->has_clear_dirty)
        return rc;
    struct kvm_clear_dirty_log clear = {
        .slot = s->n, .num_pages = (uint32_t)(s->size / RAM_PAGE), .dirty_bitmap = vm->dirty.log};
    return kvm_vm_iop(vm, KVM_CLEAR_DIRTY_LOG, &clear);
}

static void add_devices(struct kvm_vm *vm, const struct slot *s)
{
    uint64_t base = ram_page_index(vm->cfg.ram, s->gpa);
    for (uint64_t p = 0; p < s->size / RAM_PAGE; p++) {
        _Atomic uint64_t *word = &vm->dirty.device[(base + p) / 64];
        uint64_t bit = BIT((base + p) % 64);
        if (atomic_load_explicit(word, memory_order_relaxed) & bit && atomic_fetch_and(word, ~bit) & bit)
            vm->dirty.log[p / 64] |= BIT(p % 64);
    }
}

static void report(const struct kvm_vm *vm, const struct slot *s, void (*run)(void *, gpa_t, uint64_t), void *opaque)
{
    const uint64_t *log = vm->dirty.log;
    uint64_t pages = s->size / RAM_PAGE;
    for (uint64_t p = 0; p < pages;) {
        if (!log[p / 64]) {
            p = (p / 64 + 1) * 64;
            continue;
        }
        uint64_t end = p;
        while (end < pages && log[end / 64] >> end % 64 & 1)
            end++;
        if (end > p)
            run(opaque, s->gpa + p * RAM_PAGE, (end - p) * RAM_PAGE);
        p = end > p ? end : p + 1;
    }
}

int kvm_dirty_fetch(struct engine_vm *evm, void (*run)(void *opaque, gpa_t gpa, uint64_t len), void *opaque)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    int rc = atomic_load(&vm->dirty.on) ? 0 : -EINVAL;
    pthread_mutex_lock(&vm->dirty.lock);
    for (unsigned i = 0; i < 2 && rc >= 0; i++) {
        struct slot s = slot_of(vm->cfg.ram, i);
        rc = s.size ? fetch_log(vm, &s) : rc;
        if (rc >= 0 && s.size) {
            add_devices(vm, &s);
            report(vm, &s, run, opaque);
        }
    }
    pthread_mutex_unlock(&vm->dirty.lock);
    return rc < 0 ? rc : 0;
}
