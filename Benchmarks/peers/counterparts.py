"""The table of what a PyTorch user writes for each operation of `benchmarks`, and what its entries share.

A counterpart takes the case and its operands in the order the workload made them, and is built from what `benchmarks`
exported. `run` makes fresh outputs, as eager code does; `out` writes into a tensor that is there already, where PyTorch
offers that. What an operation finds in its destination is `case.initial`. `run` may change a copy of that, where a user
would change the tensor: the first call is the one compared.
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
    compare: Callable | None = None  # of our result to the difference, where values do not decide
    dtype: torch.dtype = torch.float32  # of the destination


class Case:
    """A case and what its name says: `words` and `name=number` after the colon, the layer's words before it."""

    def __init__(self, operation, name):
        self.operation, self.name = operation, name
        title, _, shape = name.rpartition(": ")
        self.title, self.words = title.split(), shape.split()
        self.values = dict(word.split("=", 1) for word in self.words if "=" in word)
        self.initial = None  # what the destination holds before the call

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

    def after(self, word):
        """What follows a word, or nothing."""
        return self.words[self.words.index(word) + 1] if word in self.words else None

    def activation(self):
        names = {name.lower(): function for name, function in ACTIVATIONS.items()}
        return next((names[word.lower()] for word in self.title + self.words if word.lower() in names), None)


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
    "quickGelu": Call(
        lambda x: x * torch.sigmoid(1.702 * x), lambda x, y: torch.mul(x, torch.sigmoid(1.702 * x), out=y)
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
