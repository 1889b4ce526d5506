#!/bin/sh
# ends-devices.sh ENGINE HECATON WAYS: how a run with disks, networks and consoles ends and starts again, with a payload that
# goes the way its command line names: nothing is left of it, neither a process, nor a thread, nor a lock on an image.
. "$(dirname "$0")/ends-common.sh"

servers() { # of our images
    pgrep -f "qemu-nbd .*$work/"
}
no_servers() {
    [ -z "$(servers)" ]
}

truncate -s 8M a.img b.img
devices="-drive file=a.img,format=raw -drive file=b.img,format=raw,if=none,id=b,cache=none -object iothread,id=io
    -device pcie-root-port,id=rp -device virtio-blk-pci,drive=b,bus=rp,iothread=io -nic user,model=virtio,hostfwd=tcp:127.0.0.1:0-:22
    -device virtio-rng-pci -device virtio-serial-pci -chardev null,id=c -device virtconsole,chardev=c -device irq-test-pci"
if command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null; then
    qemu-img create -q -f qcow2 "$work/c.qcow2" 8M
    devices="$devices -hdb $work/c.qcow2"
fi

# ends STATUS WORD [option...]: a run that ends by itself.
ends() {
    want=$1
    word=$2
    shift 2
    # shellcheck disable=SC2086
    timeout -s KILL 60 "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append "$word" -device isa-debug-exit $devices "$@" \
        </dev/null >out 2>err
    got=$?
    [ "$got" = "$want" ] || bad "$word $*: status $got, wanted $want"
    [ ! -s err ] || bad "$word $*: lines on standard error"
    no_servers || bad "$word $*: a server is left"
}

# begin WORD: a run that goes on, its process in $pid.
begin() {
    word=$1
    rm -f console err
    # shellcheck disable=SC2086
    "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append "$word" -device isa-debug-exit -serial file:console $devices \
        </dev/null >out 2>err &
    pid=$!
    pids="$pids $pid"
}

# finish SIGNAL STATUS: end it; the images can be had again at once.
finish() {
    end "$1" "$2"
    until_true 100 no_servers || bad "$word: SIG$1 leaves a server"
    ! grep -q sandbox err || bad "$word: the sandbox refused something"
}

ends 43 code
ends 0 shutdown
for how in reset triple; do
    begin $how
    until_true 600 started 8 || bad "$how: no eighth start"
    finish TERM 143
done
begin spin
until_true 300 started 1 || bad "spin: does not start"
finish KILL 137
begin spin
until_true 300 started 1 || bad "spin: does not start after SIGKILL"

# A server that has stopped to answer is waited for, until a second signal.
server=$(servers)
if [ -n "$server" ]; then
    kill -STOP $server
    kill -TERM "$pid"
    sleep 1
    kill -0 "$pid" 2>/dev/null || bad "a stopped server: the last flush is not waited for"
    kill -TERM "$pid"
    wait "$pid"
    [ $? = 143 ] || bad "a stopped server: not ended by SIGTERM"
    kill -CONT $server
    until_true 100 no_servers || bad "a stopped server is left"
else
    finish TERM 143
fi
ends 43 code

# A server that never answers holds nobody who wants to leave, and ends with us.
if command -v qemu-img >/dev/null; then
    qemu-img create -q -f qcow2 d.qcow2 8M
    mkdir silent
    printf '#!/bin/sh\nexec sleep 86399\n' >silent/qemu-nbd
    chmod +x silent/qemu-nbd
    PATH=$work/silent:$PATH "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append code -hda d.qcow2 </dev/null >out 2>err &
    pid=$!
    pids="$pids $pid"
    child() {
        silent=$(pgrep -P "$pid" -f "sleep 86399")
    }
    word="a silent server"
    until_true 300 child || bad "$word: not started"
    finish TERM 143
    [ ! -s err ] || bad "$word: lines on standard error"
    ! kill -0 "$silent" 2>/dev/null || bad "$word: it is left"
fi
exit $failed
