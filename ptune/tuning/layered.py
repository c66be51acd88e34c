"""`Layered`: what methods share that prompt chosen layers inside the backbone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.tuning.companions import Accompanied


class Layered(Accompanied, ABC):
    """A prompt of some or all layers, which may be trained together with companions.

    Args:
        layers: Prompted layers: `all`, `last:N`, or a list of layer numbers from 0.
    """

    def __init__(self, layers: str | list[int] = "all", **common) -> None:
        super().__init__(**common)
        self.layers = chosen_layers(layers, self.spec.layers)

    @abstractmethod
    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """Each prompted layer's part of the prompt (`prompt_norm`) and of its gradient (`prompt_grad_norm`).

        The gradient is missing until there is one. The parts have any shape: their norms are logged under these names.
        """

    @property
    def kv_sizes(self) -> list[tuple[int, int]]:
        """Key/value heads and head size of each prompted layer."""
        return [self.spec.kv_sizes[layer] for layer in self.layers]

    @property
    def first_layer(self) -> int:
        """The first one of `layers`."""
        return min(self.layers)

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone whose layers would ignore the prompt: one that reads a prefix reads a memory, too."""
        super().prepare(backbone)
        backbone.require_prefix()

    def layer_norms(self) -> dict[str, Tensor]:
        """Norms of each layer's part of the prompt, and of its gradient, once there is one."""
        return {
            f"{name}/layer_{layer:02d}": part.norm()
            for name, parts in self.by_layer().items()
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
        if word != "last" or not number.isdecimal() or not 1 <= int(number) <= count:
            raise InputError(
                f"layers: {layers!r} is not `all`, `last:N` with N from 1 to {count}, or a list such as [0, 1]."
            )
        return tuple(range(count - int(number), count))
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(count)):
        raise InputError(f"layers: {layers} must name different layers from 0 to {count - 1}.")
    return tuple(sorted(layers))
