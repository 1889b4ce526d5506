# For the scripts beside it and in directories next to it, which read it: where things are, and when a boot is skipped (77).
# shellcheck shell=sh disable=SC2034
here=$(cd "$(dirname "$0")" && pwd)
scripts=$here/../../scripts
build=${HEC_BUILD:-$here/../../build}
hecaton=${HECATON:-$build/release/hecaton}
# have COMMAND...: skip if it says (status 3) that something can't be had.
have() {
    status=0
    "$@" >/dev/null || status=$?
    [ "$status" != 3 ] || { echo "skipped: Debian's archive can't be reached"; exit 77; }
    [ "$status" = 0 ] || exit "$status"
}
command -v cpio >/dev/null || { echo "skipped: no cpio"; exit 77; }
