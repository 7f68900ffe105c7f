"""Counterparts of products, attention, norms, element-wise operations, gathers and routing (see counterparts.py)."""

import torch
import torch.nn.functional as F
from counterparts import Absent, Call, after_product, aten, counterpart

# Linear and matrix products.

CODES = ("q8_0", "q4_0", "q5_1", "q4_K", "q5_K", "q6_K", "mxfp4")


def tolerance_of(case, x):
    """By what ours rounds and PyTorch, which has the weights in f32, does not: int8 rows, 16-bit codes of x, bf16 in and out."""
    if case.has("int8") or case.has("bf16") or x.dtype != torch.float32:
        return 2e-2
    return 1e-4 if any(case.has(code) for code in CODES) else 1e-5


@counterpart("linear", "linear")
def linear(case, x, w, *rest):
    bias = rest[0] if case.has("bias") else None
    run, is_plain = after_product(case, lambda: F.linear(x, w, bias), rest[1 if case.has("bias") else 0 :])
    tolerance = tolerance_of(case, x)
    if not is_plain:
        return Call(run, tolerance=tolerance)
    t = w.t()
    return Call(run, lambda y: torch.mm(x, t, out=y) if bias is None else torch.addmm(bias, x, t, out=y), tolerance)


@counterpart("linear", "gatedLinear")
def gated_linear(case, x, *rest):
    gate, gate_bias, value, value_bias = rest if case.has("bias") else (rest[0], None, rest[1], None)
    run = case.activation().run
    def product():
        return run(F.linear(x, gate, gate_bias)) * F.linear(x, value, value_bias)

    return Call(product, tolerance=tolerance_of(case, x))


@counterpart("matmul", "matmul")
def matmul(case, a, b):
    a = a.mT if case.has("At") else a
    b = b.mT if case.has("Bt") else b
    if a.shape[0] == 1:
        a, b = a[0], b[0]
    return Call(lambda: torch.matmul(a, b), lambda y: torch.matmul(a, b, out=y.view(*a.shape[:-1], -1)))


# Attention.


@counterpart("attention", "int8Attention")
def int8_attention(case, *operands):
    raise Absent("a cache in 8 bits: scaled_dot_product_attention takes none")


@counterpart("attention", "attention")
def attention(case, q, k, v):
    def sequences(text):
        if "+" in text:
            raise Absent("ragged sequences: PyTorch pads them")
        count, _, length = text.rpartition("x")
        return int(count or 1), int(length)

    if "cap" in case.values:
        raise Absent("a soft cap: scaled_dot_product_attention has none")
    if case.has("lse"):
        raise Absent("the log-sum-exp: scaled_dot_product_attention keeps it to itself")
    batch, queries = sequences(case.values["q"])
    _, keys = sequences(case.values["kv"])
    # As a model with such a cache has it; f32 queries are refused beside it.
    if case.values.get("cache") == "bf16" or case.has("bf16"):
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()

    def split(x, length):  # [tokens, heads, d] as [batch, heads, tokens, d], without a copy, as layers hold it
        return x.view(batch, -1, *x.shape[1:])[:, :length].transpose(1, 2)

    q, k, v = split(q, queries), split(k, keys), split(v, keys)
    grouped = q.shape[1] != k.shape[1]
    mask = dense_mask(case, q.shape[1], queries, keys)
    causal = case.has("causal") and mask is None

    def run():
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
        return y.transpose(1, 2)

    return Call(run, tolerance=1e-5 if q.dtype == torch.float32 else 2e-2)


def dense_mask(case, heads, queries, keys):
    """What `is_causal` does not say: windows, slopes, and causal queries that end where longer keys do."""
    shifted_causal = case.has("causal") and queries != keys
    if not (shifted_causal or case.has("alibi") or case.values.keys() & {"before", "after", "blocks"}):
        return None
    distance = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
    after = 0 if case.has("causal") else case.number("after", keys)
    visible = (distance >= -case.number("before", keys + queries)) & (distance <= after)
    if "blocks" in case.values:
        visible &= block_window(case, queries, keys)
    if not case.has("alibi"):
        return visible
    if heads & (heads - 1):
        raise Absent("the slopes of ALiBi for a number of heads that is no power of 2")
    slopes = 2 ** (-8 / heads * torch.arange(1, heads + 1))
    return torch.where(visible, -slopes[:, None, None] * distance.abs(), -torch.inf)


def block_window(case, queries, keys):
    """Blocks up to `reach` away and the first `global` ones: an element mask, as PyTorch skips nothing on CPU by it."""
    down, across = (int(side) for side in case.values["blocks"].split("x"))
    if "reach" not in case.values:
        raise Absent("a block mask that is no window")
    rows, columns = (torch.arange(queries) // down)[:, None], torch.arange(keys) // across
    first = case.number("global", 0)
    return ((rows - columns).abs() <= case.number("reach", 0)) | (columns < first) | (rows < first)


# Softmax and norms.


@counterpart("softmax", "softmax")
def softmax(case, x):
    # Against f64, PyTorch is off by 1.6e-5 of the largest value at n = 128256, and we by 3.4e-6.
    tolerance = 1e-5 if x.shape[-1] < 1 << 14 else 5e-5
    return Call(lambda: torch.softmax(x, -1), lambda y: torch.softmax(x, -1, out=y), tolerance)


def epsilon(case):
    return 1e-12 if case.title and case.title[0].startswith("MiniLM") else 1e-5


def normalized(case, norm, x, rest):
    """`norm` of x, or of its sum with a residual, which is a second result where the name asks for the sum."""
    if not case.has("residual"):
        return Call(lambda: norm(x, *rest))
    residual, *rest = rest

    def run():
        z = x + residual
        return (norm(z, *rest), z) if case.has("sum") else norm(z, *rest)

    return Call(run)


@counterpart("norms", "layerNorm")
def layer_norm(case, x, *rest):
    size, eps = x.shape[-1:], epsilon(case)
    return normalized(case, lambda z, w=None, b=None: F.layer_norm(z, size, w, b, eps), x, rest)


@counterpart("norms", "rmsNorm")
def rms_norm(case, x, *rest):
    size, eps = x.shape[-1:], epsilon(case)
    return normalized(case, lambda z, w=None: F.rms_norm(z, size, w, eps), x, rest)


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


FUNCTIONS = {
    "exp": Call(torch.exp, lambda x, y: torch.exp(x, out=y)),
    "erf": Call(torch.erf, lambda x, y: torch.erf(x, out=y)),
    "softplus": Call(F.softplus, lambda x, y: aten.softplus.out(x, out=y)),
}


@counterpart("activations", "elementFunction")
def element_function(case, x):
    function = next(FUNCTIONS[word] for word in case.title + case.words if word in FUNCTIONS)
    return Call(lambda: function.run(x), lambda y: function.out(x, y))


@counterpart("activations", "repu")
def repu(case, x):
    if case.has("squared"):
        return Call(lambda: F.relu(x).square(), lambda y: torch.clamp_min(x, 0, out=y).square_())
    power = case.number("power")
    return Call(lambda: F.relu(x).pow(power), lambda y: torch.clamp_min(x, 0, out=y).pow_(power))


@counterpart("activations", "gated")
def gated(case, both):
    first, second = both.chunk(2, -1)
    gate, value = (second, first) if case.has("value") else (first, second)
    run = F.silu if case.has("SwiGLU") else case.activation().run
    return Call(lambda: run(gate) * value, lambda y: torch.mul(run(gate), value, out=y))


@counterpart("element-wise", "binary")
def binary(case, a, b):
    functions = {"subtract": torch.sub, "divide": torch.div, "maximum": torch.maximum, "minimum": torch.minimum}
    function = next(functions[word] for word in case.title + case.words if word in functions)
    return Call(lambda: function(a, b), lambda y: function(a, b, out=y))


@counterpart("element-wise", "clamp")
def clamp(case, x):
    return Call(lambda: torch.clamp(x, -1, 1), lambda y: torch.clamp(x, -1, 1, out=y))


@counterpart("element-wise", "lerp")
def lerp(case, a, b):
    return Call(lambda: torch.lerp(a, b, 0.3), lambda y: torch.lerp(a, b, 0.3, out=y))


@counterpart("element-wise", "slerp")
def slerp(case, a, b):
    """As Diffusers' examples have it, for each row."""
    fraction = 0.3

    def run():
        cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True))
        if (cosine.abs() > 0.9995).any():
            return torch.lerp(a, b, fraction)
        angle = torch.acos(cosine)
        sine = torch.sin(angle)
        return torch.sin((1 - fraction) * angle) / sine * a + torch.sin(fraction * angle) / sine * b

    return Call(run)


# Gathers and pooling over sequences.

@counterpart("gather and scatter", "embedding")
def embedding(case, table, ids):
    return Call(lambda: F.embedding(ids, table), lambda y: torch.index_select(table, 0, ids, out=y))


@counterpart("pooling and upsampling", "meanPool")
def mean_pool(case, x):
    sequences = int(case.words[0].split("x")[0])
    x = x.view(sequences, -1, x.shape[-1])
    return Call(lambda: x.mean(1), lambda y: torch.mean(x, 1, out=y))
