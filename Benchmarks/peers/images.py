"""Counterparts of operations on images (see counterparts.py).

Images of `[n, height, width, channels]` are tensors in PyTorch's channels_last memory format: views of what was exported.
"""

import torch
import torch.nn.functional as F
from counterparts import Call, after_product, aten, counterpart


def is_channels_first(case):
    return case.has("NCHW") or case.has("channelsFirst")


def image(case, x):
    """[n, c, h, w] as PyTorch counts the axes, without a copy."""
    return x if is_channels_first(case) else x.permute(0, 3, 1, 2)


def stored(case, y):
    """An image in the order of our result, without a copy."""
    return y if is_channels_first(case) else y.permute(0, 2, 3, 1)


def padding(case, x, size, stride, dilation=(1, 1)):
    """The least padding of both sides that makes an image of the destination's size: names do not have it."""
    extents = zip(x.shape[2:], image(case, case.initial).shape[2:], size, stride, dilation)
    return [max(0, (s * (to - 1) + d * (k - 1) + 1 - of + 1) // 2) for of, to, k, s, d in extents]


def pair(text, default="1x1"):
    return [int(number) for number in (text or default).split("x")]


@counterpart("conv", "conv2d")
def conv2d(case, x, weights, bias, add, *rest):
    x = image(case, x)
    if not is_channels_first(case):
        weights = weights.contiguous(memory_format=torch.channels_last)
        rest = [image(case, residual) for residual in rest]
    stride, dilation = pair(case.after("stride")), pair(case.after("dilation"))
    groups, enlargement = int(case.after("groups") or 1), int(case.after("upsampling") or 1)

    def enlarged():
        return x if enlargement == 1 else F.interpolate(x, scale_factor=enlargement, mode="nearest")

    margins = padding(case, enlarged(), weights.shape[2:], stride, dilation)
    bias = bias if case.has("bias") else None
    add = add[:, :, None, None] if case.has("add") else None

    def product():
        y = F.conv2d(enlarged(), weights, bias, stride, margins, dilation, groups)
        return y if add is None else y + add

    run, _ = after_product(case, product, rest)
    return Call(lambda: stored(case, run()))


@counterpart("norms", "groupNorm")
def group_norm(case, x, weight, bias):
    channels_last = x.shape[-1] == len(weight)
    x = x.permute(0, 3, 1, 2) if channels_last else x
    groups, activation = case.number("groups"), case.activation()

    def run():
        y = F.group_norm(x, groups, weight, bias)
        y = activation.run(y) if activation else y
        return y.permute(0, 2, 3, 1) if channels_last else y

    return Call(run)


@counterpart("pooling and upsampling", "maxPool")
def max_pool(case, x):
    x = image(case, x)
    window, stride = case.number("window"), case.number("stride")
    margins = padding(case, x, (window, window), (stride, stride))
    return Call(lambda: stored(case, F.max_pool2d(x, window, stride, margins)))


@counterpart("pooling and upsampling", "averagePool")
def average_pool(case, x):
    x = image(case, x)
    if case.has("global"):
        return Call(
            lambda: stored(case, F.adaptive_avg_pool2d(x, 1)),
            lambda y: torch.mean(x, (2, 3), keepdim=True, out=image(case, y)),
        )
    window, stride = case.number("window"), case.number("stride")
    margins = padding(case, x, (window, window), (stride, stride))
    return Call(lambda: stored(case, F.avg_pool2d(x, window, stride, margins)))


@counterpart("pooling and upsampling", "resize")
def resize(case, x):
    x, size = image(case, x), pair(case.after("to"))
    if case.has("nearest"):
        return Call(
            lambda: stored(case, F.interpolate(x, size, mode="nearest")),
            lambda y: aten.upsample_nearest2d.out(x, size, out=image(case, y)),
        )
    corners = case.has("bilinearAlignedCorners")
    return Call(
        lambda: stored(case, F.interpolate(x, size, mode="bilinear", align_corners=corners)),
        lambda y: aten.upsample_bilinear2d.out(x, size, corners, out=image(case, y)),
    )


@counterpart("pooling and upsampling", "pad")
def pad(case, x):
    x = image(case, x)
    height, width = image(case, case.initial).shape[2:]
    margins = (0, width - x.shape[3], 0, height - x.shape[2])  # all of it below and to the right
    return Call(
        lambda: stored(case, F.pad(x, margins)), lambda y: aten.constant_pad_nd.out(x, margins, 0, out=image(case, y))
    )
