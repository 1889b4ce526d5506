#!/bin/sh
# refusals.sh HECATON: what a user gets wrong ends with one line that begins "hecaton:", exit status 1 (2 for usage), and
# never a signal.
set -u
hecaton=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

# refuse STATUS PATTERN ARGUMENT...
refuse() {
    want=$1
    pattern=$2
    shift 2
    timeout 60 "$hecaton" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" != "$want" ] || [ "$(wc -l <err)" != 1 ] || [ -s out ] || ! grep -q '^hecaton: ' err || ! grep -q -- "$pattern" err; then
        echo "refusals.sh: hecaton $*: status $got, wanted $want and '$pattern':"
        cat err
        failed=1
    fi
}

head -c 100000 /dev/zero >zeros
head -c 100000 /dev/urandom >noise
: >empty
mkdir dir
printf '\177ELF\002\001\001' >elf-cut
cp "$hecaton" userland

refuse 2 "-kernel"
refuse 2 "-serial" -kernel zeros -seriall stdio
refuse 2 "'time'" -kernel zeros -machine tiem=real
refuse 2 "'x2apic'" -kernel zeros -cpu max,x2apik=off
refuse 2 "32768" -kernel zeros -smp 100000
refuse 1 "No such file" -kernel missing
refuse 1 "not a regular file" -kernel dir
refuse 1 "empty" -kernel empty
refuse 1 "not a kernel" -kernel zeros
refuse 1 "kernel noise" -kernel noise
refuse 1 "truncated" -kernel elf-cut
refuse 1 "kernel userland" -kernel userland
refuse 1 "x2APIC" -kernel zeros -smp 300 -cpu max,x2apic=off
refuse 1 "broadcast-quirk" -kernel zeros -smp 256 -machine x2apic-broadcast-quirk=on
refuse 1 "boot CPU" -kernel zeros -cpu max,kvm-msi-ext-dest-id=off -machine apic-ids=300
refuse 1 "intremap=on,eim=on" -kernel zeros -smp 300 -device intel-iommu,eim=off
refuse 1 "intremap=on" -kernel zeros -device intel-iommu,intremap=off,eim=on
refuse 1 "39 or 48" -kernel zeros -device intel-iommu,aw-bits=40
refuse 1 "xtsup=on" -kernel zeros -smp 300 -device amd-iommu,xtsup=off
refuse 1 "intremap=on" -kernel zeros -device amd-iommu,xtsup=on,intremap=off
refuse 2 "drop one" -kernel zeros -device amd-iommu -device intel-iommu
refuse 2 "'xtsup'" -kernel zeros -device amd-iommu,xtsub=on
refuse 1 "twice" -kernel zeros -machine apic-ids=3,3
refuse 1 "-accel soft" -kernel zeros -accel kvm -machine deterministic=on
refuse 1 "-accel soft" -kernel zeros -accel kvm -smp 32768
refuse 1 "-accel soft" -kernel zeros -accel kvm -machine apic-ids=0,32767
refuse 1 "-accel soft" -kernel zeros -accel kvm -machine kernel-irqchip=off
refuse 1 "no 'avx512f'" -kernel zeros -accel soft -cpu max,avx512f=on
refuse 2 "-sandbox off" -kernel zeros -sandbox on,spawn=allow
refuse 1 "nowhere" -kernel zeros -serial file:nowhere/log
refuse 1 "nowhere" -kernel zeros -d irq -D nowhere/trace

# Disks and networks; what was opened before the failure is closed again.
head -c 1048576 /dev/zero >disk
refuse 2 "virt-get-kernel" -hda disk
refuse 2 "'if'" -kernel zeros -drive file=disk,iff=virtio
refuse 2 "if=virtio" -kernel zeros -drive file=disk,if=none,id=d
refuse 2 "netdev=n" -kernel zeros -netdev user,id=n
refuse 2 "tcp::5028-:22" -kernel zeros -nic user,hostfwd=tcp::5028
refuse 2 "qcow2" -kernel zeros -drive file=disk,format=qcow3
refuse 1 "^hecaton: -hda: cannot open missing: " -kernel zeros -hda missing
refuse 1 "^hecaton: -drive id=d: cannot open missing: " -kernel zeros -drive file=missing,id=d
refuse 1 "^hecaton: -drive: cannot open missing: " -kernel zeros -drive file=missing,if=virtio
refuse 1 "deterministic" -kernel zeros -machine deterministic=on -hda disk
refuse 1 "missing" -kernel zeros -drive file=disk,format=raw -hdb missing
refuse 1 "not a kernel" -kernel zeros -drive file=disk,format=raw,if=virtio
refuse 1 "smaller than a sector" -kernel zeros -hda empty
refuse 1 "is a directory" -kernel zeros -hda dir
refuse 1 "another disk of" -kernel zeros -drive file=disk,format=raw -drive file=disk,format=raw
refuse 1 "nbd://HOST" -kernel zeros -hda http://host/disk
refuse 2 "serial chardev:c" -kernel zeros -chardev null,id=c
refuse 1 "no directory" -kernel zeros -nic user,tftp=missing
if command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null; then
    qemu-img create -q -f qcow2 image.qcow2 1M
    refuse 1 "another disk of" -kernel zeros -hda image.qcow2 -hdb image.qcow2
    { head -c 8 image.qcow2; cat noise; } >damaged.qcow2
    refuse 1 "damaged.qcow2: qemu-nbd" -kernel zeros -hda damaged.qcow2
fi

# A report that cannot be written is no success.
"$hecaton" -h >/dev/full 2>err
if [ $? != 1 ] || ! grep -q "No space" err; then
    echo "refusals.sh: -h into a full file"
    failed=1
fi

# A file that may not grow is an error like others. (The last one: the limit stays.)
ulimit -f 100
refuse 1 "jit=off" -kernel zeros -accel soft,jit=on
exit $failed
