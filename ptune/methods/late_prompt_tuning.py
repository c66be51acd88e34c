"""Late prompt tuning (LPT, Liu et al. 2022, arXiv:2210.11292): a soft prompt that enters at a middle layer, made from
what the layers below have computed of the text.

The generators are those of xyltt/LPT 0ba397e, encoder-only/models/modeling_roberta.py and decoder-only.
"""

from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.methods.prompt_tuning import SoftPrompt
from ptune.prompts import Late, Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.tuner import PromptTuner

Generator = Literal["none", "token", "average", "max"]


@final
class PromptGenerator(nn.Module):
    """p vectors from the hidden states of a text, through a bottleneck of m features.

    `token` (the paper's naive prompt generator) reads one token: `W2 relu(W1 h)` has p d numbers. `average` and `max`
    (its pooling prompt generators) pool `W1 h` over p even parts of the text, and `W2 relu(...)` is one vector of each.

    Args:
        length: p.
        width: d.
        bottleneck: m.
        pooling: `token`, `average` or `max`.
    """

    last: bool = False
    """Whether `token` reads the last token of the text, as in a causal model, and not the first."""

    def __init__(self, length: int, width: int, bottleneck: int, pooling: Generator) -> None:
        super().__init__()
        self.length, self.pooling = length, pooling
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width * (length if pooling == "token" else 1))

    def forward(self, hidden: Float[Tensor, "b t d"], text: Bool[Tensor, "b t"]) -> Float[Tensor, "b p d"]:
        """The vectors of each text; `text` is False at padding and at the slots."""
        if self.pooling == "token":
            order = text.int().flip(1) if self.last else text.int()
            at = order.argmax(1)
            at = text.shape[1] - 1 - at if self.last else at
            token = hidden[torch.arange(len(hidden), device=at.device), at]
            return self.up(F.relu(self.down(token))).unflatten(1, (self.length, -1))
        features, inside = self.down(hidden), parts(text, self.length)
        if self.pooling == "average":
            pooled = inside / inside.sum(2, keepdim=True) @ features
        else:
            lowest = torch.finfo(features.dtype).min
            pooled = features[:, None].masked_fill(~inside[..., None].bool(), lowest).amax(2)
        return self.up(F.relu(pooled))


def parts(text: Bool[Tensor, "b t"], p: int) -> Float[Tensor, "b p t"]:
    """1 where a token is in part j of its text of n tokens: from floor(j n / p) up to, without it, ceil((j + 1) n / p).

    These are the parts of torch's adaptive pooling; with fewer than p tokens some parts share one.
    """
    n, part = text.sum(1)[:, None, None], torch.arange(p, device=text.device)[:, None]
    place = text.cumsum(1)[:, None] - 1
    inside = (place >= part * n // p) & (place < -(-(part + 1) * n // p))
    return (inside & text[:, None]).float()


@final
class LatePromptTuning(PromptTuner):
    """Train vectors that fill the slots at a middle layer, or what makes them of the layers below, and the head.

    The layers below read the text without slots and are frozen, so that what they compute of a row is the same in every
    epoch (`--cache_frozen`). The layers above read the text with its slots, which lie where those of a prompt at the
    input do; where positions are rotary, the text's behind the slots are p further there. Two differences from the
    authors' code: vectors have no dropout, and those without a generator start as N(0, 0.02²).

    Args:
        length: Prompt length p, slots of the text.
        layer: The layer at which the vectors enter, from 1; the middle one if left out, which the paper found best.
        generator: `none` trains the vectors themselves; the others make them of each text's hidden states: of one
            `token` (the first, in a causal model the last), or of `average` or `max` over p even parts of the text.
        bottleneck: Features m of a generator between its two linear layers.
    """

    prompt: PromptGenerator | SoftPrompt
    stored_arguments = ("length", "generator")
    slot_argument = "length"

    def __init__(
        self,
        length: int = 5,
        layer: int | None = None,
        generator: Generator = "average",
        bottleneck: int = 128,
        **common,
    ) -> None:
        super().__init__(**common)
        check_size("length", length)
        check_size("bottleneck", bottleneck)
        layers, width = self.spec.layers, self.spec.width
        if layers < 2:
            raise InputError(f"{self.spec.who} has {layers} layer, so no middle one; choose another backbone.")
        self.layer = layers // 2 if layer is None else layer
        if not 0 < self.layer < layers:
            raise InputError(f"layer: {layer} must be from 1 to {layers - 1}; PromptTuning is the prompt at the input.")
        if generator == "none":
            self.prompt = SoftPrompt(length, width)
        else:
            self.prompt = PromptGenerator(length, width, bottleneck, generator)

    @property
    def first_layer(self) -> int:
        """The layer at which the vectors enter."""
        return self.layer

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone whose layers cannot begin in the middle; tell the generator which token it reads."""
        if gap := backbone.cut_gap(self.layer):
            raise InputError(
                f"{self.spec.who} cannot begin at layer {self.layer}: {gap}; choose another backbone, or PromptTuning."
            )
        if isinstance(self.prompt, PromptGenerator):
            self.prompt.last = backbone.traits.causal

    def prompts(self, batch: Batch) -> Prompts:
        """The layer, and what makes the vectors there."""
        prompt = self.prompt
        make: Callable = prompt if isinstance(prompt, PromptGenerator) else lambda hidden, text: prompt()
        return Prompts(late=Late(self.layer, make))

    def metadata(self) -> dict[str, str]:
        """As for all methods, and the layer's number, which may have been left out."""
        return super().metadata() | {"layer": str(self.layer)}
