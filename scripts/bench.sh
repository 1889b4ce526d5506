#!/bin/sh
# bench.sh: the benchmark table. Boots of Debian's kernel with SIZES ("1 300 1024") CPUs, from start to power-off: wall
# seconds, CPU seconds, and host memory past the guest's own; QEMU's TCG beside it when it is installed (QEMU=0: not).
# Where there is a KVM also how long it takes to build a machine of CREATE ("288 1024") vCPUs that does not run (-S), beside
# QEMU's with the same options. Then disks and networks (bench-io.sh), and the programs of bench/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
build=${HEC_BUILD:-$top/build}
hecaton=${HECATON:-$build/release/hecaton}
kernel=$("$here/fetch-kernel.sh" "${KERNEL:-6.12-cloud}")
"$here/mkinitramfs.sh" "$build/initramfs.gz"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Resident MiB of a process without its guest RAM, which are the mappings of 256 MiB and more. Translated code is mapped twice
# and counted once.
own_memory() {
    awk '/^[0-9a-f]+-/ { big = 0; what = /memfd:hecaton-code/ ? "Pss:" : "Rss:" } /^Size:/ { big = $2 >= 262144 }
        $1 == what && !big { n += $2 } END { print int(n / 1024) }' \
        "/proc/$1/smaps" 2>/dev/null || echo 0
}

# run COMMAND...: sets wall, cpu (seconds) and mem (MiB, the largest sample). Past `limit` seconds the command is ended.
limit=3600
run() {
    start=$(date +%s.%N)
    "$@" </dev/null >"$work/out" 2>&1 &
    pid=$!
    mem=0
    ticks=0
    while kill -0 "$pid" 2>/dev/null; do
        now=$(own_memory "$pid")
        [ "${now:-0}" -le "$mem" ] || mem=$now
        t=$(awk '{ print $14 + $15 }' "/proc/$pid/stat" 2>/dev/null) || t=
        ticks=${t:-$ticks}
        [ $(($(date +%s) - ${start%.*})) -lt "$limit" ] || kill "$pid"
        sleep 0.2
    done
    wait "$pid" || true
    wall=$(echo "$start $(date +%s.%N)" | awk '{ printf "%.1f", $2 - $1 }')
    cpu=$(awk -v t="$ticks" -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.1f", t / hz }')
}

row() {
    up=$(tr -d '\r' <"$work/console" | sed -n 's/^guest: nproc *//p')
    printf '%-10s %6s %8s %8s %8s %8s\n' "$1" "$2" "${up:-none}" "$wall" "$cpu" "$mem"
}

append="console=ttyS0 cryptomgr.notests panic=-1"
printf '%-10s %6s %8s %8s %8s %8s\n' engine CPUs 'came up' 'wall s' 'CPU s' 'own MiB'
for n in ${SIZES:-1 300 1024}; do
    mem_arg=$([ "$n" -gt 1800 ] && echo $((n * 2 + 512))M || echo 4G)
    rm -f "$work/console"
    : >"$work/console"
    limit=3600
    run "$hecaton" -accel soft -smp "$n" -m "$mem_arg" -kernel "$kernel" -initrd "$build/initramfs.gz" -append "$append" \
        -serial "file:$work/console" -no-reboot
    row hecaton "$n"
    [ "${QEMU:-1}" != 0 ] && command -v qemu-system-x86_64 >/dev/null || continue
    iommu=
    machine=q35,accel=tcg
    extra=
    [ "$n" -le 255 ] || { iommu="-device intel-iommu,intremap=on,eim=on"; machine=$machine,kernel-irqchip=split; }
    # What QEMU needs not to spend its time in calibration loops.
    [ "$n" -le 1 ] || extra="cpuhp.parallel=0 tsc=reliable lpj=10000000"
    : >"$work/console"
    limit=${QEMU_LIMIT:-600}
    run qemu-system-x86_64 -M "$machine" -cpu max -smp "$n" -m "$mem_arg" -kernel "$kernel" \
        -initrd "$build/initramfs.gz" -append "$append $extra" -display none -serial "file:$work/console" -no-reboot $iommu
    row qemu-tcg "$n"
    [ "$up" != "" ] || sed -n '1s/^/           /p' "$work/out" # why not
done

# until_line FILE WORD: seconds since `start` when WORD is in FILE, or "none" if the process ends or a minute passes.
until_line() {
    took=none
    for _ in $(seq 6000); do
        if grep -q "$2" "$1" 2>/dev/null; then
            took=$(echo "$start $(date +%s.%N)" | awk '{ printf "%.2f", $2 - $1 }')
            break
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.01
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

create_row() {
    printf '%-10s %6s %8s' "$1" "$2" "$took"
    [ "$took" != none ] || printf '  %s' "$(tail -n 1 "$work/out" | cut -c1-100)" # why not
    echo
}

# The monitor answers once the machine is built.
create() {
    n=$1
    : >"$work/out"
    start=$(date +%s.%N)
    "$hecaton" -S -accel kvm -smp "$n" -m 4G -kernel "$kernel" -machine boot=linux64 -device intel-iommu,intremap=on,eim=on \
        </dev/null >"$work/out" 2>&1 &
    pid=$!
    until_line "$work/out" "built, and waiting"
    create_row hecaton "$n"
    [ "${QEMU:-1}" != 0 ] && command -v qemu-system-x86_64 >/dev/null || return 0
    : >"$work/out"
    printf '{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n' >"$work/asked"
    start=$(date +%s.%N)
    # Without arch-capabilities: QEMU 7.2 aborts on a KVM whose value it can't set.
    tail -f -n +1 "$work/asked" 2>/dev/null | qemu-system-x86_64 -S -accel kvm -machine q35,kernel-irqchip=split \
        -cpu host,arch-capabilities=off -smp "$n" -m 4G -kernel "$kernel" -device intel-iommu,intremap=on,eim=on \
        -display none -serial null -qmp stdio >"$work/out" 2>&1 &
    pid=$!
    until_line "$work/out" '"prelaunch"'
    create_row qemu-kvm "$n"
}

if [ -w /dev/kvm ]; then
    printf '\n%-10s %6s %8s\n' 'build, -S' CPUs 'wall s'
    for n in ${CREATE:-288 1024}; do
        create "$n"
    done
fi

echo
"$here/bench-io.sh"

for b in "$build"/release/bench/bench_*; do
    [ -x "$b" ] && [ -f "$b" ] || continue
    echo
    echo "$(basename "$b"):"
    "$b"
done
