#!/bin/sh
# devices.sh KERNEL SMP [hecaton option...]: disks and network cards under one of Debian's kernels: ext4 on a SATA disk and on
# virtio disks, ping and wget through user networks, every device's interrupts moved to CPUs 0, 255, 256 and the last, and
# BOOTS - 1 reboots (0) after which the interrupts are the same. APPEND is added to the kernel's command line, WANT must be on
# the console. 77 (skipped) when Debian's archive can't be reached, or something is not installed here.
set -eu
. "$(dirname "$0")/common.sh"
boots=${BOOTS:-1}
kernel=$1
smp=$2
shift 2
PATH=$PATH:/sbin:/usr/sbin
command -v mke2fs >/dev/null || { echo "skipped: no mke2fs"; exit 77; }
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill $server 2>/dev/null; rm -rf "$work"' EXIT
modules="virtio_pci virtio_blk virtio_net ahci sd_mod crc32c_generic ext4"
case $kernel in *cloud) ;; *) modules="$modules e1000e" ;; esac
have "$scripts/fetch-kernel.sh" "$kernel"
have "$scripts/mkinitramfs.sh" -t "$here/devices-guest.sh" -k "$kernel" $(for m in $modules; do echo "-m $m"; done) "$work/initramfs.gz"
busybox=$("$scripts/fetch-deb.sh" busybox-static)/bin/busybox

# Images with a file each, and a server with another.
mkdir "$work/content" "$work/web"
head -c 3000000 /dev/urandom >"$work/content/given"
(cd "$work/content" && md5sum given >sums)
for disk in sata many one; do
    mke2fs -q -t ext4 -d "$work/content" "$work/$disk.img" 48M >/dev/null 2>&1
done
head -c 2000000 /dev/urandom >"$work/web/file"
md5sum <"$work/web/file" >"$work/web/sum"
for port in $(seq 8087 8187); do
    "$busybox" httpd -f -p "127.0.0.1:$port" -h "$work/web" 2>"$work/httpd" &
    server=$!
    i=0
    until "$busybox" wget -q -O - "http://127.0.0.1:$port/sum" 2>/dev/null | cmp -s - "$work/web/sum"; do
        i=$((i + 1))
        kill -0 $server 2>/dev/null && [ $i -lt 50 ] || { server=; break; }
        sleep 0.1
    done
    [ -z "$server" ] || break
done
[ -n "$server" ] || { echo "devices.sh: no web server"; exit 1; }

status=0
"$hecaton" -accel soft -smp "$smp" -m 2G -kernel "$("$scripts/fetch-kernel.sh" "$kernel")" -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 cryptomgr.notests panic=-1 devices.port=$port devices.boots=$boots${APPEND:+ $APPEND}" -serial "file:$work/console" \
    -drive "file=$work/sata.img,format=raw,index=0" -drive "file=$work/many.img,format=raw,if=virtio" \
    -drive "file=$work/one.img,format=raw,if=none,id=one" -device pcie-root-port,id=rp -device virtio-blk-pci,drive=one,bus=rp,vectors=2 \
    -nic user,model=virtio-net-pci -nic user,model=e1000e,net=10.0.3.0/24,host=10.0.3.2 "$@" </dev/null || status=$?
tr -d '\r' <"$work/console" >"$work/log"

fail() {
    echo "devices.sh: $1; the end of the console:" >&2
    tail -n 60 "$work/log" >&2
    exit 1
}
grep '^devices:' "$work/log" || true
[ $status = 0 ] || fail "status $status"
! grep -q '^devices: FAILED' "$work/log" || fail "the guest's devices failed"
[ "$(grep -c '^devices: boot [1-9] status 0' "$work/log")" = "$boots" ] || fail "not $boots boots"
[ -z "${WANT:-}" ] || grep -q "$WANT" "$work/log" || fail "'$WANT' is not on the console"
! grep -E 'Call Trace|BUG:|WARNING:|soft lockup|rcu.*stall|DMAR:.*fault|AMD-Vi: Event' "$work/log" || fail "the guest's kernel complained"
awk '/^table: / { print >"'"$work"'/table." n + 0 } /^devices: boot .* cards/ { n++ }' "$work/log"
[ -s "$work/table.0" ] || fail "no interrupts"
for table in "$work"/table.*; do
    diff "$work/table.0" "$table" || fail "other interrupts after a reboot"
done
echo "devices.sh: $(wc -l <"$work/table.0") interrupts, the same after $((boots - 1)) reboots"
for disk in sata many one; do
    e2fsck -fn "$work/$disk.img" >/dev/null 2>&1 || fail "$disk.img is not clean"
done
