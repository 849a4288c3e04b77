# The developer's surface. Each target installs the Debian packages it lacks, or says which command does when not root.

SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
SECONDS_PER_FUZZER ?= 60

.PHONY: all demo test lab lab-soak interop bench fuzz lint docs install uninstall clean packages-build packages-lab packages-interop

all: release

# --- Building

.PHONY: release debug
release: packages-build
	swift build -c release --product warren

debug: packages-build
	swift build

packages-build:
	@packaging/need-packages libssl-dev libnl-3-dev libnl-route-3-dev libsodium-dev libngtcp2-dev libngtcp2-crypto-gnutls-dev libgnutls28-dev pkg-config zlib1g-dev

packages-lab: packages-build
	@packaging/need-packages gcc libc6-dev iproute2 iputils-ping nftables iperf3 jq ethtool procps

# --- Seeing it work

# Two namespaces, a daemon in each: pings, moves data, prints a table.
demo: packages-lab release
	@Tests/Lab/as-root Tests/Lab/demo

# --- Checking

# All that needs no root and no second machine.
test: packages-build
	swift build --build-tests
	swift test --skip-build

# Scenarios in network namespaces.
lab: packages-lab release
	@packaging/need-packages python3
	swift build -c release --product lab-peer
	@Tests/Lab/as-root Tests/Lab/run

# The same, many times over.
lab-soak: packages-lab release
	@packaging/need-packages python3
	swift build -c release --product lab-peer
	@Tests/Lab/as-root Tests/Lab/run --repeat 100

# Real go, rust and Python peers, in namespaces without a way out.
interop: packages-lab
	@packaging/need-packages gcc libgmp-dev python3-dev python3-venv unzip
	swift build -c release --product interop-node
	swift build -c release --product warren
	Tests/Interop/install-peers
	@Tests/Lab/as-root Tests/Interop/run

# Against a raw link, wireguard-go, nebula and a C forwarder. WIREGUARD_GO=path adds another build of the first.
bench: packages-lab release
	@packaging/need-packages gcc libc6-dev python3 wireguard-go wireguard-tools nebula
	@Tests/Lab/as-root Tests/Benchmarks/run $(if $(WIREGUARD_GO),--wireguard-go "$(WIREGUARD_GO)")

# Every decoder for a while.
fuzz: packages-build
	Tests/Fuzz/run $(SECONDS_PER_FUZZER)

lint:
	swift format lint --strict --recursive --parallel Package.swift Sources Tests

docs: packages-build
	swift build --target LibP2P
	packaging/docs

# --- Installing

# WARREN=path installs that executable.
install: release
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" packaging/install.sh "$${WARREN:-$$(swift build -c release --show-bin-path)/warren}"

# Keys, configuration and state stay.
uninstall:
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" packaging/install.sh --uninstall

clean:
	swift package clean
