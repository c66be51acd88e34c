"""P-Tuning v2 (Liu et al. 2022, arXiv:2110.07602) and prefix tuning (Li & Liang 2021, arXiv:2101.00190): trained keys
and values before those of every layer.

The prefix itself is in `ptune.tuning.prefix`. Two differences from the authors' code are deliberate: positions of the
text are shifted only with `shift_positions`, and a frozen backbone has no dropout.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.backbone.tokenizer import text_ids
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.prompts import KeysValues, Prompts
from ptune.tuning.checks import check_positive, check_rate, check_size
from ptune.tuning.prefix import GatedPrefix, HiddenPrefix, PrefixEncoder
from ptune.tuning.prefixed import Prefixed
from ptune.tuning.sample import seed, training_texts
from ptune.tuning.transfer import Transferable, check_init, source

STD = 0.5
"""Standard deviation of a drawn prefix in units of the layer."""
GIVEN = ("text", "tokens")
"""Starts that are read off real tokens."""
STARTS = ("normal", "identity", *GIVEN)
"""What `init` may be, beside the run of a trained prefix."""
ROWS = 16
"""Training rows whose tokens `init: tokens` draws from."""


@final
class PTuningV2(Prefixed, Transferable):
    """Train a prefix in every layer, and the head.

    Args:
        form: What is trained for each layer: `table` a table of p keys and values, as in the papers; `hidden` p vectors
            that the layer's own frozen projections turn into keys and values, as they do with the text's hidden states.
            These are half as many numbers where keys and values are as wide as the layer, and more than a table's where
            fewer heads have keys (grouped queries). Rotary positions turn their keys as those of a text of p tokens.
        init: Start of the prefix: `normal` is drawn from N(0, init_std²), with the default init_std the effective
            initialisation of the authors' code; `text` is what the tokens of `init_text` have in each layer (keys and
            values, or what is projected to them), `tokens` what p tokens of training rows have, drawn by the seed;
            `identity` is another name for `normal` with `gate: true` and `scaled: true`, so that training starts from
            the backbone itself; `run:DIR` is a trained prefix of the same length, layers and backbone, of any form
            (SPoT, Vu et al. 2022), `run+head:DIR` its head, too, where labels and reading are the same.
        init_std: Standard deviation of a drawn start: 0.02, or with `scaled` 0.5 of the layer's own size, if left out.
        init_text: Text of `init: text`, repeated or cut to `length` tokens.
        gate: Normalise the attention to the prefix apart from that to the text, and add it through a gate of each layer
            and query head that starts at 0 and is trained: attn(q, K, V) + tanh(gate) attn(q, Pk, Pv), the zero-init
            attention of LLaMA-Adapter (Zhang et al. 2023). Then a long text takes no weight from the prefix.
        gate_lr: Peak learning rate of the gates; the same as `lr` if left out.
        scaled: Train the prefix in units of the layer's own keys, values or hidden states (their root mean square over
            tokens of the vocabulary), so that `lr` and `init_std` mean the same in every layer of every backbone.
        mlp: Hidden size of the MLP reparameterization of a table (the authors' 512), 0 for a flat one.
    """

    prompt: GatedPrefix

    def __init__(
        self,
        form: Literal["table", "hidden"] = "table",
        init: str = "normal",
        init_std: float | None = None,
        init_text: str = "",
        gate: bool = False,
        gate_lr: float | None = None,
        scaled: bool = False,
        mlp: int = 0,
        **common,
    ) -> None:
        super().__init__(**common)
        check_init(init, STARTS)
        given = init in GIVEN or source(init) is not None
        check_size("mlp", mlp, 0)
        if (init == "text") != bool(init_text):
            raise InputError(
                f"init_text: {init_text!r} and init: {init!r} do not fit; init 'text', and it alone, needs a text."
            )
        if given and mlp:
            raise InputError(f"mlp: {mlp} cannot start from init: {init!r}; use init: normal, or mlp: 0.")
        if form == "hidden" and source(init):
            raise InputError(f"form: 'hidden' cannot start from init: {init!r}, a table; use form: table.")
        if form == "hidden" and mlp:
            raise InputError(f"mlp: {mlp} computes a table, and form: 'hidden' has none; use form: table, or mlp: 0.")
        if init == "identity" and self.shift:
            raise InputError("shift_positions: true moves the text, so init: identity would not be the identity.")
        gate, scaled = (asked or init == "identity" for asked in (gate, scaled))
        if init_std is not None:
            check_positive("init_std", init_std)
            if given:
                raise InputError(f"init_std: {init_std} is for a start that is drawn, which init: {init!r} is not.")
        if gate_lr is not None:
            check_rate("gate_lr", gate_lr)
            if not gate:
                raise InputError(f"gate_lr: {gate_lr} is for gates, and there are none; use gate: true.")
        spec, length = self.spec, self.hparams["length"]
        std = STD if scaled and init_std is None else init_std
        encoder: PrefixEncoder | HiddenPrefix
        if form == "hidden":
            encoder = HiddenPrefix(length, len(self.layers), spec.width, self.project, scaled, std)
        else:
            encoder = PrefixEncoder(length, self.kv_sizes, spec.width, mlp, scaled, std)
        self.prompt = GatedPrefix(encoder, (len(self.layers), spec.heads) if gate else None)

    @property
    def encoder(self) -> PrefixEncoder | HiddenPrefix:
        """The prefix without its gates."""
        return self.prompt.encoder

    def prepare(self, backbone: Backbone) -> None:
        """As for all prefixes; measure the units of the layers, and read the initial text."""
        super().prepare(backbone)
        encoder = self.prompt.encoder
        if self.hparams["form"] == "hidden":
            backbone.layers.require_projections(self.layers, self.hparams["length"])
        if encoder.scale is not None:
            encoder.measure(self._read(backbone, backbone.layers.typical()))
        if self.hparams["init"] == "text":
            backbone.layers.require_room(self.hparams["length"])
            ids = text_ids(self.hparams["backbone"], self.hparams["init_text"], self.hparams["length"])
            encoder.set(self._read(backbone, ids))

    def start(self) -> None:
        """Take a trained prefix, or what p tokens of training rows have in each layer, the same tokens in all."""
        super().start()
        if self.hparams["init"] != "tokens":
            return
        texts = [self._read(self.backbone, **text) for text in training_texts(self.trainer, ROWS)]
        layers = [torch.cat(parts, dim=-2) for parts in zip(*texts, strict=True)]
        n = layers[0].shape[-2]
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed()))
        drawn = order[torch.arange(self.hparams["length"]) % n]  # repeated where there are fewer
        self.prompt.encoder.set(tuple(layer[..., drawn, :] for layer in layers))

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """As for all methods; the table of a file is in absolute units."""
        encoder, flat = self.prompt.encoder, "prompt.encoder.flat"
        assert isinstance(encoder, PrefixEncoder)  # `form: hidden` starts from no run
        super().take({**tensors, flat: tensors[flat].to(encoder.flat) / encoder.columns()})

    def _read(
        self, backbone: Backbone, input_ids: Int[Tensor, "one t"], **more: Int[Tensor, "one t"]
    ) -> tuple[Tensor, ...]:
        """What a text has in the prompted layers, in the form of the prefix; `more` may be `token_type_ids`.

        Tokens are the last dimension but one: "2 1 h t k" keys and values, or "t d" what is projected to them.
        """
        read = backbone.layers.inputs if self.hparams["form"] == "hidden" else backbone.layers.keys_values
        found = read(input_ids=input_ids, **more)
        return tuple(found[layer] for layer in self.layers)

    def project(self, inputs: Sequence[Float[Tensor, "p d"]]) -> KeysValues:
        """The keys and values that the prompted layers make of their vectors; the weights are loaded for it."""
        self.configure_model()
        return self.backbone.layers.project(inputs, self.layers)

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """As for all methods; gates with a rate of their own are a group."""
        groups = super().groups()
        if self.hparams["gate_lr"] is not None:
            groups["gate"] = {"prompt.gate": groups["prompt"].pop("prompt.gate")}
        return groups

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates; the gates may have their own."""
        return super().rates | {"gate": self.hparams["gate_lr"] or self.hparams["lr"]}

    def prompts(self, batch: Batch) -> Prompts:
        """The prefix of every prompted layer, and its gates."""
        return self.prefix(batch, gate=self.prompt.gate)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for all methods. A checkpoint from before there was `scaled` holds a prefix in absolute units."""
        scale = self.prompt.encoder.scale
        if scale is not None and not checkpoint.get("folded"):
            checkpoint["state_dict"].setdefault("prompt.encoder.scale", torch.ones_like(scale))
        super().on_load_checkpoint(checkpoint)
