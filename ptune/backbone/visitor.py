"""`Visitor`: what the layers of a model read and make in one forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn


@final
@dataclass(frozen=True)
class Visitor:
    """Takes the place of a prefix in one forward pass and records the attention modules in the order they run.

    With it a backbone numbers its layers (DistilBERT does not), checks that the keyword reaches every layer, reads the
    inputs, keys and values of real tokens, and turns vectors into keys and values.
    """

    put: Mapping[int, Float[Tensor, "t d"]] = field(default_factory=dict)
    """Vectors that the attention of a layer reads in place of its input, by the layer's number; no attention is
    computed then, since the pass is for the keys and values alone."""
    modules: list[nn.Module] = field(default_factory=list)
    applications: list[int | None] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    """What each attention module read, as its family lays it out; recorded where `Layers` watches."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    application: int | None = None
    """As in `Prompts`."""

    def enter(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Record the input of an attention module that is about to run; return its arguments where `put` changes them.

        A text of one row is "1 t d" in most families and "t 1 d" in XLNet, which is the same order of numbers.
        """
        hidden = args[0] if args else kwargs["hidden_states"]
        self.inputs.append(hidden)
        layer = module.prefix_layer if self.application is None else self.application
        if layer not in self.put:
            return None
        vectors = self.put[layer].to(hidden.dtype).view(hidden.shape)  # type: ignore[index]
        return ((vectors, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": vectors})

    def at(self, module: nn.Module, key: Tensor, value: Tensor) -> None:
        """Record the module and its keys and values "b h t k"; there is no prefix."""
        self.modules.append(module)
        self.applications.append(self.application)
        self.keys.append(key)
        self.values.append(value)
