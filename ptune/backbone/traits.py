"""`Traits`: how a loaded model works, found by trying it on a text. Nothing here knows a family by its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ptune.backbone.attention import Visitor
from ptune.backbone.pretrained import BackboneSpec
from ptune.errors import InputError
from ptune.prompts import Prompts

PLACES = torch.tensor([[0.3, 0.8, 0.5, 0.2, 0.6, 0.4, 0.9, 0.3]])
"""Where in the vocabulary the tokens of a text are that tells how a model works; its ends are alike."""

PADDING = 2
"""Padding tokens put before it to see what they do."""

CLEAR = 0.1
"""What should make no difference makes less than this part of the difference that it would make."""


@final
class Traits:
    """What prompting a model depends on.

    Args:
        model: a Transformer without head, of an encoder-decoder the encoder.
        spec: its sizes.
        spare: name of an attention function that runs on every device, for models whose own does not.

    Raises:
        InputError: the model does not run on token ids alone.
    """

    deaf: str
    """Why its layers would not read a prefix; empty where each reads its own, once a forward pass."""
    first_position: int
    """Its number for the position of the first token: 0, or padding index + 1 (RoBERTa)."""
    padded: Literal["as is", "told", "aligned"]
    """What a text behind padding needs: nothing, to be told its positions, or to be moved to the edge of its row."""
    causal: bool
    """Whether a token sees nothing of what follows it."""
    packs: Literal["by positions", "by mask", "no"]
    """What keeps texts in one row from seeing each other: their positions, a mask they are given, or nothing."""

    def __init__(self, model: PreTrainedModel, spec: BackboneSpec, spare: str | None) -> None:
        self.model, self.spec, self.spare = model, spec, spare
        self.vocabulary = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
        pad = spec.config.get_text_config().pad_token_id
        self.pad = pad if pad is not None and 0 <= pad < self.vocabulary else None
        self.deaf = self._layers()
        with self.still() as text:
            both = torch.cat([text, text.flip(1)])
            states = self._read(both)
            self.first_position = self._first_position(both, states)
            self.padded = self._padded(text)
            self.causal = self._causal(states)
            self.packs = self._packs(both, states)

    @contextmanager
    def still(self) -> Iterator[Int[Tensor, "b t"]]:
        """A look at how the model works, without dropout and gradients: a text to try it on."""
        training, function = self.model.training, str(self.model.config._attn_implementation)
        self.model.eval()
        if self.spare is not None:
            self.model.set_attn_implementation(self.spare)
        try:
            with torch.no_grad():
                yield (PLACES * self.vocabulary).long().to(self.model.device)  # Lightning loads onto its own device
        finally:
            self.model.train(training)
            if self.spare is not None:
                self.model.set_attn_implementation(function)

    def _read(self, ids: Int[Tensor, "b t"], **inputs: Any) -> Float[Tensor, "b t d"]:
        return self.model(input_ids=ids, **inputs).last_hidden_state

    def _told(
        self, places: Int[Tensor, "#b t"], ids: Int[Tensor, "b t"], **inputs: Any
    ) -> Float[Tensor, "b t d"] | None:
        """What it reads at these positions; None where its forward knows no `position_ids`."""
        try:
            return self._read(ids, position_ids=places.expand(ids.shape), **inputs)
        except TypeError:
            return None

    def _layers(self) -> str:
        """Number the attention modules in the order they run; why a prefix would not reach each of them once."""
        visitor = Visitor()
        try:
            with self.still() as text:
                self.model(input_ids=text, prefix=visitor)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a family's own code raises
            if "prefix" not in str(error):  # else this family's forward takes no further keywords
                raise InputError(
                    f"{self.spec.who} does not run on tokens alone ({next(iter(str(error).splitlines()), '')}); choose "
                    "a text encoder or decoder."
                ) from error
        for layer, module in enumerate(visitor.modules):
            module.prefix_layer = layer  # type: ignore[assignment]
        layers = [
            module.prefix_layer if application is None else application
            for module, application in zip(visitor.modules, visitor.applications, strict=True)
        ]
        sizes, value_sizes = (tuple((x.shape[1], x.shape[3]) for x in xs) for xs in (visitor.keys, visitor.values))
        deaf = ""
        if layers != list(range(self.spec.layers)):
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
                deaf = f"its attention does not read the prefix in {missed[0]} to {missed[-1]}"
            else:
                times, modules = len(layers), len(set(visitor.modules))
                deaf = f"its {self.spec.layers} layers run {times} attentions in {modules} modules, not one each"
        elif sizes != self.spec.kv_sizes or value_sizes != sizes:
            keys, values, told = (sorted({*found}) for found in (sizes, value_sizes, self.spec.kv_sizes))
            deaf = f"its config says heads and head sizes {told}, but its keys have {keys} and its values {values}"
        return deaf

    def _landmark(self) -> dict[str, Prompts]:
        """A prefix, where the model reads one: where positions are relative, only it tells where a text stands."""
        if self.deaf:
            return {}
        layers = tuple(torch.ones(2, 1, h, 1, k, device=self.model.device) for h, k in self.spec.kv_sizes)
        for layer in layers:
            layer[..., ::2] = -1
        return {"prefix": Prompts(prefix=layers)}

    def _first_position(self, texts: Int[Tensor, "b t"], states: Float[Tensor, "b t d"]) -> int:
        t = texts.shape[1]
        if self.pad is None or self.spec.positions is None or self.pad + 1 + t > self.spec.positions:
            return 0
        gaps = {}
        for first in (0, self.pad + 1):
            told = self._told(torch.arange(first, first + t, device=texts.device)[None], texts)
            if told is None:
                return 0
            gaps[first] = float((told - states).norm())
        return min(gaps, key=gaps.__getitem__)

    def _padded(self, text: Int[Tensor, "b t"]) -> Literal["as is", "told", "aligned"]:
        ids, mask = F.pad(text, (PADDING, 0), value=self.pad or 0), F.pad(torch.ones_like(text), (PADDING, 0))
        inputs = {"attention_mask": mask, **self._landmark()}
        untold = self._read(ids, **inputs)[:, PADDING:]
        told = self._told(self.places(ids, mask), ids, **inputs)
        if told is not None and not torch.equal(told[:, PADDING:], untold):
            return "told"
        alone = self._read(text, **self._landmark())
        return "as is" if (untold - alone).norm() <= 1e-3 * alone.norm() else "aligned"  # which is never wrong

    def _causal(self, states: Float[Tensor, "two t d"]) -> bool:
        """By a text and its reverse: the token at both ends comes before everything else, or behind it."""
        first, last = ((states[0, i] - states[1, i]).norm() for i in (0, -1))
        return bool(first < CLEAR * last)

    def _packs(
        self, texts: Int[Tensor, "two t"], states: Float[Tensor, "two t d"]
    ) -> Literal["by positions", "by mask", "no"]:
        row, places = texts.view(1, -1), torch.arange(texts.shape[1], device=texts.device).repeat(1, 2)

        def gap(mask: Tensor | None) -> Tensor:
            told = self._told(places + self.first_position, row, attention_mask=mask)
            assert told is not None
            return (told.view(states.shape)[1] - states[1]).norm()

        try:
            together = gap(torch.ones_like(row))
            if gap(None) < CLEAR * together:
                return "by positions"
            config = self.spec.config.get_text_config()
            kinds = getattr(config, "layer_types", None) or ()
            window = getattr(config, "sliding_window", None) or "sliding_attention" in kinds
            # Masks of others are not as ours below.
            return "by mask" if self.causal and not window and gap(self.mask(places)) < CLEAR * together else "no"
        except (AssertionError, IndexError, RuntimeError, ValueError):  # no positions, too few, or a mask is "b t" only
            return "no"

    def places(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Int[Tensor, "b t"]:
        """Positions in the model's own counting; tokens left of the text stand where it starts."""
        places = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        if mask is not None:
            places = (places - mask.int().argmax(1, keepdim=True)).clamp(min=0)
        return places + self.first_position

    @cached_property
    def shifts(self) -> bool:
        """Whether a shift of the text's positions reaches the model."""
        with self.still() as text:
            places = self.places(text, None)
            here, there = (self._told(places + shift, text, **self._landmark()) for shift in (0, 1))
        return here is not None and there is not None and not torch.equal(here, there)

    def mask(self, places: Int[Tensor, "b t"]) -> Float[Tensor, "b 1 t t"]:
        """For a causal model, what is added to attention scores so that texts whose places start at 0 are apart."""
        text = (places == 0).cumsum(1)
        seen = (text[:, :, None] == text[:, None]).tril()
        hidden = torch.finfo(self.model.dtype).min
        return torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device).masked_fill(~seen, hidden)[:, None]
