"""Matrix products: every case of `benchmarks --products` beside OpenBLAS, PyTorch and llama.cpp.

All sides of a case multiply the same operands and take turns, as in beside.py. Each result is compared with the product
in f64 first; a side that is off by more than the tolerance of its type gets no figure. OpenBLAS runs in the process of
`benchmarks`, PyTorch in this one, ggml in one of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import products
import torch
from beside import Ended, Server, alternate, figure, geometric_mean, memory_folder
from common import busy_share, processor, say, timed
from products import BLOCK_BITS, GROUPS, TOLERANCE, Product
from safetensors.torch import load_file

ROUNDS = 5
QUIET = 0.2  # seconds after the comparison, in which the threads of its products stop polling
SLOWEST = 2.0  # seconds of a call from which a side is left out where another takes a tenth of that
MODEL_ROUNDS = 3


class Lost(Exception):
    """llama.cpp ended in the middle of a case, which can do without."""


class Llama:
    """llama.cpp where it is built; says once why it is not there."""

    def __init__(self):
        self.server = self.why_not = None
        if not (find_spec("llama_cpp") and find_spec("gguf")):
            return self.lose("it is not built here; Benchmarks/peers/llama.sh builds it")
        self.server = Server(sys.executable, str(Path(__file__).parent / "ggml_server.py"))
        self.server.name = "ggml_server.py"
        try:
            self.server.ask(free=True)
        except Ended:
            self.lose("it does not start")

    def lose(self, why):
        say(f"llama.cpp is left out from here on: {why}")
        self.server, self.why_not = None, why

    def ask(self, **request):
        try:
            return self.server.ask(**request)
        except Ended as error:
            self.lose(f"{error}".removeprefix("peers: "))
            raise Lost from None

    def sides(self, file, kind):
        """Each layout that its weights can have."""
        if not self.server or kind not in BLOCK_BITS:
            return {}
        layouts = self.ask(product=str(file), type=kind)["layouts"]
        return {f"ggml {layout}": layout for layout in layouts}


def off(result, exact):
    """The largest difference as a share of the largest value; infinite where values are not finite."""
    result = np.asarray(result, np.float64).reshape(exact.shape)
    if not np.isfinite(result).all():
        return float("inf")
    return float(np.abs(result - exact).max() / np.abs(exact).max())


def timed_once(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class Compared:
    """One case on every side."""

    def __init__(self, product, server, llama, folder, options, slow):
        self.product, self.server, self.llama, self.options = product, server, llama, options
        self.slow = slow  # sides of each type that took too long at a smaller size
        self.key = {"op": product.operation, "case": product.name}
        self.file, self.other = Path(folder) / "case.safetensors", Path(folder) / "peer.safetensors"
        self.sides, self.differences, self.left_out = {}, {}, {}

    def exported(self, ask, **request):
        ask(**request, export=str(self.other))
        tensors = {name: tensor.clone() for name, tensor in load_file(self.other).items()}
        self.other.unlink()
        return tensors

    def row(self):
        self.server.ask(**self.key, export=str(self.file))
        tensors = {name: tensor.clone() for name, tensor in load_file(self.file).items()}
        x, w = (products.without_batch(tensors[f"operand.{index}"]) for index in range(2))
        w = w.t() if self.product.operation == "matmul" else w  # [n, k] in either case
        exact = x.double().numpy() @ w.double().numpy().T
        own = off(tensors["result"], exact)
        if own > self.tolerance:
            raise ValueError(f"our result is off by {own:.1e}, more than {self.tolerance:.0e}")
        self.sides["quern"] = lambda s: self.server.ask(**self.key, seconds=s)["seconds"]
        self.add_openblas(exact)
        self.add_torch(x, w, exact)
        self.add_ggml(x)
        self.file.unlink()
        time.sleep(QUIET)
        samples, rounds = alternate(self.sides, self.options.rounds or ROUNDS, self.options.seconds)
        return self.figures(samples, rounds, own)

    @property
    def tolerance(self):
        return TOLERANCE[self.product.type]

    def admit(self, name, result, exact, run):
        difference = off(result, exact)
        if difference > self.tolerance:
            self.left_out[name] = f"its result is off by {difference:.1e}"
        else:
            self.sides[name], self.differences[name] = run, difference

    def add_openblas(self, exact):
        if self.product.type != "f32":
            return
        try:
            result = self.exported(self.server.ask, **self.key, peer=True)["result"]
        except RuntimeError as error:  # built without it
            self.left_out["openblas"] = f"{error}"
            return
        self.admit("openblas", result, exact, lambda s: self.server.ask(**self.key, peer=True, seconds=s)["seconds"])

    def add_torch(self, x, w, exact):
        known, first = self.slow.setdefault(self.product.type, {}), {}
        try:
            calls = products.torch_sides(self.product, x, w)
        except (RuntimeError, AttributeError) as error:  # an operator that this PyTorch or processor lacks
            self.left_out["torch"] = f"{error}".splitlines()[0]
            return
        for name, call in calls.items():
            if name in known:
                self.left_out[name] = known[name]
                continue
            first[name], result = timed_once(call)
            if first[name] > SLOWEST:  # what it makes ready on its first call does not count
                first[name] = timed_once(call)[0]
            result = call.finish(result) if hasattr(call, "finish") else result
            self.admit(name, result.float(), exact, lambda s, call=call: timed(call, s))
        for name in first:
            if first[name] > max(SLOWEST, 10 * min(first.values())):
                known[name] = self.left_out[name] = f"a call of {self.product.label} takes {first[name]:.1f} s"
                self.sides.pop(name, None)

    def add_ggml(self, x):
        held = None
        for name, layout in self.llama.sides(self.file, self.product.type).items():
            tensors = self.exported(self.llama.ask, layout=layout)
            if held is None:  # its codes are those of our weights, or nearly: it is held to its own
                held = x.double().numpy() @ tensors["weights"].double().numpy().T
            run = lambda s, layout=layout: self.llama.ask(layout=layout, seconds=s)["seconds"]
            self.admit(name, tensors["result"], held, run)

    def figures(self, samples, rounds, own):
        median = {side: statistics.median(samples[side]) for side in samples}
        fastest = {side: min(samples[side]) for side in samples}
        product, ours = self.product, median["quern"]
        peers = {name: median[name] for name in median if name != "quern"}
        best = min(peers, key=peers.get, default=None)
        row = {
            "op": product.operation,
            "case": product.name,
            "label": product.label,
            "flops": product.flops,
            "bytes": int(product.bytes),
            "quern_seconds": figure(ours),
            "quern_fastest_seconds": figure(fastest["quern"]),
            "peer_seconds": {name: figure(seconds) for name, seconds in peers.items()},
            "gflops": figure(product.flops / ours / 1e9),
            "gbps": figure(product.bytes / ours / 1e9),
            "difference": float(f"{own:.2g}"),
            "peer_differences": {name: float(f"{value:.2g}") for name, value in self.differences.items()},
            "tolerance": self.tolerance,
            "left_out": self.left_out,
        }
        if best:
            ratios = [min(turn[name] for name in peers) / turn["quern"] for turn in rounds]
            row |= {"best_peer": best, "ratio": figure(peers[best] / ours)}
            row["ratio_by_round"] = [figure(min(ratios)), figure(max(ratios))]
            # What others do on the machine slows two threads that wait for each other down most; least of all these.
            row["ratio_of_fastest"] = figure(min(fastest[name] for name in peers) / fastest["quern"])
        return row


def generated(quern, path, prompt, count):
    """What `quern generate` reports of a file that llama.cpp reads as well."""
    ids = " ".join(str(17 + index * 31 % 31983) for index in range(prompt))
    arguments = [quern, "generate", "--model", path, "--ids", ids, "--max-tokens", count, "--ignore-end", "--format", "json"]
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def models(llama, folder, filter, quern):
    """Tokens per second of a model of a billion parameters, a line for each format: llama.cpp and Quern, in turn, on one file."""
    lines = []
    for kind in products.FORMATS:
        if not llama.server or filter.lower() not in f"llama.cpp model {kind}":
            continue
        path = folder / f"random-llama-1b-{kind}.gguf"
        if not path.exists():
            say(f"writing {path}, once")
        try:
            model = llama.ask(model=str(path), type=kind)
            turns, prefills, decodes = [], [], []
            for _ in range(MODEL_ROUNDS):
                turns.append(llama.ask(turn=True))
                time.sleep(QUIET)
                prefills.append(generated(quern, path, model["prompt"], 1)["prefillTokensPerSecond"])
                decodes.append(generated(quern, path, 1, 33)["decodeTokensPerSecond"])
            llama.ask(free=True)
        except (Lost, RuntimeError, subprocess.CalledProcessError) as error:
            say(f"llama.cpp model {kind}: {error}")
            continue
        prompt = model["prompt"] / statistics.median(turn["prompt"] for turn in turns)
        token = 1 / statistics.median(seconds for turn in turns for seconds in turn["tokens"])
        ours = (statistics.median(prefills), statistics.median(decodes))
        lines.append(
            {
                "type": kind,
                "parameters": model["parameters"],
                "bytes": model["bytes"],
                "prompt_tokens": model["prompt"],
                "prompt_tokens_per_second": figure(prompt),
                "prompt_gflops": figure(2 * model["parameters"] * prompt / 1e9),
                "tokens_per_second": figure(token),
                "gbps": figure(model["bytes"] * token / 1e9),
                "quern_prompt_tokens_per_second": figure(ours[0]),
                "quern_tokens_per_second": figure(ours[1]),
                "prompt_ratio": figure(ours[0] / prompt),
                "ratio": figure(ours[1] / token),
                "version": model["version"],
                "system": model["system"],
            }
        )
        say(f"model {kind}: llama.cpp {prompt:.0f} tokens/s of a prompt, {token:.1f} after it; Quern {ours[0]:.0f} and {ours[1]:.1f}")
    return lines


def judged(group, rows):
    """The group's bar against the worst row, or all of them."""
    good = [row for row in rows if "quern_seconds" in row]
    ratios = [row["ratio"] for row in good if "ratio" in row]
    found = {
        "ratio": min(ratios, default=None),
        "geometric_mean": geometric_mean(ratios),
        "of_fma": min((row["of_fma"] for row in good), default=None),
        "of_read": min((row["of_read"] for row in good), default=None),
    }
    return {
        "title": group.title,
        "rows": len(rows),
        "bar": group.bar,
        "found": {name: found[name] for name in group.bar},
        "reached": {name: found[name] >= bar for name, bar in group.bar.items() if found[name] is not None},
    }


def run(options, threads):
    """The report of this part."""
    busy, start = busy_share(), time.perf_counter()
    bits = os.environ.setdefault("QUERN_ACTIVATION_BITS", "8")  # llama.cpp's, so that coded rows are alike
    server = Server(options.benchmarks, "--serve", "--products", "--backend", options.backend)
    listing = server.ask(list=True)
    cases = {product.key: product for product in (Product(entry["op"], entry["case"]) for entry in listing["cases"])}
    peaks, llama, slow, groups, missing = [server.ask(peak=True)], Llama(), {}, [], []
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, torch.inference_mode():
        for group in GROUPS:
            rows = []
            for key in group.wanted:
                product = cases.get(key)
                label = Product("", "x: m={} n={} k={} {}".format(*key)).label
                if options.filter.lower() not in f"{group.title} {label}".lower():
                    continue
                if not product:
                    missing.append(f"{group.title}: {label}")
                    continue
                compared = [Compared(product, server, llama, folder, options, slow) for _ in range(2)]
                try:
                    try:
                        row = compared[0].row()
                    except Lost:
                        row = compared[1].row()
                except Exception as error:  # one case must not cost the others their figures
                    row = {"op": product.operation, "case": product.name, "label": label, "error": f"{error}"}
                rows.append(row)
                peaks.append(server.ask(peak=True))
                say(f"{group.title}: {label}: {row.get('error') or row.get('ratio', 'no peer')}")
            groups.append((group, rows))
    server.close()
    fma, read = (max(peak[name] for peak in peaks) for name in ("flops", "bytes"))
    for _, rows in groups:
        for row in rows:
            if "error" not in row:
                row["of_fma"] = figure(row["flops"] / row["quern_seconds"] / fma)
                row["of_read"] = figure(row["bytes"] / row["quern_seconds"] / read)
    lines = models(llama, Path(options.model).parent, options.filter, options.quern)
    return {
        "command": 'make peers ARGS="--part gemm"',
        "processor": processor(),
        "isa": listing["isa"],
        "threads": threads,
        "torch": torch.__version__,
        "backend": listing["backend"],
        "activation_bits": int(bits),
        "rounds": options.rounds or ROUNDS,
        "turn_seconds": options.seconds,
        "busy_before": busy,
        "took_seconds": round(time.perf_counter() - start),
        "fma_gflops": figure(fma / 1e9),
        "read_gbps": figure(read / 1e9),
        "groups": [judged(group, rows) | {"cases": rows} for group, rows in groups if rows],
        "missing": missing,
        "no_llama": llama.why_not,
        "wrong": [row["case"] for _, rows in groups for row in rows if "error" in row],
        "models": lines,
    }
