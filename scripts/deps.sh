#!/bin/sh
# deps.sh GROUP...: install the Debian packages a group needs, saying which first; nothing to do is silent.
set -eu
packages=
for group in "$@"; do
    case $group in
    build) packages="$packages gcc make cmake ninja-build pkg-config zlib1g-dev liblzma-dev libzstd-dev liblz4-dev libseccomp-dev libslirp-dev liburing-dev libnbd-dev libcmocka-dev libzydis-dev acpica-tools" ;;
    boot) packages="$packages cpio gzip procps xz-utils e2fsprogs qemu-utils" ;;
    disk) packages="$packages mmdebstrap qemu-utils e2fsprogs fdisk openssh-client uidmap" ;;
    nested) packages="$packages qemu-system-x86" ;;
    check) packages="$packages clang-format" ;;
    fuzz) packages="$packages clang llvm" ;;
    *) echo "deps.sh: unknown group '$group' (build, boot, disk, nested, check, fuzz)" >&2; exit 2 ;;
    esac
done
missing=
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "hecaton: installing Debian packages:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -q >/dev/null
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >/dev/null
