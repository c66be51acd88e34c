"""Adapters that are trained beside a prompt: LoRA, and the scaled parallel adapter of He et al. (2022).

A prefix with the second is their MAM adapter (arXiv:2110.04366). A prefix with both and gates is like UniPELT (Mao et
al. 2022, arXiv:2110.07577).
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.feed_forward import feed_forward, put_beside
from ptune.tuning.injected import configure, inject

SCALE = 4.0
"""The s of He et al. for their parallel adapters."""


@final
class TokenGate(nn.Linear):
    """A weight of each token, sigmoid(w x + b), which starts at 0.5."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """The weight of each token."""
        return torch.sigmoid(super().forward(x))


@final
class ParallelAdapter(nn.Module):
    """`s W_up relu(W_down x)` of what a feed-forward block reads, 0 at the start, as LoRA is.

    Args:
        width: d of x.
        rank: Features between the two maps.
        gated: multiply by a `TokenGate` of x.
    """

    def __init__(self, width: int, rank: int, gated: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for value in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(value)
        self.gate = TokenGate(width) if gated else None

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """What is added to the block's output."""
        added = SCALE * self.up(F.relu(self.down(x)))
        return added if self.gate is None else self.gate(x) * added


def add_adapter(backbone: Backbone, rank: int, gated: bool) -> tuple[str, ...]:
    """Put a `ParallelAdapter` beside the feed-forward block of each layer; the names of its tensors."""
    for block in feed_forward(backbone):
        put_beside(block, ParallelAdapter(backbone.spec.width, rank, gated).to(backbone.model.device))
    return tuple(name for name, _ in backbone.named_parameters() if ".beside." in name)


def add_lora(backbone: Backbone, rank: int, gated: bool, targets: str | list[str] | None) -> tuple[str, ...]:
    """Inject LoRA with alpha = rank; the names of its tensors. Without `targets`, PEFT's layers for the model type."""
    options = {"r": rank, "lora_alpha": rank, "target_modules": targets}
    names = inject(configure("LoraConfig", options), backbone, "also_targets" if targets else "also")
    lora = tuple(name for name in names if ".lora_" in name)
    if not gated:
        return lora
    for place in {name.removesuffix(".weight") for name in lora if ".lora_A." in name}:
        first, weight = backbone.get_submodule(place), backbone.get_parameter(f"{place}.weight")
        first.gate = TokenGate(weight.shape[1]).to(weight.device)
        first.register_forward_hook(_weigh)
    return tuple(name for name, _ in backbone.named_parameters() if ".lora_" in name)


def _weigh(first: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output * first.gate(args[0])  # type: ignore[operator]
