#!/usr/bin/env bash
# Builds and tests each package under Examples/, which use Quern as a dependency, as another package would.
set -euo pipefail
cd "$(dirname "$0")/.."
for package in Examples/*/; do
  name=$(basename "$package")
  swift test -c release --disable-xctest --package-path "$package" --scratch-path ".build-examples/$name"
done
