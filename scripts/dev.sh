# Sourced by format.sh and lint.sh: the folders they look at, and the pinned clang-format.
swift_paths() {
  local path
  for path in Package.swift Sources Tests Benchmarks Examples; do [[ ! -e $path ]] || echo "$path"; done
}

# Tables (*.inc) are laid out by hand.
c_files() { git ls-files --cached --others --exclude-standard 'CKernels/*.[ch]' 'Tests/CSmoke/*.[ch]' 'Tests/CTests/*.[ch]'; }

clang_format() {
  scripts/venv.sh .venv-dev tools/requirements-dev.txt && .venv-dev/bin/clang-format "$@"
}
