#!/bin/sh
# Every CPU method of stress-ng (about 75; each operation is the next method), checked against the results it knows. It
# calls a stressor that died of a signal a success: look for that, and for the operations having been done.
cd /tmp || exit 1
stress-ng --cpu 2 --cpu-method all --cpu-ops 200 --verify --metrics-brief --verbose >log 2>&1
status=$?
cat log
grep -qiE 'unexpected|fail|sigill|sigsegv' log && exit 1
grep -qE 'metrc:.* cpu +200 ' log || exit 1
[ $status = 0 ] && echo "stress: passed"
