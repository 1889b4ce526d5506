#!/bin/sh
# fuzz.sh BUILD: run every libFuzzer target for SECONDS_EACH (60) seconds, from the corpus kept in tests/fuzz/corpus; what it
# finds beyond that grows below BUILD/corpus.
set -eu
build=$1
found=0
for t in "$build"/tests/fuzz/*_fuzz; do
    [ -x "$t" ] || continue
    found=1
    corpus=$build/corpus/$(basename "$t")
    kept=$(dirname "$0")/../tests/fuzz/corpus/$(basename "$t").tar.xz
    mkdir -p "$corpus"
    [ ! -f "$kept" ] || tar -C "$corpus" -xJf "$kept"
    echo "== $(basename "$t")"
    "$t" -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0 -close_fd_mask=1 "$corpus"
done
[ "$found" = 1 ] || { echo "fuzz.sh: no targets in $build/tests/fuzz" >&2; exit 1; }
