"""The feed-forward block of each layer, found by its sizes, and a module beside it."""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ptune.backbone.model import Backbone
from ptune.backbone.state import CURRENT
from ptune.backbone.traits import numbered
from ptune.errors import InputError


def feed_forward(backbone: Backbone) -> list[tuple[nn.Module, nn.Module]]:
    """The first and the last linear map of the feed-forward block of each layer.

    They are those outside of attention that leave the width d of the layer and that come back to it. Raises InputError
    for a backbone whose layers are no list, or have none or several of them, such as experts.
    """
    d, found = backbone.spec.width, []
    if backbone.depth.place is not None:
        parent, name = backbone.depth.place
        for layer in getattr(parent, name):
            inside = {part for attention in numbered(layer) for part in attention.modules()}
            outside = (part for part in layer.modules() if part not in inside)
            sizes = {part: size for part in outside if (size := shape(part)) is not None}
            first = [part for part, (n, m) in sizes.items() if n == d != m]
            last = [part for part, (n, m) in sizes.items() if n != d == m]
            if first and len(last) == 1:
                found.append((first[0], last[0]))
    if len(found) < backbone.spec.layers:
        raise InputError(
            f"also: 'adapter', but {backbone.spec.who} has not one feed-forward block a layer that can be found; "
            "leave it out."
        )
    return found


def shape(module: nn.Module) -> tuple[int, int] | None:
    """Features that a linear map reads and makes; None for another module. GPT-2's is a `Conv1D`."""
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else None


def put_beside(block: tuple[nn.Module, nn.Module], module: nn.Module) -> None:
    """Add `module(x)` to the output of a feed-forward block that reads x.

    The module becomes `beside` of the block's last linear map, so that its tensors are found there. Both hooks run in
    one forward pass of the layer, also where checkpointing repeats it.
    """
    first, last = block
    last.beside = module
    first.register_forward_pre_hook(_keep)
    last.register_forward_hook(_add)


def _keep(first: nn.Module, args: tuple[Tensor, ...]) -> None:
    CURRENT.feed_forward = args[0]


def _add(last: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    read, CURRENT.feed_forward = CURRENT.feed_forward, None
    return output + last.beside(read)  # type: ignore[operator]
