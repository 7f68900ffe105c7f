#!/usr/bin/env bash
# Measures Quern beside PyTorch, in turn, in one run. Options are those of peers.py; QUERN=FILE uses a tool built elsewhere.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/venv.sh .venv-peers Benchmarks/peers/requirements.txt
scripts/fetch_model.sh
if [[ -z ${QUERN:-} ]]; then
  swift build -c release --product quern >&2
  QUERN=$(swift build -c release --show-bin-path)/quern
fi
exec .venv-peers/bin/python Benchmarks/peers/peers.py \
  --quern "$QUERN" --model .model/all-MiniLM-L6-v2 --json docs/peers.json "$@"
