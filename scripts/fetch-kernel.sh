#!/bin/sh
# fetch-kernel.sh [-p] [6.12-cloud|6.12|6.1-cloud|6.1]: print the path of Debian's own kernel of that series, downloaded and
# unpacked below build/, not installed; with -p the name of the package it came from. Status 3: it can't be had.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${HEC_BUILD:-$(dirname "$here")/build}
name=0
[ "${1:-}" != -p ] || { name=1; shift; }
kernel=${1:-${KERNEL:-6.12-cloud}}
case $kernel in
6.12-cloud) meta=linux-image-6.12-cloud-amd64 ;;
6.12) meta=linux-image-6.12-amd64 ;;
6.1-cloud) meta=linux-image-cloud-amd64 ;;
6.1) meta=linux-image-amd64 ;;
*) echo "fetch-kernel.sh: unknown kernel '$kernel' (6.12-cloud, 6.12, 6.1-cloud, 6.1)" >&2; exit 2 ;;
esac

# A kernel fetched before stays the one that is used, whatever the lists say today: HEC_UPDATE=1 asks again.
mkdir -p "$build/kernels"
link=$build/kernels/vmlinuz-$kernel
if [ "${HEC_UPDATE:-0}" = 0 ] && [ -s "$link" ] && { [ $name = 0 ] || [ -s "$link.package" ]; }; then
    if [ $name = 1 ]; then cat "$link.package"; else echo "$link"; fi
    exit 0
fi

. "$here/fetch-lock.sh"

image() {
    apt-cache depends "$meta" 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
}
package=$(image)
if [ -z "$package" ]; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "hecaton: reading Debian's package lists" >&2
    $sudo apt-get update -q >/dev/null 2>&1 || true
    package=$(image)
fi
if [ -z "$package" ]; then
    echo "hecaton: apt knows no $meta; are bookworm-updates and bookworm-security in its sources?" >&2
    exit 3
fi
dir=$("$here/fetch-deb.sh" "$package" ./boot)
cp "$dir"/boot/vmlinuz-* "$link.new.$$"
mv "$link.new.$$" "$link"
echo "$package" >"$link.package"
if [ $name = 1 ]; then echo "$package"; else echo "$link"; fi
