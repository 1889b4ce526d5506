#!/bin/sh
# damaged.sh KERNEL: a real kernel cut at many places, one of whose bytes is another, and initrds that can't be: each ends
# with one line, status 1, and nothing on standard output.
set -u
. "$(dirname "$0")/common.sh"
have "$scripts/fetch-kernel.sh" "$1"
kernel=$("$scripts/fetch-kernel.sh" "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

# refuse ARGUMENT...
refuse() {
    timeout 60 "$HECATON" "$@" >out 2>err </dev/null
    status=$?
    if [ $status != 1 ] || [ -s out ] || [ "$(wc -l <err)" != 1 ] || ! grep -q "^hecaton: " err; then
        echo "damaged.sh: $*: status $status"
        cat err
        failed=1
    fi
}

size=$(stat -c %s "$kernel")
for cut in 1 511 512 513 600 1024 4096 16384 100000 $((size / 4)) $((size / 2)) $((size * 3 / 4)) $((size - 500000)); do
    head -c "$cut" "$kernel" >cut
    refuse -m 512 -kernel cut
done
cp "$kernel" other
printf '\252\125\252\125' | dd of=other bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
refuse -m 512 -kernel other
truncate -s 600M big
refuse -m 512 -kernel "$kernel" -initrd missing
refuse -m 512 -kernel "$kernel" -initrd big
refuse -m 512 -kernel "$kernel" -initrd .
refuse -m 16 -kernel "$kernel"
exit $failed
