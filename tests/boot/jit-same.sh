#!/bin/sh
# jit-same.sh KERNEL SMP: a deterministic machine says the same at the same nanoseconds whether its code is interpreted,
# translated at once, or translated after a while: every time on the console counts instructions. (Its state hash is not the
# same: the host decides about flags that the instruction set leaves undefined.)
set -eu
kernel=$1
smp=$2
. "$(dirname "$0")/common.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" -t "$here/busybox.sh" "$work/initramfs.gz"
for jit in off on,jit-heat=1 on,jit-heat=7; do
    status=0
    SMP=$smp MEM=512M KERNEL=$kernel INITRD=$work/initramfs.gz HEC_LOG=$work/$jit "$scripts/boot.sh" \
        -machine deterministic=on -accel "soft,jit=$jit" </dev/null >/dev/null 2>"$work/err" || status=$?
    if [ $status != 0 ] || ! grep -q "userland: all well" "$work/$jit"; then
        cat "$work/err" "$work/$jit"
        exit 1
    fi
    cmp "$work/off" "$work/$jit"
done
