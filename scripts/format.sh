#!/usr/bin/env bash
# Formats the Swift and C sources in place.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/dev.sh

mapfile -t swift_paths < <(swift_paths)
swift format format --in-place --parallel --recursive "${swift_paths[@]}"
mapfile -t c_files < <(c_files)
[[ ${#c_files[@]} -eq 0 ]] || clang_format -i "${c_files[@]}"
