"""Companions of a prompt, which are trained beside it: biases and normalisations of the backbone, adapters in it."""

import re
from abc import ABC
from collections.abc import Callable

from torch import nn

from ptune.backbone import Backbone
from ptune.errors import InputError, nearest
from ptune.tuning.adapters import add_adapter, add_lora
from ptune.tuning.checks import check_rate, check_size
from ptune.tuning.tuner import PromptTuner

QUERY_BIAS = re.compile(r"(^|\.)(query|q)(_proj|_lin)?(\.base_layer)?[._]bias$")
"""Names of the biases of queries: `query.bias`, `q_proj.bias`, `q_lin.bias`, `q.bias`, DeBERTa's `q_bias`. A family
that computes queries, keys and values by one matrix (GPT-2) has no such bias. `base_layer` is a query with LoRA."""


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
"""For each companion in the backbone what it is, in words, and the function that finds its tensors."""
RANK = 8
"""That of `lora` and `adapter`, where none is given."""
ADDED = ("lora", "adapter")
"""The companions that are put into the backbone."""


class Accompanied(PromptTuner, ABC):
    """A prompt that may be trained together with companions.

    Args:
        also: Tensors of the backbone to train beside the prompt, e.g. [bias, layer_norm]: `bias` all biases (BitFit,
            Ben Zaken et al. 2022), `query_bias` those of the queries alone, `layer_norm` weights and biases of the
            normalisations; `lora` low-rank updates (needs ptune[peft]), `adapter` scaled parallel adapters of the
            feed-forward blocks (He et al. 2022).
        also_lr: Peak learning rate of these tensors.
        also_rank: Rank of `lora`, and features between the two maps of `adapter`; 8 if left out.
        also_targets: Where `lora` is: ends of the names of the layers, e.g. [query, value], or `all-linear`; PEFT's for
            the model type, mostly queries and values, if left out.
        also_gate: Weight what `lora` and `adapter` add to a token by a trained gate of what their module reads, as
            UniPELT does (Mao et al. 2022); it has one weight for all tokens of a text, their mean.
    """

    adapters: tuple[str, ...] = ()
    """Names of the tensors that were put into the backbone."""

    def __init__(
        self,
        also: list[str] | None = None,
        also_lr: float = 1e-3,
        also_rank: int | None = None,
        also_targets: str | list[str] | None = None,
        also_gate: bool | None = None,
        **common,
    ) -> None:
        super().__init__(**common)
        check_rate("also_lr", also_lr)
        for name in also or ():
            if name not in (*FOUND, *ADDED):
                raise InputError(f"also: {name!r} is no companion of a prompt; {nearest(name, (*FOUND, *ADDED))}")
        if also_rank is not None:
            check_size("also_rank", also_rank)
        # Null where they are left out: a run that has neither keeps the hash that it had before there were they.
        for name, value in {"also_rank": also_rank, "also_gate": also_gate}.items():
            if value and not {*ADDED} & {*(also or ())}:
                raise InputError(
                    f"{name}: {str(value).lower()} is for lora and adapter, and there are none; "
                    "use also: [lora, adapter]."
                )
        if also_targets and {*(also or ())} & {*ADDED} != {"lora"}:
            raise InputError(
                f"also_targets: {also_targets} is for lora without adapter, which needs the feed-forward block as it "
                "is; use also: [lora]."
            )
        if isinstance(also_targets, str) and also_targets != "all-linear":
            raise InputError(f"also_targets: {also_targets!r} is not `all-linear`, or a list such as [query, value].")
        if also:
            self.require_fp32()

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone that has none of a companion, and put the others into it."""
        p = self.hparams
        wanted, rank, gated = p["also"] or (), p["also_rank"] or RANK, bool(p["also_gate"])
        for name, (what, find) in FOUND.items():
            if name in wanted and not find(backbone):
                raise InputError(f"also: {name!r}, but {self.spec.who} has no {what}; leave it out.")
        if "lora" in wanted:
            self.adapters += add_lora(backbone, rank, gated, p["also_targets"])
        if "adapter" in wanted:
            self.adapters += add_adapter(backbone, rank, gated)

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """The tensors of the companions."""
        wanted, named = self.hparams["also"] or (), dict(backbone.named_parameters())
        found = {name: named[name] for name in self.adapters}
        for name, (_, find) in FOUND.items():  # in one order in every process: an optimizer's state has no names
            if name in wanted:
                found |= find(backbone)
        return found

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates; the companions have their own."""
        return super().rates | {"backbone": self.hparams["also_lr"]}
