"""`Prefixed`: what methods with a prefix in chosen layers share."""

from abc import ABC, abstractmethod

from torch import Tensor

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.prompts import Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.companions import Accompanied
from ptune.tuning.prefix import HiddenPrefix, PrefixEncoder, dropout


class Prefixed(Accompanied, ABC):
    """A prefix in some or all layers, which may be trained together with companions.

    Args:
        length: Prompt length p, vectors a layer.
        layers: Prompted layers: `all`, `last:N`, or a list of layer numbers from 0.
        prefix_dropout: Dropout probability on keys and values, drawn anew for each example.
        shift_positions: Start the text's positions at p, as the authors' code of P-Tuning v2 and PEFT do.
    """

    stored_arguments = ("length", "shift_positions")

    def __init__(
        self,
        length: int = 20,
        layers: str | list[int] = "all",
        prefix_dropout: float = 0.1,
        shift_positions: bool = False,
        **common,
    ) -> None:
        super().__init__(**common)
        check_size("length", length)
        if not 0 <= prefix_dropout < 1:
            raise InputError(f"prefix_dropout: {prefix_dropout} must be at least 0 and below 1.")
        self.layers = chosen_layers(layers, self.spec.layers)

    @property
    @abstractmethod
    def encoder(self) -> PrefixEncoder | HiddenPrefix:
        """The prefix itself, without what else the prompt has."""

    @property
    def kv_sizes(self) -> list[tuple[int, int]]:
        """Key/value heads and head size of each prompted layer."""
        return [self.spec.kv_sizes[layer] for layer in self.layers]

    @property
    def first_layer(self) -> int:
        """The first one of `layers`."""
        return min(self.layers)

    @property
    def shift(self) -> int:
        """p positions with `shift_positions`, else none."""
        return self.hparams["length"] if self.hparams["shift_positions"] else 0

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone whose layers would ignore the prefix, or whose positions cannot be shifted."""
        super().prepare(backbone)
        backbone.require_prefix()
        if self.shift:
            backbone.require_shift()

    def prefix(self, batch: Batch, **gates) -> Prompts:
        """The prefix of every prompted layer, with the gates that a method has.

        With dropout there is one draw for each of the n texts.
        """
        prefix, rate = self.encoder(), self.hparams["prefix_dropout"]
        kept = dropout(prefix, len(batch["input_ids"]), rate) if self.training and rate else None
        return Prompts(prefix=prefix, kept=kept, layers=self.layers, shift=self.shift, **gates)

    def layer_norms(self) -> dict[str, Tensor]:
        """Norms of each layer's part of the prefix, in absolute units, and of its gradient."""
        return {
            f"{name}/layer_{layer:02d}": part.norm()
            for name, parts in self.encoder.by_layer().items()
            for layer, part in zip(self.layers, parts, strict=True)
        }

    def metadata(self) -> dict[str, str]:
        """As for all methods, and the numbers of the layers: `last:2` and [4, 5] may mean the same."""
        return super().metadata() | {"layers": str(list(self.layers))}


def chosen_layers(layers: str | list[int], count: int) -> tuple[int, ...]:
    """Layer numbers meant by `all`, `last:N` or a list; InputError for anything else."""
    if layers == "all":
        return tuple(range(count))
    if isinstance(layers, str):
        word, _, number = layers.partition(":")
        if word != "last" or not number.isdigit() or not 1 <= int(number) <= count:
            raise InputError(
                f"layers: {layers!r} is not `all`, `last:N` with N from 1 to {count}, or a list such as [0, 1]."
            )
        return tuple(range(count - int(number), count))
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(count)):
        raise InputError(f"layers: {layers} must name different layers from 0 to {count - 1}.")
    return tuple(sorted(layers))
