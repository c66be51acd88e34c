"""`Backbone`: a pretrained model that reads `Prompts`."""

import copy
import hashlib
from collections.abc import Collection
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

from ptune.backbone.attention import Attention, Visitor, attention_function
from ptune.backbone.families import QueryModel, adapt
from ptune.backbone.lm import LMHead, load
from ptune.backbone.pretrained import Dtype, Pool, describe, keep_layout, locate, precision, sentence_pooling
from ptune.backbone.traits import Traits
from ptune.errors import InputError
from ptune.prompts import KeysValues, Prompts

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a batch may hold that a model reads as it is."""
ALIGNED = (*INPUTS, "slots")
"""What has a value for every token."""


@final
class Backbone(nn.Module):
    """A pretrained model without head, in train mode, that reads `Prompts`; one forward pass at a time (no threads).

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
        parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]  # Gemma 3: text and pictures
        for part in filter(None, parts):
            part.use_cache = False
            if not dropout:
                # On the config, before the model exists: this reaches dropout kept as a float as well as nn.Dropout.
                for key, value in part.to_dict().items():
                    if "drop" in key and isinstance(value, float):
                        setattr(part, key, 0.0)
        # Of an encoder-decoder, the encoder: a decoder would need a text of its own. Some have a class and checkpoints
        # for it alone (T5, whose encoders' configs no longer say what they are part of: the config's class does).
        encoder_of_two = type(config).is_encoder_decoder
        apart = encoder_of_two and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
        options: dict[str, Any] = {
            "pretrained_model_name_or_path": locate(name),
            "config": config,
            "attn_implementation": attention_function(config, attention),
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
        keep_layout(self.model)
        self.train()  # from_pretrained returns eval mode
        if checkpointing:
            self._checkpoint()
        self.fingerprint = self._fingerprint(random=loading["missing_keys"])
        # Not `inputs_embeds`: some families read more from input ids (Gemma 3n and 4 an embedding for each layer).
        self._filled: tuple[Tensor, Tensor] | None = None
        self.model.get_input_embeddings().register_forward_hook(self._fill)
        elsewhere = attention in ("flex", "flash")  # and a look may be on the CPU still
        spare = attention_function(config, "sdpa") if elsewhere else None
        self.traits = Traits(self.model, self.spec, spare)
        self._choose_pooling(pool, trained_pooler=not loading["missing_keys"])
        if self.lm is not None and self.spec.lm == "causal" and not self.traits.causal:
            raise InputError(
                f"{self.spec.who}: its language model predicts words in an order of its own, which no template has; "
                "leave the template out, or choose another backbone."
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
                f"checkpointing: {self.spec.who} cannot recompute its activations; leave it out."
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
        return "last" if last or self.traits.causal else "first"

    def require_prefix(self) -> None:
        """Raise InputError unless every layer of this backbone consumes its own prefix exactly once a forward pass."""
        if self.traits.deaf:
            raise InputError(
                f"{self.spec.who} cannot be prompted in its layers: {self.traits.deaf}. Choose another backbone or a "
                "method without a prefix."
            )

    def require_shift(self) -> None:
        """Raise InputError unless a shift of the text's positions reaches this backbone."""
        if not self.traits.shifts:
            raise InputError(
                f"shift_positions: {self.spec.who} takes no positions from outside, so its text cannot be shifted; "
                "leave it out."
            )

    def require_packing(self) -> None:
        """Raise InputError unless packed texts do not see each other."""
        if not self.packs:
            raise InputError(
                f"position_ids: {self.spec.who} does not tell texts in one row apart by their positions; give each "
                "text a row of its own."
            )

    @property
    def packs(self) -> bool:
        """Whether texts may be packed into one row, told apart by `position_ids` that start again."""
        return self.attention != "flash" and self.traits.packs != "no"

    def unused(self, weights: dict[str, nn.Parameter]) -> set[str]:
        """Names of those `weights` that no output depends on, such as XLNet's `mask_emb`; found by their gradients."""
        with self.traits.still() as text, torch.enable_grad():
            batch = {"input_ids": text, "attention_mask": torch.ones_like(text)}
            if self.lm is not None and isinstance(self.model, QueryModel):
                batch["answer_at"] = torch.ones_like(text[:, :1])
            try:
                hidden = self.model(**batch, token_type_ids=torch.zeros_like(text)).last_hidden_state
            except TypeError:
                hidden = self.model(**batch).last_hidden_state
            output = hidden.sum() + self.pool(hidden, batch).sum()
            output = output if self.lm is None else output + self.lm_scores(hidden).sum()
            found = torch.autograd.grad(output, [*weights.values()], allow_unused=True)
        return {name for name, gradient in zip(weights, found, strict=True) if gradient is None}

    @property
    def room(self) -> int | None:
        """Tokens that fit into one input, shifted positions included; None where nothing limits them."""
        return None if self.spec.positions is None else self.spec.positions - self.traits.first_position

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

        `batch["slots"]` "b t" marks where `prompts.embeds` replace word embeddings. The ids there are not padding, and
        are read where a family takes more from ids (Gemma 3n's and 4's embeddings for each layer).
        `batch["position_ids"]` "b t" packs texts into rows: each text's positions start again at 0; InputError where
        the family would not see that. `batch["answer_at"]` "b a" are the places that a template's answer is read at,
        which XLNet must know.
        """
        prompts, mask = prompts or Prompts(), batch.get("attention_mask")
        if self.traits.padded == "aligned" and mask is not None and "position_ids" not in batch:
            rows, columns = (torch.arange(n, device=mask.device) for n in mask.shape)
            rows, start, t = rows[:, None], mask.int().argmax(1, keepdim=True), len(columns)
            moved = {key: batch[key][rows, (columns + start) % t] for key in ALIGNED if key in batch}
            if "answer_at" in batch:
                moved["answer_at"] = (batch["answer_at"] - start) % t
            hidden = self._read(batch | moved, prompts)[rows, (columns - start) % t]
        else:
            hidden = self._read(batch, prompts)
        return hidden if self.dtype == "fp32" else hidden.float()

    def _read(self, batch: dict[str, Tensor], prompts: Prompts) -> Float[Tensor, "b t d"]:
        traits, mask, packed = self.traits, batch.get("attention_mask"), batch.get("position_ids")
        inputs: dict[str, Any] = {key: batch[key] for key in INPUTS if key in batch}
        if packed is not None:
            self.require_packing()
            places = packed if mask is None else packed * mask  # a padding token is a text of its own
            inputs["attention_mask"] = traits.mask(places) if traits.packs == "by mask" else None  # else positions do
            inputs["position_ids"] = places + traits.first_position + prompts.shift
        elif (
            prompts.shift
            or (traits.padded == "told" and mask is not None)
            # RoBERTa counts the ids that are not padding, which a slot's may be.
            or (traits.first_position and prompts.embeds is not None)
        ):
            inputs["position_ids"] = traits.places(batch["input_ids"], mask) + prompts.shift
        if prompts.prefix is not None:
            self.require_prefix()
            inputs["prefix"] = prompts
        if "answer_at" in batch and isinstance(self.model, QueryModel):
            inputs["answer_at"] = batch["answer_at"]
        if prompts.embeds is not None:
            (b, t), p = batch["input_ids"].shape, prompts.embeds.shape[1]
            # masked_scatter reads on in order and ignores what is left over: a row of packed texts has slots for each.
            self._filled = batch["slots"], prompts.embeds.expand(b if packed is None else b * (t // p), -1, -1)
        try:
            hidden = self.model(**inputs).last_hidden_state
            if self._filled is not None:
                raise InputError(
                    f"{self.spec.who} does not look its words up where they are stored, so it reads no soft prompt; "
                    "use a prefix."
                )
        finally:
            self._filled = None
        return hidden

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
        with self.traits.still():
            self.model(input_ids=input_ids.to(self.model.device), prefix=visitor)
        return tuple(torch.stack(pair) for pair in zip(visitor.keys, visitor.values, strict=True))
