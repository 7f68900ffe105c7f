#!/usr/bin/env bash
# Rewrites docs/coverage.md, the table of which backend does which operation, by running the test that compares it.
set -euo pipefail
cd "$(dirname "$0")/.."
QUERN_WRITE_COVERAGE=1 swift test -c release --filter CoverageTests
echo "coverage: docs/coverage.md is up to date" >&2
