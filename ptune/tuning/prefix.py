"""Prefixes while they are trained: tables of keys and values, flat or computed by an MLP, and their gates.

Layout and initialisation are those of THUDM/P-tuning-v2 b1520c9, model/prefix_encoder.py, which PEFT has, too.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.prompts import KeysValues
from ptune.tuning.reparameterized import Reparameterized

AUTHORS = 0.02
"""Standard deviation of the start in the authors' code: transformers 4.11 re-initialised every module that a checkpoint
lacks as N(0, 0.02²), biases as 0."""


@final
class PrefixEncoder(Reparameterized):
    """p keys and values for each of l layers, as a flat table or through an MLP.

    The table is "p f" in the authors' order: block 2i is layer i's key, block 2i + 1 its value, each of h k numbers.
    With `mlp` > 0 it is computed: Embedding(p, width), Linear(width, mlp), tanh, Linear(mlp, f).

    Args:
        length: p, prompt length in vectors.
        kv_sizes: for each of the l prompted layers its key/value heads h and their size k.
        width: d, width of the MLP's embedding; unused without one.
        mlp: hidden size of the MLP, 0 for none.
        scaled: multiply each block by its own `scale`, which is measured (`measure`) and not trained. What is trained
            is then in units of the layer's own keys and values, and so are the steps that Adam takes.
        std: standard deviation of the table at its start, before `scale`; None for the authors' start, where it is
            0.02 for a flat table, and for an MLP that of each of its matrices.
    """

    def __init__(
        self,
        length: int,
        kv_sizes: Sequence[tuple[int, int]],
        width: int = 0,
        mlp: int = 0,
        scaled: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.kv_sizes = tuple(kv_sizes)
        self.mlp: nn.Sequential | None = None
        self.scale: Float[Tensor, "l two"] | None
        self.register_buffer("scale", torch.ones(len(self.kv_sizes), 2) if scaled else None)
        features = sum(self.features)
        if mlp:
            self.embedding = nn.Parameter(torch.empty(length, width))
            self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.Tanh(), nn.Linear(mlp, features))
        else:
            self.flat = nn.Parameter(torch.empty(length, features))
        for value in self.parameters():
            nn.init.zeros_(value) if value.ndim == 1 else nn.init.normal_(value, std=AUTHORS)
        if std is not None:
            last: Tensor = self.flat if self.mlp is None else self.mlp[-1].weight  # type: ignore[assignment]
            with torch.no_grad():  # the table is linear in it
                last.mul_(std / (AUTHORS if self.mlp is None else self.table().std()))

    def table(self) -> Float[Tensor, "p f"]:
        """The flat table, computed by the MLP if there is one, in absolute units."""
        table = self.flat if self.mlp is None else self.mlp(self.embedding)
        return table if self.scale is None else table * self._columns()

    def _columns(self) -> Float[Tensor, " f"]:
        """The scale of each column of the table; 1 for a table in absolute units."""
        if self.scale is None:
            return self.flat.new_ones(1)
        return torch.cat([s.repeat_interleave(h * k) for s, (h, k) in zip(self.scale, self.kv_sizes, strict=True)])

    @property
    def features(self) -> list[int]:
        """Columns of the table that each layer has."""
        return [2 * heads * size for heads, size in self.kv_sizes]

    def forward(self, n: int = 1, dropout: float = 0.0) -> KeysValues:
        """Keys and values, b = n; dropout is drawn anew for each of the n texts."""
        table = F.dropout(self.table().expand(n, -1, -1), dropout, training=dropout > 0)
        return tuple(
            layer.unflatten(2, (2, *size)).permute(2, 0, 3, 1, 4)
            for layer, size in zip(table.split(self.features, dim=2), self.kv_sizes, strict=True)
        )

    @torch.no_grad()
    def measure(self, tokens: KeysValues) -> None:
        """Set the scale of each layer's keys, and of its values, to their root mean square over these tokens."""
        assert self.scale is not None, "PrefixEncoder(scaled=True) has a scale"
        self.scale.copy_(torch.stack([layer.float().square().mean((1, 2, 3, 4)).sqrt() for layer in tokens]))

    @torch.no_grad()
    def set(self, prefix: KeysValues) -> None:
        """Write keys and values (b = 1), which are in absolute units, into the flat table."""
        table = torch.cat([layer[:, 0].permute(2, 0, 1, 3).flatten(1) for layer in prefix], dim=1)
        self.flat.copy_(table.to(self.flat) / self._columns())

    def folded(self) -> "PrefixEncoder":
        """The flat table itself in absolute units, trainable; this module where it is that already."""
        if self.mlp is None and self.scale is None:
            return self
        table = self.table().detach()
        with torch.device("meta"):  # nothing is initialised, so that no random numbers are drawn
            encoder = PrefixEncoder(len(table), self.kv_sizes)
        encoder.flat = nn.Parameter(table)
        return encoder


@final
class GatedPrefix(Reparameterized):
    """A prefix encoder and, with `gates` (layers, query heads), one gate for each, which starts at 0."""

    def __init__(self, encoder: PrefixEncoder, gates: tuple[int, int] | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.gate = None if gates is None else nn.Parameter(torch.zeros(gates))

    def folded(self) -> "GatedPrefix":
        """The same gates over the folded encoder."""
        prefix = GatedPrefix(self.encoder.folded(), None)
        prefix.gate = self.gate
        return prefix
