/* What to tell the user when the kernel can't go on with a vCPU: who, where, what, and what to do. */
#include "cpu/kvm/kvm_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define INSN_MAX 15

static void add(struct kvm_vcpu *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct kvm_vcpu *v, const char *fmt, ...)
{
    size_t n = strlen(v->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->text + n, sizeof v->text - n, fmt, ap);
    va_end(ap);
}

/* Where the vCPU is; its linear RIP in `at`. */
static bool locate(struct kvm_vcpu *v, uint64_t *at)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    if (kvm_vcpu_iop(v, KVM_GET_REGS, &r) < 0 || kvm_vcpu_iop(v, KVM_GET_SREGS, &s) < 0)
        return false;
    add(v, " at %04x:%llx (%s)", s.cs.selector, (unsigned long long)r.rip,
        s.cs.l         ? "64-bit code"
        : !(s.cr0 & 1) ? "real mode"
        : s.cs.db      ? "32-bit code"
                       : "16-bit code");
    *at = s.cs.l ? r.rip : (uint32_t)(s.cs.base + r.rip);
    return true;
}

static void add_bytes(struct kvm_vcpu *v, const uint8_t *b, unsigned n)
{
    add(v, ", bytes");
    for (unsigned i = 0; i < n; i++)
        add(v, " %02x", b[i]);
}

/* The instruction's bytes, from the guest's memory. */
static void add_memory(struct kvm_vcpu *v, uint64_t at)
{
    struct kvm_translation t = {.linear_address = at};
    if (kvm_vcpu_iop(v, KVM_TRANSLATE, &t) < 0 || !t.valid)
        return;
    unsigned n = (unsigned)min_u64(INSN_MAX, 0x1000 - (t.physical_address & 0xfff));
    const uint8_t *b = ram_hva(v->vm->cfg.ram, t.physical_address, n);
    if (b)
        add_bytes(v, b, n);
}

static void add_instruction(struct kvm_vcpu *v, uint64_t at, bool located)
{
    const struct kvm_run *r = v->run;
    bool told = r->emulation_failure.ndata >= 3 &&
                r->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    if (told && r->emulation_failure.insn_size && r->emulation_failure.insn_size <= INSN_MAX)
        add_bytes(v, r->emulation_failure.insn_bytes, r->emulation_failure.insn_size);
    else if (located)
        add_memory(v, at);
}

static void begin(struct kvm_vcpu *v)
{
    snprintf(v->text, sizeof v->text, "CPU %u (APIC ID %u): ", v->idx.i, v->id.id);
}

static void remedy(struct kvm_vcpu *v)
{
    if (v->vm->software)
        add(v, ": this host's KVM is one in software (neither VMX nor SVM) and lacks instructions: use -accel soft");
    else
        add(v, ": use -accel soft if it happens again");
}

void kvm_report_internal(struct kvm_vcpu *v)
{
    uint32_t sub = v->run->internal.suberror;
    uint64_t at = 0;
    begin(v);
    if (sub != KVM_INTERNAL_ERROR_EMULATION) {
        add(v, "KVM reports internal error %u", sub);
        locate(v, &at);
        for (unsigned i = 0; i < v->run->internal.ndata && i < 4; i++)
            add(v, "%s%llx", i ? " " : ", data ", (unsigned long long)v->run->internal.data[i]);
    } else {
        add(v, "KVM cannot run an instruction");
        bool located = locate(v, &at);
        add_instruction(v, at, located);
    }
    remedy(v);
}

void kvm_report_entry(struct kvm_vcpu *v)
{
    uint64_t at;
    begin(v);
    add(v, "the host's CPU does not enter the guest, reason %llxh",
        (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    locate(v, &at);
    remedy(v);
}

void kvm_report_exit(struct kvm_vcpu *v)
{
    uint64_t at;
    begin(v);
    add(v, "KVM comes back with exit %u, which nothing here asks for", v->run->exit_reason);
    locate(v, &at);
    remedy(v);
}

void kvm_report_run(struct kvm_vcpu *v, int rc)
{
    uint64_t at;
    begin(v);
    add(v, "KVM_RUN: %s", strerror(-rc));
    locate(v, &at);
    if (rc == -ENOMEM || rc == -EFAULT)
        add(v, ": the host cannot give the guest a page: lower -m, or free memory");
    else
        remedy(v);
}

void kvm_report_state(struct kvm_vcpu *v)
{
    begin(v);
    add(v, "KVM does not take the state it is to start from: %s: %s", v->refused, strerror(-v->refused_rc));
    remedy(v);
}
