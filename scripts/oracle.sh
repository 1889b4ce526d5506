#!/bin/sh
# oracle.sh [OPTION...]: the native oracle (tests/diff), COUNT (100000000) random instruction tests over all groups on
# every host CPU: 10 to 20 minutes on two cores. Prints its seed; -s SEED repeats a run, -g GROUP takes one group. Failing
# tests are made smaller and written to the corpus, which CTest replays.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
groups=28
exec "$top/build/release/tests/diff/diff_oracle" -n $((${COUNT:-100000000} / groups + 1)) -j "$(nproc)" \
    -o "$top/tests/diff/corpus" "$@"
