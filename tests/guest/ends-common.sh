# shellcheck shell=sh
# ends-common.sh: sourced with the test's arguments ENGINE HECATON WAYS; makes a directory of its own and goes there, and
# kills at the end what is in $pids. begin says what runs, so each test has its own.
# shellcheck disable=SC2034
set -u
engine=$1
hecaton=$2
ways=$3
me=$(basename "$0")
. "$(dirname "$0")/engine.sh"
need_engine "$engine"
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086
trap '[ -z "$pids" ] || kill -9 $pids 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

bad() {
    echo "$me: $1"
    cat err 2>/dev/null
    failed=1
}

# until_true LIMIT-IN-TENTHS COMMAND...: wait for it to hold.
until_true() {
    left=$1
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.1
    done
}

# started N: the payload has come up N times.
started() {
    [ "$(grep -c "ways: up" console 2>/dev/null)" -ge "$1" ]
}

# end SIGNAL STATUS: the run whose process is $pid, of $word.
end() {
    kill -"$1" "$pid"
    wait "$pid"
    got=$?
    [ "$got" = "$2" ] || bad "$word: SIG$1 gave status $got, wanted $2"
}
