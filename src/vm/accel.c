#include "vm/accel.h"

#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <sys/resource.h>

#define FILES_BESIDES 96 /* devices, disks, the console, statistics */

const struct engine_ops *accel_engine(enum vm_accel a)
{
    return a == VM_ACCEL_KVM ? &engine_kvm : &engine_soft;
}

int accel_check_kvm(const struct vm_config *c, struct err *e)
{
    if (c->deterministic)
        return err_set(e, -EINVAL, "-machine deterministic=on: KVM's guests follow real time: use -accel soft");
    if (c->time == VM_TIME_VIRTUAL)
        return err_set(e, -EINVAL, "-machine time=virtual: KVM's guests follow real time: use -accel soft");
    if (c->irqchip == VM_IRQCHIP_OFF)
        return err_set(e, -EINVAL,
                       "kernel-irqchip=off: under KVM the local APICs are the kernel's: say split or on, or use "
                       "-accel soft");
    return 0;
}

/* Why KVM can't run this machine here; 0 if it can. */
static int kvm_refusal(const struct vm_config *c, const struct kvm_probe *p, struct err *e)
{
    int rc = kvm_probe_check(p, c->smp.cpus, vm_config_max_id(c), e);
    return rc ? rc : accel_check_kvm(c, e);
}

static int take(struct vm_config *c, enum vm_accel engine)
{
    c->engine = engine;
    return 0;
}

/* No list: silent where this host has no KVM worth the name. */
static int choose_best(struct vm_config *c, const struct kvm_probe *p, struct err *said)
{
    struct err why = {{0}};
    if (p->open_errno || !p->hardware)
        return take(c, VM_ACCEL_SOFT);
    if (!kvm_refusal(c, p, &why))
        return take(c, VM_ACCEL_KVM);
    bool asked = c->deterministic || c->time == VM_TIME_VIRTUAL; /* for what only the built-in engine has */
    if (!asked)
        err_set(said, 0, "the built-in engine runs this machine, not KVM: %s", why.msg);
    return take(c, VM_ACCEL_SOFT);
}

static const char in_software[] = "this host's KVM is one in software (no VMX or SVM), which runs no unmodified kernel";

int accel_choose(struct vm_config *c, const struct kvm_probe *p, struct err *said, struct err *e)
{
    struct err why = {{0}};
    int rc = 0;
    c->kvm_in_software = !p->open_errno && !p->hardware;
    said->msg[0] = 0;
    if (!c->accels)
        return choose_best(c, p, said);
    for (unsigned i = 0; i < c->accels; i++) {
        bool last = i + 1 == c->accels;
        if (c->accel[i] == VM_ACCEL_SOFT) {
            if (rc)
                err_set(said, 0, "the built-in engine runs this machine, not KVM: %s", why.msg);
            return take(c, VM_ACCEL_SOFT);
        }
        rc = kvm_refusal(c, p, &why);
        if (!rc && c->kvm_in_software && !last)
            rc = err_set(&why, -ENOTSUP, "%s", in_software);
        if (!rc)
            return take(c, VM_ACCEL_KVM);
    }
    return err_set(e, rc, "-accel kvm: %s", why.msg);
}

int accel_choose_here(struct vm_config *c, struct err *said, struct err *e)
{
    struct kvm_probe p = {.open_errno = ENOENT};
    bool ask = !c->accels || c->accel[0] == VM_ACCEL_KVM;
    if (ask)
        kvm_probe(&p);
    return accel_choose(c, &p, said, e);
}

bool accel_may_fall_back(const struct vm_config *c)
{
    bool soft = !c->accels;
    for (unsigned i = 0; i < c->accels; i++)
        soft |= c->accel[i] == VM_ACCEL_SOFT;
    return c->engine == VM_ACCEL_KVM && soft;
}

int accel_raise_limits(const struct vm_config *c, struct err *e)
{
    struct rlimit l;
    rlim_t want = c->smp.cpus + FILES_BESIDES;
    if (c->engine != VM_ACCEL_KVM || getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= want)
        return 0;
    if (l.rlim_max < want)
        return err_set(e, -EMFILE,
                       "%u vCPUs of KVM need %llu open files, and this process may have %llu: ulimit -Hn %llu",
                       c->smp.cpus, (unsigned long long)want, (unsigned long long)l.rlim_max, (unsigned long long)want);
    l.rlim_cur = want;
    return setrlimit(RLIMIT_NOFILE, &l) ? err_set(e, -errno, "cannot raise ulimit -n to %llu", (unsigned long long)want)
                                        : 0;
}
