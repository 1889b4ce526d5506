#include "vm/machine_priv.h"

#include "cpu/kvm/kvm.h"
#include "irq/inhibit.h"
#include "vm/accel.h"
#include "vm/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEVICE_TIMERS      16
#define DETERMINISTIC_WALL (UINT64_C(1767225600) * NS_PER_SEC) /* 2026-01-01 00:00 UTC at guest time 0 */

/* ---- interrupt lines ---- */

bool machine_engine_has_irqchip(const struct machine *m)
{
    return machine_has(m, ENGINE_OWN_APICS) && m->cfg->irqchip == VM_IRQCHIP_ON;
}

/* An ISA interrupt: the PIC's input and the I/O APIC's pin, where IRQ 0 is pin 2 (the MADT's override says so). */
static void isa_line(void *opaque, unsigned irq, bool level)
{
    struct machine *m = opaque;
    if (!m->ioapic) {
        m->ops->gsi(m->engine, irq, level);
        return;
    }
    pic_set_irq(&m->pic, irq, level);
    ioapic_set_pin(m->ioapic, irq == 0 ? 2 : irq, level);
}

static struct irq_line isa(struct machine *m, unsigned irq)
{
    return (struct irq_line){.set = isa_line, .opaque = m, .gsi = irq};
}

static void gsi_line(void *opaque, unsigned gsi, bool level)
{
    struct machine *m = opaque;
    if (m->ioapic)
        ioapic_set_pin(m->ioapic, gsi, level);
    else
        m->ops->gsi(m->engine, gsi, level);
}

/* An INTx wire at the PIC alone; an engine's own PIC has the I/O APIC's pin beside it, which guests leave masked. */
static void pic_line(void *opaque, unsigned irq, bool level)
{
    struct machine *m = opaque;
    if (m->ioapic)
        pic_set_irq(&m->pic, irq, level);
    else
        m->ops->gsi(m->engine, irq, level);
}

/* INTR goes to the boot CPU's LINT0, as in virtual wire mode. */
static void pic_output(void *opaque, bool level)
{
    struct machine *m = opaque;
    if (m->fabric)
        fabric_lint(m->fabric, VCPU_IDX(0), 0, level);
    else
        m->ops->intr(m->engine, level);
}

/* ---- devices ---- */

static uint64_t wall_at_zero(const struct machine *m)
{
    uint32_t ns;
    if (m->cfg->deterministic)
        return DETERMINISTIC_WALL;
    uint64_t sec = clock_wall_seconds(&ns);
    return sec * NS_PER_SEC + ns;
}

static int make_console(struct machine *m, struct err *e)
{
    struct chardev_config c = {
        .spec = m->cfg->serial[0].spec ? m->cfg->serial[0].spec : "null", .control = &m->control, .notes = stderr};
    return chardev_create(&c, &m->console, e);
}

static int make_pic(struct machine *m, struct err *e)
{
    struct pic_config c = {.ports = &m->ports, .output = pic_output, .output_opaque = m, .trace = &m->trace};
    if (machine_engine_has_irqchip(m))
        return 0;
    return pic_init(&m->pic, &c, e);
}

static int make_pit(struct machine *m, struct err *e)
{
    struct pit_config c = {
        .ports = &m->ports, .irq = isa(m, 0), .timerq = &m->timers, .clock = &m->clock, .trace = &m->trace};
    return pit_init(&m->pit, &c, e);
}

static int make_rtc(struct machine *m, struct err *e)
{
    struct rtc_config c = {.ports = &m->ports,
                           .irq = isa(m, 8),
                           .timerq = &m->timers,
                           .clock = &m->clock,
                           .base_seconds = wall_at_zero(m) / NS_PER_SEC,
                           .ram_low = m->ram.low_size,
                           .ram_high = m->ram.high_size,
                           .cpus = m->cfg->smp.cpus,
                           .trace = &m->trace};
    return rtc_init(&m->rtc, &c, e);
}

static int make_pm(struct machine *m, struct err *e)
{
    struct pm_config c = {.ports = &m->ports,
                          .sci = isa(m, PM_SCI_GSI),
                          .timerq = &m->timers,
                          .clock = &m->clock,
                          .control = &m->control,
                          .acpi_mode = true,
                          .trace = &m->trace};
    return pm_init(&m->pm, &c, e);
}

static int make_serial(struct machine *m, struct err *e)
{
    struct serial_config c = {.ports = &m->ports,
                              .base = SERIAL_COM1,
                              .irq = isa(m, 4),
                              .chr = m->console,
                              .timerq = &m->timers,
                              .clock = &m->clock,
                              .epoch = &m->epoch,
                              .wait_when_full = m->cfg->deterministic};
    return serial_init(&m->serial, &c, e);
}

static int make_pci(struct machine *m, struct err *e)
{
    struct pci_host_config c = {.ports = &m->ports,
                                .mmio = &m->mmio,
                                .reset = {.read = pm_reset_read, .write = pm_reset_write, .opaque = &m->pm},
                                .ram = &m->ram,
                                .remap = &m->remap,
                                .port = m->port,
                                .intx = {.set = gsi_line, .opaque = m},
                                .pic = {.set = pic_line, .opaque = m},
                                .trace = &m->trace};
    firmware_pci64(&m->ram, m->cpuid.phys_bits, &c.mem64_base, &c.mem64_len);
    return pci_host_init(&m->pci, &c, e);
}

static int make_amdvi_pci(struct machine *m, struct err *e)
{
    return m->amdvi ? amdvi_pci_init(&m->amdvi_pci, &m->pci, m->amdvi, e) : 0;
}

static int make_pci_devices(struct machine *m, struct err *e)
{
    struct pci_devices_config c = {
        .cfg = m->cfg, .host = &m->pci, .epoch = &m->epoch, .control = &m->control, .trace = &m->trace};
    return pci_devices_create(&c, &m->pci_devices, e);
}

static int make_debugexit(struct machine *m, struct err *e)
{
    if (!m->cfg->debug_exit)
        return 0;
    return debugexit_init(&m->debugexit, &m->ports, &m->control, m->cfg->debug_exit_base, m->cfg->debug_exit_size, e);
}

static int make_shutdown_port(struct machine *m, struct err *e)
{
    return shutdown_port_init(&m->shutdown_port, &m->ports, &m->control, e);
}

static int make_testdev(struct machine *m, struct err *e)
{
    struct testdev_config c = {.ports = &m->ports, .mmio = &m->mmio, .irq = {.set = gsi_line, .opaque = m}};
    return m->cfg->pc_testdev ? testdev_init(&m->testdev, &c, e) : 0;
}

static int make_irqtest(struct machine *m, struct err *e)
{
    struct irqtest_config c = {.ports = &m->ports, .remap = &m->remap, .port = m->port};
    return m->cfg->irq_test ? irqtest_init(&m->irqtest, &c, e) : 0;
}

static int make_fw_cfg(struct machine *m, struct err *e)
{
    struct fw_cfg_config c = {.ports = &m->ports,
                              .ram = &m->ram,
                              .ram_size = m->cfg->mem_size,
                              .cpus = m->cfg->smp.cpus,
                              .max_cpus = m->cfg->smp.maxcpus};
    return fw_cfg_init(&m->fw_cfg, &c, e);
}

static void drop_console(struct machine *m)
{
    chardev_destroy(m->console);
}

static void drop_serial(struct machine *m)
{
    chardev_destroy(m->console);
    m->console = NULL;
    serial_fini(&m->serial);
}

/* The plain cases: the device is a member of struct machine, and may be absent. */
#define DROP(name, present)                                                                                            \
    static void drop_##name(struct machine *m)                                                                         \
    {                                                                                                                  \
        if (present)                                                                                                   \
            name##_fini(&m->name);                                                                                     \
    }
#define RESET(name, present)                                                                                           \
    static void reset_##name(struct machine *m)                                                                        \
    {                                                                                                                  \
        if (present)                                                                                                   \
            name##_reset(&m->name);                                                                                    \
    }

DROP(pic, !machine_engine_has_irqchip(m))
DROP(pit, true)
DROP(rtc, true)
DROP(pm, true)
DROP(debugexit, m->cfg->debug_exit)
DROP(shutdown_port, true)
DROP(testdev, m->cfg->pc_testdev)
DROP(irqtest, m->cfg->irq_test)
DROP(fw_cfg, true)
RESET(pic, !machine_engine_has_irqchip(m))
RESET(pit, true)
RESET(rtc, true)
RESET(pm, true)
RESET(serial, true)
RESET(shutdown_port, true)
RESET(testdev, m->cfg->pc_testdev)
RESET(irqtest, m->cfg->irq_test)
RESET(fw_cfg, true)

static void reset_amdvi(struct machine *m)
{
    if (!m->amdvi)
        return;
    amdvi_reset(m->amdvi);
    amdvi_pci_reset(&m->amdvi_pci);
}

static void drop_nothing(struct machine *m)
{
}

static void drop_pci(struct machine *m)
{
    pci_host_fini(&m->pci);
}

static void drop_pci_devices(struct machine *m)
{
    pci_devices_destroy(m->pci_devices);
}

static void reset_pci(struct machine *m)
{
    pci_host_reset(&m->pci);
}

/* In the order of making; taken down backwards. */
static const struct device {
    int (*make)(struct machine *m, struct err *e);
    void (*drop)(struct machine *m);
    void (*reset)(struct machine *m);
} device_table[] = {
    {make_console, drop_console, NULL},
    {make_pic, drop_pic, reset_pic},
    {make_pit, drop_pit, reset_pit},
    {make_rtc, drop_rtc, reset_rtc},
    {make_pm, drop_pm, reset_pm},
    {make_pci, drop_pci, reset_pci},
    {make_amdvi_pci, drop_nothing, reset_amdvi},
    {make_pci_devices, drop_pci_devices, NULL},
    {make_serial, drop_serial, reset_serial},
    {make_debugexit, drop_debugexit, NULL},
    {make_shutdown_port, drop_shutdown_port, reset_shutdown_port},
    {make_testdev, drop_testdev, reset_testdev},
    {make_irqtest, drop_irqtest, reset_irqtest},
    {make_fw_cfg, drop_fw_cfg, reset_fw_cfg},
};

void machine_reset_devices(struct machine *m)
{
    for (unsigned i = 0; i < m->devices; i++)
        if (device_table[i].reset)
            device_table[i].reset(m);
}

static int make_devices(struct machine *m, struct err *e)
{
    int rc = 0;
    while (!rc && m->devices < ARRAY_SIZE(device_table)) {
        rc = device_table[m->devices].make(m, e);
        m->devices += !rc;
    }
    return rc;
}

/* ---- CPUs and interrupts ---- */

static unsigned worker_count(const struct vm_config *c)
{
    return c->deterministic ? 1 : c->workers ? c->workers : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Real time is honest only while every vCPU has a worker of its own. */
static bool wants_real_time(const struct machine *m)
{
    const struct vm_config *c = m->cfg;
    if (machine_has(m, ENGINE_OWN_THREADS))
        return true;
    if (c->deterministic || c->time == VM_TIME_VIRTUAL)
        return false;
    return c->time == VM_TIME_REAL || c->smp.cpus <= worker_count(c);
}

static bool ext_dest_id(const struct machine *m)
{
    return cpuid_ext_dest(&m->cpuid) != 0;
}

static int make_runner(struct machine *m, struct err *e)
{
    struct runner_config c = {.vcpus = m->cfg->smp.cpus,
                              .own_threads = machine_has(m, ENGINE_OWN_THREADS),
                              .workers = worker_count(m->cfg),
                              .pace = !m->clock.real && !m->cfg->deterministic,
                              .hash = m->cfg->deterministic,
                              .clock = &m->clock,
                              .timers = &m->timers,
                              .epoch = &m->epoch,
                              .trace = &m->trace,
                              .thread_name = m->cfg->debug_threads && m->cfg->name[0] ? m->cfg->name : NULL,
                              .debug_threads = m->cfg->debug_threads,
                              .on_exit = machine_on_vcpu_exit,
                              .opaque = m};
    int rc = runner_create(&c, &m->runner, e);
    m->timers.earlier = runner_wake;
    m->timers.earlier_opaque = m->runner;
    return rc;
}

/* What keeps this machine from ever posting interrupts straight. */
static uint32_t inhibits(const struct vm_config *c)
{
    return (c->apicv_off ? INHIBIT_BIT(INHIBIT_DISABLED) : 0) |
           (c->irqchip == VM_IRQCHIP_OFF ? INHIBIT_BIT(INHIBIT_ABSENT) : 0);
}

static int make_fabric(struct machine *m, struct err *e)
{
    struct fabric_config c = {.vcpus = m->cfg->smp.cpus,
                              .ids = m->ids,
                              .firmware_x2apic = vm_config_firmware_x2apic(m->cfg),
                              .x2apic = m->cpuid.std1_ecx & CPUID_1_ECX_X2APIC,
                              .ext_dest_id = ext_dest_id(m),
                              .id8 = m->cfg->x2apic_8bit_ids,
                              .inhibits = inhibits(m->cfg),
                              .kick = runner_kick,
                              .kick_opaque = m->runner,
                              .extint_ack = pic_ack,
                              .extint_opaque = &m->pic,
                              .epoch = &m->epoch,
                              .trace = &m->trace};
    if (machine_has(m, ENGINE_OWN_APICS))
        return 0;
    int rc = fabric_create(&c, &m->fabric, e);
    if (!rc)
        m->port = fabric_port(m->fabric);
    return rc;
}

/* Who keeps routes that a remapping unit's tables gave: KVM, for devices that reach it without us. */
static struct remap_stale route_keeper(struct machine *m)
{
    if (m->cfg->engine != VM_ACCEL_KVM)
        return (struct remap_stale){.fn = NULL};
    return (struct remap_stale){.fn = kvm_gsi_stale, .opaque = m->engine};
}

static int make_vtd(struct machine *m, struct err *e)
{
    const struct vm_iommu *u = &m->cfg->iommu;
    struct vtd_config c = {.intremap = u->intremap,
                           .eim = vm_config_remaps_wide(m->cfg),
                           .caching_mode = u->caching_mode,
                           .dma_translation = u->dma_translation,
                           .aw_bits = (uint8_t)u->aw_bits,
                           .phys_bits = m->cpuid.phys_bits,
                           .scoped = u->scope == VM_SCOPE_IOAPIC,
                           .scope = REQUESTER_ID(IOAPIC_REQUESTER),
                           .ram = &m->ram,
                           .port = m->port,
                           .stale = route_keeper(m),
                           .trace = &m->trace};
    int rc = vtd_create(&c, &m->vtd, e);
    if (rc)
        return rc;
    m->remap.vtd = m->vtd;
    struct bus_region region = {
        .base = VTD_GPA, .len = VTD_SIZE, .ops = &vtd_bus_ops, .dev = m->vtd, .name = "VT-d unit"};
    return bus_map(&m->mmio, &region, e);
}

static int make_amdvi(struct machine *m, struct err *e)
{
    const struct vm_iommu *u = &m->cfg->iommu;
    struct amdvi_config c = {.intremap = u->intremap,
                             .xt = vm_config_remaps_wide(m->cfg),
                             .dma_translation = u->dma_translation,
                             .requester = REQUESTER_ID(AMDVI_RID),
                             .scoped = u->scope == VM_SCOPE_IOAPIC,
                             .scope = REQUESTER_ID(IOAPIC_REQUESTER),
                             .ram = &m->ram,
                             .remap = &m->remap,
                             .port = m->port,
                             .stale = route_keeper(m),
                             .trace = &m->trace};
    int rc = amdvi_create(&c, &m->amdvi, e);
    if (rc)
        return rc;
    m->remap.amdvi = m->amdvi;
    struct bus_region region = {
        .base = AMDVI_GPA, .len = AMDVI_SIZE, .ops = &amdvi_bus_ops, .dev = m->amdvi, .name = "AMD-Vi unit"};
    return bus_map(&m->mmio, &region, e);
}

static int make_iommu(struct machine *m, struct err *e)
{
    switch (m->cfg->iommu.kind) {
    case VM_IOMMU_INTEL:
        return make_vtd(m, e);
    case VM_IOMMU_AMD:
        return make_amdvi(m, e);
    default:
        return 0;
    }
}

static int make_ioapic(struct machine *m, struct err *e)
{
    struct ioapic_config c = {.id = 0,
                              .requester = REQUESTER_ID(IOAPIC_REQUESTER),
                              .ext_dest_id = ext_dest_id(m) || m->vtd,
                              .remap = &m->remap,
                              .port = m->port,
                              .trace = &m->trace};
    if (machine_engine_has_irqchip(m))
        return 0;
    int rc = ioapic_create(&c, &m->ioapic, e);
    if (rc)
        return rc;
    if (m->fabric)
        fabric_set_eoi(m->fabric, ioapic_eoi, m->ioapic);
    else
        m->ops->set_eoi(m->engine, ioapic_eoi, m->ioapic);
    struct bus_region region = {
        .base = IOAPIC_GPA, .len = IOAPIC_SIZE, .ops = &ioapic_bus_ops, .dev = m->ioapic, .name = "I/O APIC"};
    return bus_map(&m->mmio, &region, e);
}

static int make_pv(struct machine *m, struct err *e)
{
    struct pv_config p = {.vcpus = m->cfg->smp.cpus,
                          .features = m->cpuid.kvm_features,
                          .ram = &m->ram,
                          .fabric = m->fabric,
                          .wall_at_zero = wall_at_zero(m)};
    return m->fabric ? pv_create(&p, &m->pv, e) : 0;
}

/* Stores of devices and of the paravirtual ABI: the engine may have made something of the old bytes. */
static void tell_engine(void *opaque, gpa_t gpa, uint64_t len)
{
    struct machine *m = opaque;
    m->ops->ram_written(m->engine, gpa, len);
}

static enum engine_irqchip engine_irqchip(enum vm_irqchip i)
{
    return i == VM_IRQCHIP_ON ? ENGINE_IRQCHIP_KERNEL : i == VM_IRQCHIP_OFF ? ENGINE_IRQCHIP_OFF : ENGINE_IRQCHIP_SPLIT;
}

/* The engine comes before all that sends interrupts, because its APICs may be where they go. */
static int make_engine(struct machine *m, struct err *e)
{
    struct engine_config c = {.vcpus = m->cfg->smp.cpus,
                              .ids = m->ids,
                              .workers = worker_count(m->cfg),
                              .ram = &m->ram,
                              .mmio = &m->mmio,
                              .ports = &m->ports,
                              .fabric = m->fabric,
                              .cpuid = &m->cpuid,
                              .pv = m->pv,
                              .clock = &m->clock,
                              .epoch = &m->epoch,
                              .trace = &m->trace,
                              .deterministic = m->cfg->deterministic,
                              .seed = m->cfg->seed,
                              .jit = m->cfg->jit == VM_AUTO ? !m->cfg->deterministic : m->cfg->jit == VM_ON,
                              .jit_heat = m->cfg->jit_heat,
                              .irqchip = engine_irqchip(m->cfg->irqchip),
                              .firmware_x2apic = vm_config_firmware_x2apic(m->cfg),
                              .x2apic_8bit_ids = m->cfg->x2apic_8bit_ids,
                              .x2apic_broadcast_quirk = m->cfg->x2apic_broadcast_quirk,
                              .apicv_off = m->cfg->apicv_off,
                              .extint_ack = pic_ack,
                              .extint_opaque = &m->pic};
    int rc = m->ops->vm_create(&c, &m->engine, e);
    if (rc)
        return rc;
    runner_attach(m->runner, m->ops, m->engine, m->fabric);
    m->ram.watch = (struct ram_watch){.written = tell_engine, .opaque = m};
    if (machine_has(m, ENGINE_OWN_APICS))
        m->port = m->ops->port(m->engine);
    return 0;
}

/* ---- lifecycle ---- */

static int make_basics(struct machine *m, struct err *e)
{
    const struct vm_config *c = m->cfg;
    epoch_init(&m->epoch);
    m->epoch_slot = epoch_slot(&m->epoch);
    bus_init(&m->ports, "port", &m->epoch, &m->trace);
    bus_init(&m->mmio, "mmio", &m->epoch, &m->trace);
    m->ops = accel_engine(c->engine);
    m->clock.real = wants_real_time(m);
    m->clock.host_base = clock_host_ns();
    m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&m->event_lock, NULL);
    m->control = (struct vm_control){.request = machine_on_request, .opaque = m};
    m->ids = calloc(c->smp.cpus, sizeof *m->ids);
    if (m->event_fd < 0)
        return err_set(e, -EMFILE, "cannot make an eventfd: %s: raise the limit of open files (ulimit -n)",
                       strerror(errno));
    if (timerq_init(&m->timers, DEVICE_TIMERS) || !m->ids)
        return err_set(e, -ENOMEM, "out of memory for the machine");
    vm_config_ids(c, m->ids);
    int rc = trace_open(&m->trace, c->trace_mask, c->trace_file, c->trace_json, e);
    if (!rc)
        rc = vm_config_cpuid(c, &m->cpuid, e);
    if (!rc)
        rc = ram_init(&m->ram, c->mem_size, e);
    remap_init(&m->remap, ext_dest_id(m));
    m->remap.trace = &m->trace;
    m->remap.broadcast_quirk = c->x2apic_broadcast_quirk;
    m->remap.windows_high = c->windows_msi_high_bits;
    m->remap.windows_amd = c->windows_amd_msi;
    m->remap.ioapic = REQUESTER_ID(IOAPIC_REQUESTER);
    return rc;
}

int machine_create(const struct vm_config *c, struct machine **out, struct err *e)
{
    static int (*const step[])(struct machine *, struct err *) = {make_basics, make_runner, make_fabric, make_pv,
                                                                  make_engine, make_iommu,  make_ioapic, make_devices};
    struct machine *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, -ENOMEM, "out of memory for the machine");
    m->cfg = c;
    m->event_fd = -1;
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(step) && !rc; i++)
        rc = step[i](m, e);
    if (rc)
        machine_destroy(m);
    else
        *out = m;
    return rc;
}

void machine_destroy(struct machine *m)
{
    while (m->devices)
        device_table[--m->devices].drop(m);
    if (m->ioapic)
        ioapic_destroy(m->ioapic);
    vtd_destroy(m->vtd);
    amdvi_destroy(m->amdvi);
    if (m->engine)
        m->ops->vm_destroy(m->engine);
    pv_destroy(m->pv);
    if (m->fabric)
        fabric_destroy(m->fabric);
    if (m->runner)
        runner_destroy(m->runner);
    bus_fini(&m->ports);
    bus_fini(&m->mmio);
    ram_fini(&m->ram);
    timerq_fini(&m->timers);
    epoch_fini(&m->epoch);
    trace_close(&m->trace);
    if (m->event_fd >= 0)
        close(m->event_fd);
    free(m->ids);
    free(m);
}
