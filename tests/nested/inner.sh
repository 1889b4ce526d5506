#!/bin/sh
# In the innermost guest: the serial interrupt reaches the last CPU, then a reboot; whoever watches the console counts them.
sh /affinity || { echo "nested: FAILED on the inside"; poweroff -f; }
echo "nested: came up with $(nproc) CPUs, last APIC ID $(awk '/^apicid/ { a = $3 } END { print a }' /proc/cpuinfo)"
sync
reboot -f
