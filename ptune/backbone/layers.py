"""`Layers`: what the layers of a loaded model make of a text."""

from typing import final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from ptune.backbone.attention import Visitor
from ptune.backbone.traits import Traits
from ptune.prompts import KeysValues

TYPICAL = 64
"""Tokens of the text that tells how large a layer's keys and values are; more change their mean square little."""


@final
class Layers:
    """The keys and values of real tokens in every layer.

    Args:
        model: a Transformer without head that reads `prefix=`.
        traits: how it behaves.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self.model, self.traits = model, traits

    def keys_values(self, **text: Int[Tensor, "b t"]) -> KeysValues:
        """The keys and values of tokens as they reach the attention function, so turned by rotary positions.

        `text` is what the model reads: `input_ids` and, where it has them, `token_type_ids`; there is no padding.
        """
        visitor = Visitor()
        with self.traits.probe():
            self.model(**{name: value.to(self.model.device) for name, value in text.items()}, prefix=visitor)
        return tuple(torch.stack(pair) for pair in zip(visitor.keys, visitor.values, strict=True))

    def typical(self) -> Int[Tensor, "one t"]:
        """A text of TYPICAL tokens, always the same, or of as many as the backbone has room for.

        They are drawn evenly from the middle eight tenths of the vocabulary, whose ends hold special tokens.
        """
        room = self.traits.room
        t = TYPICAL if room is None else min(TYPICAL, room)
        drawn = torch.rand(1, t, generator=torch.Generator().manual_seed(0))
        return ((0.1 + 0.8 * drawn) * self.traits.vocabulary).long()
