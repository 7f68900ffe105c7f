#!/usr/bin/env bash
# Adds diffusers and OpenVINO to .venv-peers, for `make peers ARGS="--part diffusion"`.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly venv=.venv-peers requirements=Benchmarks/peers/requirements-diffusion.txt
readonly marker=$venv/.diffusion

if [[ -f $marker ]] && cmp -s "$requirements" "$marker"; then exit 0; fi
"$venv/bin/python" -m pip install --quiet --requirement "$requirements" >&2 </dev/null ||
  { echo "peers: pip could not install $requirements; is PyPI reachable from here?" >&2; exit 1; }
cp "$requirements" "$marker"
