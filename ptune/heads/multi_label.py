"""`MultiLabel`: each of c labels by itself, any number of which may be right."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.heads.base import Answer, Batch, Head, Loss, Table
from ptune.heads.linear import LinearHead
from ptune.heads.metrics import Statistics, mean, of_sums
from ptune.heads.mistakes import Mistakes, of_labels
from ptune.tasks.spec import HeadSpec


def _counts(table: Table) -> Statistics:
    """Of every row for each of c labels whether it is rightly given, given, and right: "rows 3c"."""
    predicted, gold = _halves(table)
    return torch.cat([predicted * gold, predicted, gold], dim=1)


def _micro_f1(sums: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    both, given, right = sums.unflatten(-1, (3, -1)).sum(-1).unbind(-1)
    return 2 * both / (given + right)


def _macro_f1(sums: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    both, given, right = sums.unflatten(-1, (3, -1)).unbind(-2)
    return (2 * both / (given + right).clamp(min=1)).mean(-1)


exact_match = mean(lambda table: (_halves(table)[0] == _halves(table)[1]).all(1))
"""The share of rows with all labels right, and no others (subset accuracy)."""
micro_f1 = of_sums(_counts, _micro_f1)
"""F1 of all labels of all rows together."""
macro_f1 = of_sums(_counts, _macro_f1)
"""Mean F1 over the labels; that of a label which no row has and none is given is 0."""


def _halves(table: Table) -> tuple[Tensor, Tensor]:
    """Predictions and labels, each "rows c" of 0 and 1."""
    predicted, gold = table.chunk(2, dim=1)
    return predicted, gold


@final
class MultiLabel(LinearHead):
    """A logit for each of c labels, which is given where its sigmoid exceeds one half: scores "b c"."""

    kind = "multi_label"
    metrics = {"micro_f1": micro_f1, "macro_f1": macro_f1, "exact_match": exact_match}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """c outputs."""
        return cls(backbone.output_width, len(spec.labels), dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Logits of the pooled text."""
        return self.project(backbone.pool(hidden, batch))

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Binary cross entropy of every label of every row; labels "b c" of 0 and 1."""
        labels = batch["labels"].float()
        total = F.binary_cross_entropy_with_logits(scores.float(), labels, reduction="sum")
        return total, torch.tensor(labels.numel(), device=labels.device)

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Predictions, then labels, of 0 and 1."""
        return (*(f"predicted {label}" for label in spec.labels), *(f"gold {label}" for label in spec.labels))

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, "b c"], batch: dict[str, Any]) -> Table:
        """The labels that are given, and those that are right."""
        return torch.cat([(scores > 0).float(), batch["labels"].float()], dim=1)

    @classmethod
    def answers(
        cls, spec: HeadSpec, scores: Float[Tensor, "b c"], batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """The list of the labels that are given, the most probable one first, with the list of their probabilities."""
        probabilities, order = scores.float().sigmoid().sort(dim=-1, descending=True, stable=True)
        counts = (scores > 0).sum(-1).tolist()
        found = zip(order.tolist(), probabilities.tolist(), counts, strict=True)
        return [
            [{"answer": [spec.labels[code] for code in codes[:n]], "score": values[:n]}] for codes, values, n in found
        ]

    @classmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list[list[str]]:
        """The labels of each row by their names."""
        rows = batch["labels"].tolist()
        return [[label for label, given in zip(spec.labels, row, strict=True) if given] for row in rows]

    @classmethod
    def right(cls, table: Table) -> list[bool]:
        """Whether all labels are right, and no others."""
        predicted, gold = _halves(table)
        return (predicted == gold).all(1).tolist()

    @classmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """The rows of each label."""
        return of_labels(spec.labels, answers, gold)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The most frequent set of labels of a training row."""
        most = Counter(map(tuple, train_labels)).most_common(1)[0][0]
        gold = torch.tensor(eval_labels)
        return torch.cat([torch.tensor(most).expand_as(gold), gold], dim=1)
