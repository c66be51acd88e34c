"""P-Tuning, now called v1 (Liu et al. 2021, *GPT Understands, Too*, arXiv:2103.10385): a small encoder computes the
vectors at the input.

The encoder is that of THUDM/P-tuning f4225d4: LAMA/p_tuning/prompt_encoder.py, where the backbone is frozen, and, with
`hidden` equal to the width of the embeddings, PT-Fewshot/pet/wrapper.py, where the backbone is trained, too
(`backbone_lr`). A template (`--data.template`) gives the places of the slots and the word to predict; without one the
slots follow [CLS].
"""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.methods.prompt_tuning import SoftPrompt, soft_prompt
from ptune.prompts import Prompts
from ptune.tuning.checks import check_not_negative, check_size
from ptune.tuning.reparameterized import Reparameterized
from ptune.tuning.transfer import Transferable, check_init, source


@final
class PromptEncoder(Reparameterized):
    """p vectors of width e, computed from a trained table by a BiLSTM and an MLP, or by the MLP alone.

    `lstm`: Embedding(p, e), BiLSTM(e -> hidden a direction, 2 layers), Linear(2 hidden, e), ReLU, Linear(e, e);
    `mlp`: Embedding(p, e), Linear(e, e), ReLU, Linear(e, e).

    Args:
        length: p, prompt length in vectors.
        width: e, width of the word embeddings.
        kind: `lstm` or `mlp`.
        hidden: hidden size of the LSTM a direction; the LAMA code has e / 2, the few-shot code e.
    """

    def __init__(self, length: int, width: int, kind: Literal["lstm", "mlp"], hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))  # N(0, 1): their nn.Embedding as torch makes it
        self.lstm = nn.LSTM(width, hidden, 2, bidirectional=True, batch_first=True) if kind == "lstm" else None
        self.mlp = nn.Sequential(
            nn.Linear(2 * hidden if self.lstm else width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self) -> Float[Tensor, "one p e"]:
        """The vectors; the batch axis is 1. They are computed in fp32, because not every device has an LSTM in bf16."""
        with torch.autocast(self.embedding.device.type, enabled=False):
            vectors = self.embedding[None]
            return self.mlp(vectors if self.lstm is None else self.lstm(vectors)[0])

    @torch.no_grad()
    def folded(self) -> SoftPrompt:
        """The vectors themselves, trainable."""
        return soft_prompt(self()[0])


@final
class PTuning(Transferable):
    """Train an encoder of the vectors in the input's prompt slots, and the head; with `backbone_lr` the backbone, too.

    Args:
        length: Prompt length p, slots of the input.
        encoder: `lstm` (BiLSTM and MLP) or `mlp`.
        hidden: Hidden size of the LSTM a direction; 0 for half the width of the embeddings, as for LAMA.
        init: `run:DIR` starts from the vectors of a run of PTuning or PromptTuning with the same length and backbone
            (SPoT, Vu et al. 2022), `run+head:DIR` from its head, too, where labels and reading are the same. These
            vectors are then trained themselves, without an encoder, because no encoder that computes them is at hand.
            By default the encoder is drawn.
        backbone_lr: Peak learning rate of the backbone; 0 freezes it. The paper's SuperGLUE runs have 1e-5, and a
            weight decay of 0.1 on the backbone alone, while `weight_decay` applies to all trained matrices.
    """

    prompt: PromptEncoder | SoftPrompt
    stored_arguments = ("length",)
    slot_argument = "length"

    def __init__(
        self,
        length: int = 20,
        encoder: Literal["lstm", "mlp"] = "lstm",
        hidden: int = 0,
        init: str | None = None,
        lr: float = 1e-3,
        backbone_lr: float = 0.0,
        **common,
    ) -> None:
        super().__init__(lr=lr, **common)
        check_size("length", length)
        check_init(init, ())
        if source(init) and (hidden or encoder != "lstm"):
            raise InputError(f"init: {init!r} trains vectors without an encoder; leave encoder and hidden out.")
        if hidden < 0:
            raise InputError(f"hidden: {hidden} must not be negative; 0 means half the width of the embeddings.")
        check_not_negative("backbone_lr", backbone_lr, "; 0 freezes the backbone")
        if backbone_lr and (also := self.hparams["also"]):
            raise InputError(f"also: {also}, but backbone_lr: {backbone_lr} trains all of the backbone; leave one out.")
        width = self.spec.embedding_width
        if source(init):
            self.prompt = SoftPrompt(length, width)
        else:
            self.prompt = PromptEncoder(length, width, encoder, hidden or width // 2)

    def prompts(self, batch: Batch) -> Prompts:
        """The vectors, for the slots of every text."""
        return Prompts(embeds=self.prompt())

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """All tensors of the backbone, if `backbone_lr` is not 0; else the companions."""
        whole = self.hparams["backbone_lr"] > 0
        return dict(backbone.named_parameters()) if whole else super().backbone_parameters(backbone)

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates; the backbone, or what is trained of it, has its own."""
        rates = super().rates
        return rates | {"backbone": self.hparams["backbone_lr"] or rates["backbone"]}
