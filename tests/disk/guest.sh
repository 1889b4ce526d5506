#!/bin/sh
# guest.sh [hecaton option...]: build/guest's Debian disk (make guest-disk) with SMP (4) CPUs, by ssh through a forwarded port:
# fio writes and verifies on virtio and on SATA disks; streams go both ways, compared byte by byte; CONNECTIONS (1000) at once
# through a forwarded port to a server that echoes, through one ssh session's own forwarding, and SSHD_CONNECTIONS (1000), a
# process each, to sshd itself; LOGINS (100) sessions, all logged in before any of them ends. GUEST names another directory with
# the disk; FIO_MIB (64) is how much fio writes to each disk, STREAM_MIB (64) what a stream is. Some five minutes on two cores.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
build=${HEC_BUILD:-$top/build}
hecaton=${HECATON:-$build/release/hecaton}
tools=${TOOLS:-$build/release/tests/disk}
guest=${GUEST:-$build/guest}
n=${CONNECTIONS:-1000}
daemons=${SSHD_CONNECTIONS:-1000}
sessions=${LOGINS:-100}
work=$(mktemp -d)
pid=
tunnel=
trap 'for p in $pid $tunnel; do kill $p 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
fail() {
    echo "guest.sh: $1" >&2
    tail -n "${LINES_SHOWN:-30}" "$work/out" "$work/console" >&2
    exit 1
}
[ -s "$guest/debian.qcow2" ] || { echo "guest.sh: no $guest/debian.qcow2: make guest-disk makes it"; exit 77; }
PATH=$PATH:/sbin:/usr/sbin
for disk in virtio sata; do truncate -s 1G "$work/$disk.raw"; done
qemu-img create -q -f qcow2 "$work/virtio.qcow2" 1G
cp "$guest/id_ed25519" "$work/key"
chmod 0600 "$work/key"

# Four ports one after another, by trying.
start() { # FIRST-PORT
    ssh_port=$1 echo_port=$(($1 + 1)) tunnel_port=$(($1 + 2)) sshd_port=$(($1 + 3))
    : >"$work/console"
    "$hecaton" -smp "${SMP:-4}" -m "${MEM:-4G}" -kernel "$guest/vmlinuz" -initrd "$guest/initrd.img" \
        -append "root=/dev/disk/by-label/root console=ttyS0 cryptomgr.notests panic=-1" -no-reboot -serial "file:$work/console" \
        -drive "file=$guest/debian.qcow2,format=qcow2,index=0,snapshot=on" -drive "file=$work/sata.raw,format=raw,index=1,serial=sata" \
        -drive "file=$work/virtio.raw,format=raw,if=virtio,serial=raw" -drive "file=$work/virtio.qcow2,format=qcow2,if=virtio,serial=qcow2" \
        -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$echo_port-:7777,hostfwd=tcp:127.0.0.1:$sshd_port-:2222" \
        $options </dev/null >"$work/out" 2>&1 &
    pid=$!
}
how="-F none -i $work/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=60"
how="$how -o ServerAliveInterval=30 -o ServerAliveCountMax=20 -o BatchMode=yes"
in_guest() {
    ssh $how -p "$ssh_port" root@127.0.0.1 "$@"
}
options=$*
for port in $(seq 20400 7 20700); do
    start "$port"
    i=0
    until in_guest true 2>"$work/ssh"; do
        i=$((i + 1))
        kill -0 $pid 2>/dev/null || break
        [ $i -lt 600 ] || fail "ssh does not log in: $(cat "$work/ssh")"
        sleep 1
    done
    ! kill -0 $pid 2>/dev/null || break
    grep -q "host port" "$work/out" || fail "hecaton has ended"
done
echo "guest.sh: logged in, $(in_guest nproc) CPUs"

in_guest 'cat >/root/netload; chmod +x /root/netload' <"$tools/netload"
# Until a server's echo is to be had at a port of the host.
answers() {
    i=0
    until "$tools/netload" storm 127.0.0.1 "$1" 1 16 >/dev/null 2>&1; do
        i=$((i + 1))
        [ $i -lt 120 ] || fail "no server behind port $1"
        sleep 1
    done
}
device() { # SERIAL, as virtio or libata have it
    in_guest "for d in /sys/block/[sv]d?; do case \$(cat \$d/serial 2>/dev/null || udevadm info --query=property --property=ID_SERIAL_SHORT --value \$d) in $1) echo /dev/\${d##*/};; esac; done"
}
for serial in raw sata qcow2; do
    dev=$(device $serial)
    [ -n "$dev" ] || fail "no disk $serial: $(in_guest lsblk -o NAME,SIZE,SERIAL)"
    in_guest fio --name=v --filename="$dev" --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bsrange=4k-64k --size="${FIO_MIB:-64}M" \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64 --randrepeat=0 --minimal >"$work/fio" 2>&1 || fail "fio on $serial: $(cat "$work/fio")"
    in_guest fio --name=w --filename="$dev" --direct=1 --ioengine=libaio --iodepth=8 --rw=write --bs=256k --size="${FIO_MIB:-64}M" --offset=512M \
        --verify=sha256 --verify_fatal=1 --numjobs=1 --minimal >"$work/fio" 2>&1 || fail "fio on $serial: $(cat "$work/fio")"
    echo "guest.sh: fio wrote and verified $serial ($dev)"
done

in_guest 'ulimit -n 8192; setsid /root/netload serve 7777 >/dev/null 2>&1 </dev/null &'
"$tools/netload" serve $((ssh_port + 4)) >"$work/server" 2>&1 &
tunnel="$tunnel $!"
answers "$echo_port"
answers $((ssh_port + 4))
for way in send receive; do
    "$tools/netload" $way 127.0.0.1 "$echo_port" "${STREAM_MIB:-64}" || fail "a stream into the guest, $way"
    in_guest /root/netload $way 10.0.2.2 $((ssh_port + 4)) "${STREAM_MIB:-64}" || fail "a stream from the guest, $way"
done
"$tools/netload" storm 127.0.0.1 "$echo_port" "$n" 16384 || fail "$n forwarded connections"

# ssh and sshd listen for 128.
ssh $how -p "$ssh_port" -N -L "127.0.0.1:$tunnel_port:127.0.0.1:7777" root@127.0.0.1 &
tunnel="$tunnel $!"
answers "$tunnel_port"
"$tools/netload" storm 127.0.0.1 "$tunnel_port" "$n" 2048 100 || fail "$n connections through an ssh session"

# An sshd that lets so many wait for their keys, with a descriptor for each: a connection is a process of its own. It listens
# for 128 at once.
in_guest "mkdir -p /run/sshd; ulimit -n $((daemons + 1000)); setsid /usr/sbin/sshd -p 2222 -o MaxStartups=$((daemons * 2 + 1000)) -o LoginGraceTime=3600 \
    -o PidFile=/run/second </dev/null >/dev/null 2>&1"
"$tools/netload" greet 127.0.0.1 "$sshd_port" "$daemons" 100 || fail "$daemons connections to sshd"

# Each of N sessions says that it is in, and stays until the gate is closed.
logins() { # N
    mkfifo "$work/gate"
    exec 8<>"$work/gate"
    : >"$work/in"
    begun=0 before=0 waited=0 clients=
    while in=$(wc -l <"$work/in") && [ "$in" -lt "$1" ]; do
        while [ $begun -lt "$1" ] && [ $begun -lt $((in + 50)) ]; do
            ssh $how -o KexAlgorithms=curve25519-sha256 -p "$sshd_port" root@127.0.0.1 'echo in; exec cat' \
                <"$work/gate" >>"$work/in" 2>>"$work/ssh" 8>&- &
            clients="$clients $!"
            begun=$((begun + 1))
        done
        [ "$in" = $before ] || waited=0
        before=$in waited=$((waited + 1))
        [ ! -s "$work/ssh" ] && [ $waited -lt 600 ] || fail "$in of $1 sessions logged in: $(head -n 3 "$work/ssh")"
        sleep 1
    done
    there=$(in_guest pgrep -c -x cat)
    [ "$there" = "$1" ] || fail "$1 sessions logged in, and $there are there"
    exec 8>&-
    for client in $clients; do
        wait "$client" || fail "a session of $1 ended with $?"
    done
    echo "guest.sh: $1 sessions logged in at once"
}
: >"$work/ssh"
logins "$sessions"
in_guest true || fail "the first sshd after the storm"
! in_guest dmesg | grep -E 'Call Trace|BUG:|soft lockup|rcu.*stall|I/O error' || fail "the guest's kernel complained"
in_guest poweroff || true
wait $pid || fail "hecaton's status is $?"
pid=
echo "guest.sh: all well"
