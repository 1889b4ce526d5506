#!/bin/sh
# fetch-deb.sh PACKAGE [PATH...]: unpack a Debian package (only the PATHs of it) below build/debs, without installing it,
# and print the directory. apt checks signature and hash. What was fetched before is used again, if it had these PATHs.
# Status 3: it can't be had.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${HEC_BUILD:-$(dirname "$here")/build}
debs=$build/debs
package=$1
shift
dir=$debs/$package
mkdir -p "$debs"
. "$here/fetch-lock.sh"
# had PATH...: all of them were unpacked before. An empty list is the whole package.
had() {
    [ -f "$dir/.unpacked" ] || return 1
    [ -s "$dir/.unpacked" ] || return 0
    [ $# != 0 ] || return 1
    for path; do
        grep -qxF -- "$path" "$dir/.unpacked" || return 1
    done
}
if had "$@"; then
    echo "$dir"
    exit 0
fi

# The package lists of a fresh container are empty.
if ! apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "hecaton: reading Debian's package lists" >&2
    $sudo apt-get update -q >/dev/null 2>&1 || true
fi
info=$(apt-cache show --no-all-versions "$package" 2>/dev/null) || {
    echo "hecaton: apt knows no package $package; are bookworm, bookworm-updates and bookworm-security in its sources?" >&2
    exit 3
}
size=$(echo "$info" | awk '/^Size:/ { print int($2 / 1048576) + 1; exit }')
version=$(echo "$info" | awk '/^Version:/ { print $2; exit }')
echo "hecaton: downloading Debian package $package $version ($size MB) into build/" >&2

rm -rf "$dir" "$dir.new"
mkdir -p "$dir.new/.deb"
# As root, apt drops privileges to a user who can't write here, and says so: download as ourselves.
if ! (cd "$dir.new/.deb" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package" >log 2>&1); then
    tail -3 "$dir.new/.deb/log" >&2
    echo "hecaton: cannot download $package: is the network there, and are the package lists new (apt-get update)?" >&2
    rm -rf "$dir.new"
    exit 3
fi
dpkg-deb --fsys-tarfile "$dir.new"/.deb/*.deb | tar -x -C "$dir.new" --no-same-owner "$@"
rm -rf "$dir.new/.deb"
for path; do echo "$path"; done >"$dir.new/.unpacked"
mv "$dir.new" "$dir"
echo "$dir"
