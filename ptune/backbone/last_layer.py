"""The last layer, computed for the tokens that are read of it and not for all.

Attention of the last layer needs the keys and values of all tokens. What follows it works token by token: the output
projection, the feed-forward block and the normalisations, three quarters of a layer's arithmetic. In families of BERT's
layout one module adds the residual to the projected attention. A hook hands it the tokens that are read, and all behind
it see no others. Which module that is, and whether the result is the same, is measured on a probe text.
"""

from collections.abc import Callable
from itertools import dropwhile

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ptune.backbone.state import CURRENT


def behind_attention(model: nn.Module, layers: int, run: Callable[[], Float[Tensor, "b t d"]]) -> str:
    """Name of the first module behind the attention of the last layer that is given two tensors "b t d".

    Args:
        model: a Transformer without head, whose attention modules are numbered (`prefix_layer`).
        layers: their number.
        run: makes a forward pass of the probe text and returns its last hidden states.

    Returns:
        The name; empty where there is no such module, or where its tokens cannot be left out.
    """
    calls: list[tuple[nn.Module, tuple]] = []

    def note(module: nn.Module, args: tuple) -> None:
        calls.append((module, args))

    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        whole = run()
    finally:
        for hook in hooks:
            hook.remove()
    behind = dropwhile(lambda call: vars(call[0]).get("prefix_layer") != layers - 1, calls)
    names = {module: name for name, module in model.named_modules()}
    found = next((names[module] for module, args in behind if _shapes(args) == [whole.shape] * 2), "")
    return found if found and _serves(model, found, run, whole) else ""


def _shapes(args: tuple) -> list[torch.Size | None]:
    """The shapes of a call's arguments, None for one that is no tensor."""
    return [x.shape if isinstance(x, Tensor) else None for x in args]


def _serves(
    model: nn.Module, name: str, run: Callable[[], Float[Tensor, "b t d"]], whole: Float[Tensor, "b t d"]
) -> bool:
    """Whether the hook at this module gives the states of the tokens that are read, here of two, and no others."""
    b, t, d = whole.shape
    places = torch.tensor([[0, t - 2]], device=whole.device).expand(b, 2)
    hook, CURRENT.read = model.get_submodule(name).register_forward_pre_hook(_take), places
    try:
        part = run()
    except (IndexError, RuntimeError, ValueError):  # a family that expects all tokens fails on the shapes
        return False
    finally:
        hook.remove()
        CURRENT.read = None
    same = part.shape == (b, 2, d)
    return same and torch.allclose(part, taken(whole, places), atol=1e-5, rtol=1e-4)


def compute_read(model: nn.Module, name: str) -> None:
    """Let the module of this name, and all behind it, compute the tokens of `CURRENT.read` alone.

    The layer around it is not checkpointed: the backward pass begins with it, so that to repeat it would save no
    memory, and `CURRENT.read` is forgotten by then.
    """
    parts = name.split(".")
    for around in (model.get_submodule(".".join(parts[:n])) for n in range(1, len(parts))):
        if isinstance(around, GradientCheckpointingLayer):
            around.gradient_checkpointing = False
    model.get_submodule(name).register_forward_pre_hook(_take)


def _take(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    places = CURRENT.read
    return None if places is None else tuple(taken(states, places) for states in args)


def taken(states: Float[Tensor, "b t d"], places: Int[Tensor, "b a"]) -> Float[Tensor, "b a d"]:
    """The states of the tokens at these places."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))


def placed(states: Float[Tensor, "b a d"], places: Int[Tensor, "b a"], t: int) -> Float[Tensor, "b t d"]:
    """The states at their places in a text of t tokens, 0 elsewhere; a place that is there twice has equal states."""
    b, _, d = states.shape
    # The gradient of `scatter` would reach each of the equal states, so that it counted as often as its place is there.
    again = (places[:, :, None] == places[:, None]).tril(-1).any(2)
    once = torch.where(again[..., None], states.detach(), states)
    return states.new_zeros(b, t, d).scatter(1, places[..., None].expand(-1, -1, d), once)
