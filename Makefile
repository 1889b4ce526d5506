# Wraps the CMake presets; every target installs the Debian packages it needs, after saying which.
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: build test boot bench install deps check clean
build: deps
	@cmake --preset release >/dev/null && cmake --build --preset release -j $(JOBS)

test: build
	@ctest --test-dir build/release -j $(JOBS) --output-on-failure

deps:
	@scripts/deps.sh build

clean:
	rm -rf build
