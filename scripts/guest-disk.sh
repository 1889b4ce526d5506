#!/bin/sh
# guest-disk.sh [-r] [-f]: a Debian 12 root disk below build/guest: debian.qcow2 (with -r also debian.raw), the kernel and
# initrd it was installed with (vmlinuz, initrd.img), and a key (id_ed25519) that may log in as root by ssh. On the
# console root needs no password. Nothing to do if the disk is newer than this script, except with -f. Root is not
# needed where user namespaces with subordinate IDs are to be had. MIRROR=URL: another Debian mirror.
set -eu
umask 022
top=$(cd "$(dirname "$0")/.." && pwd)
out=${HEC_BUILD:-$top/build}/guest
size_mib=4096 # of the disk; files in it are as large as what they hold
need_mib=7000 # while it is made
raw=no
force=no
while getopts rf opt; do
    case $opt in
    r) raw=yes ;;
    f) force=yes ;;
    *) exit 2 ;;
    esac
done

say() {
    echo "hecaton: $1" >&2
}

current() {
    [ "$force" = no ] && [ "$out/debian.qcow2" -nt "$0" ] && [ -s "$out/vmlinuz" ] && [ -s "$out/initrd.img" ] &&
        [ -s "$out/id_ed25519" ]
}

# What a disk with debian.raw missing lacks is made from it.
add_raw() {
    [ "$raw" = no ] || [ "$out/debian.raw" -nt "$out/debian.qcow2" ] || {
        qemu-img convert -O raw "$out/debian.qcow2" "$out/debian.raw.new.$$"
        mv "$out/debian.raw.new.$$" "$out/debian.raw"
    }
}

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
if current; then
    add_raw
    exit 0
fi

tmp=
tree=
ended() {
    status=$?
    for d in "$tmp" "$tree"; do
        [ -z "$d" ] || rm -rf "$d" 2>/dev/null || true
    done
    rm -f "$out"/*.new.$$
    if [ "$status" != 0 ]; then
        for d in "$out" "${TMPDIR:-/tmp}"; do
            [ "$(df -Pm "$d" | awk 'NR == 2 { print $4 }')" -ge 64 ] || say "no space left on the disk of $d"
        done
        say "no guest disk was made"
    fi
    exit "$status"
}
trap ended EXIT
trap 'exit 130' INT TERM

tmp=$(mktemp -d "$out/.new.XXXXXX")
chmod 0755 "$tmp"
# Where the tree grows: in a user namespace it is another user who writes here.
tree=$(mktemp -d "${TMPDIR:-/tmp}/hecaton-disk.XXXXXX")
chmod 1777 "$tree"
for d in "$out" "${TMPDIR:-/tmp}"; do
    free=$(df -Pm "$d" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$need_mib" ] || {
        say "$d has $free MiB free; making the disk needs $need_mib (TMPDIR names another place for the tree)"
        exit 1
    }
done

[ -s "$out/id_ed25519" ] && [ -s "$out/id_ed25519.pub" ] || {
    rm -f "$out/id_ed25519" "$out/id_ed25519.pub"
    ssh-keygen -q -t ed25519 -N '' -C hecaton-guest -f "$tmp/id_ed25519"
    mv "$tmp/id_ed25519" "$tmp/id_ed25519.pub" "$out/"
}

# Runs for the tree in $1, as root or what looks like root to it.
cat >"$tmp/customize" <<'EOF'
#!/bin/sh
set -eu
root=$1
etc=$root/etc
echo debian >"$etc/hostname"
printf '127.0.0.1 localhost debian\n::1 localhost\n' >"$etc/hosts"
echo 'LABEL=root / ext4 errors=remount-ro 0 1' >"$etc/fstab"
echo 68656361746f6e2d6775657374000001 >"$etc/machine-id"
echo 'nameserver 10.0.2.3' >"$etc/resolv.conf"
mkdir -p "$etc/systemd/network" "$etc/ssh/sshd_config.d"
cat >"$etc/systemd/network/80-wired.network" <<'N'
[Match]
Type=ether
[Network]
DHCP=yes
[DHCPv4]
ClientIdentifier=mac
N
echo 'UseDNS no' >"$etc/ssh/sshd_config.d/guest.conf"
# On the console, no password; by ssh, the key.
sed -i 's/^root:[^:]*:/root::/' "$etc/shadow"
wants=$etc/systemd/system/multi-user.target.wants
mkdir -p "$wants" "$etc/systemd/system/getty.target.wants"
ln -sf /lib/systemd/system/systemd-networkd.service "$wants/systemd-networkd.service"
ln -sf /lib/systemd/system/serial-getty@.service "$etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
# What would wait for a network that is not there, or work in the background of a measurement.
for unit in systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    fstrim.timer e2scrub_all.timer e2scrub_reap.service systemd-pstore.service; do
    ln -sf /dev/null "$etc/systemd/system/$unit"
done
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
cp "$root"/boot/vmlinuz-* "$root/vmlinuz.out"
cp "$root"/boot/initrd.img-* "$root/initrd.out"
EOF

# The file system is made beside the tree, since it would be in itself, from a view without what mmdebstrap has mounted in
# the tree; and moved into it, where mmdebstrap can fetch it from. Where no mount is allowed, none was made.
cat >"$tmp/filesystem" <<EOF
#!/bin/sh
set -eu
mv "\$1/vmlinuz.out" "\$1.vmlinuz"
mv "\$1/initrd.out" "\$1.initrd"
make='mke2fs -q -t ext4 -L root -U 68656361-746f-6e2d-6775-657374000002
    -E hash_seed=68656361-746f-6e2d-6775-657374000003,lazy_itable_init=0,lazy_journal_init=0'
mkdir "\$1.bare"
unshare -m sh -euc 'mount --bind "\$1" "\$1.bare"; \$2 -d "\$1.bare" "\$1.ext4" $((size_mib - 2))M >/dev/null' \
    sh "\$1" "\$make" || \$make -d "\$1" "\$1.ext4" $((size_mib - 2))M >/dev/null
rmdir "\$1.bare"
mv "\$1.vmlinuz" "\$1/vmlinuz.out"
mv "\$1.initrd" "\$1/initrd.out"
mv "\$1.ext4" "\$1/root.ext4"
EOF
chmod 0755 "$tmp/customize" "$tmp/filesystem"

packages=systemd,systemd-sysv,udev,dbus,kmod,linux-image-amd64,initramfs-tools,e2fsprogs,util-linux,procps,pciutils
packages=$packages,openssh-server,iproute2,iputils-ping,ethtool,iperf3,irqbalance,stress-ng,fio,less
say "making a Debian 12 disk in $out (some 300 MB to download, some minutes)"
# The hooks are read by a shell that may not reach this directory: they come as text.
SOURCE_DATE_EPOCH=$(stat -c %Y "$0") TMPDIR=$tree mmdebstrap --quiet --mode=auto --variant=minbase --include="$packages" \
    --aptopt='Acquire::Retries "3"' --dpkgopt='force-unsafe-io' \
    --customize-hook="$(sed 1d "$tmp/customize" | sed 's/^root=\$1$/root="$1"/')" \
    --customize-hook='mkdir -p -m 0700 "$1/root/.ssh"' \
    --customize-hook="upload $out/id_ed25519.pub /root/.ssh/authorized_keys" \
    --customize-hook='chown 0:0 "$1/root/.ssh/authorized_keys"; chmod 0600 "$1/root/.ssh/authorized_keys"' \
    --customize-hook="$(sed 1d "$tmp/filesystem")" \
    --customize-hook="download /vmlinuz.out $tmp/vmlinuz" \
    --customize-hook="download /initrd.out $tmp/initrd.img" \
    --customize-hook="download /root.ext4 $tmp/root.ext4" \
    --format=null bookworm /dev/null ${MIRROR:+"$MIRROR"}

e2fsck -fn "$tmp/root.ext4" >/dev/null 2>&1 || { say "the file system just made is not clean"; exit 1; }
truncate -s "${size_mib}M" "$tmp/debian.raw"
printf 'label: dos\nlabel-id: 0x68656361\nstart=2048, size=%d, type=83, bootable\n' $(((size_mib - 2) * 2048)) |
    sfdisk -q "$tmp/debian.raw"
dd if="$tmp/root.ext4" of="$tmp/debian.raw" bs=1M seek=1 conv=notrunc,sparse status=none
rm "$tmp/root.ext4"
qemu-img convert -O qcow2 "$tmp/debian.raw" "$tmp/debian.qcow2"
# The disk last: it says that all is there.
mv "$tmp/vmlinuz" "$tmp/initrd.img" "$out/"
mv "$tmp/debian.qcow2" "$out/"
[ "$raw" = no ] || mv "$tmp/debian.raw" "$out/"
say "made $out/debian.qcow2, vmlinuz, initrd.img; ssh key id_ed25519"
