#!/bin/sh
# machines.sh KERNEL [MACHINE...]: the machines that differ in how an interrupt finds a CPU past 255, each with what it must
# come to: its exit status, its CPUs, its kernel's lines, hecaton's own line, and the serial interrupt at its last CPU.
# Without MACHINE all of them. 77 (skipped) when Debian's archive can't be reached.
set -eu
. "$(dirname "$0")/common.sh"
kernel=$1
shift
rows=${*:-}
smp=300

# table NAME: name | CPUs, or "refused" | options | lines of hecaton | lines of the kernel, "6.1:" or "6.12:" before one
# that only that series says. Lines are separated by ";".
table() {
    cat <<'END'
default        | 300     |                                                      |                 | 6.1:Setting APIC routing to physical x2apic; 6.12:Switched APIC routing to: physical x2apic; kvm-guest: setup PV IPIs
split          | 300     | -machine q35,kernel-irqchip=split -cpu max,kvm-msi-ext-dest-id=on | | 6.1:Setting APIC routing to physical x2apic; 6.12:Switched APIC routing to: physical x2apic
no-split       | 255     | -machine q35,kernel-irqchip=on -cpu max,kvm-msi-ext-dest-id=on | EAX bit 15; use kernel-irqchip=split; 255 of 300 CPUs | guest: online 0-254; 6.1:native_cpu_up: bad cpu 256; 6.12:has invalid APIC ID 100. Aborting bringup
no-ext-dest-id | 255     | -cpu max,kvm-msi-ext-dest-id=off                     | EAX bit 15; let -cpu offer kvm-msi-ext-dest-id; 255 of 300 CPUs | guest: online 0-254; 6.1:native_cpu_up: bad cpu 256; 6.12:has invalid APIC ID 100. Aborting bringup
no-x2apic      | refused | -cpu max,x2apic=off                                  | x2apic=off      |
intel          | 300     | -device intel-iommu,intremap=on,eim=on,caching-mode=on | | DMAR-IR: Queued invalidation will be enabled to support x2apic and Intr-remapping; DMAR-IR: Enabled IRQ remapping in x2apic mode; cluster x2apic
intel-no-dma   | 300     | -device intel-iommu,intremap=on,eim=on,caching-mode=on,dma-translation=off | | DMAR-IR: Enabled IRQ remapping in x2apic mode; No supported address widths. Not attempting DMA translation
amd            | 300     | -device amd-iommu,xtsup=on                           | | AMD-Vi: Interrupt remapping enabled; AMD-Vi: X2APIC enabled
END
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" -t "$here/serial-affinity.sh" "$work/initramfs.gz"
image=$("$scripts/fetch-kernel.sh" "$kernel")
failed=0

# problem TEXT: report it, with what there is to see.
problem() {
    echo "machines.sh: $name: $1" >&2
    tail -n 5 "$work/err" >&2
    [ ! -s "$work/console" ] || tail -n 25 "$work/console" >&2
    failed=1
}

# lines FILE LIST: every item of LIST that is for this kernel stands in FILE.
lines() {
    echo "$2" | tr ';' '\n' | while read -r want; do
        case $want in
        '') continue ;;
        6.1:* | 6.12:*)
            [ "${want%%:*}" = "${kernel%-cloud}" ] || continue
            want=${want#*:}
            ;;
        esac
        grep -qF -- "$want" "$1" || echo "no line '$want'"
    done
}

# Nothing more than one line on standard error, and no file the process left behind.
refused() {
    [ "$status" = 1 ] || problem "status $status instead of 1"
    [ "$(wc -l <"$work/err")" = 1 ] || problem "not one line"
    [ -z "$(find "$work" -name 'core*')" ] || problem "a core file"
}

booted() {
    last=$((cpus - 1))
    [ "$status" = 0 ] || problem "status $status"
    grep -qx "guest: nproc  $cpus" "$work/console" || problem "not $cpus CPUs"
    grep -q "^affinity: CPU $last had" "$work/console" || problem "the serial interrupt was not tried at CPU $last"
    grep -qx "guest: test status 0" "$work/console" || problem "the serial interrupt did not reach CPU $last"
    ! grep -qE 'Call Trace|BUG:|WARNING:|soft lockup|rcu.*stall' "$work/console" || problem "the kernel complained"
    [ "$(wc -l <"$work/err")" = "$([ -z "$says" ] && echo 0 || echo 1)" ] || problem "hecaton's lines"
}

# machine NAME CPUS OPTIONS SAYS CONSOLE
machine() {
    name=$1 cpus=$2 options=$3 says=$4 console=$5 status=0
    : >"$work/console"
    # shellcheck disable=SC2086
    (cd "$work" && exec "$hecaton" -accel soft -smp $smp -m 2G -kernel "$image" -initrd "$work/initramfs.gz" \
        -append "console=ttyS0 cryptomgr.notests panic=-1" -serial file:console.raw -no-reboot $options \
        2>err </dev/null) || status=$?
    [ ! -f "$work/console.raw" ] || tr -d '\r' <"$work/console.raw" >"$work/console"
    rm -f "$work/console.raw"
    if [ "$cpus" = refused ]; then refused; else booted; fi
    missing=$(lines "$work/err" "$says")$(lines "$work/console" "$console")
    [ -z "$missing" ] || problem "$missing"
    echo "$name: $(if [ "$cpus" = refused ]; then cat "$work/err"; else grep '^affinity:' "$work/console"; fi)"
}

table >"$work/table"
while IFS='|' read -r name cpus options says console; do
    name=$(echo $name) cpus=$(echo $cpus) says=$(echo "$says" | sed 's/^ *//;s/ *$//') console=$(echo "$console" | sed 's/^ *//')
    [ -z "$rows" ] || echo " $rows " | grep -q " $name " || continue
    machine "$name" "$cpus" "$options" "$says" "$console"
done <"$work/table"
exit $failed
