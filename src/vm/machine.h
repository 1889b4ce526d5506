/* The machine: owner of everything, and the only place where rooms are wired to each other. Private to vm/.
 *
 * Lifecycle: create -> boot -> start -> (wait, stop, boot, start)* -> stop -> destroy. Everything but
 * machine_create()'s and machine_destroy()'s work may be repeated for a guest reset.
 */
#ifndef HEC_VM_MACHINE_H
#define HEC_VM_MACHINE_H

#include "dev/control.h"
#include "vm/config.h"
#include "vm/runner.h"

struct machine;

/* Why the machine wants its owner's attention. */
struct machine_event {
    bool pending;
    enum vm_request req;
    int code;          /* VM_REQ_EXIT */
    bool triple_fault; /* VM_REQ_RESET because a vCPU shut down */
    vcpu_idx_t cpu;    /* whose triple fault */
    char error[256];   /* not empty: the engine's host failed */
};

/* ---- lifecycle (the owner's thread) ---- */
int machine_create(const struct vm_config *c, struct machine **out, struct err *e);
void machine_destroy(struct machine *m);
/* Power-on: reset every device and vCPU, clear the way, load the kernel, set the boot CPU. No vCPU runs. */
int machine_boot(struct machine *m, struct err *e);
/* Make the threads that run vCPUs, before the process gives up what it no longer needs. */
int machine_prepare(struct machine *m, struct err *e);
int machine_start(struct machine *m, struct err *e);
void machine_stop(struct machine *m);
/* From now on no vCPU waits for a console reader that has stopped reading: call it before the last machine_stop(). */
void machine_hurry_output(struct machine *m);
/* Drop unwritten console output: the process is being ended by force. */
void machine_discard_output(struct machine *m);

/* ---- any thread ---- */
/* An eventfd that is readable while an event is pending. */
int machine_event_fd(const struct machine *m);
/* Take the first pending event; later ones of the same run are dropped. */
struct machine_event machine_take_event(struct machine *m);
void machine_stats(struct machine *m, struct vm_stats *out);
/* Housekeeping for the owner's thread, about once a second while the machine runs. */
void machine_tidy(struct machine *m);
/* Nothing runs and nothing is due; only input can go on. */
bool machine_stuck(struct machine *m);

/* ---- stopped ---- */
/* What machine_boot() has loaded is a kernel, not a bare-metal program. */
bool machine_has_kernel(const struct machine *m);
/* Every vCPU that was started is halted with interrupts off: nothing but an NMI or INIT could ever wake it. */
bool machine_is_dead(struct machine *m);
/* Hash of every vCPU's state, RAM, and the way here (deterministic machines). */
uint64_t machine_hash(struct machine *m);

#endif
