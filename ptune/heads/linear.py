"""Heads of one linear layer."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.heads.base import Batch, Head, Loss, cross_entropy


class LinearHead(Head):
    """Dropout and one linear layer from width d to `outputs`, initialised N(0, 0.02²) with zero bias as BERT's.

    Where the softmax is over endings or tokens, not outputs, a bias would change nothing and never move: there is none.
    """

    def __init__(self, width: int, outputs: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs, bias)
        nn.init.normal_(self.linear.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def project(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... o"]:
        """The linear layer after dropout."""
        return self.linear(self.dropout(hidden))


@final
class Classify(LinearHead):
    """One of c classes for a text or a pair: scores "b c"."""

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        return self.project(backbone.pool(hidden, batch))

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy; labels "b"."""
        return cross_entropy(scores, batch["labels"])


@final
class Regress(LinearHead):
    """A number for a text or a pair: scores "b", in the label's own unit."""

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, " b"]:
        """The number read from the pooled text."""
        return self.project(backbone.pool(hidden, batch)).squeeze(-1)

    def loss(self, scores: Float[Tensor, " b"], batch: Batch) -> Loss:
        """Squared error; labels "b"."""
        labels = batch["labels"]
        return F.mse_loss(scores.float(), labels.float(), reduction="sum"), torch.tensor(
            len(labels), device=labels.device
        )


@final
class Choice(LinearHead):
    """One of c endings, each read as a text of its own (n = b c): scores "b c"."""

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an ending."""
        return self.project(backbone.pool(hidden, batch)).view(len(batch["labels"]), -1)

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the endings; labels "b"."""
        return cross_entropy(scores, batch["labels"])


@final
class Span(LinearHead):
    """Start and end of the answer in the text: scores "n t 2"; padding cannot be an answer."""

    pools = False

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "n t 2"]:
        """Start (0) and end (1) scores of every token."""
        scores = self.project(hidden)
        return scores.masked_fill(~batch["attention_mask"].bool()[..., None], torch.finfo(scores.dtype).min)

    def loss(self, scores: Float[Tensor, "n t 2"], batch: Batch) -> Loss:
        """Mean of the cross entropies of start and end; labels "n 2"."""
        total, terms = cross_entropy(scores.transpose(1, 2).flatten(0, 1), batch["labels"].flatten())
        return total / 2, terms // 2


@final
class Tag(LinearHead):
    """One of c tags a token: scores "b t c"; tokens labelled -100 do not count."""

    pools = False

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b t c"]:
        """Tag scores of every token."""
        return self.project(hidden)

    def loss(self, scores: Float[Tensor, "b t c"], batch: Batch) -> Loss:
        """Cross entropy over labelled tokens; labels "b t"."""
        return cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())
