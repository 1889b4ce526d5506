#!/bin/sh
# oracle.sh [OPTION...]: the native oracle (tests/diff), COUNT (100000000) random instruction tests over all groups on
# every host CPU, half of them interpreted, half of them translated: 10 to 20 minutes on two cores. Prints its seed; -s SEED
# repeats a run, -g GROUP takes one group. Failing tests are made smaller and written to the corpus, which CTest replays.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
groups=29
status=0
for how in "" -j; do
    echo "${how:+translated, }${how:-interpreted}"
    # shellcheck disable=SC2086
    "$top/build/release/tests/diff/diff_oracle" $how -n $((${COUNT:-100000000} / groups / 2 + 1)) -p "$(nproc)" \
        -o "$top/tests/diff/corpus" "$@" || status=$?
done
exit $status
