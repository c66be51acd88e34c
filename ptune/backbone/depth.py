"""`Depth`: a model's layers, of which the lower ones are left out where what they would compute is known."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor, nn

from ptune.backbone.traits import numbered
from ptune.prompts import Late

STATES = "hidden_states"
"""Name of a layer's first argument, where a model passes it by name."""


@final
class _Reached(Exception):
    """Ends a forward pass at the layer whose input is asked for."""


@final
class _Given(nn.Module):
    """Stands in for a layer below: returns the known hidden states in the form of the layer's output.

    Everything else that a model reads of its layers, such as the kind of their attention, is the layer's own.
    """

    def __init__(self, layer: nn.Module, output: Tensor | tuple[Tensor | None, ...]) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a submodule: its parameters are not part of this pass
        self.output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)

    def forward(self, *_: Any, **__: Any) -> Tensor | tuple[Tensor | None, ...]:
        return self.output


@final
class Depth:
    """The stack of a model's layers.

    Args:
        model: a Transformer without head, whose attention modules are numbered (`prefix_layer`).
        layers: their number.
    """

    def __init__(self, model: nn.Module, layers: int) -> None:
        self.place = _stack(model, layers)
        """The module that holds the list of layers, and the list's name in it; None where no list holds them."""
        self._tuple = 0
        """Number of values that a layer returns as a tuple, the hidden states first; 0 where it returns them alone."""

    def before(self, n: int, run: Callable[[], Any]) -> Tensor:
        """The hidden states "b t d" that enter layer n, from 0, in the forward pass that `run` makes."""
        assert self.place is not None
        found: list[Tensor] = []

        def reached(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            found.append(args[0] if args else kwargs[STATES])
            raise _Reached

        def returned(module: nn.Module, args: tuple, output: Any) -> None:
            self._tuple = len(output) if isinstance(output, tuple) else 0

        parent, name = self.place
        stack = getattr(parent, name)
        hooks = [
            stack[n].register_forward_pre_hook(reached, with_kwargs=True),
            stack[n - 1].register_forward_hook(returned),
        ]
        try:
            run()
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found[0]

    @contextmanager
    def begun(self, n: int, states: Tensor) -> Iterator[None]:
        """Let forward passes begin at layer n with these hidden states "b t d". For one thread at a time.

        `before` must have been called once: it has seen the form of what layers return.
        """
        assert self.place is not None
        parent, name = self.place
        stack = getattr(parent, name)
        output = (states, *[None] * (self._tuple - 1)) if self._tuple else states
        below = [_Given(layer, output) for layer in stack[:n]]  # type: ignore[arg-type]
        setattr(parent, name, nn.ModuleList([*below, *stack[n:]]))
        try:
            yield
        finally:
            setattr(parent, name, stack)


def without_slots(batch: dict[str, Tensor], columns: Iterable[str]) -> dict[str, Tensor]:
    """These columns "b t" of a batch without the tokens of the slots, of which each text has the same number."""
    kept = ~batch["slots"]
    return {name: batch[name][kept].view(len(kept), -1) for name in columns if name in batch}


def with_slots(hidden: Tensor, slots: Tensor) -> Tensor:
    """Hidden states "b t d" of a text without slots "b s" as "b s d", where they are 0 at the slots."""
    empty = hidden.new_zeros(*slots.shape, hidden.shape[2])
    return empty.masked_scatter(~slots[..., None], hidden)


def filled(states: Tensor, batch: dict[str, Tensor], late: Late) -> Tensor:
    """The hidden states "b t d" that enter the layer of a late prompt, with its vectors in the slots of the batch."""
    slots = batch["slots"]
    text = ~slots & batch["attention_mask"].bool() if "attention_mask" in batch else ~slots
    vectors = late.make(states, text).to(states.dtype).expand(len(slots), -1, -1)
    return states.masked_scatter(slots[..., None], vectors)


def _stack(model: nn.Module, layers: int) -> tuple[nn.Module, str] | None:
    """The module and the name in it of the list that holds the layers in their order; None where there is none."""
    for parent in model.modules():
        for name, stack in parent.named_children():
            if isinstance(stack, nn.ModuleList) and len(stack) == layers:
                numbers = [[attention.prefix_layer for attention in numbered(layer)] for layer in stack]
                if numbers == [[i] for i in range(layers)]:
                    return parent, name
    return None
