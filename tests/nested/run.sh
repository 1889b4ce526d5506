#!/bin/sh
# run.sh [CPUS [IDS [hecaton option...]]]: hecaton's KVM engine under real SVM: a Debian kernel with kvm-amd inside QEMU's TCG,
# hecaton in it, and one of Debian's kernels on that, three boots. Not part of make test: it takes a quarter of an hour.
# MEMORY (768M) of the inner guest; OUTER_CPUS (2). 77 (skipped) when something can't be had.
set -eu
. "$(dirname "$0")/../boot/common.sh"
cpus=${1:-16}
ids=${2:-0,256-270}
[ $# -lt 2 ] || shift
[ $# -lt 1 ] || shift
memory=${MEMORY:-768M}
command -v qemu-system-x86_64 >/dev/null || { echo "skipped: no qemu-system-x86_64 (Debian package qemu-system-x86)"; exit 77; }
[ -x "$hecaton" ] || { echo "run.sh: no $hecaton: make build first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/hecaton/lib"

# The innermost guest.
cat "$here/inner.sh" >"$work/inner"
have "$scripts/mkinitramfs.sh" -t "$work/inner" "$work/inner.gz"
(mkdir "$work/add" && cp "$here/../boot/serial-affinity.sh" "$work/add/affinity" && cd "$work/add" &&
    find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$work/inner-add.gz"
cat "$work/inner.gz" "$work/inner-add.gz" >"$root/hecaton/initrd.gz"
cp "$("$scripts/fetch-kernel.sh" 6.1-cloud)" "$root/hecaton/vmlinuz"

# hecaton with its libraries, in the outer one.
cp "$hecaton" "$root/hecaton/hecaton"
ldd "$hecaton" | awk '$3 ~ /^\// { print $3 }' | while read -r lib; do cp -L "$lib" "$root/hecaton/lib/"; done
mkdir -p "$root/lib64"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
printf 'CPUS=%s\nIDS=%s\nMEMORY=%s\nEXTRA="%s"\n' "$cpus" "$ids" "$memory" "$*" >"$root/nested.conf"
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$work/outer-add.gz"
have "$scripts/mkinitramfs.sh" -t "$here/outer.sh" -k 6.1 -m kvm_amd "$work/outer.gz"
cat "$work/outer.gz" "$work/outer-add.gz" >"$work/initrd.gz"

qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max -smp "${OUTER_CPUS:-2}" -m 4G -nodefaults -display none \
    -no-reboot -kernel "$("$scripts/fetch-kernel.sh" 6.1)" -initrd "$work/initrd.gz" -append "console=ttyS0 panic=-1" \
    -serial "file:$work/console" &
qemu=$!
trap 'kill $qemu 2>/dev/null || true; rm -rf "$work"' EXIT
tail -n +1 --pid=$qemu -f "$work/console" 2>/dev/null | tr -d '\r' | sed -u -n 's/^\(nested:\|affinity:\|KVM\|  [a-zA-Z/]\)/\1/p' || true
wait $qemu || true
tr -d '\r' <"$work/console" >"$work/log"
[ -z "${LOG:-}" ] || cp "$work/log" "$LOG"
if grep -q 'nested: FAILED' "$work/log" || ! grep -q '^nested: boot 3 ' "$work/log"; then
    tail -n 80 "$work/log" >&2
    exit 1
fi
