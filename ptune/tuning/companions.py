"""Companions of a prompt: small tensors of the backbone, its biases and normalisations, that are trained beside it."""

import re
from abc import ABC
from collections.abc import Callable

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError, nearest
from ptune.tuning.checks import check_rate
from ptune.tuning.tuner import PromptTuner

QUERY_BIAS = re.compile(r"(^|\.)(query|q)(_proj|_lin)?[._]bias$")
"""Names of the biases of queries: `query.bias`, `q_proj.bias`, `q_lin.bias`, `q.bias`, DeBERTa's `q_bias`. A family
that computes queries, keys and values by one matrix (GPT-2) has no such bias."""


def biases(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Every tensor whose name ends in `bias`: those of layers, `q_bias` of DeBERTa, `r_w_bias` of XLNet."""
    return {name: value for name, value in backbone.named_parameters() if name.endswith("bias")}


def query_biases(backbone: Backbone) -> dict[str, nn.Parameter]:
    """The biases of the queries, which alone reach nothing but the attention weights."""
    return {name: value for name, value in biases(backbone).items() if QUERY_BIAS.search(name)}


def layer_norms(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Weights and biases of normalisations, which are the modules whose class is called `...Norm` in every family."""
    return {
        f"{place}.{name}": value
        for place, module in backbone.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, value in module.named_parameters(recurse=False)
    }


FOUND: dict[str, tuple[str, Callable[[Backbone], dict[str, nn.Parameter]]]] = {
    "bias": ("biases", biases),
    "query_bias": ("biases of its queries alone", query_biases),
    "layer_norm": ("normalisations with weights", layer_norms),
}
"""For each companion what it is, in words, and the function that finds its tensors."""


class Accompanied(PromptTuner, ABC):
    """A prompt that may be trained together with companions.

    Args:
        also: Tensors of the backbone to train beside the prompt, e.g. [bias, layer_norm]: `bias` all biases (BitFit,
            Ben Zaken et al. 2022), `query_bias` those of the queries alone, `layer_norm` weights and biases of the
            normalisations.
        also_lr: Peak learning rate of these tensors.
    """

    def __init__(self, also: list[str] | None = None, also_lr: float = 1e-3, **common) -> None:
        super().__init__(**common)
        check_rate("also_lr", also_lr)
        for name in also or ():
            if name not in FOUND:
                raise InputError(f"also: {name!r} is no companion of a prompt; {nearest(name, FOUND)}")
        if also:
            self.require_fp32()

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone that has none of a companion."""
        for name in self.hparams["also"] or ():
            what, find = FOUND[name]
            if not find(backbone):
                raise InputError(f"also: {name!r}, but {self.spec.who} has no {what}; leave it out.")

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """The tensors of the companions."""
        wanted = self.hparams["also"] or ()
        return {name: value for each in wanted for name, value in FOUND[each][1](backbone).items()}

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates; the companions have their own."""
        return super().rates | {"backbone": self.hparams["also_lr"]}
