#include "vm/machine_priv.h"

#include "boot/boot.h"
#include "vm/firmware.h"
#include "vm/reset.h"
#include "vm/snapshot.h"
#include "x86/cpu.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* ---- events ---- */

static void post(struct machine *m, struct machine_event ev)
{
    ev.pending = true;
    pthread_mutex_lock(&m->event_lock);
    bool first = !m->event.pending;
    if (first)
        m->event = ev;
    pthread_mutex_unlock(&m->event_lock);
    if (first && eventfd_write(m->event_fd, 1))
        runner_request_stop(m->runner);
}

/* A device's wish. Vcpus stop at their next block, so that nothing runs on after a power-off. */
void machine_on_request(void *opaque, enum vm_request req, int code)
{
    struct machine *m = opaque;
    post(m, (struct machine_event){.req = req, .code = code});
    if (req != VM_REQ_PANIC)
        runner_request_stop(m->runner);
}

void machine_on_vcpu_exit(void *opaque, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why)
{
    struct machine_event ev = {.req = VM_REQ_RESET, .triple_fault = kind == CPU_EXIT_SHUTDOWN, .cpu = cpu};
    if (kind == CPU_EXIT_ERROR)
        snprintf(ev.error, sizeof ev.error, "%s", why ? why : "the engine failed");
    post(opaque, ev);
}

int machine_event_fd(const struct machine *m)
{
    return m->event_fd;
}

struct machine_event machine_take_event(struct machine *m)
{
    eventfd_t n;
    pthread_mutex_lock(&m->event_lock);
    struct machine_event ev = m->event;
    m->event = (struct machine_event){.pending = false};
    if (ev.pending)
        (void)!eventfd_read(m->event_fd, &n);
    pthread_mutex_unlock(&m->event_lock);
    return ev;
}

/* ---- power-on ---- */

/* RAM as after power-on, without touching what was never touched. */
static void clear_ram(struct machine *m)
{
    madvise(m->ram.low, m->ram.low_size, MADV_DONTNEED);
    if (m->ram.high)
        madvise(m->ram.high, m->ram.high_size, MADV_DONTNEED);
    ram_written(&m->ram, 0, m->ram.low_size);
    if (m->ram.high)
        ram_written(&m->ram, RAM_HIGH_GPA, m->ram.high_size);
}

/* APICs that are the engine's, and the boot CPU's as firmware leaves it. */
static int reset_own_apics(struct machine *m, struct err *e)
{
    struct engine_vcpu *boot = m->ops->vcpu(m->engine, VCPU_IDX(0));
    struct cpu_apic a;
    int rc = m->ops->apic_reset(m->engine, e);
    if (rc)
        return rc;
    m->ops->get_apic(boot, &a);
    reset_apic_regs(&a);
    return m->ops->set_apic(boot, &a) ? 0 : err_set(e, -EIO, "%s refuses the boot CPU's APIC", m->ops->name);
}

static int reset_apics(struct machine *m, struct err *e)
{
    if (!m->fabric)
        return reset_own_apics(m, e);
    fabric_reset(m->fabric);
    pv_reset(m->pv);
    reset_apic_wiring(m->fabric, guest_clock_now(&m->clock));
    return 0;
}

static int reset_all(struct machine *m, struct err *e)
{
    epoch_enter(&m->epoch, m->epoch_slot);
    machine_reset_devices(m);
    if (m->vtd)
        vtd_reset(m->vtd);
    if (m->ioapic)
        ioapic_reset(m->ioapic);
    int rc = reset_apics(m, e);
    epoch_leave(&m->epoch, m->epoch_slot);
    return rc;
}

static void set_cpus(struct machine *m, const struct boot_entry *entry)
{
    struct cpu_state s;
    for (uint32_t i = 0; i < m->cfg->smp.cpus; i++) {
        if (i == 0)
            reset_boot_cpu(entry, &s);
        else
            cpu_state_reset(&s, false);
        reset_firmware_msrs(&s);
        m->ops->set_state(m->ops->vcpu(m->engine, VCPU_IDX(i)), &s);
    }
}

static enum boot_protocol protocol(enum vm_boot boot)
{
    return boot == VM_BOOT_PVH       ? BOOT_PROTOCOL_PVH
           : boot == VM_BOOT_LINUX64 ? BOOT_PROTOCOL_LINUX64
                                     : BOOT_PROTOCOL_AUTO;
}

/* What is in flight ends before RAM is cleared and written anew. */
static void quiet_devices(struct machine *m)
{
    epoch_enter(&m->epoch, m->epoch_slot);
    pci_devices_reset(m->pci_devices);
    epoch_leave(&m->epoch, m->epoch_slot);
}

int machine_boot(struct machine *m, struct err *e)
{
    struct boot_layout layout;
    struct boot_config b = {.layout = &layout,
                            .kernel = m->cfg->kernel,
                            .initrd = m->cfg->initrd,
                            .cmdline = m->cfg->append,
                            .protocol = protocol(m->cfg->boot)};
    struct boot_entry entry;
    quiet_devices(m);
    clear_ram(m);
    boot_layout_init(&layout, &m->ram);
    int rc = firmware_tables(m->cfg, &m->cpuid, m->ids, &layout, &b.rsdp, e);
    if (!rc)
        rc = m->cfg->image ? boot_load_image(&b, m->cfg->image, m->cfg->image_size, &entry, e)
                           : boot_load(&b, &entry, e);
    if (!rc && entry.kind != BOOT_MULTIBOOT)
        rc = config_check_linux(m->cfg, e);
    if (rc)
        return rc;
    m->booted = entry.kind;
    rc = reset_all(m, e);
    if (!rc)
        set_cpus(m, &entry);
    return rc ? rc : pci_host_assign(&m->pci, e);
}

bool machine_has_kernel(const struct machine *m)
{
    return m->booted != BOOT_MULTIBOOT;
}

int machine_prepare(struct machine *m, struct err *e)
{
    return runner_prepare(m->runner, e);
}

int machine_start(struct machine *m, struct err *e)
{
    return runner_start(m->runner, e);
}

void machine_stop(struct machine *m)
{
    runner_stop(m->runner);
}

void machine_hurry_output(struct machine *m)
{
    chardev_hurry(m->console);
}

void machine_discard_output(struct machine *m)
{
    chardev_discard(m->console);
}

/* A trimmed vCPU forgets TLB entries, which a deterministic run must not depend on host time. */
void machine_tidy(struct machine *m)
{
    if (!m->cfg->deterministic)
        runner_trim(m->runner);
}

/* ---- looking at it ---- */

void machine_stats(struct machine *m, struct vm_stats *out)
{
    struct runner_stats r;
    runner_stats(m->runner, &r);
    *out = (struct vm_stats){.cpus = m->cfg->smp.cpus,
                             .cpus_started = r.started,
                             .guest_ns = r.guest_ns,
                             .instructions = r.instructions,
                             .exits = r.exits};
}

bool machine_stuck(struct machine *m)
{
    struct runner_stats r;
    if (machine_has(m, ENGINE_OWN_THREADS)) /* it cannot say, and its statistics cost a call a vCPU */
        return false;
    runner_stats(m->runner, &r);
    return r.stuck;
}

bool machine_is_dead(struct machine *m)
{
    struct cpu_state s;
    for (uint32_t i = 0; i < m->cfg->smp.cpus; i++) {
        m->ops->get_state(m->ops->vcpu(m->engine, VCPU_IDX(i)), &s);
        bool asleep = s.activity == CPU_WAIT_SIPI || s.activity == CPU_SHUTDOWN;
        if (!asleep && (s.activity == CPU_ACTIVE || s.rflags & RFLAGS_IF))
            return false;
    }
    return true;
}

/* RAM a word at a time: gigabytes of it. Pages that were never touched are zero and change the hash like any other. */
static uint64_t hash_ram(uint64_t h, const uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i += 8)
        h = (h ^ ld64(p + i)) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29);
    return h;
}

uint64_t machine_hash(struct machine *m)
{
    uint64_t h = runner_hash(m->runner);
    struct machine_cpu c;
    for (uint32_t i = 0; i < m->cfg->smp.cpus; i++) {
        machine_cpu_get(m, VCPU_IDX(i), &c);
        h = machine_cpu_hash(h, &c);
    }
    h = hash_ram(h, m->ram.low, m->ram.low_size);
    return hash_ram(h, m->ram.high, m->ram.high_size);
}
