#!/bin/sh
# In the guest of scripts/bench-io.sh: work of a fixed size between two marks on the console, which the host times.
for word in $(cat /proc/cmdline); do
    case $word in
    io.*=*) eval "$(echo "${word#io.}" | tr -cd 'a-z0-9=')" ;;
    esac
done
i=0
until [ -b /dev/vda ] && [ -b /dev/vdb ] && [ -b /dev/sda ]; do
    i=$((i + 1))
    [ $i -lt 100 ] || break
    sleep 0.1
done
card() { # DRIVER NETWORK: false if there is none
    for dir in /sys/class/net/*; do
        [ "$(basename "$(readlink "$dir/device/driver")")" = "$1" ] || continue
        ifconfig "$(basename "$dir")" "10.0.$2.15" netmask 255.255.255.0 up
        i=0
        until ping -c 1 -W 1 "10.0.$2.2" >/dev/null 2>&1 || [ $i = 10 ]; do
            i=$((i + 1))
        done
        return
    done
    return 1
}
cards=
! card virtio_net 2 || cards="$cards :10.0.2.2"
! card e1000e 3 || cards="$cards e1000e-:10.0.3.2"

timed() { # NAME COMMAND...
    name=$1
    shift
    echo "mark: begin $name"
    "$@" >/dev/null || name="$name-failed"
    echo "mark: end $name"
}
: "${reads:=4000}" "${writes:=512}" "${stream:=256}"
for round in 1 2; do
    timed read-1 blockload read /dev/vda "$reads" 1
    timed read-32 blockload read /dev/vda $((reads * 4)) 32
    timed write blockload write /dev/vdb "$writes" 4
    fsync /dev/vdb
    timed sata-read blockload read /dev/sda $((reads * 4)) 32
    timed sata-write blockload write /dev/sda "$writes" 4
    fsync /dev/sda
    for card in $cards; do
        timed "${card%:*}send" netload send "${card#*:}" "$port" "$stream"
        timed "${card%:*}receive" netload receive "${card#*:}" "$port" "$stream"
    done
done
