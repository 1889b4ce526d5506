/* A machine that is wired as vm_run() would wire it, and never runs: for asking where an interrupt would go. Its APICs
 * are brought up as a guest's kernel does it; what is sent is really sent, by the same translator and fabric, and then
 * one looks who got it. One thread.
 */
#ifndef HEC_VM_PROBE_H
#define HEC_VM_PROBE_H

#include "irq/remap.h"
#include "vm/config.h"

struct bus;
struct fabric;
struct probe;

/* ---- lifecycle ---- */
/* Build the machine of `c` (config_check()ed; copied, its files and character devices are left alone). */
int probe_create(const struct vm_config *c, struct probe **out, struct err *e);
void probe_destroy(struct probe *p);

/* ---- looking at it ---- */
const struct remap *probe_remap(const struct probe *p);
struct fabric *probe_fabric(const struct probe *p);
struct bus *probe_mmio(struct probe *p);
requester_id_t probe_ioapic_rid(const struct probe *p);
uint32_t probe_cpus(const struct probe *p);
/* What CPUID offers. */
bool probe_has_x2apic(const struct probe *p);

/* ---- using it ---- */
/* Software-enable every APIC in x2APIC mode, or in xAPIC mode (flat logical IDs for up to 8 CPUs, else none). False: an
 * APIC refused (no x2APIC offered). Forgets everything that was pending. */
bool probe_bring_up(struct probe *p, bool x2apic);
/* Send through the fabric. How many took it. */
int probe_deliver(struct probe *p, struct irq irq);
/* Write the ICR of `cpu`: all 64 bits as the mode in force has them. False: #GP. */
bool probe_icr(struct probe *p, vcpu_idx_t cpu, uint64_t icr);

/* ---- the remapping unit ---- */
/* 16 bytes of an interrupt remapping table, as guest memory has them. */
struct probe_entry {
    uint64_t low, high;
};

/* Switch the unit on as a guest's kernel does, for `from`'s messages. False: the machine has none that remaps. */
bool probe_unit_on(struct probe *p, requester_id_t from);
/* Look up `msg` and find which entry of the table it names. False: the unit lets it pass or refuses it before it reads
 * an entry; `*r` says which. */
bool probe_unit_index(struct probe *p, struct msi_msg msg, requester_id_t from, struct remap_result *r,
                      uint32_t *index);
/* Put `e` into every entry of the table. */
void probe_unit_entry(struct probe *p, struct probe_entry e);

/* What one CPU has got since probe_take() last asked, which forgets it. */
struct probe_got {
    int vector;      /* -1: none; 256: the PIC is to be asked (ExtINT) */
    unsigned events; /* enum fabric_event */
    uint8_t sipi;    /* page number, with FABRIC_EV_SIPI */
};
struct probe_got probe_take(struct probe *p, vcpu_idx_t cpu);

#endif
