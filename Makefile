# Wraps the CMake presets. Every target installs the Debian packages it needs, after saying which, and may be run again.
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
DESTDIR ?=

PRESET_BUILD = cmake --preset $(1) -DCMAKE_INSTALL_PREFIX=$(PREFIX) >/dev/null && cmake --build --preset $(1) -j $(JOBS)
CTEST = ctest --test-dir build/$(1) -j $(JOBS) --output-on-failure

.PHONY: help build test boot guest-disk guest-tests bench oracle nested kvm-diff install deps check format lint layers asan tsan hostile fuzz clean

build: deps ## build/release/hecaton
	@$(call PRESET_BUILD,release)

test: build ## build and run every test
	@scripts/deps.sh boot
	@$(call CTEST,release)

boot: build ## boot Debian with SMP=300 CPUs; a shell on a terminal
	@scripts/deps.sh boot
	@scripts/boot.sh

guest-disk: ## a Debian 12 root disk with kernel and ssh key, below build/guest
	@scripts/deps.sh disk
	@scripts/guest-disk.sh

guest-tests: build guest-disk ## hecaton killed amid writes; fio, streams and 1000 connections with that disk, SMP=4 CPUs
	@scripts/deps.sh boot
	@TOOLS=build/release/tests/disk tests/disk/crash.sh
	@TOOLS=build/release/tests/disk tests/disk/guest.sh

bench: build ## the benchmark table
	@scripts/deps.sh boot
	@scripts/bench.sh

oracle: build ## COUNT random instructions, interpreted and translated, against the host's CPU
	@scripts/oracle.sh

nested: build ## the KVM engine under SVM inside QEMU: CPUS=16 at IDS=0,256-270
	@scripts/deps.sh boot nested
	@tests/nested/run.sh $${CPUS:-16} $${IDS:-0,256-270}

kvm-diff: build ## STEPS random local APIC steps against Linux' KVM
	@build/release/tests/diff/kvm_lapic -n $${STEPS:-1000000} -s $${SEED:-1}

install: build ## binary and man page below DESTDIR/PREFIX
	@DESTDIR=$(DESTDIR) cmake --install build/release --prefix $(PREFIX)

check: format lint layers ## what a commit must pass besides the tests

format: ## sources are as .clang-format has them
	@scripts/deps.sh check
	@git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror

lint: ## names, comments and sizes the rules ask for
	@scripts/lint.sh

layers: deps ## no room calls upward
	@cmake --preset release -DCMAKE_INSTALL_PREFIX=$(PREFIX) >/dev/null
	@cmake --build --preset release -j $(JOBS) --target layers

asan: deps ## tests and a boot under AddressSanitizer and UBSan
	@$(call PRESET_BUILD,asan-ubsan)
	@scripts/deps.sh boot
	@$(call CTEST,asan-ubsan) -LE '^boot$$'

tsan: deps ## tests and a boot under ThreadSanitizer
	@$(call PRESET_BUILD,tsan)
	@scripts/deps.sh boot
	@$(call CTEST,tsan) -LE '^boot$$'

hostile: deps ## tests and a boot with tiny caches and quanta
	@$(call PRESET_BUILD,hostile)
	@scripts/deps.sh boot
	@$(call CTEST,hostile) -LE '^boot$$'

fuzz: deps ## each fuzz target for SECONDS_EACH (60)
	@scripts/deps.sh fuzz
	@$(call PRESET_BUILD,fuzz)
	@scripts/fuzz.sh build/fuzz

deps:
	@scripts/deps.sh build

clean: ## everything below build/ but what was downloaded
	rm -rf build/release build/dev build/asan-ubsan build/tsan build/hostile build/fuzz

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
