"""Puts docs/peers.json into the README, between its `peers` markers, and every operation's case into docs/peers.md.

python3 Benchmarks/peers/readme.py
"""

import json
from pathlib import Path

import gemm_tables
import tables

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"


def between(text, content):
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:start]}\n{content}\n{text[end:]}"


def main():
    report = json.loads((ROOT / "docs/peers.json").read_text(encoding="utf-8"))
    parts = [tables.encoder(report)] if report.get("cases") else []
    operations = report.get("operations")
    if operations:
        verdict = [f"- {line}" for line in tables.verdict(operations)]
        parts += [
            f"Operations: {tables.head(operations)}. `with out=`: the same where PyTorch writes into a tensor that is there "
            "already, with the number of cases. Every case: [docs/peers.md](docs/peers.md).",
            "\n".join(tables.families(operations)),
            "\n".join(verdict),
        ]
        page = [
            "# Every operation beside PyTorch",
            'Written by `Benchmarks/peers/readme.py` from [peers.json](peers.json), which `make peers` writes; '
            "[performance.md](performance.md) says how it is measured.",
            f"{tables.head(operations)}.",
            "\n".join(tables.cases(operations)),
            "\n".join(tables.families(operations)),
            "\n".join(verdict),
        ]
        if report.get("gemm"):
            page.append(gemm_tables.page(report["gemm"]))
        (ROOT / "docs/peers.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(between(readme.read_text(encoding="utf-8"), "\n\n".join(parts)), encoding="utf-8")


main()
