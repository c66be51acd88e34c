"""`OneOf`: what all heads share whose answer is one of several."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptune.errors import InputError
from ptune.heads.base import Batch, Head, Loss, Table, cross_entropy
from ptune.tasks.spec import HeadSpec


class OneOf(Head):
    """Scores "b c" of c answers, of which one is right; labels "b"."""

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the answers; labels "b"."""
        return cross_entropy(scores, batch["labels"])

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Prediction, label, and the group in parts of 20 bits, which are exact in fp32."""
        return ("prediction", "label", "group, bits 0-19", "20-39", "40-59")

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, "b c"], batch: dict[str, Any]) -> Table:
        """The answer with the highest score."""
        labels = batch["labels"]
        group = batch["group"] if "group" in batch else torch.zeros_like(labels)
        return torch.stack([scores.argmax(-1), labels, *_digits(group)], dim=1)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The most frequent training label; `groups` is the column that `question_em` needs."""
        labels = torch.tensor(eval_labels)
        most = Counter(train_labels).most_common(1)[0][0]
        group = torch.zeros_like(labels) if groups is None else torch.tensor(groups)
        return torch.stack([torch.full_like(labels, most), labels, *_digits(group)], dim=1)

    @classmethod
    def check_metric(cls, name: str, spec: HeadSpec) -> None:
        """F1 is that of class 1 of two."""
        if name == "f1" and len(spec.labels) != 2:
            raise InputError(
                f"task {spec.task!r}: metric 'f1' is for 2 classes, it has {len(spec.labels)}; use 'macro_f1'."
            )


def _digits(group: Int[Tensor, " b"]) -> list[Int[Tensor, " b"]]:
    return [group >> bits & 0xFFFFF for bits in (0, 20, 40)]
