"""The operations: every case of `benchmarks` beside what a PyTorch user writes for it (counterparts.py).

Each round gives every side of a case one turn, and another side starts the next. Seconds are medians of all rounds.
"""

import importlib
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from common import busy_share, processor, say, timed
from counterparts import COUNTERPARTS, Absent, Case
from safetensors.torch import load_file

OUT_OF_CACHE = 64 << 20  # bytes of operands and results from which a case is held against a copy in memory
STREAMING = ("element-wise", "norms", "softmax")  # families whose cases are
BAR = {"geometric_mean": 1.0, "family": 0.6, "share_of_copy": 0.85}
THEMES = ("operations", "images", "structure", "data")  # modules of counterparts
REST = 0.02  # seconds between turns, in which the other side's threads stop polling


class Ended(SystemExit):
    """A server that is gone: the end of the run, unless it serves a peer that the run can do without."""

    def __init__(self, why):
        super().__init__(f"peers: {why}")


class Server:
    """A program that answers a JSON object a line by one: `benchmarks --serve`, or another that does as it does."""

    def __init__(self, *command):
        self.name = Path(command[0]).name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise Ended(f"{self.name} ended on {request}") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def alternate(sides, rounds, seconds):
    """Every sample of each side, and its median in each round. Another side starts the next round."""
    names, samples, medians = list(sides), {name: [] for name in sides}, []
    for index in range(rounds):
        medians.append({})
        for position in range(len(names)):
            name = names[(index + position) % len(names)]
            time.sleep(REST)
            figures = sides[name](seconds)
            samples[name] += figures
            medians[-1][name] = statistics.median(figures)
    return samples, medians


def difference(ours, theirs):
    """The largest difference as a share of the largest value. Several results of theirs are one of ours, end to end."""
    if isinstance(theirs, tuple):
        theirs = torch.cat(theirs)
    if ours.numel() != theirs.numel():
        raise ValueError(f"ours has shape {list(ours.shape)}, theirs {list(theirs.shape)}")
    ours, theirs = ours.double(), theirs.double().reshape(ours.shape)
    if not torch.equal(ours.isfinite(), theirs.isfinite()):
        return math.inf
    finite = theirs.isfinite()
    largest = theirs[finite].abs().max().item() if finite.any() else 0
    return (ours - theirs)[finite].abs().max().item() / max(largest, 1e-30) if finite.any() else 0.0


class Measured:
    """One case on every side."""

    def __init__(self, server, case, family, build, folder, options):
        self.case, self.family, self.options = case, family, options
        self.key = {"op": case.operation, "case": case.name}
        file = Path(folder) / "case.safetensors"
        answer = server.ask(**self.key, export=str(file))
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        file.unlink()
        self.bytes, self.result = answer["bytes"], tensors["result"]
        count = sum(name.startswith("operand.") for name in tensors)
        operands = [tensors[f"operand.{index}"] for index in range(count)]
        case.initial = tensors["initial"]
        self.call = build(case, *operands)
        case.initial = None  # a list of all cases goes on, and their memory with it
        sides = {"quern": lambda s: server.ask(**self.key, seconds=s)["seconds"]}
        sides["torch"] = lambda s: timed(self.call.run, s)
        if self.call.out:
            self.destination = tensors["initial"].to(self.call.dtype, copy=True)
            sides["out"] = lambda s: timed(lambda: self.call.out(self.destination), s)
        self.is_streaming = family in STREAMING and self.bytes >= OUT_OF_CACHE
        if self.is_streaming:
            sides["copy"] = lambda _: [1 / server.ask(copy=True)["plain"] for _ in range(3)]
        self.sides = sides

    def row(self):
        if self.call.compare:
            differences = [self.call.compare(self.result)]
        else:
            differences = [difference(self.result, self.call.run())]
        if self.call.out:
            self.call.out(self.destination)
            if not self.call.compare:
                differences.append(difference(self.result, self.destination))
        samples, medians = alternate(self.sides, self.options.rounds or 4, self.options.seconds)
        rounds = [median["torch"] / median["quern"] for median in medians]
        median = {side: statistics.median(samples[side]) for side in samples}
        row = {
            "op": self.case.operation,
            "case": self.case.name,
            "family": self.family,
            "quern_seconds": figure(median["quern"]),
            "torch_seconds": figure(median["torch"]),
            "ratio": figure(median["torch"] / median["quern"]),
            "ratio_by_round": [figure(min(rounds)), figure(max(rounds))],
        }
        if self.call.out:
            row |= {"torch_out_seconds": figure(median["out"]), "ratio_out": figure(median["out"] / median["quern"])}
        row |= {"bytes": int(self.bytes), "gbps": figure(self.bytes / median["quern"] / 1e9)}
        if self.is_streaming:
            row["share_of_copy"] = figure(self.bytes / median["quern"] * median["copy"])
        row |= {"difference": float(f"{max(differences):.2g}"), "agrees": max(differences) <= self.call.tolerance}
        return row



def figure(number):
    return float(f"{number:.4g}")


def geometric_mean(numbers):
    numbers = list(numbers)
    return figure(math.exp(statistics.fmean(map(math.log, numbers)))) if numbers else None


def families(rows):
    result = []
    for family in dict.fromkeys(row["family"] for row in rows):
        members = [row for row in rows if row["family"] == family]
        worst = min(members, key=lambda row: row["ratio"])
        out = [row["ratio_out"] for row in members if "ratio_out" in row]
        result.append(
            {
                "family": family,
                "cases": len(members),
                "ratio": geometric_mean(row["ratio"] for row in members),
                "worst": worst["ratio"],
                "worst_case": f"{worst['op']} {worst['case']}",
                "ratio_out": geometric_mean(out),
                "cases_out": len(out),
            }
        )
    return result


def memory_folder():
    """Where operands pass from one side to the other: memory where there is room, else the disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else None


def run(options, threads):
    """The report of this part."""
    busy, start = busy_share(), time.perf_counter()
    for theme in THEMES:
        importlib.import_module(theme)
    server = Server(options.benchmarks, "--serve", "--backend", options.backend)
    listing = server.ask(list=True)
    cases = [Case(entry["op"], entry["case"]) for entry in listing["cases"]]
    present = {case.operation for case in cases}
    rows, missing = [], []
    cases = [case for case in cases if options.filter.lower() in f"{case.operation} {case.name}".lower()]
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, torch.inference_mode():
        copies = [server.ask(copy=True)]
        for index, case in enumerate(cases):
            label = f"{case.operation} {case.name}"
            if case.operation not in COUNTERPARTS:
                missing.append({"op": case.operation, "case": case.name, "reason": "none written"})
                continue
            try:
                row = Measured(server, case, *COUNTERPARTS[case.operation], folder, options).row()
            except Absent as absent:
                missing.append({"op": case.operation, "case": case.name, "reason": str(absent)})
                continue
            except Exception as error:  # one case must not cost the others their figures
                row = {"op": case.operation, "case": case.name, "agrees": False, "error": f"{error}"}
            rows.append(row)
            copies.append(server.ask(copy=True))
            say(f"{index + 1}/{len(cases)} {label}: {row.get('error') or row['ratio']}")
    server.close()
    good = [row for row in rows if "ratio" in row]
    shares = [row["share_of_copy"] for row in good if "share_of_copy" in row]
    by_family = families(good)
    return {
        "command": 'make peers ARGS="--part operations"',
        "processor": processor(),
        "isa": listing["isa"],
        "threads": threads,
        "torch": torch.__version__,
        "backend": listing["backend"],
        "dtype": "f32",
        "rounds": options.rounds or 4,
        "turn_seconds": options.seconds,
        "busy_before": busy,
        "took_seconds": round(time.perf_counter() - start),
        "copy_gbps": figure(statistics.median(copy["plain"] for copy in copies) / 1e9),
        "streamed_copy_gbps": figure(statistics.median(copy["streamed"] for copy in copies) / 1e9),
        "bar": BAR,
        "geometric_mean": geometric_mean(row["ratio"] for row in by_family),
        "geometric_mean_out": geometric_mean(row["ratio_out"] for row in by_family if row["ratio_out"]),
        "lowest_share_of_copy": min(shares, default=None),
        "families": by_family,
        "wrong": [f"{row['op']} {row['case']}" for row in rows if not row["agrees"]],
        "no_counterpart": missing,
        "not_in_this_build": sorted(set(COUNTERPARTS) - present),
        "cases": rows,
    }
