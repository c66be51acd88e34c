"""`Prompts`: the value that every method produces and every backbone reads.

Letters used everywhere: b batch, t tokens, p prompt length, d width, l layers, h (key/value) heads, k head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

KeysValues = tuple[Float[Tensor, "two b _ p _"], ...]
"""Key (0) and value (1) "b h p k" of each layer; layers may differ in h and k."""


@final
@dataclass(frozen=True)
class InputGate:
    """Weights of a layer's prefix vectors that the layer's own input decides, one set for each text.

    The weight of vector j in layer i is `scale_i mean_t sigmoid(h_t W_i)_j`, where h are the t hidden states "t d" that
    the attention of the layer reads. It multiplies the vector's key and its value.
    """

    weight: Float[Tensor, "l d j"]
    """W of each layer; j is p, or 1 for one weight of all vectors."""
    scale: Float[Tensor, " l"]

    def of(
        self, entry: int, hidden: Float[Tensor, "b t d"], text: Int[Tensor, "b t"] | None
    ) -> Float[Tensor, "b 1 j 1"]:
        """The weights of a layer, `entry` among the prompted ones; `text` is 0 at padding, which has no say."""
        weights = torch.sigmoid(hidden.to(self.weight.dtype) @ self.weight[entry])
        mean = weights.mean(1) if text is None else (weights * text[..., None]).sum(1) / text.sum(1, keepdim=True)
        return (self.scale[entry] * mean)[:, None, :, None]


@final
@dataclass(frozen=True)
class Late:
    """A soft prompt that enters at a layer above the input; the layers below read the text without slots."""

    layer: int
    """The layer, from 1, whose input has the vectors in the slots."""
    make: Callable[[Float[Tensor, "b t d"], Bool[Tensor, "b t"]], Float[Tensor, "n p d"]]
    """Gives the vectors, n = 1 or b, of the hidden states that enter the layer and of where the text is in them."""


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
    kept: tuple[Float[Tensor, "two texts _ p _"], ...] | None = None
    """Dropout of the prefix: what its keys and values are multiplied by, of the form of `prefix` with b the batch."""
    gate: Float[Tensor, "l heads"] | None = None
    """One gate a query head of every prompted layer."""
    layers: tuple[int, ...] | None = None
    """The layer each entry of `prefix` or `memory` belongs to; None: entry i is layer i."""
    shift: int = 0
    """Added to the position ids of the text: p where a prefix occupies positions, as the P-Tuning v2 authors' does."""
    application: int | None = None
    """The layer that a module computes now, set by a backbone whose layers are one module (ALBERT)."""
    late: Late | None = None
    """What fills the slots at a layer above the input, in place of `embeds`."""
    input_gate: InputGate | None = None
    """Weights of the prefix's vectors that are computed from what each prompted layer reads."""
    text: Int[Tensor, "texts t"] | None = None
    """Where the batch has text, for `input_gate`; set by a backbone."""
    weights: Float[Tensor, "texts 1 j 1"] | None = None
    """What `input_gate` gives for the layer that runs now; set by a backbone."""
    memory: tuple[Float[Tensor, "heads _ _"], ...] | None = None
    """For every prompted layer a matrix M "k k" a query head, which adds φ(q)ᵀM to what the head's query q attends to;
    φ(x) is elu(x) (Prefix-Tuning+, Wang et al. 2025)."""
    added: Float[Tensor, "rows t e"] | None = None
    """Added to the word embeddings of the t tokens of the input, slots among them; there are 1 or b rows."""

    @property
    def of_one_text(self) -> bool:
        """Whether a row's prompts are made for the one text that it holds, so that packed texts cannot have them."""
        own = self.embeds is not None and len(self.embeds) > 1
        return own or any(part is not None for part in (self.late, self.input_gate, self.added))

    def entered(self, module: nn.Module, hidden: Float[Tensor, "b t d"]) -> "Prompts":
        """These prompts for an attention module that is about to read these hidden states."""
        entry = self._entry(module)
        if self.input_gate is None or entry is None:
            return self
        return replace(self, weights=self.input_gate.of(entry, hidden, self.text))

    def at(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Prefix keys "b h p k", values "b h p k" and gate "heads" of this attention module, None if it has none."""
        entry = self._entry(module)
        if self.prefix is None or entry is None:
            return None
        keys, values = self.prefix[entry]
        if self.kept is not None:
            # Here, where they fit into the processor's cache, and not for all layers at once.
            keys, values = keys * self.kept[entry][0], values * self.kept[entry][1]
        if self.weights is not None:
            keys, values = keys * self.weights, values * self.weights
        return (
            keys.to(key.dtype).expand(key.shape[0], -1, -1, -1),
            values.to(value.dtype).expand(value.shape[0], -1, -1, -1),
            None if self.gate is None else self.gate[entry].to(key.dtype),
        )

    def recalled(self, module: nn.Module, query: Float[Tensor, "b heads t k"]) -> Float[Tensor, "b t heads k"] | None:
        """What the memory of this attention module adds to the attention of its queries, None if it has none."""
        entry = self._entry(module)
        if self.memory is None or entry is None:
            return None
        return torch.einsum("bhtk,hkv->bthv", F.elu(query), self.memory[entry].to(query.dtype))

    def _entry(self, module: nn.Module) -> int | None:
        """The place of this attention module's layer among the prompted ones, None if it is not prompted."""
        layer: int = module.prefix_layer if self.application is None else self.application  # type: ignore[assignment]
        if self.layers is None:
            return layer
        return self.layers.index(layer) if layer in self.layers else None
