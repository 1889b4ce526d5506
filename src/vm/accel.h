/* Which engine runs a machine.
 *
 * -accel lists engines, tried in order; an empty list is the host's best: KVM if it runs unmodified guests there (on
 * VMX or SVM) and takes this machine, else the built-in engine. A KVM in software is taken only if nothing else is
 * listed: it runs bare-metal programs and kernels of its own paravirtual kind.
 */
#ifndef HEC_VM_ACCEL_H
#define HEC_VM_ACCEL_H

#include "cpu/engine.h"
#include "vm/config.h"

struct kvm_probe;

/* The engine's table. */
const struct engine_ops *accel_engine(enum vm_accel a);
/* Why this machine can't run on KVM by its own options (accel_choose() asks the host too): -EINVAL and one line. */
int accel_check_kvm(const struct vm_config *c, struct err *e);
/* Set c->engine and c->kvm_in_software, given what the host's KVM can do. `said` gets a line for the user if it is not
 * what was listed first, or not what this host runs best; else it is empty. -errno if nothing listed runs it. Pure. */
int accel_choose(struct vm_config *c, const struct kvm_probe *p, struct err *said, struct err *e);
/* The same, asking the host if the list makes it matter. */
int accel_choose_here(struct vm_config *c, struct err *said, struct err *e);
/* What is left of the list after KVM has failed: true if the built-in engine may take over. */
bool accel_may_fall_back(const struct vm_config *c);
/* A vCPU of KVM's is a file each: raise the limit of open files as far as this process may. -EMFILE with the remedy. */
int accel_raise_limits(const struct vm_config *c, struct err *e);

#endif
