# Sourced by format.sh and lint.sh: the folders they look at, and the pinned clang-format.
swift_paths() {
  local path
  for path in Package.swift Sources Tests Benchmarks Examples; do [[ ! -e $path ]] || echo "$path"; done
}

# kernels.inc is a table laid out by hand.
c_files() { git ls-files --cached --others --exclude-standard 'CKernels/*.[ch]' 'Tests/CSmoke/*.[ch]'; }

clang_format() {
  local tool=.venv-dev/bin/clang-format pin=tools/requirements-dev.txt
  if [[ ! -x $tool || $pin -nt .venv-dev/.ready ]]; then
    command -v python3 >/dev/null || { echo "python3 is needed to install clang-format" >&2; return 1; }
    python3 -m venv .venv-dev >&2 && .venv-dev/bin/python -m pip install --quiet -r "$pin" >&2 || return 1
    touch .venv-dev/.ready
  fi
  "$tool" "$@"
}
