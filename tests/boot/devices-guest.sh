#!/bin/sh
# In the guest: a SATA disk (sda), two virtio disks (vda with a queue a CPU, vdb with one vector for all queues), a virtio
# network card and perhaps an e1000e, each on a network of its own. The first boot tries them all; each boot prints its
# interrupts and looks at what was written before; the last one powers off.
failed=0
bad() {
    echo "devices: FAILED: $*"
    failed=1
}

# counts PATTERN CPU: interrupts whose names match, on that CPU and on all.
counts() {
    grep -E "^ +CPU0|$1" /proc/interrupts | awk -v want="$1" -v cpu="CPU$2" 'NR == 1 { n = NF; for (i = 1; i <= NF; i++) if ($i == cpu) c = i + 1 }
        NR > 1 && $NF ~ want { for (i = 2; i <= n + 1; i++) s += $i; here += $c } END { print here + 0, s + 0 }'
}
numbers() { # of interrupts whose names match
    grep -E "$1" /proc/interrupts | awk '{ sub(":", "", $1); print $1 }'
}

# move CPU COMMAND...: a kernel may put a move off until an interrupt arrives, and again until the one before is done with.
moved() {
    for irq in $(numbers "$pattern"); do
        [ "$(cat "/proc/irq/$irq/effective_affinity_list")" = "$1" ] || return 1
    done
}
move() {
    to=$1
    shift
    for irq in $(numbers "$pattern"); do
        echo "$to" >"/proc/irq/$irq/smp_affinity_list" || bad "$pattern: irq $irq does not move to CPU $to"
    done
    tries=0
    until "$@" && moved "$to"; do
        tries=$((tries + 1))
        [ $tries -lt 50 ] || { bad "$pattern: still not at CPU $to"; return; }
        sleep 0.02
    done
}

# arrives PATTERN move|stay COMMAND...: what COMMAND causes is seen at CPUs 0, 255, 256 and the last (at each if they are
# few), where the interrupts are moved before, or the command runs if they can't be; and nowhere else.
last=$(($(nproc) - 1))
cpus=$([ $last -gt 256 ] && echo 0 255 256 $last || seq 0 $last)
arrives() {
    pattern=$1
    how=$2
    shift 2
    for cpu in $cpus; do
        on="taskset -c $cpu"
        if [ "$how" = move ]; then
            on=
            move $cpu "$@"
        fi
        set -- $(counts "$pattern" $cpu) "$@"
        here=$1 all=$2
        shift 2
        $on "$@" || bad "$pattern: '$*' with CPU $cpu"
        set -- $(counts "$pattern" $cpu) "$@"
        here=$(($1 - here)) all=$(($2 - all))
        shift 2
        echo "devices: $pattern: $here of $all interrupts arrived at CPU $cpu"
        [ $here -gt 0 ] && [ $here = $all ] || bad "$pattern: CPU $cpu got $here of $all"
    done
}

# Commands for arrives: a few reads past the page cache, somewhere else each time, and a few echoes.
cat >/bin/read_disk <<'END'
#!/bin/sh
at=$(($(cat /tmp/at 2>/dev/null || echo 0) + 4))
echo $at >/tmp/at
dd if="$1" of=/dev/null bs=64k count=4 skip=$at iflag=direct 2>/dev/null
END
cat >/bin/echoes <<'END'
#!/bin/sh
ping -c 3 -q "$1" >/dev/null
END
chmod +x /bin/read_disk /bin/echoes

# The file the image came with, and one written here, read again from the disk.
disk() {
    dev=$1 at=/mnt/$1
    mkdir -p "$at"
    mount -t ext4 "/dev/$dev" "$at" || { bad "$dev does not mount"; return; }
    (cd "$at" && md5sum -c sums >/dev/null) || bad "$dev: another content than the host gave it"
    dd if=/dev/urandom of="$at/new" bs=64k count=32 2>/dev/null || bad "$dev: write"
    md5sum <"$at/new" >"$at/new.sum"
    sync
    umount "$at" || bad "$dev: umount"
    mount -t ext4 "/dev/$dev" "$at" || bad "$dev does not mount again"
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(md5sum <"$at/new")" = "$(cat "$at/new.sum")" ] || bad "$dev: what was written is not there"
    umount "$at"
    echo "devices: $dev written and read"
}

card_of() { # the interface of a driver
    for i in /sys/class/net/*; do
        [ "$(basename "$(readlink "$i/device/driver")")" = "$1" ] && basename "$i" && return
    done
}

network() { # INTERFACE NETWORK
    ifconfig "$1" "10.0.$2.15" netmask 255.255.255.0 up || bad "$1: up"
    i=0
    until ping -c 1 -W 2 "10.0.$2.2" >/dev/null 2>&1; do
        i=$((i + 1))
        [ $i -lt 30 ] || { bad "$1: no answer from 10.0.$2.2"; return; }
    done
    wget -q -O /tmp/file "http://10.0.$2.2:$port/file" || bad "$1: wget"
    [ "$(md5sum </tmp/file)" = "$(wget -q -O - "http://10.0.$2.2:$port/sum")" ] || bad "$1: another file than the host's"
    echo "devices: $1 pings, and fetches $(wc -c </tmp/file) bytes"
}

# Names and effective CPUs of all that PCI devices send.
table() {
    awk 'NR > 1 && $0 ~ /PCI|IR-|MSI/ && $1 ~ /^[0-9]+:$/ { sub(":", "", $1); print $1, $NF }' /proc/interrupts | while read -r irq name; do
        echo "table: $name $(cat /proc/irq/$irq/effective_affinity_list)"
    done | sort
}

for word in $(cat /proc/cmdline); do
    case $word in
    devices.port=*) port=${word#*=} ;;
    devices.boots=*) boots=${word#*=} ;;
    esac
done
i=0
until [ -b /dev/sda ] && [ -b /dev/vda ] && [ -b /dev/vdb ]; do
    i=$((i + 1))
    if [ $i = 300 ]; then # nothing after this means anything; what the drivers said does
        bad "no disks:" $(ls /sys/block)
        dmesg | grep -E 'ahci|ata[0-9]|virtio|sd [0-9]|DMAR|AMD-Vi' | tail -n 40
        grep -E 'CPU0|ahci|virtio' /proc/interrupts | cut -c -120
        exit 1
    fi
    sleep 0.1
done
nic=$(card_of virtio_net)
intel=$(card_of e1000e)
table
mkdir -p /mnt/sda
mount -t ext4 /dev/sda /mnt/sda || bad "sda does not mount"
boot=$(($(cat /mnt/sda/boots 2>/dev/null || echo 0) + 1))
echo $boot >/mnt/sda/boots
[ $boot = 1 ] || [ "$(md5sum </mnt/sda/new)" = "$(cat /mnt/sda/new.sum)" ] || bad "sda lost a file over a reboot"
umount /mnt/sda
echo "devices: boot $boot, cards $nic $intel, behind" $(cat /sys/bus/pci/devices/*/iommu_group/type 2>/dev/null | sort -u)
if [ $boot = 1 ]; then
    for d in sda vda vdb; do
        disk $d
    done
    arrives 'ahci' move read_disk /dev/sda
    arrives 'virtio[0-9]+-req' stay read_disk /dev/vda
    arrives 'virtio[0-9]+-virtqueues' move read_disk /dev/vdb
    network "$nic" 2
    arrives 'virtio[0-9]+-(in|out)put' move echoes 10.0.2.2
    if [ -n "$intel" ]; then
        network "$intel" 3
        arrives "$intel-rx-0" move echoes 10.0.3.2
    fi
fi
echo "devices: boot $boot status $failed"
[ $failed = 0 ] && [ $boot -lt "$boots" ] || exit $failed
reboot -f
sleep 1000
