"""Prefixes while they are trained: tables of keys and values, flat or computed by an MLP; vectors in front of the
layers' own projections; and gates over either.

Layout and initialisation are those of THUDM/P-tuning-v2 b1520c9, model/prefix_encoder.py, which PEFT has, too.
"""

from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        return table if self.scale is None else table * self.columns()

    def columns(self) -> Float[Tensor, " f"]:
        """The scale of each column of the table; 1 for a table in absolute units."""
        if self.scale is None:
            return self.flat.new_ones(1)
        return torch.cat([s.repeat_interleave(h * k) for s, (h, k) in zip(self.scale, self.kv_sizes, strict=True)])

    @property
    def features(self) -> list[int]:
        """Columns of the table that each layer has."""
        return [2 * heads * size for heads, size in self.kv_sizes]

    def forward(self) -> KeysValues:
        """Keys and values, b = 1."""
        return tuple(
            layer.unflatten(1, (2, 1, *size)).permute(1, 2, 3, 0, 4)
            for layer, size in zip(self.table().split(self.features, dim=1), self.kv_sizes, strict=True)
        )

    @torch.no_grad()
    def measure(self, tokens: KeysValues) -> None:
        """Set the scale of each layer's keys, and of its values, to their root mean square over these tokens."""
        assert self.scale is not None, "PrefixEncoder(scaled=True) has a scale"
        self.scale.copy_(torch.stack([layer.float().square().mean((1, 2, 3, 4)).sqrt() for layer in tokens]))

    @torch.no_grad()
    def set(self, prefix: KeysValues) -> None:
        """Write keys and values (b = 1), which are in absolute units, into the flat table."""
        self.flat.copy_(table_of(prefix).to(self.flat) / self.columns())

    def folded(self) -> "PrefixEncoder":
        """The flat table itself in absolute units, trainable; this module where it is that already."""
        if self.mlp is None and self.scale is None:
            return self
        return flat_encoder(self.table().detach(), self.kv_sizes)

    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """Each layer's part of the table, and of the gradient of what it is linear in, once there is one."""
        last: Tensor = self.flat if self.mlp is None else self.mlp[-1].weight  # type: ignore[assignment]
        found = {"prompt_norm": self.table().detach()}
        if last.grad is not None:
            found["prompt_grad_norm"] = last.grad if self.mlp is None else last.grad.T
        return {name: values.split(self.features, dim=1) for name, values in found.items()}


def table_of(prefix: KeysValues) -> Float[Tensor, "p f"]:
    """Keys and values (b = 1) in the layout of the flat table."""
    return torch.cat([layer[:, 0].permute(2, 0, 1, 3).flatten(1) for layer in prefix], dim=1)


def flat_encoder(table: Float[Tensor, "p f"], kv_sizes: Sequence[tuple[int, int]]) -> PrefixEncoder:
    """The encoder that trains this table."""
    with torch.device("meta"):  # nothing is initialised, so that no random numbers are drawn
        encoder = PrefixEncoder(len(table), kv_sizes)
    encoder.flat = nn.Parameter(table)
    return encoder


@final
class HiddenPrefix(Reparameterized):
    """p vectors for each of l layers in the space of what its attention reads, which the layer projects itself.

    The layer's own frozen projections make keys and values of them, so that a prefix is what p more tokens of the text
    could have been there. It has l p d numbers: half of those of a table where keys and values are as wide as the
    layer, and more than those of a table where fewer heads have keys (grouped queries).

    Args:
        length: p, prompt length in vectors.
        layers: l, the number of prompted layers.
        width: d, width of the layers.
        project: makes keys and values of the vectors of all l layers: `Layers.project` of a loaded backbone.
        scaled: multiply the vectors of each layer by its own `scale`, as in `PrefixEncoder`; it is the root mean square
            of what the layer's attention reads.
        std: standard deviation of the vectors at their start, before `scale`.
    """

    def __init__(
        self,
        length: int,
        layers: int,
        width: int,
        project: Callable[[Sequence[Tensor]], KeysValues],
        scaled: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.project = project
        self.scale: Float[Tensor, " l"] | None
        self.register_buffer("scale", torch.ones(layers) if scaled else None)
        self.vectors = nn.Parameter(torch.empty(layers, length, width))
        nn.init.normal_(self.vectors, std=AUTHORS if std is None else std)

    def inputs(self) -> Float[Tensor, "l p d"]:
        """The vectors in absolute units."""
        return self.vectors if self.scale is None else self.vectors * self.scale[:, None, None]

    def forward(self) -> KeysValues:
        """Keys and values, b = 1."""
        return self.project(self.inputs().unbind())

    @torch.no_grad()
    def measure(self, tokens: Sequence[Float[Tensor, "t d"]]) -> None:
        """Set the scale of each layer to the root mean square of what its attention reads of these tokens."""
        assert self.scale is not None, "HiddenPrefix(scaled=True) has a scale"
        self.scale.copy_(torch.stack([layer.float().square().mean().sqrt() for layer in tokens]))

    @torch.no_grad()
    def set(self, inputs: Sequence[Float[Tensor, "p d"]]) -> None:
        """Start from vectors of each layer, which are in absolute units."""
        scale = 1 if self.scale is None else self.scale[:, None, None]
        self.vectors.copy_(torch.stack([*inputs]).to(self.vectors) / scale)

    @torch.no_grad()
    def folded(self) -> PrefixEncoder:
        """The flat table of the keys and values that the vectors become, trainable."""
        prefix = self()
        return flat_encoder(table_of(prefix).float(), [(layer.shape[2], layer.shape[4]) for layer in prefix])

    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """Each layer's vectors, and their gradient, once there is one."""
        gradient = {} if self.vectors.grad is None else {"prompt_grad_norm": self.vectors.grad.unbind()}
        return {"prompt_norm": self.inputs().detach().unbind(), **gradient}


def dropout(prefix: KeysValues, n: int, rate: float) -> tuple[Float[Tensor, "two texts _ p _"], ...]:
    """What n texts keep of a prefix (b = 1), each number drawn for itself: 0, or else 1 / (1 - rate).

    A number takes 16 random bits, which on a CPU are a quarter of the time of `bernoulli_`; so the rate is the nearest
    of 65,536, and what is kept is as large as that one asks for.
    """
    sizes = [n * layer.numel() for layer in prefix]
    # Not by `random_`, which torch.compile cannot trace: behind the break in the graph the prefix got no gradient.
    bits = torch.randint(-(2**63), 2**63 - 1, (-(-sum(sizes) // 4),), device=prefix[0].device)
    dropped = min(round(rate * 2**16), 2**16 - 1)
    drawn = (bits.view(torch.int16)[: sum(sizes)] >= dropped - 2**15) * (2**16 / (2**16 - dropped))
    return tuple(own.view(2, n, *layer.shape[2:]) for own, layer in zip(drawn.split(sizes), prefix, strict=True))


@final
class GatedPrefix(Reparameterized):
    """A prefix encoder and, with `gates` (layers, query heads), one gate for each, which starts at 0."""

    def __init__(self, encoder: PrefixEncoder | HiddenPrefix, gates: tuple[int, int] | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.gate = None if gates is None else nn.Parameter(torch.zeros(gates))

    def folded(self) -> "GatedPrefix":
        """The same gates over the folded encoder."""
        prefix = GatedPrefix(self.encoder.folded(), None)
        prefix.gate = self.gate
        return prefix
