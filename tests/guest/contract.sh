#!/bin/sh
# contract.sh HECATON PAYLOAD CPUS [option...]
set -u
hecaton=$1
payload=$2
cpus=$3
shift 3
out=$(timeout 120 "$hecaton" -smp "$cpus" -m 64 -kernel "$payload" -append "cpus=$(printf %03d "$cpus")" -serial stdio \
    -device isa-debug-exit -device pc-testdev "$@" </dev/null)
status=$?
echo "$out"
[ $status = 1 ] && echo "$out" | grep -q "contract: all well"
