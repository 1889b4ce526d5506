# shellcheck shell=sh
# engine.sh: sourced; need_engine ENGINE ends the test with 77 (skipped) where this host has not got it.
need_engine() {
    [ "$1" != kvm ] || { [ -r /dev/kvm ] && [ -w /dev/kvm ]; } || { echo "skipped: /dev/kvm does not open"; exit 77; }
}

# beyond_host FILE: what hecaton said is that this host's KVM has fewer CPUs or IDs than the test wants.
beyond_host() {
    grep -qE "KVM_CAP_MAX_VCPU|ulimit" "$1"
}
