#!/usr/bin/env bash
# Builds llama.cpp into .venv-peers, for `make peers ARGS="--part gemm"`. Compiles for this processor with AMX off: its int8
# AMX kernels crashed on quantised weights. Where it cannot be built, says so and exits 0: the part runs without it.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly venv=.venv-peers requirements=Benchmarks/peers/requirements-llama.txt
readonly marker=$venv/.llama log=$venv/llama.log

if [[ -f $marker ]] && cmp -s "$requirements" "$marker"; then exit 0; fi
echo "peers: compiling llama.cpp from PyPI's llama-cpp-python, once: ten minutes of processor time; log in $log" >&2
options="-DGGML_NATIVE=ON -DGGML_OPENMP=ON -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF -DLLAVA_BUILD=OFF"
options+=" -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF"
# GGML_NATIVE takes all that the processor has, whatever GGML_AMX_* say; the compiler's own options go before it. A compiler
# that does not know them has no AMX either.
off="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
"${CC:-cc}" $off -E -x c /dev/null >/dev/null 2>&1 || off=
if CMAKE_ARGS=$options CFLAGS=$off CXXFLAGS=$off nice -n 10 "$venv/bin/python" -m pip install --verbose --no-cache-dir \
  --no-binary llama-cpp-python --requirement "$requirements" >"$log" 2>&1 </dev/null; then
  cp "$requirements" "$marker"
else
  echo "peers: llama.cpp could not be built, its rows are left out; the end of $log:" >&2
  tail -n 5 "$log" >&2
fi
