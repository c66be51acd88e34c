"""`Traits`: how a loaded model behaves, measured on a probe text. Nothing here knows a family by its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ptune.backbone.last_layer import behind_attention
from ptune.backbone.pretrained import BackboneSpec
from ptune.backbone.private import implementation_of
from ptune.backbone.visitor import Visitor
from ptune.errors import InputError
from ptune.prompts import Prompts

PROBE = torch.tensor([[0.3, 0.8, 0.5, 0.2, 0.6, 0.4, 0.9, 0.3]])
"""Token ids of the probe text, as fractions of the vocabulary. The first and the last are equal, so that the text and
its reverse have the same token at both ends."""

PADDING = 2
"""The number of padding tokens on the left of the padded probe."""

TOLERANCE = 0.1
"""Two outputs count as equal where they differ by less than this part of a change that is known to matter."""

OTHER_INPUTS = ("pixel_values", "input_features", "input_values")
"""Inputs of pictures and sounds, by transformers' names."""


_MEASURED: dict[tuple[Any, ...], tuple[Any, ...]] = {}
"""What was measured in this process, by all that decides it: a worker of a grid loads one backbone many times."""


def numbered(module: nn.Module) -> list[nn.Module]:
    """The attention modules in a module that `Traits` has numbered by their layer, as `prefix_layer`."""
    return [found for found in module.modules() if "prefix_layer" in vars(found)]


@final
class Traits:
    """What prompting a model depends on.

    Args:
        model: a Transformer without head, of an encoder-decoder the encoder.
        spec: its sizes.
        fallback_attention: name of an attention function that runs on every device, for a model whose own does not.
        fingerprint: that of its weights. What a process has measured of the same model is not measured again.

    Raises:
        InputError: the model needs another input besides token ids. Every other error of the model is raised as it is.
    """

    prefix_gap: str
    """Why the layers would not read a prefix; empty where each layer reads its own once in a forward pass."""
    first_position: int
    """The model's number for the position of the first token: 0, or padding index + 1 (RoBERTa)."""
    padding_mode: Literal["as is", "with positions", "aligned"]
    """What a text with padding on its left needs: nothing, its position ids, or a move to the left edge of its row."""
    causal: bool
    """Whether a token attends to no token that follows it."""
    packing: Literal["by positions", "by mask", "no"]
    """What keeps texts in one row apart: position ids that start again, an attention mask of ours, or nothing."""
    behind_attention: str
    """Name of the module from which on the last layer needs the tokens alone that are read; empty where none is."""

    def __init__(
        self, model: PreTrainedModel, spec: BackboneSpec, fallback_attention: str | None, fingerprint: str
    ) -> None:
        self.model, self.spec, self.fallback_attention = model, spec, fallback_attention
        self.vocabulary = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
        pad = spec.config.get_text_config().pad_token_id
        self.pad = pad if pad is not None and 0 <= pad < self.vocabulary else None
        self.prefix_gap = self._number_layers()
        how = fallback_attention or implementation_of(model), str(model.device)
        key = type(model), model.config.to_json_string(), fingerprint, *how
        if key not in _MEASURED:
            self._measure()
            _MEASURED[key] = self.first_position, self.padding_mode, self.causal, self.packing, self.behind_attention
        self.first_position, self.padding_mode, self.causal, self.packing, self.behind_attention = _MEASURED[key]

    def _measure(self) -> None:
        with self.probe() as text:
            both = torch.cat([text, text.flip(1)])
            states = self._read(both)
            self.first_position = self._first_position(both, states)
            self.padding_mode = self._padding_mode(text)
            self.causal = self._causal(states)
            self.packing = self._packing(both, states)
            self.behind_attention = behind_attention(
                self.model,
                self.spec.layers,
                lambda: self.model(input_ids=both).last_hidden_state,  # not `_read`, which has all tokens
            )

    @property
    def room(self) -> int | None:
        """The number of tokens that fit into one input; None where nothing limits it."""
        return None if self.spec.positions is None else self.spec.positions - self.first_position

    @contextmanager
    def probe(self) -> Iterator[Int[Tensor, "b t"]]:
        """The probe text, while the model is in eval mode and gradients are off; its mode is restored afterwards."""
        training, function = self.model.training, implementation_of(self.model)
        self.model.eval()
        if self.fallback_attention is not None:
            self.model.set_attn_implementation(self.fallback_attention)
        try:
            with torch.no_grad():
                yield (PROBE * self.vocabulary).long().to(self.model.device)  # Lightning loads onto its own device
        finally:
            self.model.train(training)
            if self.fallback_attention is not None:
                self.model.set_attn_implementation(function)

    def _read(self, ids: Int[Tensor, "b t"], **inputs: Any) -> Float[Tensor, "b t d"]:
        return self.model(input_ids=ids, **inputs).last_hidden_state

    def _with_positions(
        self, positions: Int[Tensor, "#b t"], ids: Int[Tensor, "b t"], **inputs: Any
    ) -> Float[Tensor, "b t d"] | None:
        """The hidden states at these position ids; None where the model's forward takes no `position_ids`."""
        try:
            return self._read(ids, position_ids=positions.expand(ids.shape), **inputs)
        except TypeError as error:
            if not unexpected(error, "position_ids"):
                raise
            return None

    def _number_layers(self) -> str:
        """Number the attention modules in the order they run; return why a prefix would not reach each one once.

        The number is an attribute of transformers' module: the attention function is given the module and nothing
        else that says which layer it computes, and torch.compile traces an attribute as a constant.
        """
        visitor = Visitor()
        try:
            with self.probe() as text:
                self.model(input_ids=text, prefix=visitor)
        except (TypeError, ValueError) as error:
            needed = next((name for name in OTHER_INPUTS if name in str(error)), None)
            if needed is not None:
                raise InputError(needs_other_input(self.spec, needed)) from error
            if not unexpected(error, "prefix"):
                raise
        for layer, module in enumerate(visitor.modules):
            module.prefix_layer = layer  # type: ignore[assignment]
        layers = [
            module.prefix_layer if application is None else application
            for module, application in zip(visitor.modules, visitor.applications, strict=True)
        ]
        if layers != list(range(self.spec.layers)):
            return self._layers_missed(visitor, len(layers))
        sizes, value_sizes = (tuple((x.shape[1], x.shape[3]) for x in xs) for xs in (visitor.keys, visitor.values))
        if sizes != self.spec.kv_sizes or value_sizes != sizes:
            keys, values, stated = (sorted({*found}) for found in (sizes, value_sizes, self.spec.kv_sizes))
            return f"its config says heads and head sizes {stated}, but its keys have {keys} and its values {values}"
        return ""

    def _layers_missed(self, visitor: Visitor, times: int) -> str:
        stacks = [
            (name, stack)
            for name, stack in self.model.named_modules()
            if isinstance(stack, nn.ModuleList) and len(stack) == self.spec.layers
        ]
        missed = [
            f"{name}.{i}"
            for name, stack in stacks[:1]
            for i, layer in enumerate(stack)
            if not set(layer.modules()) & set(visitor.modules)
        ]
        if missed:
            return f"its attention does not read the prefix in {missed[0]} to {missed[-1]}"
        return (
            f"its {self.spec.layers} layers run {times} attentions in {len(set(visitor.modules))} modules, not one each"
        )

    def _fixed_prefix(self) -> dict[str, Prompts]:
        """A prefix as a keyword, where the model reads one.

        With relative positions a shift of the whole text changes nothing by itself; a prefix, whose keys stay where
        they are, makes the shift visible.
        """
        if self.prefix_gap:
            return {}
        layers = tuple(torch.ones(2, 1, h, 1, k, device=self.model.device) for h, k in self.spec.kv_sizes)
        for layer in layers:
            layer[..., ::2] = -1
        return {"prefix": Prompts(prefix=layers)}

    def _first_position(self, texts: Int[Tensor, "b t"], states: Float[Tensor, "b t d"]) -> int:
        """Compare the hidden states without position ids to those at positions from 0 and from padding index + 1."""
        t = texts.shape[1]
        if self.pad is None or self.spec.positions is None or self.pad + 1 + t > self.spec.positions:
            return 0
        gaps = {}
        for first in (0, self.pad + 1):
            found = self._with_positions(torch.arange(first, first + t, device=texts.device)[None], texts)
            if found is None:
                return 0
            gaps[first] = float((found - states).norm())
        return min(gaps, key=gaps.__getitem__)

    def _padding_mode(self, text: Int[Tensor, "b t"]) -> Literal["as is", "with positions", "aligned"]:
        """Compare the padded probe with and without position ids, and with the probe alone."""
        ids, mask = F.pad(text, (PADDING, 0), value=self.pad or 0), F.pad(torch.ones_like(text), (PADDING, 0))
        inputs = {"attention_mask": mask, **self._fixed_prefix()}
        without = self._read(ids, **inputs)[:, PADDING:]
        given = self._with_positions(self.positions(ids, mask), ids, **inputs)
        if given is not None and not torch.equal(given[:, PADDING:], without):
            return "with positions"
        alone = self._read(text, **self._fixed_prefix())
        # A move to the left edge is right for every family, only slower: it is the choice where the outputs differ.
        return "as is" if (without - alone).norm() <= 1e-3 * alone.norm() else "aligned"

    def _causal(self, states: Float[Tensor, "two t d"]) -> bool:
        """Compare a text with its reverse: in a causal model the state of the first token, which is equal, is equal."""
        first, last = ((states[0, i] - states[1, i]).norm() for i in (0, -1))
        return bool(first < TOLERANCE * last)

    def _packing(
        self, texts: Int[Tensor, "two t"], states: Float[Tensor, "two t d"]
    ) -> Literal["by positions", "by mask", "no"]:
        """Compare a text that stands behind another in one row with the text in a row of its own."""
        row, t = texts.view(1, -1), texts.shape[1]
        positions = torch.arange(t, device=texts.device).repeat(1, 2)

        def gap(mask: Tensor | None) -> float | None:
            found = self._with_positions(positions + self.first_position, row, attention_mask=mask)
            return None if found is None else float((found.view(states.shape)[1] - states[1]).norm())

        together = gap(torch.ones_like(row))
        apart = None if together is None else gap(None)
        if together is None or apart is None:
            return "no"
        if apart < TOLERANCE * together:
            return "by positions"
        config = self.spec.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ()
        window = getattr(config, "sliding_window", None) or "sliding_attention" in kinds
        if not self.causal or window:
            return "no"  # our mask is causal and without a window
        try:
            masked = gap(self.mask(positions))
        except torch.OutOfMemoryError:
            raise
        except (IndexError, RuntimeError, ValueError):  # a family that expects a mask "b t" fails on the shape of ours
            return "no"
        return "by mask" if masked is not None and masked < TOLERANCE * together else "no"

    def positions(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Int[Tensor, "b t"]:
        """Position ids in the model's own counting; padding on the left of a text has those of its first token."""
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        if mask is not None:
            positions = (positions - mask.int().argmax(1, keepdim=True)).clamp(min=0)
        return positions + self.first_position

    @cached_property
    def shifts(self) -> bool:
        """Whether a shift of the text's position ids changes the hidden states."""
        with self.probe() as text:
            positions = self.positions(text, None)
            here, there = (self._with_positions(positions + shift, text, **self._fixed_prefix()) for shift in (0, 1))
        return here is not None and there is not None and not torch.equal(here, there)

    def mask(self, positions: Int[Tensor, "b t"]) -> Float[Tensor, "b 1 t t"]:
        """A causal mask, to be added to attention scores, that keeps packed texts apart: each starts at position 0."""
        text = (positions == 0).cumsum(1)
        seen = (text[:, :, None] == text[:, None]).tril()
        hidden = torch.finfo(self.model.dtype).min
        return torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device).masked_fill(~seen, hidden)[:, None]


def unexpected(error: Exception, keyword: str) -> bool:
    """Whether Python refused this keyword: some forward function has no such parameter and no `**kwargs`."""
    return isinstance(error, TypeError) and f"unexpected keyword argument {keyword!r}" in str(error)


def needs_other_input(spec: BackboneSpec, name: str) -> str:
    """The error sentence for a model whose input is not a text alone."""
    return f"{spec.who} does not run on token ids alone (it needs {name}); choose a text encoder or decoder."
