#!/usr/bin/env bash
# Draws docs/*.svg from a benchmark run, or from the JSON file given. Keeps the run's JSON in .build/benchmarks.json.
set -euo pipefail
cd "$(dirname "$0")/../.."

json=${1:-}
scripts/venv.sh .venv-plots Benchmarks/plots/requirements.txt
if [[ -z $json ]]; then
  json=.build/benchmarks.json
  swift build -c release --product benchmarks >&2
  "$(swift build -c release --show-bin-path)/benchmarks" --format json >"$json.part"
  mv "$json.part" "$json"
fi
mkdir -p docs
exec .venv-plots/bin/python Benchmarks/plots/plot.py "$json" docs
