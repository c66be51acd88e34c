"""The floor of a step: the bare matrix products that P-Tuning v2 cannot do without, and nothing between them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ptune.benchmarks.contender import Contender, Setting
from ptune.benchmarks.ours import built
from ptune.methods.p_tuning_v2 import PTuningV2


def linear_maps(setting: Setting) -> list[tuple[Tensor, int, bool]]:
    """Each linear map of a forward pass of PTuningV2: its weight "out in", rows, and whether its input has a gradient.

    Hooks see them in a real pass, so that nothing is counted which a step does not need: below the first prefix, which
    are the query, key and value of the first layer, no gradient flows to the input. The head is among them.
    """
    model, found = built(PTuningV2, setting), []

    def seen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        weight: Any = module.weight
        weight = weight.T if isinstance(module, Conv1D) else weight  # GPT-2's has the axes the other way round
        found.append((weight.detach(), args[0].numel() // args[0].shape[-1], args[0].requires_grad))

    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            module.register_forward_hook(seen)
    model.train()(setting.texts())
    return found


def products(setting: Setting) -> Contender:
    """The matrix products of forward and activation backward, on tensors that are there before.

    Of each linear map, forward `x W^T` "n in, in out", and where the input has a gradient, backward `g W`. No gradient
    of a weight: all are frozen but the small head. Of the attention of each layer, over p + t keys, forward the scores
    `Q K^T` and the values' mean `P V`, backward the four products for the gradients of P, V, Q and K. No softmax, no
    normalisation, no activation function, no dropout, no bias, no optimizer, no copies.
    """
    dtype = torch.bfloat16 if setting.precision == "bf16-mixed" else torch.float32
    place = {"device": setting.device, "dtype": dtype}
    maps = [(weight.to(**place), rows, back) for weight, rows, back in linear_maps(setting)]
    inputs = {(rows, width): torch.randn(rows, width, **place) for w, rows, _ in maps for width in w.shape}
    spec = built(PTuningV2, setting).spec
    b, t = setting.batch, setting.tokens
    attention = []
    for _, size in spec.kv_sizes:
        text, keys = (torch.randn(b, spec.heads, n, size, **place) for n in (t, setting.length + t))
        attention.append((text, keys, torch.randn(b, spec.heads, t, setting.length + t, **place)))

    @torch.no_grad()
    def step() -> None:
        for weight, rows, back in maps:
            out, width = weight.shape
            F.linear(inputs[rows, width], weight)
            if back:
                torch.matmul(inputs[rows, out], weight)
        for text, keys, shares in attention:
            torch.matmul(text, keys.mT)  # Q K^T
            torch.matmul(shares, keys)  # P V
            torch.matmul(text, keys.mT)  # the gradient of P, from those of the output and V
            torch.matmul(shares.mT, text)  # of V
            torch.matmul(shares, keys)  # of Q
            torch.matmul(shares.mT, text)  # of K

    return Contender(step)
