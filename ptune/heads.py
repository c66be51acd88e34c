"""Task heads: one linear layer each, the same for every backbone, with the loss of the task format.

A head's `loss` returns a sum and the number of terms in it, not a mean: only so can processes that hold different
numbers of tokens agree on the mean over the global batch.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.tasks.spec import HeadSpec

Batch = dict[str, Tensor]
Loss = tuple[Float[Tensor, ""], Int[Tensor, ""]]


class Head(nn.Module):
    """Dropout and one linear layer from width d to `outputs`, initialised N(0, 0.02²) with zero bias as BERT's.

    Where the softmax is over endings or tokens, not outputs, a bias would change nothing and never move: there is none.
    """

    pools: ClassVar[bool] = True
    """Whether it reads one vector a text, not every token."""

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

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Tensor:
        """Scores of a batch from the backbone's last hidden states."""

    @abstractmethod
    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed loss against `batch["labels"]` and the number of terms summed."""


def _cross_entropy(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Loss:
    total = F.cross_entropy(scores.float(), labels, ignore_index=-100, reduction="sum")
    return total, (labels != -100).sum()


class Classify(Head):
    """One of c classes for a text or a pair: scores "b c"."""

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        return self.project(backbone.pool(hidden, batch))

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class Regress(Head):
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


class Choice(Head):
    """One of c endings, each read as a text of its own (n = b c): scores "b c"."""

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an ending."""
        return self.project(backbone.pool(hidden, batch)).view(len(batch["labels"]), -1)

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the endings; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class Span(Head):
    """Start and end of the answer in the text: scores "n t 2"; padding cannot be an answer."""

    pools = False

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "n t 2"]:
        """Start (0) and end (1) scores of every token."""
        scores = self.project(hidden)
        return scores.masked_fill(~batch["attention_mask"].bool()[..., None], torch.finfo(scores.dtype).min)

    def loss(self, scores: Float[Tensor, "n t 2"], batch: Batch) -> Loss:
        """Mean of the cross entropies of start and end; labels "n 2"."""
        total, terms = _cross_entropy(scores.transpose(1, 2).flatten(0, 1), batch["labels"].flatten())
        return total / 2, terms // 2


class Tag(Head):
    """One of c tags a token: scores "b t c"; tokens labelled -100 do not count."""

    pools = False

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b t c"]:
        """Tag scores of every token."""
        return self.project(hidden)

    def loss(self, scores: Float[Tensor, "b t c"], batch: Batch) -> Loss:
        """Cross entropy over labelled tokens; labels "b t"."""
        return _cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())


def head_for(spec: HeadSpec, width: int, dropout: float, bias: bool = True) -> Head:
    """The head a task asks for; `bias` where it makes a difference."""
    match spec.kind:
        case "classify":
            return Classify(width, len(spec.labels), dropout, bias)
        case "regress":
            return Regress(width, 1, dropout, bias)
        case "choice":
            return Choice(width, 1, dropout, bias=False)
        case "span":
            return Span(width, 2, dropout, bias=False)
        case "tag":
            return Tag(width, len(spec.labels), dropout, bias)
