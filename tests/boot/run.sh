#!/bin/sh
# run.sh KERNEL SMP [hecaton option...]: boot one of Debian's kernels and check what came up. 77 (skipped) when Debian's
# archive can't be reached. TEST=SCRIPT runs a script inside the guest, whose status must be 0; WANT=PATTERN must be on the
# console; PACKAGES go into the initramfs; ACCEL (soft) is the engine.
set -eu
. "$(dirname "$0")/common.sh"
kernel=$1
smp=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" ${TEST:+-t "$here/$TEST"} $(for p in ${PACKAGES:-}; do echo "-p $p"; done) "$work/initramfs.gz"
SMP=$smp KERNEL=$kernel INITRD=$work/initramfs.gz HEC_LOG=$work/console "$scripts/boot.sh" -accel "${ACCEL:-soft}" "$@" </dev/null

fail() {
    echo "run.sh: $1; the end of the console:" >&2
    tail -n 40 "$work/console" >&2
    exit 1
}
grep -q "smp: Brought up 1 node, $smp CPU" "$work/console" || fail "not all $smp CPUs were brought up"
[ -z "${TEST:-}" ] || grep -q "^guest: test status 0" "$work/console" || fail "$TEST failed in the guest"
[ -z "${WANT:-}" ] || grep -q "$WANT" "$work/console" || fail "'$WANT' is not on the console"
if grep -E 'Call Trace|BUG:|WARNING:|soft lockup|rcu.*stall' "$work/console"; then
    fail "the guest's kernel complained"
fi
