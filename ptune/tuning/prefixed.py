"""`Prefixed`: what methods with a prefix in chosen layers share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.prompts import Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.layered import Layered
from ptune.tuning.prefix import HiddenPrefix, PrefixEncoder, dropout


class Prefixed(Layered, ABC):
    """A prefix in some or all layers.

    Args:
        length: Prompt length p, vectors a layer.
        prefix_dropout: Dropout probability on keys and values, drawn anew for each example.
        shift_positions: Start the text's positions at p, as the authors' code of P-Tuning v2 and PEFT do.
    """

    stored_arguments = ("length", "shift_positions")

    def __init__(self, length: int = 20, prefix_dropout: float = 0.1, shift_positions: bool = False, **common) -> None:
        super().__init__(**common)
        check_size("length", length)
        if not 0 <= prefix_dropout < 1:
            raise InputError(f"prefix_dropout: {prefix_dropout} must be at least 0 and below 1.")

    @property
    @abstractmethod
    def encoder(self) -> PrefixEncoder | HiddenPrefix:
        """The prefix itself, without what else the prompt has."""

    @property
    def shift(self) -> int:
        """p positions with `shift_positions`, else none."""
        return self.hparams["length"] if self.hparams["shift_positions"] else 0

    def prepare(self, backbone: Backbone) -> None:
        """As for all prompts of layers; refuse a backbone whose positions cannot be shifted where they are to be."""
        super().prepare(backbone)
        if self.shift:
            backbone.require_shift()

    def prefix(self, batch: Batch, **gates) -> Prompts:
        """The prefix of every prompted layer, with the gates that a method has.

        With dropout there is one draw for each of the n texts.
        """
        prefix, rate = self.encoder(), self.hparams["prefix_dropout"]
        kept = dropout(prefix, len(batch["input_ids"]), rate) if self.training and rate else None
        return Prompts(prefix=prefix, kept=kept, layers=self.layers, shift=self.shift, **gates)

    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """Each layer's part of the prefix, in absolute units, and of its gradient, once there is one."""
        return self.encoder.by_layer()
