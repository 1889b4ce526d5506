#!/bin/sh
# lint.sh: rules of CONTRIBUTING.md a machine can check.
set -eu
cd "$(dirname "$0")/.."
bad=0
say() {
    echo "lint: $1" >&2
    bad=1
}
for f in $(git ls-files 'src/*.c' 'src/*.h' 'tests/*.c' 'tests/*.h' 'bench/*.c'); do
    n=$(wc -l <"$f")
    [ "$n" -le 800 ] || say "$f: $n lines, more than 800"
done
if git grep -nE '\b(TODO|FIXME|XXX|HACK)\b' -- src tests bench >&2; then
    say "unfinished business above"
fi
if git grep -nE '\b(longjmp|siglongjmp)\b|__attribute__\(\(constructor' -- src >&2; then
    say "longjmp or a constructor above"
fi
if git grep -nE '^\s*(exit|abort)\(' -- src ':!src/cli' >&2; then
    say "the process may only end in cli/: above"
fi
for h in $(git ls-files 'src/*.h'); do
    grep -qE '^#ifndef HEC_[A-Z0-9_]+_H$' "$h" || say "$h: no include guard HEC_..._H"
done
exit $bad
