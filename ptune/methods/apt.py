"""Adaptive prefix tuning (APT, Zhang et al. 2023, arXiv:2305.15212): a prefix whose vectors are weighted in each layer
by what the layer reads."""

from typing import final

import torch
from torch import nn

from ptune.backbone import Backbone
from ptune.heads import Batch
from ptune.prompts import InputGate, Prompts
from ptune.tuning.prefix import AUTHORS, PrefixEncoder
from ptune.tuning.prefixed import Prefixed


@final
class AdaptivePrefix(nn.Module):
    """A prefix, and for each of its l layers a matrix W "d p" of the token-level gate and a layer-level scale.

    Args:
        encoder: keys and values of p vectors in each layer.
        layers: l, the number of prompted layers.
        width: d, width of the hidden states that a layer reads.
        length: p.
    """

    def __init__(self, encoder: PrefixEncoder, layers: int, width: int, length: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.weight = nn.Parameter(torch.empty(layers, width, length))
        self.scale = nn.Parameter(torch.ones(layers))
        nn.init.normal_(self.weight, std=AUTHORS)

    def gate(self) -> InputGate:
        """Both gates, as a backbone reads them."""
        return InputGate(self.weight, self.scale)


@final
class APT(Prefixed):
    """Train a prefix, gates that weight its vectors by the layer's input, and the head.

    In layer i, with the hidden states h below it, keys and values of the p vectors are
    `scale_i a_i [P_ik, P_iv]` with `a_i = mean_t sigmoid(h_t W_i)`: a weight for each vector (the paper's token-level
    gate) times a trained number of the layer (its layer-level gate). Nothing else differs from P-Tuning v2 with a flat
    table.

    No code of the authors was found. How one weight a text comes of its hidden states, and where training starts, are
    choices of ours: the p weights of a text are the mean over its tokens (of which padding is none), `h` is what the
    layer's attention reads, which is normalised before in families that normalise there, W starts as N(0, 0.02²) and
    the scale as 1, so that the weights start near 0.5. In a causal model a token's prefix depends on the tokens behind
    it, too.
    """

    prompt: AdaptivePrefix

    def __init__(self, **common) -> None:
        super().__init__(**common)
        p, layers = self.hparams["length"], len(self.layers)
        self.prompt = AdaptivePrefix(PrefixEncoder(p, self.kv_sizes), layers, self.spec.width, p)

    @property
    def encoder(self) -> PrefixEncoder:
        """The prefix without its gates."""
        return self.prompt.encoder

    def prepare(self, backbone: Backbone) -> None:
        """As for all prefixes; let the gates see what layers read."""
        super().prepare(backbone)
        backbone.layers.show()

    def prompts(self, batch: Batch) -> Prompts:
        """The prefix of every prompted layer with its gates."""
        return self.prefix(batch, input_gate=self.prompt.gate())
