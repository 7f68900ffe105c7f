"""What `--part gemm` compares: the rows with their bars, and what PyTorch offers for each type of weights."""

from dataclasses import dataclass, field
from typing import Callable

import torch
import torch.nn.functional as F

# Largest difference from the product in f64, as a share of its largest value. Integer products round the activations as
# well, to a step of 1/127 of the largest in a row or a block; bf16 results have 8 bits.
TOLERANCE = {"f32": 1e-5, "bf16": 1e-2, "int8": 3e-2, "q8_0": 2e-2, "q4_0": 2e-2, "q4_k": 2e-2, "q6_k": 2e-2, "mxfp4": 2e-2}
BLOCK_BITS = {"q8_0": 8.5, "q4_0": 4.5, "q4_k": 4.5, "q6_k": 6.5625, "mxfp4": 4.5}  # a weight, scales included
VALUE_BYTES = {"bf16": 2}  # of activations and results; 4 otherwise

LLAMA = ((2048, 2048), (8192, 2048), (2048, 8192))  # n, k: the layers of a Llama of a billion parameters
FORMATS = ("q8_0", "q4_0", "q4_k", "q6_k", "mxfp4")


@dataclass
class Group:
    """Rows with one bar: `ratio` to the better peer and shares of a peak for each, `geometric_mean` over all."""

    title: str
    bar: dict
    wanted: list = field(default_factory=list)  # (m, n, k, type)


# The bars were set before the work, for AMX where there is any; f32 squares with AVX2 alone have 0.85 of the FMA rate. A group's
# ratio is that of its worst row.
GROUPS = [
    Group("f32 squares", {"ratio": 1.05, "of_fma": 0.92}, [(n, n, n, "f32") for n in (1024, 2048, 4096)]),
    Group(
        "f32 small squares",
        {"ratio": 1.0, "geometric_mean": 1.2},
        [(n, n, n, "f32") for n in (32, 48, 64, 96, 128, 192, 256)],
    ),
    Group("f32 few rows, packed", {"ratio": 3.0}, [(m, 4096, 4096, "f32") for m in (4, 8, 16)]),
    Group("f32 one row, packed", {"of_read": 0.9}, [(1, 4096, 4096, "f32")]),
    Group("bf16 squares, packed", {"ratio": 1.3}, [(n, n, n, "bf16") for n in (512, 1024, 2048)]),
    Group("int8 per channel, packed", {"ratio": 1.3}, [(n, n, n, "int8") for n in (1024, 2048)]),
    Group(
        "quantised, one row",
        {"ratio": 1.15, "of_read": 0.9},
        [(1, *shape, kind) for kind in FORMATS for shape in LLAMA],
    ),
    Group("quantised, prefill", {"ratio": 8.0}, [(512, *shape, kind) for kind in FORMATS for shape in LLAMA]),
]


@dataclass
class Product:
    """One case of `benchmarks --products`, as its name says."""

    operation: str
    name: str

    def __post_init__(self):
        words = self.name.rpartition(": ")[2].split()
        values = dict(word.split("=") for word in words if "=" in word)
        self.m, self.n, self.k = (int(values[key]) for key in "mnk")
        self.type = words[-1].lower()

    @property
    def key(self):
        return self.m, self.n, self.k, self.type

    @property
    def label(self):
        return f"{self.m} x {self.n} x {self.k} {self.type}"

    @property
    def is_small(self):  # where the time a call from Python takes would count
        return self.type == "f32" and max(self.m, self.n, self.k) <= 256

    @property
    def flops(self):
        return 2 * self.m * self.n * self.k

    @property
    def weight_bytes(self):
        bits = BLOCK_BITS.get(self.type) or {"f32": 32, "bf16": 16, "int8": 8}[self.type]
        return self.n * self.k * bits / 8

    @property
    def bytes(self):
        return self.weight_bytes + VALUE_BYTES.get(self.type, 4) * self.m * (self.k + self.n)


def without_batch(x):
    return x[0] if x.dim() == 3 else x


def torch_sides(product, x, w):
    """Each way PyTorch has to multiply x `[m, k]` by w `[n, k]` transposed, its results ready to be compared."""
    if product.is_small:
        return {}
    return {"f32": f32_sides, "bf16": bf16_sides, "int8": int8_sides}.get(product.type, lambda *_: {})(product, x, w)


def onednn(x, w):
    return lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


def reordered(w, m):
    """Weights packed for oneDNN, as torch.compile does it; nothing where this processor has no kernel for their type."""
    try:
        return torch.ops.mkldnn._reorder_linear_weight(w, m)
    except RuntimeError:
        return None


def f32_sides(product, x, w):
    t, y = w.t(), torch.empty(product.m, product.n)
    sides = {"torch mkl": lambda: torch.mm(x, t, out=y)}
    if product.operation == "matmul":
        return sides | {"torch onednn": onednn(x, w)}
    w = w.contiguous()
    packed = torch.ops.mkl._mkl_reorder_linear_weight(w, product.m)
    sides["torch mkl packed"] = lambda: torch.ops.mkl._mkl_linear(x, packed, w, None, product.m)
    return sides | {"torch onednn packed": onednn(x, reordered(w, product.m))}


def bf16_sides(product, x, w):
    x, w = x.bfloat16(), w.bfloat16()
    packed = reordered(w, product.m)
    sides = {"torch bf16": lambda: F.linear(x, w)}
    return sides | ({} if packed is None else {"torch bf16 packed": onednn(x, packed)})


def int8_sides(product, x, w):
    """Quantising the activations is part of the dynamic layers' work, and of ours; `_int_mm` is only the product."""
    scale = w.abs().amax(1) / 127
    sides = {}
    for engine in ("fbgemm", "onednn"):
        if engine not in torch.backends.quantized.supported_engines:
            continue
        torch.backends.quantized.engine = engine
        zeros = torch.zeros(product.n, dtype=torch.int64)
        codes = torch.quantize_per_channel(w.contiguous(), scale, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(codes, None)
        sides[f"torch dynamic {engine}"] = lambda p=packed: torch.ops.quantized.linear_dynamic(x, p, True)
    row_scale = x.abs().amax(1, keepdim=True) / 127
    a = (x / row_scale).round().to(torch.int8)
    b = (w / scale[:, None]).round().to(torch.int8).t()
    sides["torch int_mm"] = Rescaled(lambda: torch._int_mm(a, b), lambda y: y * row_scale * scale)
    return sides


@dataclass
class Rescaled:
    """A product of codes, which `finish` turns into values for the comparison."""

    run: Callable
    finish: Callable

    def __call__(self):
        return self.run()
