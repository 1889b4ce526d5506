#!/bin/sh
# ends.sh ENGINE HECATON WAYS: how a run ends, with a payload that goes the way its command line names: exit codes, resets, triple
# faults, halts, signals, output nobody takes, and what a killed process leaves behind.
. "$(dirname "$0")/ends-common.sh"

# ends STATUS LINES-ON-STDERR WORD [option...]: a run that ends by itself.
ends() {
    want=$1
    lines=$2
    word=$3
    shift 3
    timeout -s KILL 60 "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append "$word" -device isa-debug-exit "$@" </dev/null >out 2>err
    got=$?
    [ "$got" = "$want" ] || bad "$word $*: status $got, wanted $want"
    [ "$(wc -l <err)" = "$lines" ] || bad "$word $*: wanted $lines lines on standard error"
    if grep -v '^hecaton: ' err; then
        bad "$word $*: a line without the program's name"
    fi
    [ ! -s out ] || bad "$word $*: something on standard output"
}

# begin WORD [option...]: a run that goes on, its process in $pid.
begin() {
    word=$1
    shift
    rm -f console err
    "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append "$word" -device isa-debug-exit "$@" </dev/null >out 2>err &
    pid=$!
    pids="$pids $pid"
}

# finish SIGNAL STATUS: end it.
finish() {
    end "$1" "$2"
    [ -z "$(ps -o pid= --ppid "$pid" 2>/dev/null)" ] || bad "$word: a child is left"
}

# Exit codes: code << 1 | 1; every width.
ends 43 0 code
ends 53 0 wide
ends 55 0 dbl
ends 0 0 shutdown
ends 0 0 reset -no-reboot
ends 0 1 triple -no-reboot

# Without -no-reboot a reset, or a triple fault, starts the machine again and is told of once at most.
for how in reset triple; do
    begin $how -serial file:console
    until_true 300 started 3 || bad "$how: no third start"
    finish TERM 143
    [ "$(wc -l <err)" -le 1 ] || bad "$how: more than one line"
done

# Nothing can go on: one line, and a signal ends it. KVM does not say who is halted. A shell lets its background processes
# ignore SIGINT, so undo that.
begin halt -serial file:console
if [ "$engine" = soft ]; then
    until_true 300 grep -q "halted with interrupts off" err || bad "halt: not reported"
    lines=1
else
    until_true 300 started 1 || bad "halt: does not start"
    lines=0
fi
finish TERM 143
[ "$(wc -l <err)" = $lines ] || bad "halt: not $lines lines"
begin shutdown -no-shutdown
until_true 300 grep -q "no-shutdown" err || bad "shutdown -no-shutdown: not reported"
finish HUP 129
begin spin -smp 3 -serial file:console
until_true 300 started 1 || bad "spin: does not start"
finish TERM 143
timeout --foreground -s INT 3 "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append spin </dev/null >out 2>err
[ $? = 124 ] || bad "spin: SIGINT does not end it"

# Output nobody takes: one line, and the guest goes on; a reader that left knows it, so no line.
for to in full closed; do
    rm -f err
    case $to in
    full) "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append talk -serial stdio </dev/null >/dev/full 2>err & ;;
    closed) "$hecaton" -accel "$engine" -m 64 -kernel "$ways" -append talk -serial stdio </dev/null >&- 2>err & ;;
    esac
    pid=$!
    pids="$pids $pid"
    word="talk, $to"
    until_true 300 grep -q "^hecaton: serial output lost" err || bad "$word: not reported"
    finish TERM 143
    [ "$(wc -l <err)" = 1 ] || bad "$word: not one line"
done
begin talk -serial file:/dev/full
until_true 300 grep -q "^hecaton: serial output lost: No space" err || bad "talk, file: not reported"
finish TERM 143

# Two at once do not meet; SIGKILL leaves nothing but a socket's name, which the next run takes over.
begin spin -serial unix:$work/sock
first=$pid
until_true 300 grep -q "$work/sock" /proc/net/unix || bad "no socket"
begin spin -serial file:console
until_true 300 started 1 || bad "two at once: the second does not start"
finish TERM 143
pid=$first
finish KILL 137
begin spin -serial unix:$work/sock
until_true 300 grep -q "$work/sock" /proc/net/unix || bad "the socket's name was not taken over"
kill -0 "$pid" || bad "a socket left over stops the next run"
finish TERM 143
[ ! -e sock ] || bad "a run that ended well leaves its socket"

# A terminal is as it was before, whether the process ended by itself, by SIGTERM or by SIGKILL.
if command -v script >/dev/null; then
    for sig in none TERM KILL; do
        cat >in-terminal <<EOT
stty -g >modes.before
exec 3<&0
case $sig in
none) $hecaton -accel $engine -m 64 -kernel $ways -append code -device isa-debug-exit -serial stdio <&3 ;;
*)
    $hecaton -accel $engine -m 64 -kernel $ways -append spin -serial stdio <&3 &
    pid=\$!
    i=0
    while [ "\$(stty -g)" = "\$(cat modes.before)" ] && [ \$i -lt 300 ]; do sleep 0.1; i=\$((i + 1)); done
    stty -g >modes.raw
    kill -$sig \$pid
    wait \$pid
    i=0
    while [ "\$(stty -g)" != "\$(cat modes.before)" ] && [ \$i -lt 100 ]; do sleep 0.1; i=\$((i + 1)); done ;;
esac
stty -g >modes.after
EOT
        rm -f modes.*
        timeout -s KILL 60 script -qec "sh ./in-terminal" /dev/null </dev/null >out 2>&1
        [ -s modes.after ] && cmp -s modes.before modes.after || bad "terminal modes after $sig"
        [ $sig = none ] || ! cmp -s modes.before modes.raw || bad "the terminal was never raw"
    done
fi
[ -z "$(find . -name 'core*')" ] || bad "a core dump"
exit $failed
