"""The encoder: `quern forward` beside transformers' BertModel, same weights and inputs, in f32 or in bf16.

Each round times every side on one case, the side that starts changing every round, and leaves out the first passes of
each. PyTorch runs in its favour: eager with its default attention, in inference mode, without the pooler, and
without a mask where nothing is padded. In bf16 OpenVINO runs beside it, from PyTorch's model, with a mask always.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from common import busy_share, processor, say
from safetensors.numpy import load_file, save_file

SEED = 20240229
WARMUP = 3  # passes left out at the start of each side's turn
TURN_SECONDS = 0.6  # aim of one side's turn

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def batch(rng, lengths, width, vocabulary):
    """Token ids of `lengths`, padded to `width` with 0, between the [CLS] and [SEP] of BERT's vocabulary."""
    ids = np.zeros((len(lengths), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(1000, vocabulary, length)
        ids[row, 0], ids[row, length - 1] = 101, 102
        mask[row, :length] = 1
    return ids, mask


def cases(vocabulary):
    rng = np.random.default_rng(SEED)
    ragged = rng.permutation(np.linspace(8, 128, 32).round().astype(int))
    named = [
        ("1 x 16 tokens", [16], 16),
        ("1 x 128 tokens", [128], 128),
        ("32 x 128 tokens", [128] * 32, 128),
        ("32 x 8...128 tokens", list(ragged), 128),
    ]
    return [(name, *batch(rng, lengths, width, vocabulary)) for name, lengths, width in named]


class Torch:
    name = "torch"

    def __init__(self, model, precision="f32"):
        dtype = torch.float32 if precision == "f32" else torch.bfloat16
        self.model = transformers.BertModel.from_pretrained(model, add_pooling_layer=False, dtype=dtype).eval()

    def load(self, ids, mask):
        self.inputs = {"input_ids": torch.from_numpy(ids)}
        if not mask.all():
            self.inputs["attention_mask"] = torch.from_numpy(mask)

    def turn(self, passes):
        seconds = []
        with torch.inference_mode():
            for _ in range(passes):
                start = time.perf_counter()
                self.output = self.model(**self.inputs).last_hidden_state
                seconds.append(time.perf_counter() - start)
        return seconds

    def result(self):
        return self.output.float().numpy()


class OpenVINO:
    name = "openvino"

    def __init__(self, model, threads):
        import openvino

        module = transformers.BertModel.from_pretrained(model, add_pooling_layer=False, dtype=torch.float32).eval()
        one = torch.ones(1, 16, dtype=torch.int64)
        with torch.no_grad():
            converted = openvino.convert_model(module, example_input={"input_ids": one, "attention_mask": one})
        options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self.request = openvino.compile_model(converted, "CPU", options).create_infer_request()

    def load(self, ids, mask):
        self.inputs = {"input_ids": ids, "attention_mask": mask}

    def turn(self, passes):
        seconds = []
        for _ in range(passes):
            start = time.perf_counter()
            self.request.infer(self.inputs)
            seconds.append(time.perf_counter() - start)
        return seconds

    def result(self):
        return np.array(self.request.get_output_tensor(0).data)


class Quern:
    name = "quern"

    def __init__(self, tool, model, backend, folder, precision="f32"):
        self.input, self.out = folder / "inputs.safetensors", folder / "outputs.safetensors"
        self.command = [tool, "forward", "--model", model, "--backend", backend, "--precision", precision]
        self.command += ["--inputs", str(self.input), "--outputs", str(self.out)]

    def load(self, ids, mask):
        save_file({"input_ids": ids, "attention_mask": mask}, self.input)

    def turn(self, passes):
        run = subprocess.run(self.command + ["--repeat", str(passes)], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"peers: {' '.join(self.command)}: exit {run.returncode}: {run.stderr.strip()}")
        seconds = json.loads(run.stdout)["seconds"]
        if len(seconds) != passes:
            sys.exit(f"peers: quern forward --repeat {passes} reported {len(seconds)} passes")
        return seconds

    def result(self):
        return load_file(self.out)["last_hidden_state"]


def measure(sides, name, ids, mask, rounds):
    for side in sides:
        side.load(ids, mask)
    passes = {}
    for side in sides:  # also warms both up
        pace = min(side.turn(WARMUP + 2))
        passes[side] = WARMUP + max(3, min(200, round(TURN_SECONDS / pace)))
    # Compared once, outside the timing, over the positions that are not padding.
    results = [side.result() for side in sides]
    if any(result.shape != results[0].shape for result in results):
        sys.exit(f"peers: {name}: shapes {', '.join(str(result.shape) for result in results)}")
    differences = [float(np.abs(results[0] - result)[mask.astype(bool)].max()) for result in results[1:]]

    seconds, ratios = {side: [] for side in sides}, []
    for index in range(rounds):
        medians = {}
        turn = index % len(sides)
        for side in sides[turn:] + sides[:turn]:
            time.sleep(0.2)  # lets the other sides' threads stop spinning
            figures = side.turn(passes[side])[WARMUP:]
            seconds[side] += figures
            medians[side] = statistics.median(figures)
        ratios.append(medians[sides[0]] / medians[sides[1]])
        say(f"{name}: round {index + 1} of {rounds}: " + ", ".join(f"{s.name} {medians[s] * 1e3:.2f} ms" for s in sides))

    row = {"case": name, "tokens": int(mask.sum()), "largest_difference": differences[0]}
    for side in sides:
        tenths = np.percentile(seconds[side], [10, 50, 90])
        row[side.name] = {"passes": len(seconds[side])}
        row[side.name] |= {f"{key}_seconds": float(f"{x:.4g}") for key, x in zip(("p10", "median", "p90"), tenths)}
    row["speedup"] = round(row["torch"]["median_seconds"] / row["quern"]["median_seconds"], 3)
    row["speedup_by_round"] = [round(min(ratios), 3), round(max(ratios), 3)]
    for side, other in zip(sides[2:], differences[1:]):
        row[f"difference_{side.name}"] = other
        row[f"speedup_{side.name}"] = round(row[side.name]["median_seconds"] / row["quern"]["median_seconds"], 3)
    return row


def run(options, threads, precision="f32"):
    """The report of this part."""
    config = json.loads((Path(options.model) / "config.json").read_text(encoding="utf-8"))
    busy = busy_share()
    with tempfile.TemporaryDirectory() as folder:
        sides = [Torch(options.model, precision)]
        sides.append(Quern(options.quern, options.model, options.backend, Path(folder), precision))
        if precision == "bf16":
            sides.append(OpenVINO(options.model, threads))
        rows = [
            measure(sides, name, ids, mask, options.rounds or 7)
            for name, ids, mask in cases(config["vocab_size"])
            if options.filter in name
        ]
    return {
        "command": "make peers",
        "processor": processor(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "backend": options.backend,
        "dtype": precision,
        "seed": SEED,
        "busy_before": busy,
        "cases": rows,
    }
