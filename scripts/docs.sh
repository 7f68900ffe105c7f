#!/usr/bin/env bash
# Builds the DocC pages of the libraries into .build/docs with the toolchain's own docc; no plugin is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

docc=$(dirname "$(command -v swift)")/docc
[[ -x $docc ]] || docc=$(command -v docc) || { echo "docs: this toolchain has no docc" >&2; exit 1; }
swift package dump-symbol-graph --minimum-access-level public --skip-synthesized-members >&2
graphs=$(swift build --show-bin-path | sed 's|/[^/]*$||')/symbolgraph
for module in Quern QuernModels QuernDiffusion QuernTesting; do
  one=.build/docs/graphs/$module
  rm -rf "$one" ".build/docs/$module"
  mkdir -p "$one"
  cp "$graphs/$module".symbols.json "$graphs/$module"@*.symbols.json "$one" 2>/dev/null || true
  catalogue=(Sources/"$module"/*.docc)
  [[ -d ${catalogue[0]} ]] || catalogue=()
  "$docc" convert "${catalogue[@]}" --additional-symbol-graph-dir "$one" --output-path ".build/docs/$module" \
    --fallback-display-name "$module" --fallback-bundle-identifier "quern.$module" --warnings-as-errors \
    --transform-for-static-hosting --hosting-base-path "$module"
  echo "docs: .build/docs/$module"
done
