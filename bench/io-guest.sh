#!/bin/sh
# In the guest of scripts/bench-io.sh: work of a fixed size between two marks on the console, which the host times.
for word in $(cat /proc/cmdline); do
    case $word in
    io.*=*) eval "$(echo "${word#io.}" | tr -cd 'a-z0-9=')" ;;
    esac
done
i=0
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do
    i=$((i + 1))
    [ $i -lt 100 ] || break
    sleep 0.1
done
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
ping -c 1 10.0.2.2 >/dev/null

timed() { # NAME COMMAND...
    name=$1
    shift
    echo "mark: begin $name"
    "$@" >/dev/null || name="$name-failed"
    echo "mark: end $name"
}
: "${reads:=4000}" "${writes:=512}" "${stream:=256}"
for i in 1 2; do
    timed read-1 blockload read /dev/vda "$reads" 1
    timed read-32 blockload read /dev/vda $((reads * 4)) 32
    timed write blockload write /dev/vdb "$writes" 4
    fsync /dev/vdb
    timed send netload send 10.0.2.2 "$port" "$stream"
    timed receive netload receive 10.0.2.2 "$port" "$stream"
done
