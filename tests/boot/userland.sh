#!/bin/sh
# In the guest: tools that compute, on every CPU, and agree with what is known.
fail() {
    echo "userland: $1"
    exit 1
}
known=$(printf 'abc' | sha256sum | cut -d' ' -f1)
[ "$known" = ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad ] || fail "sha256sum of abc: $known"
dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null || fail dd
sum=$(sha256sum </tmp/data)
gzip -c /tmp/data | gzip -dc | sha256sum >/tmp/again
[ "$(cat /tmp/again)" = "$sum" ] || fail "gzip changed the data"
[ "$(awk 'BEGIN { for (i = 1; i <= 1000; i++) s += 1 / (i * i); printf "%.12f", s }')" = 1.643934566682 ] || fail "floating point"
cpu=0
for cpu in 0 $(($(nproc) / 2)) $(($(nproc) - 1)); do
    [ "$(taskset -c $cpu sha256sum </tmp/data)" = "$sum" ] || fail "CPU $cpu computes another sum"
done
echo "userland: passed"
