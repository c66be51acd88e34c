"""`Backbone`: a pretrained model that reads `Prompts`."""

from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone.aligned import INPUTS, aligned
from ptune.backbone.attention import Attention, attention_function
from ptune.backbone.depth import Depth, filled, with_slots, without_slots
from ptune.backbone.families import QueryModel
from ptune.backbone.last_layer import compute_read, placed
from ptune.backbone.layers import Layers
from ptune.backbone.loading import fingerprint, load_model, recompute
from ptune.backbone.pooling import pooled, pooled_place, take_pooling
from ptune.backbone.pretrained import Dtype, Pool, describe
from ptune.backbone.state import CURRENT
from ptune.backbone.traits import Traits, unexpected
from ptune.errors import InputError, first_line
from ptune.prompts import KeysValues, Prompts


@final
class Backbone(nn.Module):
    """A pretrained model without head, in train mode, that reads `Prompts`.

    Several threads may run forward passes of one backbone, but for those that begin above the first layer (`begin`, and
    late prompts), which put stand-ins into its list of layers. Its other methods may switch it to eval mode for a
    moment.

    Args:
        name: hub id, local folder or `package:NAME/PATH`.
        dropout: keep the checkpoint's dropout; False sets every dropout probability to 0. Never done through `eval()`:
            transformers checkpoints gradients in train mode only.
        checkpointing: recompute activations in the backward pass.
        attention: `sdpa`, `eager`, `flex` (on the CPU for inference alone) or `flash` (on a GPU).
        pool: how one vector is read from a text; `auto` takes what the checkpoint was trained with.
        dtype: `fp32`, or of weights that stay frozen `bf16`, `int8` or `int4`; hidden states are fp32 all the same.
        lm: keep the checkpoint's language-model head, as `lm`; without one it is refused.

    Raises:
        InputError: no backbone has this name, it cannot be loaded, or it lacks what an argument asks for.
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
        loaded = load_model(self.spec, dropout, attention, dtype, lm)
        self.model, self.lm = loaded.model, loaded.lm
        self.train()  # from_pretrained returns eval mode
        if checkpointing:
            recompute(self.model, self.spec)
        self.fingerprint = fingerprint(self.model, dtype)
        # Not by `inputs_embeds`: some families read more from input ids (Gemma 3n and 4 an embedding for each layer).
        self.model.get_input_embeddings().register_forward_hook(self._fill)
        # flex and flash need a GPU, but the model is probed before Lightning moves it there: it is probed with sdpa.
        fallback = attention_function(self.model.config, "sdpa") if attention in ("flex", "flash") else None
        self.traits = Traits(self.model, self.spec, fallback, self.fingerprint)
        self.layers = Layers(self.model, self.traits)
        self.depth = Depth(self.model, self.spec.layers)
        self.reads_part = bool(self.traits.behind_attention)
        if self.reads_part:
            compute_read(self.model, self.traits.behind_attention)
        self.pooling: Pool
        self.pooling, self.pooler = take_pooling(pool, self.model, self.spec, not loaded.missing, self.traits.causal)
        if self.lm is not None and self.spec.lm == "causal" and not self.traits.causal:
            raise InputError(
                f"{self.spec.who}: its language model predicts words in an order of its own, which no template has; "
                "leave the template out, or choose another backbone."
            )

    def require_prefix(self) -> None:
        """Raise InputError unless every layer of this backbone consumes its own prefix exactly once a forward pass."""
        if self.traits.prefix_gap:
            raise InputError(
                f"{self.spec.who} cannot be prompted in its layers: {self.traits.prefix_gap}. Choose another "
                "backbone or a method without a prefix."
            )

    def require_shift(self) -> None:
        """Raise InputError unless a shift of the text's positions reaches this backbone."""
        if not self.traits.shifts:
            raise InputError(
                f"shift_positions: {self.spec.who} takes no positions from outside, so its text cannot be shifted; "
                "leave it out."
            )

    def require_packing(self) -> None:
        """Raise InputError unless packed texts do not attend to each other."""
        if not self.packs:
            raise InputError(
                f"position_ids: {self.spec.who} does not keep texts in one row apart by their positions; give each "
                "text a row of its own."
            )

    @property
    def packs(self) -> bool:
        """Whether texts may be packed into one row, kept apart by `position_ids` that start again at each text."""
        return self.attention != "flash" and self.traits.packing != "no"

    def unused(self, weights: dict[str, nn.Parameter]) -> set[str]:
        """Names of those `weights` that no output depends on, such as XLNet's `mask_emb`; found by their gradients."""
        with self.traits.probe() as text, torch.enable_grad():
            batch = {"input_ids": text, "attention_mask": torch.ones_like(text)}
            if self.lm is not None and isinstance(self.model, QueryModel):
                batch["answer_at"] = torch.ones_like(text[:, :1])
            try:
                hidden = self.model(**batch, token_type_ids=torch.zeros_like(text)).last_hidden_state
            except TypeError as error:
                if not unexpected(error, "token_type_ids"):
                    raise
                hidden = self.model(**batch).last_hidden_state
            output = hidden.sum() + self.pool(hidden, batch).sum()
            output = output if self.lm is None else output + self.lm_scores(hidden).sum()
            found = torch.autograd.grad(output, [*weights.values()], allow_unused=True)
        return {name for name, gradient in zip(weights, found, strict=True) if gradient is None}

    @property
    def room(self) -> int | None:
        """The number of tokens that fit into one input, shifted positions included; None where nothing limits it."""
        return self.traits.room

    def embed(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """Word embeddings alone, before positions, types and normalisation."""
        return self.model.get_input_embeddings()(input_ids)

    def _fill(self, words: nn.Module, inputs: tuple, output: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        """Forward hook of the word embeddings: put the soft prompt of this forward pass into its slots."""
        if CURRENT.soft_prompt is None:
            return output
        (put, added), CURRENT.soft_prompt = CURRENT.soft_prompt, None
        t = output.shape[1]  # Longformer pads texts to its window
        if put is not None:
            slots, vectors = put
            slots = F.pad(slots, (0, t - slots.shape[1]))
            output = output.masked_scatter(slots[..., None], vectors.to(output.dtype))
        return output if added is None else output + F.pad(added, (0, 0, 0, t - added.shape[1])).to(output.dtype)

    def cut_gap(self, n: int) -> str:
        """Why the layers cannot begin at layer n with known hidden states; empty where they can, which is tried."""
        if n == self.spec.layers:
            return ""
        if self.depth.place is None:
            return "no list holds its layers, one for each"
        with self.traits.probe() as text:
            batch = {"input_ids": text, "attention_mask": torch.ones_like(text)}
            whole, states = self(batch), self.below(batch, n)
            if states.shape != whole.shape:
                return "its layers do not hand on one vector a token, text by text"
            try:
                cut = self(batch, None, (n, states))
            except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                return f"its layers do not run without those below ({first_line(error)})"
        return "" if torch.allclose(cut, whole, atol=1e-5, rtol=1e-4) else "its layers read more of those below"

    @torch.no_grad()
    def below(self, batch: dict[str, Tensor], n: int, shift: int = 0) -> Float[Tensor, "..."]:
        """The hidden states that enter layer n, or the last ones where n is the number of layers; without prompts.

        Slots are left out of the text, and their states are 0. The states are "b t d" but in families that keep others
        between their layers (Gemma 3n, XLNet), for which `cut_gap` has a reason.

        Args:
            batch: as for `forward`, padded on the right.
            n: a layer, from 0.
            shift: added to the position ids of the text.
        """
        if "slots" in batch:
            return with_slots(self.below(without_slots(batch, INPUTS), n, shift), batch["slots"])
        if n == self.spec.layers:
            return self(batch, Prompts(shift=shift))
        return self.depth.before(n, lambda: self._read(batch, Prompts(shift=shift))).float()

    def forward(
        self,
        batch: dict[str, Tensor],
        prompts: Prompts | None = None,
        begin: tuple[int, Float[Tensor, "b t d"]] | None = None,
        read: Int[Tensor, "b a"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Last hidden states of every token, in fp32 for weights of another `dtype`.

        `begin` is a layer and what `below` returns for it: the layers below are then left out, in one thread at a time.
        `read` are the places of the tokens whose states are read: those of the others are 0 where the last layer can be
        computed without them.

        `batch["slots"]` "b t" marks where `prompts.embeds` replace word embeddings. The ids there are not padding, and
        are read where a family takes more from ids (Gemma 3n's and 4's embeddings for each layer).
        `batch["position_ids"]` "b t" packs texts into rows: each text's positions start again at 0; InputError where
        the family cannot keep them apart. `batch["answer_at"]` "b a" are the places where a template's answer is read,
        which XLNet must be given.
        """
        if prompts is not None and prompts.of_one_text and "position_ids" in batch:
            raise InputError(
                "position_ids: packed texts would share a prompt that is made for one text; give each a row of its own."
            )
        if prompts is not None and (late := prompts.late) is not None:
            n, states = begin or (late.layer, self.below(batch, late.layer))
            begin = n, filled(states, batch, late)
        if begin is not None:
            n, states = begin
            if n == self.spec.layers:
                return states
            with self.depth.begun(n, states.to(self.model.dtype)):
                return self._read(batch, prompts or Prompts(), read).float()
        prompts = prompts or Prompts()
        if self.traits.padding_mode == "aligned" and "attention_mask" in batch and "position_ids" not in batch:
            batch, prompts, read, back = aligned(batch, prompts, read)
            hidden = back(self._read(batch, prompts, read))
        else:
            hidden = self._read(batch, prompts, read)
        return hidden if self.dtype == "fp32" else hidden.float()

    def _read(
        self, batch: dict[str, Tensor], prompts: Prompts, read: Int[Tensor, "b a"] | None = None
    ) -> Float[Tensor, "b t d"]:
        traits, mask, packed = self.traits, batch.get("attention_mask"), batch.get("position_ids")
        inputs: dict[str, Any] = {key: batch[key] for key in INPUTS if key in batch}
        if packed is not None:
            self.require_packing()
            positions = packed if mask is None else packed * mask  # a padding token counts as a text of its own
            inputs["attention_mask"] = traits.mask(positions) if traits.packing == "by mask" else None
            inputs["position_ids"] = positions + traits.first_position + prompts.shift
        elif (
            prompts.shift
            or (traits.padding_mode == "with positions" and mask is not None)
            # RoBERTa counts the ids that are not padding, and the id of a slot may be padding.
            or (traits.first_position and prompts.embeds is not None)
        ):
            inputs["position_ids"] = traits.positions(batch["input_ids"], mask) + prompts.shift
        if prompts.input_gate is not None:
            self.layers.show()
            prompts = replace(prompts, text=mask)
        if prompts.prefix is not None or prompts.memory is not None:
            self.require_prefix()
            inputs["prefix"] = prompts
        if "answer_at" in batch and isinstance(self.model, QueryModel):
            inputs["answer_at"] = batch["answer_at"]
        vectors = prompts.embeds
        if vectors is not None:
            (b, t), p = batch["input_ids"].shape, vectors.shape[1]
            # masked_scatter reads the vectors in order and ignores those left over: a row of packed texts has the slots
            # of each of its texts, at most t // p of them.
            vectors = vectors.expand(b if packed is None else b * (t // p), -1, -1)
        if vectors is not None or prompts.added is not None:
            CURRENT.soft_prompt = None if vectors is None else (batch["slots"], vectors), prompts.added
        CURRENT.read = read if self.reads_part else None
        try:
            hidden = self.model(**inputs).last_hidden_state
            if CURRENT.soft_prompt is not None:
                raise InputError(
                    f"{self.spec.who} reads its words elsewhere than in its word embeddings, so it reads no soft "
                    "prompt; use a prefix."
                )
            if CURRENT.read is not None:
                hidden = placed(hidden, CURRENT.read, batch["input_ids"].shape[1])
        finally:
            CURRENT.soft_prompt = CURRENT.read = None
        return hidden

    def lm_scores(
        self, hidden: Float[Tensor, "... d"], words: Int[Tensor, " u"] | None = None
    ) -> Float[Tensor, "... u"]:
        """Scores that the language-model head gives to words (token ids; None: all) at chosen hidden states."""
        assert self.lm is not None, "Backbone(lm=True) keeps the head"
        return self.lm(hidden, words)

    def pool(self, hidden: Float[Tensor, "b t d"], batch: dict[str, Tensor]) -> Float[Tensor, "b d"]:
        """One vector a text, as `pooling` says; prompt slots are no text and are left out of the mean."""
        return pooled(hidden, batch, self.pooling, self.pooler)

    def pooled_places(self, batch: dict[str, Tensor]) -> Int[Tensor, "b one"] | None:
        """The place of the token of each text that `pool` reads, None where it reads them all."""
        place = pooled_place(batch, self.pooling)
        return None if place is None else place[:, None]

    def keys_values(self, input_ids: Int[Tensor, "b t"], **more: Int[Tensor, "b t"]) -> KeysValues:
        """The keys and values that real tokens have in every layer; `more` may be `token_type_ids`."""
        self.require_prefix()
        return self.layers.keys_values(input_ids=input_ids, **more)
