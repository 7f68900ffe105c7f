#!/usr/bin/env bash
# Checks for Swift and for the system packages, and installs the packages that are missing.
#   scripts/bootstrap.sh                 what a build needs
#   scripts/bootstrap.sh --swift-only    no package at all
#   scripts/bootstrap.sh --only NAME...  these packages: the tools of one target
# As root, or where sudo works, it runs apt-get; otherwise it prints the command to run and exits 1.
set -euo pipefail

readonly minimum=6.2
# pkg-config is how SwiftPM finds OpenBLAS; the others are the libraries themselves.
packages=(libopenblas-dev liblapacke-dev libomp-dev libpng-dev libjpeg-dev pkg-config)
remedy="or build without them: swift build --disable-default-traits"

say() { echo "bootstrap: $*" >&2; }
die() { say "$@"; exit 1; }

check_swift() {
  command -v swift >/dev/null || die "swift is not on PATH; install Swift $minimum or later (swift.org/install/linux)," \
    "or add its usr/bin folder to PATH"
  local version
  version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
  [[ -n $version ]] || die "\`swift --version\` did not name a version; is $(command -v swift) a Swift toolchain?"
  [[ $(printf '%s\n' "$minimum" "$version" | sort -V | head -n 1) == "$minimum" ]] ||
    die "Swift $minimum or later is needed; $(command -v swift) is $version"
}

# Installed according to dpkg; on systems without dpkg, known to pkg-config or the dynamic linker.
present() {
  if command -v dpkg-query >/dev/null; then
    # pkgconf replaces pkg-config on newer systems: any command of that name will do.
    if [[ $1 == pkg-config ]] && command -v pkg-config >/dev/null; then return 0; fi
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
  else
    case $1 in
      libopenblas-dev) pkg-config --exists openblas ;;
      liblapacke-dev) pkg-config --exists lapacke || pkg-config --exists openblas ;;
      libpng-dev) pkg-config --exists libpng ;;
      libjpeg-dev) pkg-config --exists libjpeg ;;
      libomp-dev) ldconfig -p | grep -q 'libomp[0-9]*\.so' ;;
      pkg-config) command -v pkg-config >/dev/null ;;
      gcc-aarch64-linux-gnu | libc6-dev-arm64-cross) command -v aarch64-linux-gnu-gcc >/dev/null ;;
      qemu-user-static) command -v qemu-aarch64-static >/dev/null ;;
      *) return 1 ;;
    esac
  fi
}

missing_packages() {
  local package
  for package in "${packages[@]}"; do present "$package" 2>/dev/null || echo "$package"; done
}

install() {
  local as_root=()
  local by_hand="apt-get update && apt-get install --yes --no-install-recommends $*"
  command -v apt-get >/dev/null || die "missing: $*; install what your system calls these packages, $remedy"
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "missing: $*; run as root: $by_hand; $remedy"
    as_root=(sudo)
    if ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; then
      die "missing: $*; run: sudo sh -c '$by_hand'; $remedy"
    fi
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120)
  say "installing $*"
  for attempt in 1 2; do
    if "${apt[@]}" update >&2 && "${apt[@]}" install --yes --no-install-recommends "$@" >&2 </dev/null; then return; fi
    [[ $attempt == 2 ]] || { say "apt-get failed; trying once more"; sleep 3; }
  done
  die "apt-get could not install $*; run as root: $by_hand; $remedy"
}

main() {
  check_swift
  case ${1:-} in
    --swift-only) return 0 ;;
    --only) shift && packages=("$@") && remedy="nothing else needs them" ;;
  esac
  local missing
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  install "${missing[@]}"
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -eq 0 ]] || die "still missing after apt-get: ${missing[*]}"
}

main "$@"
