#!/bin/sh
# contract.sh ENGINE HECATON PAYLOAD CPUS [option...]
set -u
engine=$1
hecaton=$2
payload=$3
cpus=$4
shift 4
. "$(dirname "$0")/engine.sh"
need_engine "$engine"
words="cpus=$(printf %03d "$cpus")"
[ "$engine" != kvm ] || grep -qwE "vmx|svm" /proc/cpuinfo || words="$words auto-eoi"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
out=$(timeout 120 "$hecaton" -accel "$engine" -smp "$cpus" -m 64 -kernel "$payload" -append "$words" \
    -serial stdio -device isa-debug-exit -device pc-testdev "$@" </dev/null 2>"$said")
status=$?
echo "$out"
cat "$said"
! beyond_host "$said" || exit 77
[ $status = 1 ] && echo "$out" | grep -q "contract: all well"
