#!/bin/sh
# panic.sh KERNEL: what a guest's kernel that panics does to the process: panic=-1 with -no-reboot ends it with status 0, as
# QEMU does; panic=1 without it starts the machine again.
set -u
. "$(dirname "$0")/common.sh"
have "$scripts/fetch-kernel.sh" "$1"
kernel=$("$scripts/fetch-kernel.sh" "$1")
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null; rm -rf "$work"' EXIT
panic="console=ttyS0 cryptomgr.notests root=/dev/none"
bad() {
    echo "panic.sh: $1"
    cat "$work/err"
    tail -5 "$work/console"
    exit 1
}

timeout 300 "$HECATON" -smp 2 -m 512 -kernel "$kernel" -append "$panic panic=-1" -serial "file:$work/console" -no-reboot \
    </dev/null 2>"$work/err"
status=$?
[ $status = 0 ] || bad "panic=-1 and -no-reboot: status $status"
grep -q "Kernel panic" "$work/console" || bad "no panic"
[ ! -s "$work/err" ] || bad "something on standard error"

rm -f "$work/console"
"$HECATON" -smp 2 -m 512 -kernel "$kernel" -append "$panic panic=1" -serial "file:$work/console" </dev/null 2>"$work/err" &
pid=$!
left=3000
until [ "$(grep -c "Linux version" "$work/console" 2>/dev/null)" -ge 2 ]; do
    kill -0 $pid 2>/dev/null || bad "panic=1: the process ended"
    left=$((left - 1))
    [ $left -gt 0 ] || bad "panic=1: no second start"
    sleep 0.1
done
kill $pid
wait $pid
status=$?
pid=
[ $status = 143 ] || bad "SIGTERM: status $status"
