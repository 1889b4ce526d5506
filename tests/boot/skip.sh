# For the scripts beside it, which read it: when a boot is skipped (77).
# have COMMAND...: skip if it says (status 3) that something can't be had.
have() {
    status=0
    "$@" >/dev/null || status=$?
    [ "$status" != 3 ] || { echo "skipped: Debian's archive can't be reached"; exit 77; }
    [ "$status" = 0 ] || exit "$status"
}
command -v cpio >/dev/null || { echo "skipped: no cpio"; exit 77; }
