/* vcpu_run() on the host's KVM: ports, memory, kicks, the PIC's interrupts, what it says when it can't go on. */
#include "kvm_rig.h"

static void port_out(void **state)
{
    static const uint8_t code[] = {0x66, 0xb8, 0x44, 0x33, 0x22, 0x11, 0x66, 0xe7, RIG_DONE, 0xf4}; /* mov eax; out; hlt */
    struct kvm_rig r;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    rig_load(&r, 0, code, sizeof code);
    struct cpu_run run = rig_run(&r, 0);
    if (run.err)
        fail_msg("%s", run.err);
    assert_int_equal(run.exit, CPU_EXIT_KICKED);
    assert_int_equal(r.done[0], 0x11223344);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(port_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
