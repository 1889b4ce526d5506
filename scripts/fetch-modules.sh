#!/bin/sh
# fetch-modules.sh KERNEL MODULE...: put these modules of one of Debian's kernels, and all they depend on, into the
# directory OUT, uncompressed, with the file "order" that names them as they are to be loaded. What the kernel has built in
# is left out; a module it has not at all is a line on standard error. Status 3: it can't be had.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${HEC_BUILD:-$(dirname "$here")/build}
. "$here/fetch-lock.sh"
out=${OUT:?fetch-modules.sh: OUT is the directory}
kernel=$1
shift
"$here/fetch-kernel.sh" "$kernel" >/dev/null
package=$("$here/fetch-kernel.sh" -p "$kernel")
dir=$("$here/fetch-deb.sh" "$package" ./boot ./lib/modules)
mkdir -p "$out"
: >"$out/order"
(cd "$dir" && find lib/modules -name '*.ko' -o -name '*.ko.xz' -o -name '*.ko.zst') >"$out/.all"

# add NAME: its dependencies before it.
add() {
    name=$(echo "$1" | tr - _)
    ! grep -qx "$name.ko" "$out/order" || return 0
    file=$(awk -F/ -v want="$name" '{ f = $NF; sub(/\.ko.*/, "", f); gsub(/-/, "_", f); if (f == want) { print; exit } }' "$out/.all")
    if [ -z "$file" ]; then
        grep -q "/$1\.ko$" "$dir"/lib/modules/*/modules.builtin || echo "fetch-modules.sh: $kernel has no module $1" >&2
        return 0
    fi
    case $file in
    *.xz) xz -dc "$dir/$file" ;;
    *.zst) zstd -qdc "$dir/$file" ;;
    *) cat "$dir/$file" ;;
    esac >"$out/$name.ko"
    for dep in $(tr '\0' '\n' <"$out/$name.ko" | sed -n 's/^depends=//p' | head -n 1 | tr , ' '); do
        add "$dep"
    done
    # `name` is the last dependency's by now: functions of sh share their variables.
    echo "$(echo "$1" | tr - _).ko" >>"$out/order"
}
for m; do
    add "$m"
done
rm -f "$out/.all"
