"""Residual prompt tuning (Razdaibiedina et al. 2023, arXiv:2305.03937): a soft prompt and a residual network over it.

The network is that of arazd/ResidualPrompts 2b90371: prompt_tuner.py, `ResMLP` of type MLP1. Vectors and network share
one rate, which is that code's default. Deviations from it: vectors start from common words of the vocabulary, as those
of `PromptTuning`, and not from any of its tokens; biases and the normalisation have no weight decay, as nothing of one
dimension has in ptune.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.heads import Batch
from ptune.methods.prompt_tuning import SoftPrompt, common_words, soft_prompt
from ptune.prompts import Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.companions import Accompanied
from ptune.tuning.reparameterized import Reparameterized


@final
class ResidualPrompt(Reparameterized):
    """p vectors of width e with what a network shared by all of them adds: P' = P + Phi(P).

    Phi is Linear(e, bottleneck), ReLU, Linear(bottleneck, e) and, with `layer_norm`, LayerNorm(e).
    """

    def __init__(self, length: int, width: int, bottleneck: int, layer_norm: bool) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, width))  # set from words when the backbone is loaded
        layers = [nn.Linear(width, bottleneck), nn.ReLU(), nn.Linear(bottleneck, width)]
        self.network = nn.Sequential(*layers, *([nn.LayerNorm(width)] if layer_norm else []))

    def forward(self) -> Float[Tensor, "one p e"]:
        """The vectors with what the network adds; the batch axis is 1."""
        return (self.vectors + self.network(self.vectors))[None]

    @torch.no_grad()
    def folded(self) -> SoftPrompt:
        """The vectors that the backbone reads, trainable."""
        return soft_prompt(self()[0])


@final
class ResidualPromptTuning(Accompanied):
    """Train vectors in the input's prompt slots through a network with a residual connection, and the head.

    The network is left out of what is saved for use: it is computed once.

    Args:
        length: Prompt length p, slots of the input; the paper's is mostly 10.
        bottleneck: Hidden size of the network.
        layer_norm: Normalise what the network adds, as in the paper. What is added to a vector then starts with a norm
            of the square root of the width, which is many times that of a word of BERT.
    """

    prompt: ResidualPrompt | SoftPrompt
    stored_arguments = ("length",)
    slot_argument = "length"

    def __init__(self, length: int = 10, bottleneck: int = 128, layer_norm: bool = True, **common) -> None:
        super().__init__(**common)
        check_size("length", length)
        check_size("bottleneck", bottleneck)
        self.prompt = ResidualPrompt(length, self.spec.embedding_width, bottleneck, layer_norm)

    @torch.no_grad()
    def prepare(self, backbone: Backbone) -> None:
        """Start the vectors from embeddings of common words."""
        super().prepare(backbone)
        self.prompt.vectors.copy_(common_words(backbone, self.hparams["length"]))

    def prompts(self, batch: Batch) -> Prompts:
        """The vectors, for the slots of every text."""
        return Prompts(embeds=self.prompt())
