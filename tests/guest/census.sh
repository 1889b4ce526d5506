#!/bin/sh
# census.sh ENGINE HECATON [option...]: every CPU and every route, on one engine.
set -u
engine=$1
hecaton=$2
shift 2
. "$(dirname "$0")/engine.sh"
need_engine "$engine"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
timeout 580 "$hecaton" census -accel "$engine" "$@" 2>"$said"
status=$?
cat "$said"
[ "$engine" != kvm ] || ! beyond_host "$said" || exit 77
exit $status
