#!/bin/sh
# In the guest: the serial interrupt, sent to the last CPU, arrives there and nowhere else.
last=$(($(nproc) - 1))
exec 3>/dev/ttyS0
echo "$last" >/proc/irq/4/smp_affinity_list || exit 1
echo "to the serial line, by its interrupt" >&3
column() { # what /proc/interrupts has for CPU $1 on the serial line, by its heading
    awk -v cpu="CPU$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == cpu) c = i + 1 } $1 == "4:" { print $c }' /proc/interrupts
}
total() {
    awk 'NR == 1 { n = NF } $1 == "4:" { for (i = 2; i <= n + 1; i++) s += $i; print s }' /proc/interrupts
}
before=$(column "$last")
all=$(total)
i=0
while [ $i -lt 20 ]; do
    echo "line $i for the serial line" >&3
    i=$((i + 1))
done
sleep 1
after=$(column "$last")
all=$(($(total) - all))
echo "affinity: CPU $last had $before interrupts, then $after; all CPUs $all more; effective $(cat /proc/irq/4/effective_affinity_list 2>/dev/null)"
[ "$after" -gt "$before" ] && [ $((after - before)) -eq "$all" ]
