#!/bin/sh
# crash.sh [hecaton option...]: hecaton dies of SIGKILL amid writes, ROUNDS (3) times. Disks: ext4 on virtio and on SATA, in
# a raw image and in qcow2, and records past any file system. After each kill: no record that was acknowledged as stable is
# lost; e2fsck has nothing to do but replay the journal. Every other round the guest replays it instead, by mounting.
# 77 (skipped) when Debian's archive can't be reached, or something is not installed here.
set -eu
. "$(dirname "$0")/../boot/common.sh"
tools=${TOOLS:-$build/release/tests/disk}
kernel=${KERNEL:-6.1}
PATH=$PATH:/sbin:/usr/sbin
for tool in mke2fs e2fsck debugfs qemu-img qemu-nbd; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
fail() {
    echo "crash.sh: $1" >&2
    shift
    for log; do tail -n 30 "$log" >&2; done
    exit 1
}
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" -t "$here/crash-guest.sh" -f "$tools/records" -k "$kernel" -m virtio_pci -m virtio_blk -m ahci -m sd_mod \
    -m crc32c_generic -m ext4 "$work/initramfs.gz"

for name in sda sdb vda vdb; do
    mke2fs -q -t ext4 -L $name "$work/$name.raw" 96M >/dev/null 2>&1
done
for name in sdb vdb; do
    qemu-img convert -O qcow2 "$work/$name.raw" "$work/$name.qcow2"
done
truncate -s 8M "$work/sdc.raw" "$work/vdc.raw"
qemu-img create -q -f qcow2 "$work/vdd.qcow2" 8M
names="sda sdb sdc vda vdb vdc vdd"

boot() { # ROUND: until each disk has so many records
    cache=writeback
    [ $(($1 % 3)) != 2 ] || cache=none
    set -- "$1" -smp "${SMP:-2}" -m 1G -kernel "$("$scripts/fetch-kernel.sh" "$kernel")" -initrd "$work/initramfs.gz" -serial "file:$work/console" -no-reboot \
        -append "console=ttyS0 cryptomgr.notests panic=-1 crash.round=$1 crash.disks=7" \
        -drive "file=$work/sda.raw,format=raw,index=0,cache=$cache" -drive "file=$work/sdb.qcow2,format=qcow2,index=1" \
        -drive "file=$work/sdc.raw,format=raw,index=2" -drive "file=$work/vda.raw,format=raw,if=virtio,cache=$cache" \
        -drive "file=$work/vdb.qcow2,format=qcow2,if=virtio" -drive "file=$work/vdc.raw,format=raw,if=virtio" \
        -drive "file=$work/vdd.qcow2,format=qcow2,if=virtio" $options
    shift
    : >"$work/console"
    "$hecaton" "$@" </dev/null >"$work/out" 2>&1 &
    pid=$!
    for name in $names; do
        until [ "$(grep -ac "^records: $name [0-9]" "$work/console")" -ge "$enough" ]; do
            kill -0 $pid 2>/dev/null || fail "hecaton has ended" "$work/console" "$work/out"
            ! grep -aq "crash: \|Kernel panic" "$work/console" || fail "in the guest" "$work/console"
            i=$((i + 1))
            [ $i -lt 6000 ] || fail "too few records on $name" "$work/console"
            sleep 0.1
        done
    done
    # Every other round the servers of qcow2 images die with it, and can't write what they have only in memory.
    servers=
    [ $((round % 2)) = 1 ] || servers=$(pgrep -f "qemu-nbd.*$work/") || fail "no qemu-nbd runs"
    kill -9 $servers $pid
    wait $pid 2>/dev/null || true
    pid=
}

# The server of a qcow2 image may still be letting go of it.
raw_of() {
    [ -f "$work/$1.qcow2" ] || return 0
    for _ in $(seq 100); do
        ! qemu-img convert -O raw "$work/$1.qcow2" "$work/$1.raw" 2>"$work/convert" || break
        grep -q lock "$work/convert" || break
        sleep 0.1
    done
    [ ! -s "$work/convert" ] || fail "$1.qcow2 does not convert" "$work/convert"
    leaks=0
    qemu-img check -q "$work/$1.qcow2" >"$work/check" 2>&1 || leaks=$?
    # 3: clusters that are used by nothing, which is what a kill may leave.
    [ $leaks = 0 ] || [ $leaks = 3 ] || fail "$1.qcow2 is damaged" "$work/check"
}

# A copy is looked at, so that the guest finds what the kill left.
examine() { # NAME ROUND
    raw_of "$1"
    case $1 in
    ??[ab])
        cp --sparse=always "$work/$1.raw" "$work/copy"
        status=0
        e2fsck -p "$work/copy" >"$work/fsck" 2>&1 || status=$?
        [ $status -le 1 ] || fail "$1: e2fsck -p ends with $status" "$work/fsck"
        ! grep -v 'recovering journal\|: clean,\|^$' "$work/fsck" || fail "$1: more than the journal had to be done"
        e2fsck -fn "$work/copy" >"$work/fsck" 2>&1 || fail "$1 is not clean" "$work/fsck"
        rm -f "$work/file"
        debugfs -R "dump records.$2 $work/file" "$work/copy" >/dev/null 2>&1
        "$tools/records" check "$work/file" "$1" <"$work/console" || lost="$lost $1"
        ;;
    *) "$tools/records" check "$work/$1.raw" "$1" <"$work/console" || lost="$lost $1" ;;
    esac
}

options=$*
lost=
enough=${RECORDS:-40}
i=0
for round in $(seq "${ROUNDS:-3}"); do
    boot "$round"
    for name in $names; do
        examine "$name" "$round"
        # Every other round goes on with what the journal's replay by e2fsck made of it.
        case $name-$((round % 2)) in ?da-0) mv "$work/copy" "$work/$name.raw" ;; esac
    done
    [ -z "$lost" ] || fail "records are lost:$lost"
    rm -f "$work/vdd.qcow2" "$work/sdc.raw" "$work/vdc.raw"
    truncate -s 8M "$work/sdc.raw" "$work/vdc.raw"
    qemu-img create -q -f qcow2 "$work/vdd.qcow2" 8M
    enough=$((enough * 2))
done
echo "crash.sh: ${ROUNDS:-3} kills, no acknowledged record lost, every file system clean after its journal"
