"""Families whose attention does not go through transformers' attention interface, or whose layers share modules.

A family is the file named after its `model_type`. Its `CLASSES` take the place of the classes they inherit from, in the
one model that is loaded: same weights, same names, and the inherited code itself wherever no prefix is given. With one,
a family states its attention as query, key, value and additive bias; `ptune.backbone.attention` does the rest, so that
the columns of the prefix have no bias and a gate means the same everywhere.
"""

import importlib
import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.backbone.attention import Visitor, attend
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

    prefix: Prompts | Visitor | None = None
    is_causal = False

    def attend(
        self,
        query: Float[Tensor, "b h t k"],
        key: Float[Tensor, "b h s k"],
        value: Float[Tensor, "b h s k"],
        bias: Float[Tensor, "#b #h #t s"],
        scaling: float,
        dropout: float,
    ) -> Float[Tensor, "b t h k"]:
        """Attention with the layer's own prefix; `bias` holds the mask too."""
        dtype = key.dtype
        bias = bias.clamp(min=torch.finfo(dtype).min).to(dtype)  # -inf would make rows that see nothing NaN
        rate = dropout if self.training else 0.0
        query, value = query.to(dtype), value.to(dtype)
        return attend(self, query, key, value, bias, prefix=self.prefix, scaling=scaling, dropout=rate)[0]


class PrefixModel(nn.Module):
    """Mixed into a family's model: takes `prefix`, which its layers would not pass on, and lends it to the attentions.

    On loan for one forward pass only, so nothing is left over for a pass without prefix.
    """

    def forward(self, *args, prefix: Prompts | Visitor | None = None, **kwargs):
        """The model's own forward."""
        attentions = [module for module in self.modules() if isinstance(module, PrefixAttention)]
        for module in attentions:
            module.prefix = prefix
        try:
            return super().forward(*args, **kwargs)
        finally:
            for module in attentions:
                module.prefix = None


class QueryModel(PrefixModel):
    """Mixed into a model whose language model reads a place by a query that does not see the place's own token.

    Its forward takes `answer_at` "b a": the last hidden states at these places are the queries', all others 0.
    """


class PrefixLayer(nn.Module):
    """Mixed into a layer that can be checkpointed: it is recomputed in the backward pass, when the loan is over.

    So the layer turns the loan into a keyword of its own, which checkpointing keeps with the others.
    """

    @property
    def _borrower(self) -> PrefixAttention:
        return next(module for module in self.modules() if isinstance(module, PrefixAttention))

    def __call__(self, *args, **kwargs):
        """Called outside the checkpoint, in the forward pass only."""
        return super().__call__(*args, prefix=self._borrower.prefix, **kwargs)

    def forward(self, *args, prefix: Prompts | Visitor | None = None, **kwargs):
        """Called inside the checkpoint, again in the backward pass."""
        attention = self._borrower
        before, attention.prefix = attention.prefix, prefix
        try:
            return super().forward(*args, **kwargs)
        finally:
            attention.prefix = before
