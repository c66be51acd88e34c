"""Frozen fp32 weights under autocast: cast once, not in every step.

Autocast keeps its 16-bit copy of a weight during a forward pass where the weight requires a gradient, and not at all
where it does not (`cached_cast` in torch's autocast_mode.cpp), so that it casts a frozen backbone in every step.
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D


class KeepsCast(nn.Module):
    """Mixed into a linear layer, which keeps the copy that autocast makes of its weight while the weight is frozen.

    The copy is no part of the layer's state. It is made when it is first needed, and again where the weight has changed
    since. A compiled graph casts by itself.
    """

    weight: Any
    bias: Any
    _kept: tuple[Any, Tensor] | None = None
    """What the copy was made of, and the copy."""

    def cast(self, input: Float[Tensor, "... d"]) -> Float[Tensor, "_ _"]:
        """The weight as autocast reads it for this input."""
        weight, kind = self.weight, input.device.type
        if weight.requires_grad or torch.compiler.is_compiling() or not torch.is_autocast_enabled(kind):
            return weight
        source = torch.get_autocast_dtype(kind), weight.data_ptr(), weight._version
        if self._kept is None or self._kept[0] != source:
            # No gradient could pass a tensor that is made in inference mode, in which Lightning validates.
            with torch.inference_mode(False), torch.no_grad():
                self._kept = source, weight.to(source[0])
        return self._kept[1]


@final
class _Linear(KeepsCast, nn.Linear):
    def forward(self, input: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        return F.linear(input, self.cast(input), self.bias)


@final
class _Conv1D(KeepsCast, Conv1D):
    """GPT's linear layer, whose weight is "d e"."""

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        return torch.addmm(self.bias, x.flatten(0, -2), self.cast(x)).unflatten(0, x.shape[:-1])


CLASSES: dict[type[nn.Module], type[KeepsCast]] = {nn.Linear: _Linear, Conv1D: _Conv1D}


def keep_casts(model: nn.Module) -> None:
    """Let the linear layers of a model keep the copies; weights and names stay what they are."""
    for module in model.modules():
        module.__class__ = CLASSES.get(type(module), type(module))
