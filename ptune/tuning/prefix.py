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
    """

    def __init__(self, length: int, kv_sizes: Sequence[tuple[int, int]], width: int = 0, mlp: int = 0) -> None:
        super().__init__()
        self.kv_sizes = tuple(kv_sizes)
        self.mlp: nn.Sequential | None = None
        features = sum(self.features)
        if mlp:
            self.embedding = nn.Parameter(torch.empty(length, width))
            self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.Tanh(), nn.Linear(mlp, features))
        else:
            self.flat = nn.Parameter(torch.empty(length, features))
        for value in self.parameters():
            # transformers 4.11 re-initialised every module a checkpoint lacks: N(0, 0.02²), biases 0.
            nn.init.zeros_(value) if value.ndim == 1 else nn.init.normal_(value, std=0.02)

    def table(self) -> Float[Tensor, "p f"]:
        """The flat table, computed by the MLP if there is one."""
        return self.flat if self.mlp is None else self.mlp(self.embedding)

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
    def set(self, prefix: KeysValues) -> None:
        """Write keys and values (b = 1) into the flat table."""
        self.flat.copy_(torch.cat([layer[:, 0].permute(2, 0, 1, 3).flatten(1) for layer in prefix], dim=1))

    def folded(self) -> "PrefixEncoder":
        """The flat table itself, trainable; without an MLP, this module."""
        if self.mlp is None:
            return self
        table = self.table().detach()
        with torch.device("meta"):  # nothing is initialised, so that no random numbers are drawn
            encoder = PrefixEncoder(len(table), self.kv_sizes)
        encoder.flat = nn.Parameter(table)
        return encoder


@final
class GatedPrefix(Reparameterized):
    """A prefix encoder and, for `init: identity`, one zero gate a query head and layer."""

    def __init__(self, encoder: PrefixEncoder, gates: tuple[int, int] | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.gate = None if gates is None else nn.Parameter(torch.zeros(gates))

    def folded(self) -> "GatedPrefix":
        """The same gates over the folded encoder."""
        prefix = GatedPrefix(self.encoder.folded(), None)
        prefix.gate = self.gate
        return prefix
