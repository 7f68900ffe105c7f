#!/usr/bin/env bash
# Checks the formatting, and the rules of this repository that a formatter does not know. Prints every finding.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/dev.sh

findings=0
finding() { echo "lint: $*" >&2; findings=$((findings + 1)); }

# no MESSAGE PATTERN PATH...: each line of the tracked or new files under PATH that matches is a finding.
no() {
  local message=$1 pattern=$2 hit
  shift 2
  while IFS= read -r hit; do finding "$hit: $message"; done < <(
    git grep --untracked --no-color -nIE -e "$pattern" -- "$@" ':!LICENSE' ':!scripts/lint.sh' | cut -c 1-200 || true)
}

mapfile -t swift_paths < <(swift_paths)
swift format lint --strict --parallel --recursive "${swift_paths[@]}" || finding "swift format: see above; make format repairs most of it"
mapfile -t c_files < <(c_files)
if [[ ${#c_files[@]} -gt 0 ]]; then
  clang_format --dry-run --Werror "${c_files[@]}" || finding "clang-format: see above; make format repairs it"
fi

readonly longest=600
while IFS= read -r file; do
  [[ -f $file ]] || continue
  lines=$(wc -l <"$file")
  [[ $lines -gt $longest ]] || continue
  case $file in
    Tests/*) echo "lint: warning: $file: $lines lines; over $longest it reads better in two" >&2 ;;
    *) finding "$file: $lines lines; at most $longest" ;;
  esac
done < <(git ls-files --cached --others --exclude-standard -- '*.swift' '*.[ch]' '*.inc' '*.py')

# Kernel names: destination type first, then the operation; ISA suffixes come from the registry's users.
while IFS= read -r line; do
  finding "CKernels/kernels.inc:$line: not CK_KERNEL(type_name, (parameters))"
done < <(grep -nE '^[^/]' CKernels/kernels.inc | grep -vE '^[0-9]+:CK_KERNEL\((f32|bf16|i8)_[a-z0-9_]+, \(.*\)\)( *//.*)?$' || true)
while IFS= read -r name; do
  finding "CKernels/kernels.inc: $name is registered twice"
done < <(sed -nE 's/^CK_KERNEL\(([a-z0-9_]+),.*/\1/p' CKernels/kernels.inc | sort | uniq -d)

while IFS= read -r name; do
  grep -qE "^CHECK\($name, " Tests/CTests/checks.inc || finding "CKernels/include: $name has no CHECK in Tests/CTests/checks.inc"
done < <(sed -nE 's/^(int32_t|void) (ck_[a-z0-9_]+)\(const ck_kernels \*.*/\2/p' CKernels/include/*.h)

no "dead code" '^[[:space:]]*#[[:space:]]*if[[:space:]]+(0|false)([[:space:]]|$)' '*.[ch]' '*.inc' '*.swift'
no "throw a typed error instead" '(^|[^A-Za-z0-9_])(fatalError\(|try!)' Sources
no "a path of one machine" '(^|[^A-Za-z0-9_.])/(home|root|Users|work|tmp|opt)/[A-Za-z0-9]' ':!*.md' .
no "a registry's address belongs in its client's settings" \
  '(pypi\.org|pythonhosted\.org|download\.pytorch\.org|--(extra-)?index-url|--find-links|--trusted-host)' .
no "trailing space" '[[:space:]]+$' '*.swift' '*.[ch]' '*.inc' '*.md' '*.sh' '*.py' Makefile

[[ $findings -eq 0 ]] || { echo "lint: $findings findings" >&2; exit 1; }
echo "lint: clean" >&2
