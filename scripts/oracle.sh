#!/bin/sh
# oracle.sh: the native oracle, COUNT (100000000) random instruction tests in all groups on every host CPU.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
oracle=$(find "$top/build/release" -name 'diff_oracle' -type f -perm -u+x | head -n 1)
if [ -z "$oracle" ]; then
    echo "oracle.sh: no diff_oracle in build/release: is tests/diff built?" >&2
    exit 1
fi
exec "$oracle" --count "${COUNT:-100000000}" "$@"
