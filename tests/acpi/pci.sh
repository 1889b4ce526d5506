#!/bin/sh
# pci.sh ACPI_DUMP DIR: what the PCI root answers when acpiexec, an interpreter of AML, asks: routes for the I/O APIC and for the
# PIC, and _OSC.
set -eu
command -v acpiexec >/dev/null || { echo "acpiexec is not installed (acpica-tools): skipped"; exit 77; }
dump=$1 dir=$2
rm -rf "$dir"
mkdir -p "$dir"
"$dump" sparse300 "$dir"
cd "$dir"
fail=0
root='\_SB.PCI0'
uuid='(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)'

ask() {
    acpiexec -b "$1" DSDT.aml 2>&1
}

# The four numbers of the 128 routes, a route a line.
routes() {
    ask "$1" | sed -n '/Contains 128 Elements/,$p' | awk '/Contains 4/ { if (r) print r; r = "" } /Integer/ { r = r " " $NF }
        END { print r }'
}

# expect WHAT GOT LINE: one of the lines of GOT is LINE.
expect() {
    echo "$2" | grep -qF -- "$3" || { echo "$1: no \"$3\" in:"; echo "$2" | tail -n 20; fail=1; }
}

n() {
    printf '%016X' "$1"
}

pic=$(routes "execute $root._PRT")
apic=$(routes "execute \\_PIC 1;execute $root._PRT")
for dev in 0 2 31; do
    for pin in 0 3; do
        expect "I/O APIC" "$apic" "$(n $((dev << 16 | 0xffff))) $(n $pin) $(n 0) $(n $((16 + (dev + pin) % 8)))"
        expect "PIC" "$pic" "$(n $((dev << 16 | 0xffff))) $(n $pin) $(n 0) $(n $((10 + (dev + pin) % 2)))"
    done
done
expect "all is granted" "$(ask "execute $root._OSC $uuid 1 3 (00 00 00 00 1F 00 00 00 1D 00 00 00)")" \
    "00 00 00 00 1F 00 00 00 1D 00 00 00"
expect "what is not known is taken out" "$(ask "execute $root._OSC $uuid 1 3 (01 00 00 00 1F 00 00 00 3F 01 00 00)")" \
    "11 00 00 00 1F 00 00 00 1F 00 00 00"
expect "another revision" "$(ask "execute $root._OSC $uuid 9 3 (00 00 00 00 1F 00 00 00 01 00 00 00)")" \
    "08 00 00 00 1F 00 00 00 01 00 00 00"
expect "another interface" "$(ask "execute $root._OSC (00 00 DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66) 1 3 (00 00 00 00 00 00 00 00 07 00 00 00)")" \
    "04 00 00 00 00 00 00 00 07 00 00 00"
exit $fail
