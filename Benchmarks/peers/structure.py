"""Counterparts of positions, of products with structure, and of routing (see counterparts.py)."""

import torch
import torch.nn.functional as F
from counterparts import Absent, Call, counterpart

# Positions.


@counterpart("positions", "rope")
def rope(case, *operands):
    positions = operands[-1]
    x = case.initial if case.has("place") else operands[0]
    turned, theta = case.number("turned", x.shape[-1]), 500000
    frequencies = theta ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    angles = positions[:, None, None] * frequencies
    if case.has("interleaved"):  # pairs are complex numbers, as in Llama's own code, turned where they lie
        factors = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        y = x.clone()
        pairs = torch.view_as_complex(y[..., :turned].unflatten(-1, (-1, 2)))

        def turn():
            pairs.mul_(factors)
            return y

        return Call(turn)
    cosine, sine = (function(angles).float().repeat(1, 1, 2) for function in (torch.cos, torch.sin))

    def run():  # as Transformers has it; cosines and sines are made once for all layers
        part = x[..., :turned]
        left, right = part.chunk(2, -1)
        y = part * cosine + torch.cat((-right, left), -1) * sine
        return y if turned == x.shape[-1] else torch.cat((y, x[..., turned:]), -1)

    return Call(run)


@counterpart("positions", "appendToCache")
def append_to_cache(case, x):
    if len(case.initial) != 1:
        raise Absent("several sequences: a cache of PyTorch has one length for all")
    cache = case.initial.to(torch.bfloat16 if case.has("bf16") else torch.float32, copy=True)
    held = 100  # as the workload has it; the name does not

    def run():
        cache[0, held : held + len(x)] = x
        return cache

    return Call(run)


@counterpart("positions", "appendToInt8Cache")
def append_to_int8_cache(case, *operands):
    raise Absent("a cache in 8 bits: PyTorch has none")


# Products with structure.


@counterpart("sparse", "blockSparseLinear")
def block_sparse_linear(case, x, dense, _):
    t = dense.t()  # there are zeros in it: PyTorch's block-sparse products need MKL
    return Call(lambda: F.linear(x, dense), lambda y: torch.mm(x, t, out=y))


@counterpart("sparse", "groupedLinear")
def grouped_linear(case, x, *weights):
    groups, rows = len(weights), len(x)
    parts = x.view(rows, groups, -1).transpose(0, 1)
    t = torch.stack(weights).mT
    return Call(lambda: torch.bmm(parts, t).transpose(0, 1).reshape(rows, -1))


@counterpart("sparse", "lowRankLinear")
def low_rank_linear(case, x, weights, down, up):
    return Call(
        lambda: F.linear(x, weights) + 0.5 * F.linear(F.linear(x, down), up),
        lambda y: torch.mm(x, weights.t(), out=y).addmm_(F.linear(x, down), up.t(), alpha=0.5),
    )


# Routing.


@counterpart("routing", "topK")
def top_k(case, x):
    k = case.number("k")
    indices = torch.empty(len(x), k, dtype=torch.int64)
    return Call(lambda: torch.topk(x, k).values, lambda y: torch.topk(x, k, out=(y, indices)))


@counterpart("routing", "scatterAdd")
def scatter_add(case, x, *rest):
    y, ids = case.initial.clone(), rest[-1]
    weights = rest[0][:, None] if len(rest) > 1 else None

    def run():
        return y.index_add_(0, ids, x if weights is None else x * weights)

    return Call(run)


@counterpart("routing", "expertLinear")
def expert_linear(case, x, *weights):
    parts = x.chunk(len(weights))  # every expert has as many rows

    def into(y):
        for part, weight, rows in zip(parts, weights, y.chunk(len(weights))):
            torch.mm(part, weight.t(), out=rows)

    return Call(lambda: torch.cat([F.linear(*pair) for pair in zip(parts, weights)]), into)
