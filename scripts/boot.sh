#!/bin/sh
# boot.sh [hecaton option...]: boot Debian's kernel with very many CPUs. On a terminal it ends in a shell inside the guest;
# without one it prints what came up, and exits 0 if that is what was asked for.
#   SMP (300), MEM (4G, more past 1800 CPUs), KERNEL (6.12-cloud), APPEND (added to the kernel command line),
#   HECATON (build/release/hecaton), INITRD (ours), HEC_LOG (where the guest's console goes when there is no terminal)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${HEC_BUILD:-$(dirname "$here")/build}
smp=${SMP:-300}
mem=${MEM:-$([ "$smp" -gt 1800 ] && echo $((smp * 2 + 512))M || echo 4G)}
hecaton=${HECATON:-$build/release/hecaton}
kernel=$("$here/fetch-kernel.sh" "${KERNEL:-6.12-cloud}")
initrd=${INITRD:-$build/initramfs.gz}
[ -n "${INITRD:-}" ] || "$here/mkinitramfs.sh" "$initrd"

# cryptomgr.notests: the cloud kernels test every cipher they have at boot, a billion instructions of no interest here.
# panic=-1 with -no-reboot: a guest that panics ends the process instead of waiting for ever.
append="console=ttyS0 cryptomgr.notests panic=-1${APPEND:+ $APPEND}"

if [ -t 0 ] && [ -t 1 ]; then
    exec "$hecaton" -smp "$smp" -m "$mem" -kernel "$kernel" -initrd "$initrd" -append "$append hecaton.shell" \
        -serial stdio -no-reboot "$@"
fi

log=${HEC_LOG:-$(mktemp)}
[ -n "${HEC_LOG:-}" ] || trap 'rm -f "$log"' EXIT
status=0
"$hecaton" -smp "$smp" -m "$mem" -kernel "$kernel" -initrd "$initrd" -append "$append" -serial "file:$log" \
    -no-reboot "$@" </dev/null || status=$?
came_up=$(tr -d '\r' <"$log" | sed -n 's/^guest: //p')
echo "$came_up"
if [ "$status" = 0 ] && echo "$came_up" | grep -qx "nproc  $smp"; then
    exit 0
fi
[ "$status" != 0 ] || status=1
echo "boot.sh: the guest did not come up with $smp CPUs; the end of its console:" >&2
tail -n 25 "$log" >&2
exit "$status"
