"""`Backbone`: a pretrained model that reads `Prompts`."""

import copy
import hashlib
import importlib.util
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
)

from ptune.attention import Attention, Visitor
from ptune.backbones import QueryModel, adapt
from ptune.errors import InputError
from ptune.lm import LMHead, load
from ptune.pretrained import Dtype, Pool, describe, locate, precision, sentence_pooling
from ptune.prompts import KeysValues, Prompts

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_PROBE = torch.tensor([[5, 6, 7, 8, 7, 6, 8, 5]])
"""A text that tells how a backbone works, whatever it says."""


def _attention_function(config: PretrainedConfig, attention: Attention) -> str | None:
    """The registered function for this family: eager where it has no SDPA, None where it has its attention built in.

    Raises InputError for flex and flash where the family, the machine or the installation lacks them.
    """
    if attention == "flash" and not torch.cuda.is_available():
        raise InputError("attention: 'flash' needs an NVIDIA GPU, and this machine shows none; use sdpa.")
    if attention == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise InputError("attention: 'flash' needs the package flash-attn; pip install flash-attn, or use sdpa.")
    family = MODEL_MAPPING.get(type(config), None)
    family = family[0] if isinstance(family, tuple) else family
    if attention in ("flex", "flash"):
        if not getattr(family, {"flex": "_supports_flex_attn", "flash": "_supports_flash_attn"}[attention], False):
            raise InputError(f"attention: {attention!r} is not there for model type {config.model_type!r}; use sdpa.")
        return {"flex": "ptune_flex", "flash": "ptune_fa2"}[attention]
    if family is None or not family._can_set_attn_implementation():
        return None
    return f"ptune_{attention if family._supports_sdpa else 'eager'}"


class Backbone(nn.Module):
    """A pretrained model without head, in train mode, that reads `Prompts`.

    Args:
        name: hub id, local folder or `package:NAME/PATH`.
        dropout: keep the checkpoint's dropout; False sets every dropout probability to 0. Never done through `eval()`:
            transformers checkpoints gradients in train mode only.
        checkpointing: recompute activations in the backward pass.
        attention: `sdpa`, `eager`, `flex` (on the CPU for inference alone) or `flash` (on a GPU).
        pool: how one vector is read from a text; `auto` takes what the checkpoint was trained with.
        dtype: `fp32`, or of weights that stay frozen `bf16`, `int8` or `int4`; hidden states are fp32 all the same.
        lm: keep the checkpoint's language-model head, as `lm`; without one it is refused.
    """

    def __init__(
        self,
        name: str,
        dropout: bool = False,
        checkpointing: bool = False,
        attention: Attention = "sdpa",
        pool: Pool = "auto",
        dtype: Dtype = "fp32",
        lm: bool = False,
    ) -> None:
        super().__init__()
        self.spec = describe(name)
        self.dtype, self.attention = dtype, attention
        config = copy.deepcopy(self.spec.config)  # models that share a config share its attention implementation
        config.use_cache = False
        if not dropout:
            # On the config, before the model exists: this reaches dropout kept as a float as well as nn.Dropout.
            for key, value in config.to_dict().items():
                if "drop" in key and isinstance(value, float):
                    setattr(config, key, 0.0)
        # Of an encoder-decoder, the encoder: a decoder would need a text of its own. Some have a class and checkpoints
        # for it alone (T5, whose encoders' configs no longer say what they are part of: the config's class does).
        encoder_of_two = type(config).is_encoder_decoder
        apart = encoder_of_two and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
        options: dict[str, Any] = {
            "pretrained_model_name_or_path": locate(name),
            "config": config,
            "attn_implementation": _attention_function(config, attention),
            "use_safetensors": True,
            "output_loading_info": True,
            **precision(dtype),
        }
        self.lm: LMHead | None = None
        try:
            if lm:
                self.model, self.lm, loading = load(self.spec, **options)
            else:
                auto = AutoModelForTextEncoding if apart else AutoModel
                self.model, loading = auto.from_pretrained(**options)
        except InputError:
            raise
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise InputError(f"backbone {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
        missing = [key for key in loading["missing_keys"] if not key.startswith("pooler.")]
        if missing:
            raise InputError(
                f"backbone {name!r}: its checkpoint lacks {len(missing)} weights (first: {missing[0]!r}), which "
                "would be random; give a complete checkpoint."
            )
        if encoder_of_two:
            self.model = self.model.get_encoder()
        adapt(self.model, config.model_type)
        if dtype != "fp32":
            self._lower()
        self.train()  # from_pretrained returns eval mode
        if checkpointing:
            self._checkpoint()
        self.fingerprint = self._fingerprint(random=loading["missing_keys"])
        # Not `inputs_embeds`: some families read more from input ids (Gemma 3n and 4 an embedding for each layer).
        self._filled: tuple[Tensor, Tensor] | None = None
        self.model.get_input_embeddings().register_forward_hook(self._fill)
        self._number_layers()
        self._placed = self._needs_positions()
        self._choose_pooling(pool, trained_pooler=not loading["missing_keys"])
        if self.lm is not None and self.spec.lm == "causal" and not self._causal():
            raise InputError(
                f"backbone {name!r} (model type {config.model_type!r}): its language model predicts words in an order "
                "of its own, which no template has; leave the template out, or choose another backbone."
            )

    def _lower(self) -> None:
        """Bring to bf16 what `from_pretrained` leaves: parameters made as fp32 outside of layers (XLNet, DeBERTa)."""
        kept = {*(self.model._keep_in_fp32_modules or ()), *(self.model._keep_in_fp32_modules_strict or ())}
        for name, value in self.model.named_parameters():
            if value.dtype == torch.float32 and not any(part in name for part in kept):
                value.data = value.data.bfloat16()

    def _checkpoint(self) -> None:
        model = self.model
        # The second is its name before transformers 5.23.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise InputError(
                f"checkpointing: backbone {self.spec.name!r} (model type {self.spec.config.model_type!r}) cannot "
                "recompute its activations; leave it out."
            ) from error
        model.disable_input_require_grads()  # reentrant checkpointing's need; it computes gradients nobody asked for

    def _choose_pooling(self, pool: Pool, trained_pooler: bool) -> None:
        pooler = getattr(self.model, "pooler", None)  # absent in most families, None in some
        self.pooler = pooler.float() if isinstance(pooler, nn.Module) and trained_pooler else None
        if pool == "auto":
            pool = sentence_pooling(self.spec.name) or self._family_pooling()
        if pool == "pooler" and self.pooler is None:
            raise InputError(
                f"pool: 'pooler', but the checkpoint {self.spec.name!r} has no trained one; choose first, mean or last."
            )
        if pool != "pooler":
            self.pooler = None
        if isinstance(pooler, nn.Module):
            # Applied in `pool`, or not at all: no work and no weights that nothing reads. None would not do everywhere.
            self.model.pooler = nn.Identity()
        self.pooling = pool

    def _family_pooling(self) -> Pool:
        if self.pooler is not None:
            return "pooler"
        config = self.spec.config
        last = getattr(config, "summary_type", None) == "last"  # XLNet: its [CLS] ends the text
        if type(config).is_encoder_decoder:
            return "mean"  # its encoder was trained to be attended to, not to sum up in one token (Sentence-T5)
        return "last" if last or self._causal() else "first"

    @contextmanager
    def _still(self) -> Iterator[Int[Tensor, "b t"]]:
        """A look at how the backbone works, without dropout and gradients: a text to try it on."""
        training, function = self.model.training, self.model.config._attn_implementation
        self.model.eval()
        if self.attention in ("flex", "flash"):  # a look may be on the CPU still
            self.model.set_attn_implementation(_attention_function(self.spec.config, "sdpa"))
        try:
            with torch.no_grad():
                yield _PROBE.to(self.model.device)  # Lightning loads onto its own device
        finally:
            self.model.train(training)
            if self.attention in ("flex", "flash"):
                self.model.set_attn_implementation(function)

    def _causal(self) -> bool:
        """Whether a token sees nothing of what follows it."""
        if self.dtype != "fp32" and self._attentions:
            # Which columns LLM.int8() leaves in 16 bits, all tokens decide, and so for rounding: believe the layers.
            return all(getattr(module, "is_causal", False) for module in self._attentions)
        with self._still() as probe:
            one, other = (self.model(input_ids=ids).last_hidden_state[0, 0] for ids in (probe, probe.flip(1)))
        slack = 1e-5 if self.dtype == "fp32" else 0.02  # experts (Mixtral) compute all their tokens in one product
        return bool((one - other).norm() <= slack * one.norm())

    def _number_layers(self) -> None:
        """Number the attention modules in the order they run, and find the layers the keyword does not reach."""
        visitor = Visitor()
        self._attentions = visitor.modules
        try:
            with self._still() as probe:
                self.model(input_ids=probe, prefix=visitor)
        except (TypeError, ValueError) as error:
            if "prefix" not in str(error):  # else this family's forward takes no further keywords
                raise InputError(
                    f"backbone {self.spec.name!r} (model type {self.spec.config.model_type!r}) does not run on tokens "
                    f"alone ({str(error).splitlines()[0]}); choose a text encoder or decoder."
                ) from error
        for layer, module in enumerate(visitor.modules):
            module.prefix_layer = layer  # type: ignore[assignment]
        layers = [
            module.prefix_layer if application is None else application
            for module, application in zip(visitor.modules, visitor.applications, strict=True)
        ]
        sizes = tuple((key.shape[1], key.shape[3]) for key in visitor.keys)
        value_sizes = tuple((value.shape[1], value.shape[3]) for value in visitor.values)
        self.deaf = ""
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
                self.deaf = f"its attention does not read the prefix in {missed[0]} to {missed[-1]}"
            else:
                times, modules = len(layers), len(set(visitor.modules))
                self.deaf = f"its {self.spec.layers} layers run {times} attentions in {modules} modules, not one each"
        elif sizes != self.spec.kv_sizes or value_sizes != sizes:
            keys, values, told = (sorted({*found}) for found in (sizes, value_sizes, self.spec.kv_sizes))
            self.deaf = f"its config says heads and head sizes {told}, but its keys have {keys} and its values {values}"

    def require_prefix(self) -> None:
        """Raise InputError unless every layer of this backbone consumes its own prefix exactly once a forward pass."""
        if self.deaf:
            raise InputError(
                f"backbone {self.spec.name!r} (model type {self.spec.config.model_type!r}) cannot be prompted in its "
                f"layers: {self.deaf}. Choose another backbone or a method without a prefix."
            )

    def require_shift(self) -> None:
        """Raise InputError unless a shift of the text's positions reaches this backbone."""
        spec, prompts = self.spec, self._landmark()
        try:
            with self._still() as probe:
                here, there = (self({"input_ids": probe}, replace(prompts, shift=shift)) for shift in (0, 1))
            moved = not torch.equal(here, there)
        except TypeError:  # its forward knows no position_ids
            moved = False
        if not moved:
            raise InputError(
                f"shift_positions: backbone {spec.name!r} (model type {spec.config.model_type!r}) takes no positions "
                "from outside, so its text cannot be shifted; leave it out."
            )

    def _landmark(self) -> Prompts:
        """A prefix, where the family reads one: only it tells where a text stands if positions are relative."""
        if self.deaf:
            return Prompts()
        layers = tuple(torch.ones(2, 1, h, 1, k, device=self.model.device) for h, k in self.spec.kv_sizes)
        for layer in layers:
            layer[..., ::2] = -1
        return Prompts(prefix=layers)

    def _needs_positions(self) -> bool:
        """Whether a text behind padding stands too far right unless its positions are given."""
        pad = self.spec.config.get_text_config().pad_token_id or 0
        with self._still() as probe:
            ids, mask = F.pad(probe, (2, 0), value=pad), F.pad(torch.ones_like(probe), (2, 0))
            inputs = {"input_ids": ids, "attention_mask": mask} | ({} if self.deaf else {"prefix": self._landmark()})
            positions = self._places({"input_ids": ids, "attention_mask": mask}, shift=0)
            try:
                told = self.model(**inputs, position_ids=positions).last_hidden_state
            except TypeError:  # its forward knows no position_ids
                return False
            return not torch.equal(told[:, 2:], self.model(**inputs).last_hidden_state[:, 2:])

    def _places(self, batch: dict[str, Tensor], shift: int) -> Int[Tensor, "b t"]:
        """Positions in the family's own counting; tokens left of the text stand where it starts."""
        b, t = batch["input_ids"].shape
        places = torch.arange(t, device=batch["input_ids"].device).expand(b, t)
        if (mask := batch.get("attention_mask")) is not None:
            places = (places - mask.int().argmax(1, keepdim=True)).clamp(min=0)
        return places + shift + self.first_position

    @cached_property
    def packs(self) -> bool:
        """Whether texts in one row, told apart by positions that start again, do not see each other."""
        if self.attention == "flash":
            return False
        with self._still() as probe:
            one, t = probe.flip(1), probe.shape[1]
            positions = torch.arange(t, device=probe.device).repeat(2)[None] + self.first_position
            try:
                packed = self.model(input_ids=torch.cat([probe, one], dim=1), position_ids=positions)
            except TypeError:
                return False
            alone, packed = self.model(input_ids=one).last_hidden_state, packed.last_hidden_state[:, t:]
        slack = 1e-3 if self.dtype == "fp32" else 0.05
        return bool((packed - alone).norm() <= slack * alone.norm())

    def require_packing(self) -> None:
        """Raise InputError unless packed texts do not see each other."""
        if not self.packs:
            raise InputError(
                f"position_ids: backbone {self.spec.name!r} (model type {self.spec.config.model_type!r}) does not tell "
                "texts in one row apart by their positions; give each text a row of its own."
            )

    def unread(self, weights: dict[str, nn.Parameter]) -> set[str]:
        """Names of those `weights` that no output depends on, such as XLNet's `mask_emb`; found by their gradients."""
        with self._still() as probe, torch.enable_grad():
            batch = {"input_ids": probe, "attention_mask": torch.ones_like(probe)}
            if self.lm is not None and isinstance(self.model, QueryModel):
                batch["answer_at"] = torch.ones_like(probe[:, :1])
            try:
                hidden = self.model(**batch, token_type_ids=torch.zeros_like(probe)).last_hidden_state
            except TypeError:
                hidden = self.model(**batch).last_hidden_state
            output = hidden.sum() + self.pool(hidden, batch).sum()
            output = output if self.lm is None else output + self.lm_scores(hidden).sum()
            found = torch.autograd.grad(output, [*weights.values()], allow_unused=True)
        return {name for name, gradient in zip(weights, found, strict=True) if gradient is None}

    @cached_property
    def first_position(self) -> int:
        """The family's number for the position of the first token: 0, or padding index + 1 (RoBERTa); found by trying."""
        pad = self.spec.config.get_text_config().pad_token_id
        with self._still() as probe:
            t = probe.shape[1]
            if pad is None or self.spec.positions is None or pad + 1 + t > self.spec.positions:
                return 0
            plain, gaps = self.model(input_ids=probe).last_hidden_state, {}
            for first in (0, pad + 1):
                places = torch.arange(first, first + t, device=probe.device)[None]
                try:
                    told = self.model(input_ids=probe, position_ids=places).last_hidden_state
                except TypeError:  # its forward knows no position_ids
                    return 0
                gaps[first] = float((told - plain).norm())
        return min(gaps, key=gaps.__getitem__)

    @property
    def room(self) -> int | None:
        """Tokens that fit into one input, shifted positions included; None where nothing limits them."""
        return None if self.spec.positions is None else self.spec.positions - self.first_position

    def _fingerprint(self, random: Collection[str]) -> str:
        """16 hex digits of names, shapes and the first values of all weights: the same weights, the same backbone.

        `random` weights, which the checkpoint lacks and nothing reads, are left out. Other weights than fp32 say so.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            if name in random:
                continue
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.flatten()[:256].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16] + ("" if self.dtype == "fp32" else f"-{self.dtype}")

    def embed(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """Word embeddings alone, before positions, types and normalisation."""
        return self.model.get_input_embeddings()(input_ids)

    def _fill(self, words: nn.Module, inputs: tuple, output: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        """Hook of the word embeddings: put vectors into the slots of a forward pass that has some."""
        if self._filled is None:
            return output
        (slots, vectors), self._filled = self._filled, None
        slots = F.pad(slots, (0, output.shape[1] - slots.shape[1]))  # Longformer pads texts to its window
        return output.masked_scatter(slots[..., None], vectors.to(output.dtype))

    def forward(self, batch: dict[str, Tensor], prompts: Prompts | None = None) -> Float[Tensor, "b t d"]:
        """Last hidden states of every token, in fp32 for weights of another `dtype`.

        `batch["slots"]` "b t" marks where `prompts.embeds` replace word embeddings, whatever ids stand there.
        `batch["position_ids"]` "b t" packs texts into rows: each text's positions start again at 0; InputError where
        the family would not see that. `batch["answer_at"]` "b a" are the places that a template's answer is read at,
        which XLNet must know.
        """
        inputs: dict[str, Any] = {key: batch[key] for key in INPUTS if key in batch}
        prompts = prompts or Prompts()
        mask, packed = batch.get("attention_mask"), batch.get("position_ids")
        if packed is not None:
            self.require_packing()
            inputs.pop("attention_mask", None)  # transformers looks at positions only without one
            places = packed if mask is None else packed * mask  # a padding token is a text of its own
            inputs["position_ids"] = places + prompts.shift + self.first_position
        elif (
            prompts.shift or (self._placed and mask is not None) or (self.first_position and prompts.embeds is not None)
        ):
            # RoBERTa counts the ids that are not padding, which a slot's may be.
            inputs["position_ids"] = self._places(batch, prompts.shift)
        if prompts.embeds is not None:
            (b, t), p = batch["input_ids"].shape, prompts.embeds.shape[1]
            # masked_scatter reads on in order and ignores what is left over: a row of packed texts has slots for each.
            self._filled = batch["slots"], prompts.embeds.expand(b if packed is None else b * (t // p), -1, -1)
        if prompts.prefix is not None:
            self.require_prefix()
            inputs["prefix"] = prompts
        if "answer_at" in batch and isinstance(self.model, QueryModel):
            inputs["answer_at"] = batch["answer_at"]
        try:
            hidden = self.model(**inputs).last_hidden_state
            if self._filled is not None:
                raise InputError(
                    f"backbone {self.spec.name!r} (model type {self.spec.config.model_type!r}) does not look its words "
                    "up where they are stored, so it reads no soft prompt; use a prefix."
                )
        finally:
            self._filled = None
        return hidden if self.dtype == "fp32" else hidden.float()

    def lm_scores(
        self, hidden: Float[Tensor, "... d"], words: Int[Tensor, " u"] | None = None
    ) -> Float[Tensor, "... u"]:
        """Scores that the language-model head gives to words (token ids; None: all) at chosen hidden states."""
        assert self.lm is not None, "Backbone(lm=True) keeps the head"
        return self.lm(hidden, words)

    def pool(self, hidden: Float[Tensor, "b t d"], batch: dict[str, Tensor]) -> Float[Tensor, "b d"]:
        """One vector a text, as `pooling` says; prompt slots are not text and do not enter the mean."""
        mask: Bool[Tensor, "b t"] = batch["attention_mask"].bool()
        match self.pooling:
            case "pooler" if self.pooler is not None:
                if isinstance(self.pooler, nn.Linear):  # ALBERT, BigBird: the other half of it is theirs
                    return torch.tanh(self.pooler(hidden[:, 0]))
                return self.pooler(hidden)
            case "first":
                index = mask.int().argmax(1)
            case "last":
                index = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
            case _:
                if "slots" in batch:
                    mask = mask & ~batch["slots"]
                weights = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
                return torch.einsum("bt,btd->bd", weights, hidden)
        return hidden[torch.arange(len(hidden), device=hidden.device), index]

    def keys_values(self, input_ids: Int[Tensor, "b t"]) -> KeysValues:
        """Keys and values that real tokens have in every layer."""
        self.require_prefix()
        visitor = Visitor()
        with self._still():
            self.model(input_ids=input_ids.to(self.model.device), prefix=visitor)
        return tuple(torch.stack(pair) for pair in zip(visitor.keys, visitor.values, strict=True))
