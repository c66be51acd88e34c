"""`Prompts`: the value that every method produces and every backbone reads.

Letters used everywhere: b batch, t tokens, p prompt length, d width, l layers, h (key/value) heads, k head size.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

KeysValues = tuple[Float[Tensor, "two b _ p _"], ...]
"""Key (0) and value (1) "b h p k" of each layer; layers may differ in h and k."""


@final
@dataclass(frozen=True)
class Prompts:
    """What a method adds to a frozen backbone; a field that is None adds nothing.

    The batch axis of `prefix` is 1 (one prompt for all examples) or b. `gate` selects another mechanism, the
    zero-initialised attention of LLaMA-Adapter (Zhang et al. 2023): attention to the prefix is normalised by itself and
    added as `attn(q, K, V) + tanh(gate) * attn(q, Pk, Pv)`, so that a zero gate is the backbone itself.
    """

    embeds: Float[Tensor, "n s e"] | None = None
    """Vectors for the s prompt slots of the input, in the width of the word embeddings; n is 1 or b."""
    prefix: Float[Tensor, "l two b h p k"] | KeysValues | None = None
    """Keys and values of every prompted layer: a tuple of layers, or one tensor where all layers are of one size."""
    kept: KeysValues | None = None
    """Dropout of the prefix: what its keys and values are multiplied by, of the form of `prefix` with b the batch."""
    gate: Float[Tensor, "l heads"] | None = None
    """One gate a query head of every prompted layer."""
    layers: tuple[int, ...] | None = None
    """The layer each entry of `prefix` belongs to; None: entry i is layer i."""
    shift: int = 0
    """Added to the position ids of the text: p where a prefix occupies positions, as the P-Tuning v2 authors' does."""
    application: int | None = None
    """The layer that a module computes now, set by a backbone whose layers are one module (ALBERT)."""

    def at(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Prefix keys "b h p k", values "b h p k" and gate "heads" of this attention module, None if it has none."""
        layer: int = module.prefix_layer if self.application is None else self.application  # type: ignore[assignment]
        if self.layers is not None:
            if layer not in self.layers:
                return None
            layer = self.layers.index(layer)
        keys, values = self.prefix[layer]  # type: ignore[index]  # only Prompts with a prefix travel
        if self.kept is not None:
            # Here, where they fit into the processor's cache, and not for all layers at once.
            keys, values = keys * self.kept[layer][0], values * self.kept[layer][1]
        return (
            keys.to(key.dtype).expand(key.shape[0], -1, -1, -1),
            values.to(value.dtype).expand(value.shape[0], -1, -1, -1),
            None if self.gate is None else self.gate[layer].to(key.dtype),
        )
