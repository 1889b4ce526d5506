#!/bin/sh
# In the guest of crash.sh: every disk is written to, past and through a file system, until the machine is killed. What has
# ext4 is mounted as it is found: its journal may have to be replayed. A SATA disk's name here is not its port's, so a file
# system's label says which disk it is; one without is sdc or what virtio, which keeps its order, calls it.
for word in $(cat /proc/cmdline); do
    case $word in
    crash.round=*) round=${word#*=} ;;
    crash.disks=*) disks=${word#*=} ;;
    esac
done
i=0
until [ "$(ls /sys/block | grep -c '^[sv]d')" -ge "$disks" ] || [ $i -ge 300 ]; do
    i=$((i + 1))
    sleep 0.1
done

# Metadata and data that nobody has asked to be stable, so that the kill comes amid writes of every kind.
churn() {
    n=0
    while :; do
        mkdir -p "$1/d$((n % 7))"
        dd if=/dev/zero of="$1/d$((n % 7))/f$((n % 53))" bs=4k count=$((n % 40 + 1)) 2>/dev/null || return
        mv "$1/d$((n % 7))/f$((n % 53))" "$1/m$((n % 31))"
        rm -rf "$1/d$(((n + 3) % 7))"
        n=$((n + 1))
    done
}

for dev in /dev/sd? /dev/vd?; do
    magic=$(dd if="$dev" bs=1 skip=1080 count=2 2>/dev/null | hexdump -e '1/2 "%x"')
    if [ "$magic" != ef53 ]; then
        name=${dev#/dev/}
        [ "${name#sd}" = "$name" ] || name=sdc
        records write "$dev" "$name" &
        continue
    fi
    name=$(dd if="$dev" bs=8 skip=143 count=2 2>/dev/null | tr -d '\0')
    mkdir -p "/mnt/$name"
    mount -t ext4 "$dev" "/mnt/$name" || { echo "crash: $name does not mount"; continue; }
    records write "/mnt/$name/records.$round" "$name" &
    churn "/mnt/$name" &
done
wait
