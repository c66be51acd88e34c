"""Families whose attention does not go through transformers' attention interface, or whose layers share modules.

A family is the file named after its `model_type`. Its `CLASSES` replace the classes that they inherit from, in the one
model that is loaded: same weights, same names, and the inherited code itself wherever no prefix is given. With a prefix
a family states its attention as query, key, value and additive bias; `ptune.backbone.attention` does the rest, so that
the columns of the prefix have no bias and a gate means the same everywhere.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.backbone.attention import attend
from ptune.backbone.state import CURRENT
from ptune.backbone.visitor import Visitor
from ptune.prompts import Prompts


def adapt(model: nn.Module, model_type: str) -> None:
    """Let the model read `prefix=`, if its family has a file here."""
    name = f"{__name__}.{model_type.replace('-', '_')}"
    if importlib.util.find_spec(name) is not None:
        replaced = {cls.__bases__[-1]: cls for cls in importlib.import_module(name).CLASSES}
        for module in model.modules():
            module.__class__ = replaced.get(type(module), type(module))


class PrefixAttention(nn.Module):
    """Mixed into a family's attention, which calls `attend` where `prefix` is not None."""

    is_causal = False

    @property
    def prefix(self) -> Prompts | Visitor | None:
        """The prefix of this thread's forward pass."""
        return CURRENT.prefix

    def attend(
        self,
        query: Float[Tensor, "b h t k"],
        key: Float[Tensor, "b h s k"],
        value: Float[Tensor, "b h s k"],
        bias: Float[Tensor, "#b #h #t s"],
        scaling: float,
        dropout: float,
    ) -> Float[Tensor, "b t h k"]:
        """Attention with the layer's own prefix; `bias` includes the mask."""
        dtype = key.dtype
        bias = bias.clamp(min=torch.finfo(dtype).min).to(dtype)  # a row of nothing but -inf would become NaN
        rate = dropout if self.training else 0.0
        query, value = query.to(dtype), value.to(dtype)
        return attend(self, query, key, value, bias, prefix=self.prefix, scaling=scaling, dropout=rate)[0]


class PrefixModel(nn.Module):
    """Mixed into a family's model, whose layers do not pass `prefix` on: sets it for the duration of forward."""

    def forward(self, *args, prefix: Prompts | Visitor | None = None, **kwargs):
        """The model's own forward."""
        with passing(prefix):
            return super().forward(*args, **kwargs)


class QueryModel(PrefixModel):
    """Mixed into a model whose language model reads a place by a query that does not attend to the place's own token.

    Its forward takes `answer_at` "b a": the last hidden states at these places are the queries', all others 0.
    """


class PrefixLayer(nn.Module):
    """Mixed into a layer that can be checkpointed: passes the prefix as a keyword, so that checkpointing keeps it.

    The layer is computed again in the backward pass, when the model's forward is over.
    """

    def __call__(self, *args, **kwargs):
        """Called outside the checkpoint, in the forward pass only."""
        return super().__call__(*args, prefix=CURRENT.prefix, **kwargs)

    def forward(self, *args, prefix: Prompts | Visitor | None = None, **kwargs):
        """Called inside the checkpoint, again in the backward pass."""
        with passing(prefix):
            return super().forward(*args, **kwargs)


@contextmanager
def passing(prefix: Prompts | Visitor | None) -> Iterator[None]:
    """Set the prefix of this thread's forward pass, and restore the one before."""
    before, CURRENT.prefix = CURRENT.prefix, prefix
    try:
        yield
    finally:
        CURRENT.prefix = before
