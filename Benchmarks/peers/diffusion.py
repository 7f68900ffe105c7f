"""Parts of Stable Diffusion 1.5 at 512 x 512 with random weights: a guided step of the U-Net and a picture of the autoencoder,
`benchmarks --unet` and `--autoencoder` beside diffusers' models in PyTorch, channels last, and OpenVINO compiled from them.

Each round times every side on one storage, in turn, the order turning every round. A side leaves out its first step.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time

import torch
from common import busy_share, processor, say

STEPS = 3


class UNet:
    name, flag = "U-Net", "--unet"
    inputs = [torch.randn(2, 4, 64, 64), torch.tensor(981), torch.randn(2, 77, 768)]

    @staticmethod
    def model():
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


class Autoencoder:
    name, flag = "autoencoder", "--autoencoder"
    inputs = [torch.randn(1, 4, 64, 64)]

    @staticmethod
    def model():
        from diffusers import AutoencoderKL

        channels = (128, 256, 512, 512)
        model = AutoencoderKL(
            block_out_channels=channels,
            layers_per_block=2,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
        )
        model.forward = model.decode
        return model


class Quern:
    name = "quern"

    def __init__(self, part, options, storage):
        self.command = [options.benchmarks, part.flag, "--backend", options.backend, "--filter", storage, "--format", "json"]

    def turn(self):
        run = subprocess.run(self.command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"peers: {' '.join(self.command)}: exit {run.returncode}: {run.stderr.strip()}")
        self.row = json.loads(run.stdout)[0]
        return self.row["seconds"]


def median_of_steps(call):
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


class Torch:
    name = "torch"

    def __init__(self, part, dtype):
        self.model = part.model().eval().to(dtype).to(memory_format=torch.channels_last)
        self.inputs = [x.to(dtype) if x.is_floating_point() else x for x in part.inputs]
        self.inputs[0] = self.inputs[0].contiguous(memory_format=torch.channels_last)

    def turn(self):
        with torch.inference_mode():
            return median_of_steps(lambda: self.model(*self.inputs))


class OpenVINO:
    name = "openvino"

    def __init__(self, part, storage, threads):
        import openvino

        with torch.no_grad():
            converted = openvino.convert_model(part.model().eval(), example_input=tuple(part.inputs))
        self.request = openvino.compile_model(
            converted, "CPU", {"INFERENCE_PRECISION_HINT": storage, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        ).create_infer_request()
        self.inputs = [x.numpy() for x in part.inputs]

    def turn(self):
        return median_of_steps(lambda: self.request.infer(self.inputs))


def measure(options, part, storage, threads):
    torch.manual_seed(1)
    contenders = [
        Quern(part, options, storage),
        Torch(part, torch.float32 if storage == "f32" else torch.bfloat16),
        OpenVINO(part, storage, threads),
    ]
    rounds, seconds = options.rounds or 3, {side.name: [] for side in contenders}
    for index in range(rounds):
        turn = index % len(contenders)
        for side in contenders[turn:] + contenders[:turn]:
            time.sleep(0.2)  # lets the other sides' threads stop spinning
            seconds[side.name].append(side.turn())
        say(f"{part.name} {storage}: round {index + 1} of {rounds}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in seconds.items()))
    row = {"part": part.name, "storage": storage, "share_of_fma": round(contenders[0].row["share"], 3)}
    row |= {f"{name}_seconds": [round(x, 3) for x in figures] for name, figures in seconds.items()}
    for name in ("torch", "openvino"):
        ratios = [ours / theirs for ours, theirs in zip(seconds["quern"], seconds[name])]
        row[f"of_{name}"] = round(statistics.median(ratios), 3)
    return row


def run(options, threads):
    """The report of this part."""
    busy = busy_share()
    chosen = itertools.product((UNet, Autoencoder), ("f32", "bf16"))
    rows = [measure(options, part, storage, threads) for part, storage in chosen if options.filter in f"{part.name} {storage}"]
    return {"processor": processor(), "threads": threads, "torch": torch.__version__, "busy_before": busy, "cases": rows}


def text(report):
    lines = [
        f"{report['processor']}, {report['threads']} threads, torch {report['torch']}: Stable Diffusion 1.5 with random "
        "weights: a guided step, two images of 64 x 64 latents, and a picture of 512 x 512 of its latents; medians of rounds",
        "",
        "| part | storage | quern, s | of the FMA rate | torch, s | of its time | openvino, s | of its time |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["cases"]:
        ours, theirs, others = (statistics.median(row[f"{name}_seconds"]) for name in ("quern", "torch", "openvino"))
        lines.append(
            f"| {row['part']} | {row['storage']} | {ours:.2f} | {row['share_of_fma']:.2f} | {theirs:.2f} | {row['of_torch']:.2f} "
            f"| {others:.2f} | {row['of_openvino']:.2f} |"
        )
    return "\n".join(lines)
