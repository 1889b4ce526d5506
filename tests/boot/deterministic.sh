#!/bin/sh
# deterministic.sh KERNEL SMP [hecaton option...]: two runs of the same machine in deterministic mode print the same console
# and the same state hash; another kernel command line gives another hash.
set -eu
kernel=$1
smp=$2
shift 2
. "$(dirname "$0")/common.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" "$work/initramfs.gz"
for i in 1 2 3; do
    append=
    [ $i != 3 ] || append=hecaton.other
    status=0
    SMP=$smp MEM=512M KERNEL=$kernel INITRD=$work/initramfs.gz HEC_LOG=$work/console$i APPEND=$append \
        "$scripts/boot.sh" -machine deterministic=on "$@" </dev/null >/dev/null 2>"$work/err$i" || status=$?
    grep -q "^hecaton: state hash [0-9a-f]\{16\}$" "$work/err$i" && [ $status = 0 ] || { cat "$work/err$i"; exit 1; }
    cat "$work/err$i"
done
cmp "$work/console1" "$work/console2"
cmp "$work/err1" "$work/err2"
if cmp -s "$work/err1" "$work/err3"; then
    echo "another command line, and the same hash"
    exit 1
fi
