#!/usr/bin/env bash
# Runs the C tests (Tests/CTests) outside the Swift build, where the Swift tests cannot go.
#   scripts/test_c.sh neon         compiled for arm64, under QEMU's user emulation on other machines: with dot products and without
#   scripts/test_c.sh cpus         on this processor at each instruction set, and on older ones that QEMU emulates
#   scripts/test_c.sh exhaustive   the elementary functions at every f32, on each instruction set of this machine
#   scripts/test_c.sh build        builds the programs of the last two, for scripts/test_avx512.sh
# The compiler is the Swift toolchain's clang, so that the code is what Swift would build. Products lie in .build-c.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "test_c: $*" >&2; }
die() { say "$@"; exit 1; }

clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
[[ -x $clang ]] || clang=$(command -v clang) || die "no clang beside swift, and none on PATH"
readonly clang kernels=(CKernels/*.c CKernels/isa/*.c CKernels/drive/*.c)

# objects NAME FLAGS... -- SOURCE...: compiles into .build-c/NAME, as many at once as there are cores.
objects() {
  local folder=.build-c/$1 flags=(-std=c17 -O3 -Wall -Wextra -Werror -ICKernels/include -ICKernels/vec)
  shift
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  shift
  mkdir -p "$folder" && rm -f "$folder"/*.o
  printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} sh -c \
    'source=$1 folder=$2; shift 2; exec "$@" -c "$source" -o "$folder/$(echo "$source" | tr / _).o"' \
    sh {} "$folder" "$clang" "${flags[@]}"
}

link() {  # NAME FOLDER... -- FLAGS...
  local program=.build-c/$1 inputs=()
  shift
  while [[ $1 != -- ]]; do inputs+=(".build-c/$1"/*.o); shift; done
  shift
  "$clang" "$@" "${inputs[@]}" -lm -lpthread -o "$program"
}

# exhaustive NAME FLAGS... -- ISA:FLAGS...: one object for each instruction set, beside the kernels in .build-c/NAME.
exhaustive() {
  local name=$1 flags=() set folders=()
  shift
  while [[ $1 != -- ]]; do flags+=("$1"); shift; done
  shift
  for set in "$@"; do
    read -ra own <<<"${set#*:}"
    objects "$name-${set%%:*}" "${flags[@]}" "-DISA=${set%%:*}" ${own[@]+"${own[@]}"} -- Tests/CTests/exhaustive/isa.c
    folders+=("$name-${set%%:*}")
  done
  objects "$name-measure" "${flags[@]}" -- Tests/CTests/exhaustive/main.c
  link "exhaustive-$name" "$name" "$name-measure" "${folders[@]}" -- ${flags[@]+"${flags[@]}"}
}

readonly avx2="-mavx2 -mfma -mf16c" avx512="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c"

run() {
  say "$*"
  "$@"
}

neon() {
  local target=() emulator=()
  if [[ $(uname -m) != aarch64 ]]; then
    scripts/bootstrap.sh --only gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    target=(--target=aarch64-linux-gnu -static) emulator=(qemu-aarch64-static)
  fi
  objects neon ${target[@]+"${target[@]}"} -- "${kernels[@]}"
  objects neon-tests ${target[@]+"${target[@]}"} -- Tests/CTests/*.c
  link ctests-neon neon neon-tests -- ${target[@]+"${target[@]}"}
  exhaustive neon ${target[@]+"${target[@]}"} -- scalar: neon:
  if [[ ${#emulator[@]} -gt 0 ]]; then
    run "${emulator[@]}" -cpu cortex-a57 .build-c/ctests-neon --expect neon
    run "${emulator[@]}" -cpu max .build-c/ctests-neon --expect neondot i8 int8 quantize  # the kernels that differ
  else
    run .build-c/ctests-neon
  fi
  run env QUERN_MAX_ISA=scalar ${emulator[@]+"${emulator[@]}"} .build-c/ctests-neon --expect scalar
  run ${emulator[@]+"${emulator[@]}"} .build-c/exhaustive-neon --every 4099
}

native() { objects native -static -- "${kernels[@]}"; }

native_tests() {
  native
  objects native-tests -static -- Tests/CTests/*.c
  link ctests-native native native-tests -- -static
}

cpus() {
  [[ $(uname -m) == x86_64 ]] || die "cpus: the processors emulated are x86-64's; this machine is $(uname -m)"
  scripts/bootstrap.sh --only qemu-user-static
  local version
  version=$(qemu-x86_64-static --version | sed -nE 's/.*version ([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
  [[ $(printf '%s\n' 7.2 "$version" | sort -V | head -n 1) == 7.2 ]] || die "cpus: QEMU 7.2 or later emulates AVX2; this is $version"
  native_tests
  local tests=.build-c/ctests-native model
  run "$tests"
  run env QUERN_MAX_ISA=scalar "$tests" --expect scalar
  if "$tests" f32_add | grep '^avx2' >/dev/null; then run env QUERN_MAX_ISA=avx2 "$tests" --expect avx2; fi
  emulated Nehalem --expect scalar
  # QEMU 7.2 loads the masked lanes too.
  emulated Haswell --no-guards --expect avx2
  # AVX without AVX2; AVX2 without the instructions or the register state that the kernels need besides.
  for model in SandyBridge Haswell,-fma Haswell,-f16c Haswell,-avx2 Haswell,-xsave; do
    emulated "$model" --expect scalar f32_add f32_widen
  done
}

# QEMU says on standard error which features of a model it leaves out.
emulated() {
  local model=$1
  shift
  run qemu-x86_64-static -cpu "$model" .build-c/ctests-native "$@" 2> >(grep -v "TCG doesn't support" >&2)
}

native_exhaustive() {
  case $(uname -m) in
    x86_64) exhaustive native -static -- scalar: "avx2:$avx2" "avx512:$avx512" ;;
    aarch64) exhaustive native -static -- scalar: neon: ;;
    *) exhaustive native -static -- scalar: ;;
  esac
}

all_inputs() {
  scripts/bootstrap.sh --swift-only
  native
  native_exhaustive
  run .build-c/exhaustive-native "$@"
}

readonly what=${1:-}
case $what in
  neon) neon ;;
  cpus) cpus ;;
  exhaustive) shift && all_inputs "$@" ;;
  build) native_tests; native_exhaustive ;;
  *) die "what is to be run: neon, cpus, exhaustive or build" ;;
esac
say "$what: passed"
