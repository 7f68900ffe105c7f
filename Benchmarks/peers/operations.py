"""What a PyTorch user writes for each operation of `benchmarks`, built from the operands that it exported.

A counterpart takes the case and its operands in the order the workload made them. `run` makes fresh outputs, as eager
code does; `out` writes into a tensor that is there already, where PyTorch offers that.
"""

from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F

COUNTERPARTS = {}


class Absent(Exception):
    """PyTorch has nothing to put beside this case; says why."""


@dataclass
class Call:
    run: Callable
    out: Callable | None = None  # takes the destination
    tolerance: float = 1e-5  # largest difference, as a share of the largest value
    compare: Callable | None = None  # of the operands and our result to the difference, where values do not decide


class Case:
    """A case and what its name says: `words` and `name=number` after the colon, the layer's words before it."""

    def __init__(self, operation, name):
        self.operation, self.name = operation, name
        title, _, shape = name.rpartition(": ")
        self.title, self.words = title.split(), shape.split()
        self.values = dict(word.split("=", 1) for word in self.words if "=" in word)

    def has(self, word):
        return word in self.words or word in self.title

    def number(self, name, default=None):
        """The number after `name=`; it has to be there unless a default is given."""
        text = self.values.get(name)
        if text is None:
            if default is None:
                raise KeyError(f"{self.operation} {self.name}: no {name}=")
            return default
        return float(text) if "." in text or "e" in text else int(text)

    def activation(self):
        return next((ACTIVATIONS[word] for word in self.title + self.words if word in ACTIVATIONS), None)


def counterpart(family, *operations):
    def register(function):
        for operation in operations:
            COUNTERPARTS[operation] = (family, function)
        return function

    return register


aten = torch.ops.aten

ACTIVATIONS = {
    "relu": Call(F.relu, lambda x, y: torch.clamp_min(x, 0, out=y)),
    "gelu": Call(F.gelu, lambda x, y: aten.gelu.out(x, out=y)),
    "geluTanh": Call(
        lambda x: F.gelu(x, approximate="tanh"), lambda x, y: aten.gelu.out(x, approximate="tanh", out=y)
    ),
    "silu": Call(F.silu, lambda x, y: aten.silu.out(x, out=y)),
    "tanh": Call(torch.tanh, lambda x, y: torch.tanh(x, out=y)),
    "sigmoid": Call(torch.sigmoid, lambda x, y: torch.sigmoid(x, out=y)),
}


def after_product(case, product, rest):
    """Activation, then residual, on what `product` gives."""
    activation, residual = case.activation(), rest[0] if case.has("residual") else None

    def run():
        y = product()
        if activation:
            y = activation.run(y)
        return y if residual is None else y + residual

    return run, activation is None and residual is None


# Linear and matrix products.


@counterpart("linear", "linear")
def linear(case, x, w, *rest):
    bias = rest[0] if case.has("bias") else None
    run, is_plain = after_product(case, lambda: F.linear(x, w, bias), rest[1 if case.has("bias") else 0 :])
    if not is_plain:
        return Call(run)
    t = w.t()
    return Call(run, lambda y: torch.mm(x, t, out=y) if bias is None else torch.addmm(bias, x, t, out=y))


@counterpart("matmul", "matmul")
def matmul(case, a, b):
    a = a.mT if case.has("At") else a
    b = b.mT if case.has("Bt") else b
    if a.shape[0] == 1:
        a, b = a[0], b[0]
    return Call(lambda: torch.matmul(a, b), lambda y: torch.matmul(a, b, out=y.view(*a.shape[:-1], -1)))


# Attention.


@counterpart("attention", "attention")
def attention(case, q, k, v):
    def sequences(text):
        if "+" in text:
            raise Absent("ragged sequences: PyTorch pads them")
        count, _, length = text.rpartition("x")
        return int(count or 1), int(length)

    batch, _ = sequences(case.values["q"])

    def split(x):  # [tokens, heads, d] as [batch, heads, tokens, d], without a copy, as layers hold it
        return x.view(batch, -1, *x.shape[1:]).transpose(1, 2)

    q, k, v = split(q), split(k), split(v)
    causal, grouped = case.has("causal"), q.shape[1] != k.shape[1]

    def run():
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        return y.transpose(1, 2)

    return Call(run)


# Softmax and norms.


@counterpart("softmax", "softmax")
def softmax(case, x):
    return Call(lambda: torch.softmax(x, -1), lambda y: torch.softmax(x, -1, out=y))


def epsilon(case):
    return 1e-12 if case.title and case.title[0].startswith("MiniLM") else 1e-5


@counterpart("norms", "layerNorm")
def layer_norm(case, x, *rest):
    rest = list(rest)
    residual = rest.pop(0) if case.has("residual") else None
    weight, bias = rest or (None, None)
    size, eps = x.shape[-1:], epsilon(case)
    if residual is not None:
        return Call(lambda: F.layer_norm(x + residual, size, weight, bias, eps))
    return Call(lambda: F.layer_norm(x, size, weight, bias, eps))


@counterpart("norms", "rmsNorm")
def rms_norm(case, x, *rest):
    rest = list(rest)
    residual = rest.pop(0) if case.has("residual") else None
    weight, eps = rest[0] if rest else None, epsilon(case)
    if residual is not None:
        return Call(lambda: F.rms_norm(x + residual, x.shape[-1:], weight, eps))
    return Call(lambda: F.rms_norm(x, x.shape[-1:], weight, eps))


@counterpart("norms", "l2Normalize")
def l2_normalize(case, x):
    eps = epsilon(case)
    return Call(lambda: F.normalize(x, dim=-1, eps=eps), lambda y: F.normalize(x, dim=-1, eps=eps, out=y))


# Activations and element-wise.


@counterpart("activations", "activation")
def activation(case, x):
    function = case.activation()
    return Call(lambda: function.run(x), lambda y: function.out(x, y))


@counterpart("element-wise", "add")
def add(case, a, b):
    return Call(lambda: a + b, lambda y: torch.add(a, b, out=y))


@counterpart("element-wise", "multiply")
def multiply(case, a, b):
    return Call(lambda: a * b, lambda y: torch.mul(a, b, out=y))


@counterpart("element-wise", "scale")
def scale(case, x):
    return Call(lambda: x * 0.125, lambda y: torch.mul(x, 0.125, out=y))


# Gathers and pooling over sequences.


@counterpart("gather and scatter", "embedding")
def embedding(case, table, ids):
    return Call(lambda: F.embedding(ids, table), lambda y: torch.index_select(table, 0, ids, out=y))


@counterpart("pooling and upsampling", "meanPool")
def mean_pool(case, x):
    sequences = int(case.words[0].split("x")[0])
    x = x.view(sequences, -1, x.shape[-1])
    return Call(lambda: x.mean(1), lambda y: torch.mean(x, 1, out=y))
