"""`Head`: what every head of a task is.

A head's `loss` returns a sum and the number of terms in it, not a mean: only so can processes that hold different
numbers of tokens agree on the mean over the global batch.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone

Batch = dict[str, Tensor]
Loss = tuple[Float[Tensor, ""], Int[Tensor, ""]]


class Head(nn.Module, ABC):
    """Scores of a task from a backbone's last hidden states, and their loss."""

    pools: ClassVar[bool] = True
    """Whether it reads one vector a text, not every token."""
    lm: ClassVar[bool] = False
    """Whether it reads with the backbone's language-model head."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Tensor:
        """Scores of a batch from the backbone's last hidden states."""

    @abstractmethod
    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed loss against `batch["labels"]` and the number of terms summed."""


def cross_entropy(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Loss:
    """Summed over the labels that are not -100, and their number."""
    total = F.cross_entropy(scores.float(), labels, ignore_index=-100, reduction="sum")
    return total, (labels != -100).sum()
