#!/bin/sh
# In the guest: the serial interrupt, sent to the last CPU, arrives there and nowhere else.
last=$(($(nproc) - 1))
exec 3>/dev/ttyS0
echo "$last" >/proc/irq/4/smp_affinity_list || exit 1
echo "to the serial line, by its interrupt" >&3
# What /proc/interrupts has for the serial line: on CPU $last, by its heading, and on all, from one reading.
counts() {
    awk -v cpu="CPU$last" 'NR == 1 { n = NF; for (i = 1; i <= NF; i++) if ($i == cpu) c = i + 1 }
        $1 == "4:" { for (i = 2; i <= n + 1; i++) s += $i; print $c, s }' /proc/interrupts
}
sent() { # wait until the line has sent all it was given
    stty onlcr <>/dev/ttyS0
}
sent
set -- $(counts)
before=$1
all=$2
i=0
while [ $i -lt 20 ]; do
    echo "line $i for the serial line" >&3
    i=$((i + 1))
done
sent
set -- $(counts)
after=$1
all=$(($2 - all))
echo "affinity: CPU $last had $before interrupts, then $after; all CPUs $all more; effective $(cat /proc/irq/4/effective_affinity_list 2>/dev/null)"
[ "$after" -gt "$before" ] && [ $((after - before)) -eq "$all" ]
