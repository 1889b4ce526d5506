#!/bin/sh
# Busybox put to work: compression and digests against each other, sort, awk, arithmetic, pipes, many processes at once.
set -e
cd /tmp
bad() {
    echo "userland: $1"
    exit 1
}

# Known answers first.
[ "$(printf abc | md5sum | cut -d' ' -f1)" = 900150983cd24fb0d6963f7d28e17f72 ] || bad md5sum
[ "$(printf abc | sha1sum | cut -d' ' -f1)" = a9993e364706816aba3e25717850c26c9cd0d89d ] || bad sha1sum
[ "$(printf abc | sha256sum | cut -d' ' -f1)" = ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad ] ||
    bad sha256sum
[ "$(seq 1 100000 | md5sum | cut -d' ' -f1)" = dea9193b768319cbb4ff1a137ac03113 ] || bad "md5sum of many blocks"
[ "$(seq 1 100000 | awk '{ s += $1 * $1 } END { printf "%.0f", s }')" = 333338333350000 ] || bad "awk's sums"
[ "$(awk 'BEGIN { printf "%.12f %.9e", 22 / 7, 1e300 * 7.5 }')" = "3.142857142857 7.500000000e+300" ] || bad "awk's numbers"
[ "$(echo 'scale=20; 4*a(1)' | bc -l)" = 3.14159265358979323844 ] || bad "bc -l"
[ "$(echo '2 200 ^ p' | dc)" = 1606938044258990275541962092341162602522202993782792835301376 ] || bad dc
[ "$(echo 'scale=30; 355/113' | bc)" = 3.141592920353982300884955752212 ] || bad bc
[ $((7 ** 22 % 1000003)) = "$(echo '7 22 ^ 1000003 % p' | dc)" ] || bad "shell arithmetic"

# A few MB that compress and a few that don't, there and back.
seq 1 100000 >text
dd if=/dev/urandom of=noise bs=64k count=16 2>/dev/null
for f in text noise; do
    want=$(sha256sum <$f)
    gzip -c $f >$f.gz
    gunzip -c $f.gz | cmp - $f || bad "gzip $f"
    [ "$(gunzip -c $f.gz | sha256sum)" = "$want" ] || bad "sha256sum $f"
done
head -c 300000 text | bzip2 -c | bunzip2 -c | cmp -n 300000 - text || bad bzip2

# Sorting backwards and forwards, and as strings.
sort -rn text | sort -n | cmp - text || bad sort
sort text | awk '{ s += $1 } END { printf "%.0f", s }' | grep -qx 5000050000 || bad "sort of strings"
tar c text noise | tar x -O text | cmp - text || bad tar

# Processes on every CPU: each digest must be the one we know, whoever computes it.
want=$(head -c 262144 noise | sha256sum)
n=$(($(nproc) * 2))
[ $n -le 64 ] || n=64
i=0
while [ $i -lt $n ]; do
    (head -c 262144 noise | gzip | gunzip | cat | sha256sum >digest.$i) &
    i=$((i + 1))
done
wait
[ "$(cat digest.* | grep -cF "$want")" = $n ] || bad "parallel digests"
i=0
while [ $i -lt 300 ]; do
    /bin/true || bad fork
    i=$((i + 1))
done
echo "userland: all well"
