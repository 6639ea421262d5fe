# The commands of this repository. Each does all of its own set-up: packages, configuration, compilation.
#   make build        build/bin/mezzotint, and mezzotint-synth, which writes real-shaped checkpoints
#   make test         everything, with PyTorch for tier 2, then reading and fuzzing again under ASan and UBSan
#   make demo         the main job on a real-shaped file; leaves build/demo/report.html
#   make bench        benchmarks; each checks its answer before its time
#   make dist         dist/mezzotint-VERSION-linux-ARCH.tar.gz: one binary that needs nothing but glibc
#   make cuda         the kernels for NVIDIA GPUs, their tests and benchmarks, where nvcc is there
#   make format       clang-format over all sources
#   make tidy         clang-tidy over all sources (slow; needs clang-tidy)
#   make test-peers   our output in other programs (opt-in; installs pinned peers)
#   make test-quality what conversion costs a small trained model, against targets (opt-in; trains three, 10 minutes)
#   make test-torch-asan  tier 2's operations under ASan and UBSan (opt-in; compiles all of it once more)
#   make docs-adapters  docs/adapters.md anew: merges and bypasses of every adapter on every format (opt-in)
#   make bench-peers  our speed beside torch and comfy-kitchen, one core (opt-in, the same peers); ARGS=--all for more
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: bootstrap build test demo bench cuda dist format tidy test-peers test-quality test-torch-asan docs-adapters bench-peers \
        clean help

# Where the packages come from another source, run `make BOOTSTRAP=true ...`.
BOOTSTRAP ?= tools/bootstrap
JOBS ?= $(shell nproc)

help:
	@sed -n '/^SHELL/q; s/^# \{0,1\}//p' Makefile

bootstrap:
	@$(BOOTSTRAP)

build: bootstrap
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target mezzotint mezzotint-synth

# The sanitizer run comes first, so that the last lines are those of the complete run.
test: build
	torch=$$(tools/torch-venv); cmake --preset release -D MEZZOTINT_TORCH="$$torch"
	cmake --build --preset release -j $(JOBS)
	cmake --preset asan
	cmake --build --preset asan -j $(JOBS)
	@$(MAKE) --no-print-directory cuda
	failed=0; \
	ctest --preset asan -j $(JOBS) || failed=1; \
	ctest --preset release -j $(JOBS) || failed=1; \
	exit $$failed

demo: build
	python3 tools/demo/demo.py --bin build/bin --out build/demo

bench: build
	cmake --build --preset release -j $(JOBS)
	@shopt -s nullglob; programs=(build/bin/bench_*); \
	[ $${#programs[@]} -gt 0 ] || { echo "no benchmark was built" >&2; exit 1; }; \
	for program in "$${programs[@]}"; do echo "== $${program##*/}"; "$$program"; done

# Needs no GPU: tests that do say "no GPU" and are skipped; `make test` runs the others. tools/gpu/check.sh runs what this
# built on a machine with one.
NVCC ?= $(shell command -v nvcc || command -v /usr/local/cuda/bin/nvcc)
cuda: bootstrap
	@if [ -z "$(NVCC)" ]; then echo "CUDA not built: no nvcc"; exit 0; fi; \
	torch=$$(tools/torch-venv); cmake --preset cuda -D CMAKE_CUDA_COMPILER="$(NVCC)" -D MEZZOTINT_TORCH="$$torch"; \
	cmake --build --preset cuda -j $(JOBS); \
	build/cuda/bin/test_cuda --gtest_brief=1 --gtest_filter='*gpu*:Cuda.*'; \
	build/cuda/bin/test_tensor_cuda --gtest_brief=1 --gtest_filter='CudaTensors.*'; \
	echo "CUDA built: build/cuda/bin/test_cuda, bench_cuda, test_tensor_cuda (with PyTorch)"

dist: bootstrap
	cmake --preset dist
	cmake --build --preset dist -j $(JOBS)
	tools/dist/pack build/dist/bin/mezzotint dist

format: bootstrap
	git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' | xargs -0 -r clang-format -i

tidy: build
	cmake --build --preset release -j $(JOBS)
	run-clang-tidy -quiet -p build "^$(CURDIR)/(src|tests|bench|fuzz|tools)/"

test-peers: build
	torch=$$(tools/torch-venv); cmake --preset release -D MEZZOTINT_TORCH="$$torch"
	cmake --build --preset release -j $(JOBS) --target mezzotint-run bypass_layers
	tests/peers/run.sh

# Not a part of `make test`: its compilation alone costs more than four minutes.
test-torch-asan: bootstrap
	torch=$$(tools/torch-venv); cmake --preset asan-torch -D MEZZOTINT_TORCH="$$torch"
	cmake --build --preset asan-torch -j $(JOBS)
	ctest --preset asan-torch

test-quality: build
	tests/quality/run.sh $(ARGS)

# What its tables say is also tested by `make test`, but for the digits.
docs-adapters: build
	torch=$$(tools/torch-venv); cmake --preset release -D MEZZOTINT_TORCH="$$torch"
	cmake --build --preset release -j $(JOBS) --target test_convert test_nn
	rm -rf build/matrix; mkdir -p build/matrix
	MEZZOTINT_MATRIX=build/matrix build/bin/test_convert --gtest_brief=1 --gtest_filter='*MergeMatrix.*'
	MEZZOTINT_MATRIX=build/matrix build/bin/test_nn --gtest_brief=1 --gtest_filter='*BypassMatrix.*'
	python3 tools/docs/adapters.py build/matrix

bench-peers: build
	torch=$$(tools/torch-venv); cmake --preset release -D MEZZOTINT_TORCH="$$torch"
	cmake --build --preset release -j $(JOBS) --target bench_gemm bench_formats mezzotint-bench
	bench/peers/run.sh $(ARGS)
	[ -n "$(ARGS)" ] || bench/peers/run.sh linears

clean:
	cmake -E rm -rf build/bin build/lib build/asan build/cuda build/dev build/dist build/demo
	[ ! -f build/build.ninja ] || cmake --build --preset release --target clean
