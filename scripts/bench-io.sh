#!/bin/sh
# bench-io.sh: disks (virtio, AHCI) and networks (virtio, e1000e) of a guest with SMP (2) CPUs against QEMU's TCG: the same
# kernel, initramfs, images (raw, cache=writeback) and user networks, RUNS (3) boots of each in turn. Rows are the median of
# the seconds between the guest's marks, by the host's clock; the ratio is QEMU's seconds by ours, so above 1 we are faster.
# QEMU=0: without it.
# A KERNEL for clouds has no e1000e: those rows then say "none".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
build=${HEC_BUILD:-$top/build}
hecaton=${HECATON:-$build/release/hecaton}
tools=${TOOLS:-$build/release/tests/disk}
kernel=${KERNEL:-6.12}
reads=${READS:-4000}
writes=${WRITE_MIB:-512}
stream=${STREAM_MIB:-256}
case $kernel in *cloud) e1000e= ;; *) e1000e="-m e1000e" ;; esac
vmlinuz=$("$here/fetch-kernel.sh" "$kernel")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
"$here/mkinitramfs.sh" -t "$top/bench/io-guest.sh" -f "$tools/blockload" -f "$tools/netload" -k "$kernel" -m virtio_pci -m virtio_blk \
    -m virtio_net -m ahci -m sd_mod $e1000e "$work/initramfs.gz"
head -c 256M /dev/urandom >"$work/read.img"

for port in $(seq 8190 8290); do
    "$tools/netload" serve "$port" >"$work/server" 2>&1 &
    server=$!
    until grep -q serving "$work/server" || ! kill -0 $server 2>/dev/null; do sleep 0.1; done
    ! grep -q serving "$work/server" || break
done

# boot NAME COMMAND...: times go to $work/NAME.ROW, one a line.
boot() {
    name=$1
    shift
    rm -f "$work/write.img" "$work/sata.img"
    truncate -s 1G "$work/write.img"
    cp "$work/read.img" "$work/sata.img"
    timeout "${LIMIT:-900}" "$@" -smp "${SMP:-2}" -m 1G -kernel "$vmlinuz" -initrd "$work/initramfs.gz" \
        -append "console=ttyS0 cryptomgr.notests panic=-1 io.port=$port io.reads=$reads io.writes=$writes io.stream=$stream" \
        -drive "file=$work/read.img,format=raw,if=none,id=r,cache=writeback" -device virtio-blk-pci,drive=r \
        -drive "file=$work/write.img,format=raw,if=none,id=w,cache=writeback" -device virtio-blk-pci,drive=w \
        -drive "file=$work/sata.img,format=raw,if=none,id=s,cache=writeback" -device ich9-ahci,id=sata -device ide-hd,drive=s,bus=sata.0 \
        -netdev user,id=n -device virtio-net-pci,netdev=n \
        -netdev user,id=e,net=10.0.3.0/24,host=10.0.3.2 -device e1000e,netdev=e -serial stdio -no-reboot </dev/null 2>"$work/errors" |
        "$tools/netload" stamp | tr -d '\r' >"$work/console"
    awk -v to="$work/$name." '$2 == "mark:" && $3 == "begin" { t[$4] = $1 }
        $2 == "mark:" && $3 == "end" && $4 in t { printf "%.3f\n", $1 - t[$4] >>(to $4); close(to $4) }' "$work/console"
    [ -s "$work/$name.receive" ] || { cat "$work/errors"; tail -n 20 "$work/console"; } >&2
}
median() {
    sort -n "$1" 2>/dev/null | awk '{ t[NR] = $1 } END { if (NR) print t[int((NR + 1) / 2)]; else print 0 }'
}

qemu=no
[ "${QEMU:-1}" = 0 ] || ! command -v qemu-system-x86_64 >/dev/null || qemu=yes
for i in $(seq "${RUNS:-3}"); do
    boot hecaton "$hecaton"
    [ $qemu = no ] || boot qemu qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -nodefaults -display none
done

row() { # ROW WHAT UNIT AMOUNT
    awk -v what="$2" -v unit="$3" -v n="$4" -v h="$(median "$work/hecaton.$1")" -v q="$(median "$work/qemu.$1")" 'BEGIN {
        printf "%-34s %10s %10s %8s  %s\n", what, h ? int(n / h) : "none", q ? int(n / q) : "-", h && q ? sprintf("%.2f", q / h) : "-", unit }'
}
printf '%-34s %10s %10s %8s\n' "${SMP:-2} CPUs, $(uname -m) host with $(nproc)" hecaton qemu-tcg ratio
row read-1 "virtio-blk 4 KiB random read, 1" IO/s "$reads"
row read-32 "virtio-blk 4 KiB random read, 32" IO/s $((reads * 4))
row write "virtio-blk sequential write, 4" MiB/s "$writes"
row sata-read "AHCI 4 KiB random read, 32" IO/s $((reads * 4))
row sata-write "AHCI sequential write, 4" MiB/s "$writes"
row send "virtio-net stream to the host" MiB/s "$stream"
row receive "virtio-net stream from the host" MiB/s "$stream"
row e1000e-send "e1000e stream to the host" MiB/s "$stream"
row e1000e-receive "e1000e stream from the host" MiB/s "$stream"
