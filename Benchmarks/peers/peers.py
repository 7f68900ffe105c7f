"""Measures Quern beside PyTorch on the same operands and cores, in turn, in one run: the encoder, every operation,
matrix products beside OpenBLAS and llama.cpp as well, and, with `--part diffusion` and `--part encoder-bf16`, a U-Net and the
encoder in bf16 beside OpenVINO too.

The tables go to standard output, progress to standard error, and every figure to the file of --json, in which a part
that does not run keeps the figures it has.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import common
import tables

PARTS = ("encoder", "operations", "gemm", "diffusion", "encoder-bf16")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quern", required=True, help="the built `quern` tool")
    parser.add_argument("--benchmarks", required=True, help="the built `benchmarks` program")
    parser.add_argument("--model", required=True, help="a BERT-family model directory")
    parser.add_argument("--json", help="also write the results to this file, unless --filter leaves cases out")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--backend", default="multithreaded")
    parser.add_argument("--rounds", type=int, help="rounds a case; by default 7 for the encoder, 4 for an operation, 5 for a product")
    parser.add_argument("--seconds", type=float, default=0.1, help="one side's turn at an operation or a product")
    parser.add_argument("--filter", default="", help="only cases whose operation and name contain this")
    return parser.parse_args()


def main():
    options = arguments()
    cores = common.take_cores()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(len(cores))
    common.say(f"{len(cores)} threads on cores {cores}; torch {torch.__version__}")
    file = Path(options.json) if options.json else None
    report = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    succeeded = True
    if options.part in (None, "encoder"):
        import encoder

        part = encoder.run(options, len(cores))
        print(tables.encoder(part))
        report = part | {name: report.get(name) for name in PARTS[1:]}
    if options.part in (None, "operations"):
        import beside

        part = beside.run(options, len(cores))
        print(tables.operations(part))
        report["operations"] = part
        succeeded = not part["wrong"]
    if options.part in (None, "gemm"):
        import gemm
        import gemm_tables

        part = gemm.run(options, len(cores))
        print(gemm_tables.text(part))
        report["gemm"] = part
        succeeded = succeeded and not part["wrong"]
    if options.part == "diffusion":  # minutes for one row: only when asked for
        import diffusion

        part = diffusion.run(options, len(cores))
        print(diffusion.text(part))
        report["diffusion"] = part
    if options.part == "encoder-bf16":  # installs OpenVINO: only when asked for
        import encoder

        part = encoder.run(options, len(cores), "bf16")
        print(tables.encoder(part))
        report["encoder-bf16"] = part
    if file and not options.filter:
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        common.say(f"wrote {file}")
    sys.exit(0 if succeeded else 1)


main()
