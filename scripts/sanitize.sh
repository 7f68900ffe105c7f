#!/usr/bin/env bash
# Runs the test suite under the sanitizers named, or under all three: address undefined thread.
# Each has a build folder of its own (they cannot share one). QUERN_SANITIZE=1 tells tests to shrink their sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
export QUERN_SANITIZE=1
