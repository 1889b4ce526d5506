#!/bin/sh
# In the outer guest, which has SVM: hecaton on its KVM, until the inner guest has come up three times, with the APICv inhibits
# as they were the first time.
. /nested.conf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
events=/sys/kernel/tracing/events/kvm/kvm_apicv_inhibit_changed/enable
[ ! -e $events ] || echo 1 >$events
export LD_LIBRARY_PATH=/hecaton/lib
/hecaton/hecaton doctor | sed -n '/^KVM/,/^$/p'
console=/tmp/console
: >$console
# Without XSAVE: QEMU 7.2's TCG runs a guest's XSETBV without telling KVM, so CPUID leaf 0Dh stays at the wrong size.
set -x
/hecaton/hecaton -accel kvm -cpu max,xsave=off -smp "$CPUS" -machine "apic-ids=$IDS" -m "$MEMORY" -kernel /hecaton/vmlinuz -initrd /hecaton/initrd.gz \
    -append "console=ttyS0 panic=-1 tsc=reliable no_timer_check" -serial file:$console $EXTRA </dev/null 2>/tmp/notes &
set +x
hecaton=$!
# What is inhibited now: the last change that was traced.
inhibits() {
    sed -n 's/.*inhibits=//p' /sys/kernel/tracing/trace 2>/dev/null | tail -n 1
}
count() {
    grep -c '^nested: came up' $console
}
seen=0
first=
while [ "$seen" -lt 3 ]; do
    sleep 1
    if ! kill -0 $hecaton 2>/dev/null || grep -q 'nested: FAILED' $console; then
        tail -n 60 $console
        tr '\r' '\n' </tmp/notes | tail -n 3
        echo "nested: FAILED after $seen boots"
        exit 1
    fi
    now=$(count)
    [ "$now" -eq "$seen" ] && continue
    seen=$now
    grep -E '^nested:|^affinity:' $console | tail -n 2
    echo "nested: boot $seen after $(cut -d. -f1 /proc/uptime) s, inhibits ${first:=$(inhibits)} then, $(inhibits) now"
done
[ "$first" = "$(inhibits)" ] || { echo "nested: FAILED, the inhibits have changed"; cat /sys/kernel/tracing/trace; exit 1; }
kill -TERM $hecaton
wait $hecaton
grep -E 'smp: Brought up|(Switched|Setting) APIC routing' $console | tr -d '\r'
if grep -q -E 'Call Trace|BUG:|WARNING:' $console; then
    grep -B 12 -A 2 -m 1 -E 'Call Trace|BUG:|WARNING:' $console
    echo "nested: FAILED, the guest's kernel complains"
    exit 1
fi
