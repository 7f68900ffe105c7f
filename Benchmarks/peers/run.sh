#!/usr/bin/env bash
# Measures Quern beside PyTorch, OpenBLAS and llama.cpp, in turn, in one run. Options are those of peers.py; QUERN and BENCHMARKS
# use programs built elsewhere. llama.cpp is compiled where `--part gemm` asks for it, and only used where it is there otherwise;
# `--part diffusion` and `--part encoder-bf16` install diffusers and OpenVINO.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/venv.sh .venv-peers Benchmarks/peers/requirements.txt
[[ " $* " == *" --part "[og]* ]] || scripts/fetch_model.sh
[[ " $* " != *" --part gemm "* ]] || Benchmarks/peers/llama.sh
[[ " $* " != *" --part diffusion "* && " $* " != *" --part encoder-bf16 "* ]] || Benchmarks/peers/diffusion.sh
products=$(swift build -c release --show-bin-path)
for product in quern benchmarks; do
  variable=${product^^}
  [[ -z ${!variable:-} ]] || continue
  swift build -c release --product "$product" >&2
  printf -v "$variable" %s "$products/$product"
done
exec .venv-peers/bin/python Benchmarks/peers/peers.py --quern "$QUERN" --benchmarks "$BENCHMARKS" \
  --model .model/all-MiniLM-L6-v2 --json docs/peers.json "$@"
