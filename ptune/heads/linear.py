"""`LinearHead`, and the heads of one linear layer that read one vector a text: classes, numbers and choices."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.heads.base import Answer, Batch, Head, Loss, Table
from ptune.heads.metrics import OF_CLASSES, accuracy, pearson, spearman
from ptune.heads.mistakes import Mistakes, of_numbers
from ptune.heads.one_of import OneOf
from ptune.tasks.spec import HeadSpec


class LinearHead(Head):
    """Dropout and one linear layer from width d to `outputs`, initialised N(0, 0.02²) with zero bias as BERT's.

    There is no bias where the softmax is over endings or tokens: it would change nothing and get no gradient.
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
class Classify(LinearHead, OneOf):
    """One of c classes for a text or a pair: scores "b c"."""

    kind = "classify"
    metrics = OF_CLASSES

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """c outputs."""
        return cls(backbone.output_width, len(spec.labels), dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        return self.project(backbone.pool(hidden, batch))


@final
class Regress(LinearHead):
    """A number for a text or a pair: scores "b", in the label's own unit."""

    kind = "regress"
    metrics = {"pearson": pearson, "spearman": spearman}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """One output."""
        return cls(backbone.output_width, 1, dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, " b"]:
        """The number read from the pooled text."""
        return self.project(backbone.pool(hidden, batch)).squeeze(-1)

    def loss(self, scores: Float[Tensor, " b"], batch: Batch) -> Loss:
        """Squared error; labels "b"."""
        labels = batch["labels"]
        return F.mse_loss(scores.float(), labels.float(), reduction="sum"), torch.tensor(
            len(labels), device=labels.device
        )

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Prediction and label."""
        return ("prediction", "label")

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, " b"], batch: dict[str, Any]) -> Table:
        """The numbers."""
        return torch.stack([scores.float(), batch["labels"].float()], dim=1)

    @classmethod
    def answers(
        cls, spec: HeadSpec, scores: Float[Tensor, " b"], batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """The number, which is its own score."""
        return [[{"answer": score, "score": score}] for score in scores.float().tolist()]

    @classmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list[float]:
        """The numbers of the data."""
        return batch["labels"].float().tolist()

    @classmethod
    def right(cls, table: Table) -> None:
        """None: a number is more or less right."""

    @classmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """The errors from small to large numbers."""
        return of_numbers(answers, gold)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The mean of the training labels."""
        labels, mean = torch.tensor(eval_labels), sum(train_labels) / len(train_labels)
        return torch.stack([torch.full_like(labels, mean), labels], dim=1)


@final
class Choice(LinearHead, OneOf):
    """One of c endings, each read as a text of its own (n = b c): scores "b c"."""

    kind = "choice"
    metrics = {"accuracy": accuracy}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """One output without bias, which would add the same to every ending."""
        return cls(backbone.output_width, 1, dropout, bias=False)

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an ending."""
        return self.project(backbone.pool(hidden, batch)).view(len(batch["labels"]), -1)
