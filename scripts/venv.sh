#!/usr/bin/env bash
# scripts/venv.sh FOLDER REQUIREMENTS: makes or refreshes a Python virtual environment with exactly those packages.
# pip's own settings decide where packages come from; FOLDER/.ready marks a finished one.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 requirements=$2

if [[ -f $folder/.ready ]] && cmp -s "$requirements" "$folder/.ready"; then exit 0; fi
command -v python3 >/dev/null || { echo "venv: python3 is needed" >&2; exit 1; }
echo "venv: installing $requirements into $folder" >&2
python3 -m venv --clear "$folder" >&2 || { echo "venv: python3 cannot make one; install python3-venv" >&2; exit 1; }
"$folder/bin/python" -m pip install --quiet --requirement "$requirements" >&2 </dev/null ||
  { echo "venv: pip could not install $requirements; is PyPI reachable from here?" >&2; exit 1; }
cp "$requirements" "$folder/.ready"
