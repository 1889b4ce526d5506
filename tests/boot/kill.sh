#!/bin/sh
# kill.sh KERNEL [hecaton option...]: SIGKILL while a guest writes to ext4 on a SATA disk, a virtio disk, and a qcow2 image where
# qemu-nbd is installed. A journal's replay makes the file systems clean, and no file whose fsync the guest has said to be done
# is lost or another. 77 (skipped) when Debian's archive can't be reached, or something is not installed here.
set -eu
. "$(dirname "$0")/common.sh"
kernel=$1
shift
acks=60
PATH=$PATH:/sbin:/usr/sbin
command -v mke2fs >/dev/null && command -v debugfs >/dev/null || { echo "skipped: no e2fsprogs"; exit 77; }
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null; rm -rf "$work"' EXIT
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" -t "$here/kill-guest.sh" -k "$kernel" \
    $(for m in virtio_pci virtio_blk ahci sd_mod crc32c_generic ext4; do echo "-m $m"; done) "$work/initramfs.gz"
disks="sda vda"
for disk in sda vda vdb; do
    mke2fs -q -t ext4 "$work/$disk.img" 64M >/dev/null 2>&1
done
options="-drive file=$work/sda.img,format=raw -drive file=$work/vda.img,format=raw,if=virtio"
if command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null; then
    disks="$disks vdb"
    qemu-img convert -f raw -O qcow2 "$work/vdb.img" "$work/vdb.qcow2"
    options="$options -drive file=$work/vdb.qcow2,format=qcow2,if=virtio"
fi
# shellcheck disable=SC2086
"$hecaton" -accel soft -smp 4 -m 512M -kernel "$("$scripts/fetch-kernel.sh" "$kernel")" -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 cryptomgr.notests panic=-1" -serial "file:$work/console" -no-reboot $options "$@" </dev/null &
pid=$!

fail() {
    echo "kill.sh: $1; the end of the console:" >&2
    tail -n 40 "$work/console" >&2
    exit 1
}
left=6000
acked() {
    [ -f "$work/console" ] && [ "$(grep -c '^ack: .* \.' "$work/console")" -ge $acks ]
}
until acked; do
    kill -0 $pid 2>/dev/null || fail "the machine ended"
    left=$((left - 1))
    [ $left -gt 0 ] || fail "not $acks files"
    sleep 0.1
done
kill -9 $pid
wait $pid 2>/dev/null || true
pid=
tr -d '\r' <"$work/console" | sed -n 's/^ack: \(.*\) \.$/\1/p' >"$work/acks"
! grep -E '^kill:|Call Trace|I/O error|EXT4-fs error' "$work/console" || fail "errors in the guest"

if [ -f "$work/vdb.qcow2" ]; then
    # The server closes the image by itself.
    left=100
    while pgrep -f "qemu-nbd .*$work/vdb.qcow2" >/dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "qemu-nbd is left"
        sleep 0.1
    done
    qemu-img check -q "$work/vdb.qcow2" || fail "vdb.qcow2 is not clean"
    qemu-img convert -f qcow2 -O raw "$work/vdb.qcow2" "$work/vdb.img"
fi
for disk in $disks; do
    status=0
    e2fsck -p "$work/$disk.img" >"$work/fsck" 2>&1 || status=$?
    [ $status -le 1 ] || { cat "$work/fsck"; fail "$disk: e2fsck -p gives $status"; }
    e2fsck -fn "$work/$disk.img" >"$work/fsck" 2>&1 || { cat "$work/fsck"; fail "$disk is not clean after its journal's replay"; }
done
while read -r disk n sum; do
    debugfs -R "dump file.$n $work/file" "$work/$disk.img" >/dev/null 2>&1
    [ "$(md5sum <"$work/file" | cut -d' ' -f1)" = "$sum" ] || fail "$disk: file $n, which was acknowledged, is lost"
    rm -f "$work/file"
done <"$work/acks"
echo "kill.sh: $(wc -l <"$work/acks") acknowledged files on $disks are there"
