#!/bin/sh
# mkinitramfs.sh [-t SCRIPT] [-f PROGRAM]... [-p PACKAGE]... [-k KERNEL -m MODULE...] OUTPUT: an initramfs of Debian's
# busybox-static and an /init that says what came up. SCRIPT becomes /test, which /init runs; PROGRAMs (static) go to /bin;
# PACKAGEs come with the libraries they depend on;
# /init loads the MODULEs of one of Debian's kernels, and what they depend on, in the order given. Needs no root: the kernel's
# built-in initramfs has /dev/console, and /init mounts devtmpfs. Same inputs, same bytes.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
script=
programs=
packages=
modules=
kernel=
while getopts t:f:p:k:m: opt; do
    case $opt in
    t) script=$OPTARG ;;
    f) programs="$programs $OPTARG" ;;
    p) packages="$packages $OPTARG" ;;
    k) kernel=$OPTARG ;;
    m) modules="$modules $OPTARG" ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
out=${1:?mkinitramfs.sh: give the output file}

busybox=$("$here/fetch-deb.sh" busybox-static)/bin/busybox
dirs=
if [ -n "$packages" ]; then
    all=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        $packages | grep '^[a-z0-9]' | sort -u)
    for p in $all; do
        dirs="$dirs $("$here/fetch-deb.sh" "$p")"
    done
fi

# Nothing to do if neither what goes in nor this script has changed.
from=
[ -z "$modules" ] || from=$("$here/fetch-kernel.sh" -p "$kernel")
key=$(cat "$0" "$here/guest-init" "$busybox" ${script:+"$script"} $programs | sha256sum | cut -c1-32)-$(echo $dirs $from $modules | sha256sum | cut -c1-16)
if [ -s "$out" ] && [ "$(cat "$out.key" 2>/dev/null)" = "$key" ]; then
    exit 0
fi

root=$(mktemp -d)
chmod 0755 "$root"
trap 'rm -rf "$root"' EXIT
for d in $dirs; do
    # Debian's merged /usr: what a package has in /lib goes to /usr/lib.
    for sub in bin sbin lib lib64; do
        [ ! -d "$d/$sub" ] || [ -L "$d/$sub" ] || { mkdir -p "$root/usr/$sub"; cp -a "$d/$sub/." "$root/usr/$sub/"; }
    done
    [ ! -d "$d/usr" ] || { mkdir -p "$root/usr"; cp -a "$d/usr/." "$root/usr/"; }
done
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info"
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/root" "$root/tmp" "$root/etc"
[ -z "$dirs" ] || for sub in lib lib64; do
    [ -d "$root/usr/$sub" ] && ln -s "usr/$sub" "$root/$sub"
done
[ -z "$modules" ] || OUT=$root/modules "$here/fetch-modules.sh" "$kernel" $modules
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/guest-init" "$root/init"
[ -z "$script" ] || cp "$script" "$root/test"
[ -z "$programs" ] || cp $programs "$root/bin/"
chmod 0755 "$root/init" "$root/bin/busybox"
[ -z "$script" ] || chmod 0755 "$root/test"
find "$root" -exec touch -h -d @0 {} +
mkdir -p "$(dirname "$out")"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --reproducible -R 0:0 --quiet) | gzip -9n >"$out.new.$$"
mv "$out.new.$$" "$out"
echo "$key" >"$out.key"
