# Carrack: the commands people type. `make` alone lists them.
# The build goes to target/<host tuple> (see .cargo/config.toml); `make build`
# puts the release programs at target/release.

CARGO    ?= cargo
TUPLE    := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BUILT    := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS := carrack carrack-runtime

.PHONY: help build demo test soak bench-runtime bench-images test-vm fuzz lint clean

help:
	@echo 'make build          release programs at target/release/carrack and target/release/carrack-runtime'
	@echo 'make demo           build, make an image from the distribution'"'"'s packages, run a container from it'
	@echo 'make test           every test (as root also those on the real kernel), then an audit for leaks'
	@echo 'make soak           carrack killed at SOAK_KILLS (300) random moments of pull, load, prune and tag'
	@echo 'make lint           formatting, clippy and the layout rules (cargo xtask tidy)'
	@echo 'make bench-runtime  carrack-runtime beside runc, crun and the floor program'
	@echo 'make bench-images   pulls beside podman and the floor, and what else is done with images'
	@echo 'make test-vm        the tests in a VM with systemd, pure cgroup v2, AppArmor, then SELinux'
	@echo 'make fuzz           each fuzz target for FUZZ_SECONDS (60) seconds; needs a nightly toolchain'

build:
	$(CARGO) build --release --package carrack-cli --package carrack-runtime
	@mkdir -p target/release
	@for p in $(PROGRAMS); do \
	  cp -f "$(BUILT)/$(TUPLE)/release/$$p" "target/release/.$$p.new" && \
	  mv -f "target/release/.$$p.new" "target/release/$$p" || exit 1; \
	  ls -l "target/release/$$p"; \
	done

demo: build
	./demo/run.sh

test:
	$(CARGO) xtask test

soak:
	CARRACK_KILLS=$(or $(SOAK_KILLS),300) $(CARGO) test --package carrack-cli --test killed -- --nocapture

bench-runtime: build
	$(CARGO) xtask bench-runtime $(BENCH_ARGS)

bench-images: build
	$(CARGO) build --release --package carrack-bench-images
	@cp -f $(BUILT)/$(TUPLE)/release/images-floor $(BUILT)/$(TUPLE)/release/images-make target/release/
	$(CARGO) xtask bench-images $(BENCH_ARGS)

test-vm:
	$(CARGO) xtask test-vm $(TESTVM_ARGS)

fuzz:
	$(CARGO) xtask fuzz

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) xtask tidy
	$(CARGO) xtask fuzz --check

clean:
	$(CARGO) clean
