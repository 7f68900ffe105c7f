"""Counterparts of data movement, reductions and random numbers (see counterparts.py)."""

import torch
from counterparts import Call, counterpart

# Data movement.

ORDERS = {"NCHW to NHWC": (0, 2, 3, 1), "NHWC to NCHW": (0, 3, 1, 2), "heads first": (1, 0, 2)}
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@counterpart("data movement", "copy")
def copy(case, x):
    order = next((order for title, order in ORDERS.items() if title in case.name), None)
    if order:
        x = x.permute(order)
        return Call(x.contiguous, lambda y: y.copy_(x))
    before, after = (TYPES[case.title[index]] for index in (-3, -1))  # "bf16 to f32"
    x = x.to(before)
    return Call(lambda: x.to(after, copy=True), lambda y: y.copy_(x), dtype=after)


@counterpart("data movement", "select")
def select(case, x, mask):
    y, mask = case.initial, mask != 0
    return Call(lambda: torch.where(mask, x, y), lambda y: torch.where(mask, x, y, out=y))


# Reductions.

REDUCTIONS = {
    "sum": torch.sum,
    "mean": torch.mean,
    "sumOfSquares": lambda x, axis, **out: torch.sum(x * x, axis, **out),
    "maximum": torch.amax,
    "minimum": torch.amin,
    "logSumExp": torch.logsumexp,
}


@counterpart("reductions", "reduce")
def reduce(case, x):
    words = case.title + case.words
    reduction = next(REDUCTIONS[word] for word in words if word in REDUCTIONS)
    axis = 0 if "columns" in words else 1
    return Call(lambda: reduction(x, axis), lambda y: reduction(x, axis, out=y))


@counterpart("reductions", "cumulativeSum")
def cumulative_sum(case, x):
    # Rounding errors of a long row add up, and in another order on each side.
    return Call(lambda: torch.cumsum(x, -1), lambda y: torch.cumsum(x, -1, out=y), tolerance=1e-4)


@counterpart("reductions", "argmax")
def argmax(case, x):
    function = torch.argmin if case.has("least") else torch.argmax
    return Call(lambda: function(x, -1), lambda y: function(x, -1, out=y), tolerance=0, dtype=torch.int64)


# Random numbers.


def gumbel(shape, out=None):
    y = torch.empty(shape) if out is None else out
    return y.exponential_().log_().neg_()


@counterpart("random", "random")
def random(case):
    shape = case.initial.shape
    function = torch.randn if case.has("normal") else torch.rand if case.has("uniform") else gumbel

    def moments(result):
        """How far mean and deviation are apart: generators differ, so values do."""
        ours, theirs = result.double(), function(shape).double()
        spread = theirs.std()
        return max(abs(ours.mean() - theirs.mean()), abs(ours.std() - spread)).item() / spread.item()

    # Each deviates by about 1/sqrt(n); 8 of that do not happen.
    tolerance = 8 * shape.numel() ** -0.5
    return Call(lambda: function(shape), lambda y: function(shape, out=y), tolerance, compare=moments)
