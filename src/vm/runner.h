/* Who runs vCPUs, and guest time. Two kinds: a pool of M worker threads that N vCPUs share, for engines that run a
 * vCPU for a slice, and a thread a vCPU, for engines that want it so (ENGINE_OWN_THREADS).
 *
 * The pool (runner_pool.c).
 * Virtual time: one instruction is one ns. Each vCPU has its own time; workers always take the vCPU that is earliest,
 * be it runnable or asleep until its APIC timer, and never run one far ahead of another that is running. So the
 * machine's time is the minimum over the runnable vCPUs, and when all sleep it jumps to the first deadline (paced to
 * wall time when asked). Real time: vCPUs share the workers by least run time, sleepers wake by the host's clock.
 *
 * A vCPU is parked, queued or running. Parked and queued vCPUs belong to a home worker, whose lock guards the change;
 * there is no machine-wide lock. Lost wake-ups cannot happen: who kicks sets the attention word before it looks at the
 * state, who parks sets the state before it looks at the attention word.
 *
 * A thread a vCPU (runner_threads.c). Time is real. The threads are made once, by the first prepare or start, and stay
 * until the runner is destroyed: between stop and start they sleep on one futex, so that pausing and going on cost each
 * thread one wake-up and one kick. One more thread serves the device timers.
 */
#ifndef HEC_VM_RUNNER_H
#define HEC_VM_RUNNER_H

#include "base/timerq.h"
#include "cpu/engine.h"

struct runner;

/* Something a vCPU did that ends the run: a triple fault or a host failure. Called on the thread that ran it, which
 * will not run that vCPU again before runner_stop(). */
typedef void runner_exit_fn(void *opaque, vcpu_idx_t cpu, enum cpu_exit_kind kind, const char *why);

struct runner_config {
    uint32_t vcpus;
    bool own_threads;          /* a thread a vCPU; else the pool */
    unsigned workers;          /* of the pool */
    bool pace;                 /* virtual time: do not let an idle guest outrun the wall clock */
    bool hash;                 /* keep the rolling hash (deterministic mode, one worker) */
    struct guest_clock *clock; /* all borrowed */
    struct timerq *timers;
    struct epoch *epoch;
    const struct trace *trace;
    const char *thread_name; /* prefix of worker thread names, NULL: "hecaton" */
    bool debug_threads;      /* a vCPU's own thread is named as QEMU's users know it: "CPU 12/KVM" */
    runner_exit_fn *on_exit;
    void *opaque;
};

struct runner_stats {
    uint64_t guest_ns;
    uint64_t instructions; /* 0 if the engine does not count them */
    uint64_t exits;        /* likewise, to user space */
    uint32_t started;      /* vCPUs that have executed an instruction */
    bool stuck;            /* nothing runs, nothing is due: only a kick can go on (the pool knows) */
};

/* ---- lifecycle ---- */
int runner_create(const struct runner_config *c, struct runner **out, struct err *e);
/* The engine comes after the runner, because the fabric's kick hook needs the runner. Once, before runner_start(). */
void runner_attach(struct runner *r, const struct engine_ops *ops, struct engine_vm *vm, struct fabric *fabric);
void runner_destroy(struct runner *r); /* it has been stopped */
/* Make the threads that stay, none of which runs a vCPU before runner_start(): what can fail, early. -errno. */
int runner_prepare(struct runner *r, struct err *e);
/* Let vCPUs run; every one is looked at once. -errno. */
int runner_start(struct runner *r, struct err *e);
/* Let none run any more, and wait until none does; nothing if none runs (a failed runner_start() leaves none). Not on a
 * thread that runs vCPUs. May be followed by runner_start(). */
void runner_stop(struct runner *r);

/* ---- any thread ---- */
void runner_kick(void *runner, vcpu_idx_t target); /* a fabric_kick_fn: look at the APIC, wake if parked */
void runner_wake(void *runner);                    /* timerq's `earlier` hook: a device timer became earlier */
void runner_request_stop(struct runner *r);        /* ask only; runner_stop() waits */
void runner_stats(struct runner *r, struct runner_stats *out);
/* Give back the caches of vCPUs that have been parked for ten calls. Call it about once a second, not on a worker. */
void runner_trim(struct runner *r);
uint64_t runner_hash(const struct runner *r); /* stopped: rolling hash of every slice so far */

#endif
