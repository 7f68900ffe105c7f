"""The U-Net: a guided step of Stable Diffusion 1.5 at 512 x 512 with random weights, `benchmarks --unet` beside diffusers' model in
PyTorch, channels last, and OpenVINO compiled from it.

Each round times every side on one storage, in turn, the order turning every round. A side leaves out its first step.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
from common import busy_share, processor, say

STEPS = 3
# Products of the step with those of attention, counted as two operations, as `benchmarks --unet` counts them.
SHAPE = {"sample": (2, 4, 64, 64), "prompt": (2, 77, 768)}


def model():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(1)
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).eval()


class Quern:
    name = "quern"

    def __init__(self, program, backend, storage):
        self.command = [program, "--unet", "--backend", backend, "--filter", storage, "--format", "json"]

    def turn(self):
        run = subprocess.run(self.command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"peers: {' '.join(self.command)}: exit {run.returncode}: {run.stderr.strip()}")
        self.row = json.loads(run.stdout)[0]
        return self.row["seconds"]


class Torch:
    name = "torch"

    def __init__(self, unet, dtype):
        self.unet = unet.to(dtype).to(memory_format=torch.channels_last)
        self.sample = torch.randn(SHAPE["sample"], dtype=dtype).contiguous(memory_format=torch.channels_last)
        self.prompt = torch.randn(SHAPE["prompt"], dtype=dtype)

    def turn(self):
        seconds = []
        with torch.inference_mode():
            for _ in range(STEPS + 1):
                start = time.perf_counter()
                self.unet(self.sample, 981, self.prompt)
                seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:])


class OpenVINO:
    name = "openvino"

    def __init__(self, unet, storage, threads):
        import openvino

        inputs = (torch.randn(SHAPE["sample"]), torch.tensor(981), torch.randn(SHAPE["prompt"]))
        unet = unet.to(torch.float32).to(memory_format=torch.contiguous_format)
        with torch.no_grad():
            converted = openvino.convert_model(unet, example_input=inputs)
        self.request = openvino.compile_model(
            converted, "CPU", {"INFERENCE_PRECISION_HINT": storage, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        ).create_infer_request()
        self.inputs = [x.numpy() for x in inputs]

    def turn(self):
        seconds = []
        for _ in range(STEPS + 1):
            start = time.perf_counter()
            self.request.infer(self.inputs)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:])


def sides(options, storage, threads):
    made = [Quern(options.benchmarks, options.backend, storage)]
    made.append(Torch(model(), torch.float32 if storage == "f32" else torch.bfloat16))
    made.append(OpenVINO(model(), storage, threads))
    return made


def measure(options, storage, threads):
    contenders = sides(options, storage, threads)
    rounds, seconds = options.rounds or 3, {side.name: [] for side in contenders}
    for index in range(rounds):
        turn = index % len(contenders)
        for side in contenders[turn:] + contenders[:turn]:
            time.sleep(0.2)  # lets the other sides' threads stop spinning
            seconds[side.name].append(side.turn())
        say(f"U-Net {storage}: round {index + 1} of {rounds}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in seconds.items()))
    row = {"storage": storage, "share_of_fma": round(contenders[0].row["share"], 3)}
    row |= {f"{name}_seconds": [round(x, 3) for x in figures] for name, figures in seconds.items()}
    for name in ("torch", "openvino"):
        ratios = [ours / theirs for ours, theirs in zip(seconds["quern"], seconds[name])]
        row[f"of_{name}"] = round(statistics.median(ratios), 3)
    return row


def run(options, threads):
    """The report of this part."""
    busy = busy_share()
    rows = [measure(options, storage, threads) for storage in ("f32", "bf16") if options.filter in storage]
    return {"processor": processor(), "threads": threads, "torch": torch.__version__, "busy_before": busy, "cases": rows}


def text(report):
    lines = [
        f"{report['processor']}, {report['threads']} threads, torch {report['torch']}: a guided step of Stable Diffusion 1.5, "
        "two images of 64 x 64 latents, random weights; medians of rounds",
        "",
        "| storage | quern, s | of the FMA rate | torch, s | of its time | openvino, s | of its time |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["cases"]:
        ours, theirs, others = (statistics.median(row[f"{name}_seconds"]) for name in ("quern", "torch", "openvino"))
        lines.append(
            f"| {row['storage']} | {ours:.2f} | {row['share_of_fma']:.2f} | {theirs:.2f} | {row['of_torch']:.2f} "
            f"| {others:.2f} | {row['of_openvino']:.2f} |"
        )
    return "\n".join(lines)
