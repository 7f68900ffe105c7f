#!/usr/bin/env bash
# Runs the tests, in release, under the sanitizers named or under all three: address undefined thread.
# Each has a build folder of its own, since SwiftPM cannot share one. QUERN_SANITIZE=1 lets tests shrink their sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
export QUERN_SANITIZE=1
# Tests ask for memory that cannot be had: the sanitizers' allocators shall refuse it as the system's does.
export ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1

# --disable-xctest: every test is a Swift Testing test, and XCTest's own start-up leaks in LeakSanitizer's eyes.
run() { swift test -c release --disable-xctest "$@"; }

# With LeakSanitizer; its suppressions name only code outside this repository.
address() {
  LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.supp:print_suppressions=0" run --sanitize address --scratch-path .build-asan
}

# `--sanitize undefined` does not exist on Linux. Swift traps by itself, so this instruments the C alone.
undefined() {
  UBSAN_OPTIONS=print_stacktrace=1 run --scratch-path .build-ubsan -Xcc -fsanitize=undefined \
    -Xcc -fno-sanitize-recover=undefined -Xswiftc -Xclang-linker -Xswiftc -fsanitize=undefined
}

# On the pthread team: an OpenMP runtime that is not instrumented looks like one race after another.
thread() {
  run --sanitize thread --disable-default-traits --scratch-path .build-tsan
}

[[ $# -gt 0 ]] || set -- address undefined thread
failed=()
for sanitizer in "$@"; do
  case $sanitizer in
    address | undefined | thread) ;;
    *) echo "sanitize: no sanitizer '$sanitizer'; there are: address undefined thread" >&2; exit 2 ;;
  esac
  echo "sanitize: $sanitizer" >&2
  "$sanitizer" || failed+=("$sanitizer")
done
[[ ${#failed[@]} -eq 0 ]] || { echo "sanitize: failed: ${failed[*]}" >&2; exit 1; }
echo "sanitize: clean" >&2
