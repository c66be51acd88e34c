"""`Layers`: what the layers of a loaded model read, and the keys and values that they make of it."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptune.backbone.state import CURRENT
from ptune.backbone.traits import Traits, numbered
from ptune.backbone.visitor import Visitor
from ptune.errors import InputError
from ptune.prompts import KeysValues

TYPICAL = 64
"""Tokens of the text that tells how large a layer's keys and values are; more change their mean square little."""


@final
class Layers:
    """Inputs, keys and values in every layer: those of real tokens, and those of vectors of one's own.

    `text` in its methods is what the model reads, without padding: `input_ids` and, where it has them,
    `token_type_ids`.

    Args:
        model: a Transformer without head that reads `prefix=`.
        traits: how it behaves.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits) -> None:
        self.model, self.traits = model, traits
        self._watched = self._shown = False

    def keys_values(self, **text: Int[Tensor, "b t"]) -> KeysValues:
        """The keys and values of tokens as they reach the attention function, so turned by rotary positions."""
        visitor = self._visit(text)
        return tuple(torch.stack(pair) for pair in zip(visitor.keys, visitor.values, strict=True))

    def inputs(self, **text: Int[Tensor, "one t"]) -> tuple[Float[Tensor, "t d"], ...]:
        """What the attention of each layer reads of one text: hidden states, normalised where the family does so."""
        self._watch()
        return tuple(hidden.flatten(0, 1) for hidden in self._visit(text).inputs)

    def show(self) -> None:
        """Let prompts with an `input_gate` see what attention modules read, from now on.

        Families lay hidden states out as "b t d" or, XLNet, as "t b d": one text tells which.
        """
        if self._shown:
            return
        self._watch()
        visitor = self._visit({"input_ids": self.typical()})
        for module, hidden in zip(visitor.modules, visitor.inputs, strict=True):
            module.tokens_first = len(hidden) > 1  # type: ignore[assignment]
        self._shown = True

    def typical(self) -> Int[Tensor, "one t"]:
        """A text of TYPICAL tokens, always the same, or of as many as the backbone has room for.

        They are drawn evenly from the middle eight tenths of the vocabulary, whose ends hold special tokens.
        """
        room = self.traits.room
        t = TYPICAL if room is None else min(TYPICAL, room)
        drawn = torch.rand(1, t, generator=torch.Generator().manual_seed(0))
        return ((0.1 + 0.8 * drawn) * self.traits.vocabulary).long()

    def project(self, inputs: Sequence[Float[Tensor, "p d"]], layers: Sequence[int]) -> KeysValues:
        """The keys and values that layers make of vectors by their own projections (and normalisation of keys).

        The model runs on a text of p tokens in which the attention of each of `layers` reads its vectors in place of
        its input, so that no family needs code for this. Where keys are turned by rotary positions, those of a text of
        p tokens do it: vector i has the position i. Gradients reach `inputs`.

        Args:
            inputs: the vectors of each of `layers`, as `inputs` gives them.
            layers: numbers of layers that have projections (`require_projections`).
        """
        self._watch()
        visitor = Visitor(put=dict(zip(layers, inputs, strict=True)))
        words = torch.full((1, len(inputs[0])), self.traits.vocabulary // 2, device=self.model.device)
        self.model(input_ids=words, prefix=visitor)
        return tuple(torch.stack((visitor.keys[layer], visitor.values[layer])) for layer in layers)

    def require_room(self, p: int) -> None:
        """Raise InputError unless a text of p tokens, from which p vectors are read, has positions."""
        room, who = self.traits.room, self.traits.spec.who
        if room is not None and p > room:
            raise InputError(f"length: {p} vectors do not fit into the {room} positions of {who}; use {room} or less.")

    def require_projections(self, layers: Sequence[int], p: int) -> None:
        """Raise InputError unless each of `layers` projects p vectors of its own.

        Gemma 3n and 4 have layers that read the keys of another layer.
        """
        self.require_room(p)
        width, who = self.traits.spec.width, self.traits.spec.who
        drawn = torch.randn(len(layers), 1, width, generator=torch.Generator().manual_seed(0)).to(self.model.device)
        with torch.enable_grad():
            vectors = drawn.requires_grad_()
            found = self.project(list(vectors), layers)
            reached = [torch.autograd.grad(layer.sum(), vectors, retain_graph=True)[0] for layer in found]
        without = [layer for i, layer in enumerate(layers) if not reached[i][i].any()]
        if without:
            raise InputError(
                f"form: 'hidden', but layers {without} of {who} have no projections, they read the keys of other "
                "layers; use form: table, or name the others in layers."
            )

    def _visit(self, text: dict[str, Int[Tensor, "b t"]]) -> Visitor:
        visitor = Visitor()
        with self.traits.probe():
            self.model(**{name: value.to(self.model.device) for name, value in text.items()}, prefix=visitor)
        return visitor

    def _watch(self) -> None:
        """Let visitors see what attention modules read, from now on."""
        for module in [] if self._watched else numbered(self.model):
            module.register_forward_pre_hook(_enter, with_kwargs=True)
        self._watched = True


def _enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Forward pre-hook of an attention module. In families of `ptune.backbone.families` no keyword reaches it."""
    prefix = kwargs.get("prefix", CURRENT.prefix)
    if isinstance(prefix, Visitor):
        return prefix.enter(module, args, kwargs)
    if prefix is None or prefix.input_gate is None:
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    prefix = prefix.entered(module, hidden.transpose(0, 1) if module.tokens_first else hidden)
    if "prefix" in kwargs:
        return args, kwargs | {"prefix": prefix}
    CURRENT.prefix = prefix  # until the next attention module has its own
    return None
