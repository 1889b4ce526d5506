/* What machine.c (wiring) and machine_life.c (events, boot, looking at it) share. */
#ifndef HEC_VM_MACHINE_PRIV_H
#define HEC_VM_MACHINE_PRIV_H

#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "cpu/pv.h"
#include "dev/amdvi_pci.h"
#include "dev/chardev.h"
#include "dev/debugexit.h"
#include "dev/fw_cfg.h"
#include "dev/irqtest.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "dev/serial.h"
#include "dev/testdev.h"
#include "irq/ioapic.h"
#include "irq/vtd.h"
#include "pci/host.h"
#include "vm/machine.h"
#include "vm/pci_devices.h"

struct machine {
    const struct vm_config *cfg;  /* (c) borrowed */
    apic_id_t *ids;               /* (c) [smp.cpus] */
    const struct engine_ops *ops; /* (c) */
    struct guest_clock clock;
    struct timerq timers;
    struct epoch epoch;
    int epoch_slot; /* (c) the owner's thread */
    struct trace trace;
    struct ram ram;
    struct bus ports, mmio;
    struct cpuid_model cpuid;
    struct remap remap;
    struct irq_port port;  /* (c) the fabric's, or the engine's own */
    struct fabric *fabric; /* NULL: the engine has its own APICs */
    struct vtd *vtd;       /* NULL: none */
    struct amdvi *amdvi;   /* NULL: none */
    struct ioapic *ioapic; /* NULL: the engine has one, and the PIC */
    struct pv *pv;         /* NULL: the engine has the paravirtual ABI */
    struct engine_vm *engine;
    struct runner *runner;
    struct vm_control control;
    struct chardev *console;
    struct pic pic;
    struct pit pit;
    struct rtc rtc;
    struct pm pm;
    struct serial serial;
    struct pci_host pci;
    struct amdvi_pci amdvi_pci;
    struct pci_devices *pci_devices; /* owned; reset before all others, see machine_boot() */
    struct debugexit debugexit;
    struct shutdown_port shutdown_port;
    struct testdev testdev;
    struct irqtest irqtest;
    struct fw_cfg fw_cfg;
    unsigned devices;      /* how many of the device table are initialised */
    enum boot_kind booted; /* by the last machine_boot() */
    int event_fd;
    pthread_mutex_t event_lock;
    struct machine_event event; /* (l: event_lock) */
};

/* ---- machine_life.c: hooks for the wiring; any thread ---- */
void machine_on_request(void *machine, enum vm_request req, int code);
void machine_on_vcpu_exit(void *machine, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why);

/* ---- machine.c ---- */
static inline bool machine_has(const struct machine *m, enum engine_trait t)
{
    return m->ops->traits & t;
}
/* Whether the PIC and the I/O APIC are the engine's (kernel-irqchip=on of an engine with APICs of its own). */
bool machine_engine_has_irqchip(const struct machine *m);
/* Reset every device. Inside the epoch; no vCPU runs. */
void machine_reset_devices(struct machine *m);

#endif
