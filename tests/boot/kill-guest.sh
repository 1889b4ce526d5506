#!/bin/sh
# In the guest: files are written to every disk and synchronised, and what was acknowledged is said; beside that other files
# come and go without a wait, so that the end comes in the middle of something.
for d in sda vda vdb; do
    [ -b /dev/$d ] || continue
    mkdir -p /mnt/$d
    mount -t ext4 /dev/$d /mnt/$d || { echo "kill: $d does not mount"; exit 1; }
    disks="$disks $d"
    (
        while :; do
            mkdir -p /mnt/$d/churn
            for i in 1 2 3 4 5 6 7 8; do
                dd if=/dev/zero of=/mnt/$d/churn/$i bs=8k count=$((i * 9)) 2>/dev/null
                mv /mnt/$d/churn/$i /mnt/$d/churn/moved.$i
            done
            rm -r /mnt/$d/churn
        done
    ) &
done
n=0
while :; do
    n=$((n + 1))
    for d in $disks; do
        dd if=/dev/urandom of=/mnt/$d/file.$n bs=4k count=$((n % 13 + 1)) conv=fsync 2>/dev/null || { echo "kill: $d: write"; exit 1; }
        sync /mnt/$d/file.$n || sync
        echo "ack: $d $n $(md5sum </mnt/$d/file.$n | cut -d' ' -f1) ."
    done
done
