"""`OneOf`: what all heads share whose answer is one of several."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptune.errors import InputError
from ptune.heads.base import Answer, Batch, Head, Loss, Table, cross_entropy
from ptune.heads.mistakes import Mistakes, confusion
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
    def answers(
        cls, spec: HeadSpec, scores: Float[Tensor, "b c"], batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """Labels by their names, or codes where there are none, with their probabilities; of equal ones the first."""
        probabilities = scores.float().softmax(-1)
        if top_k == 1:
            codes = scores.argmax(-1, keepdim=True)
        else:
            codes = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
        found = zip(codes.tolist(), probabilities.gather(-1, codes).tolist(), strict=True)
        return [
            [{"answer": _name(spec, code), "score": score} for code, score in zip(*row, strict=True)] for row in found
        ]

    @classmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list[str | int]:
        """The label of each row by its name, or its code where there are none."""
        return [_name(spec, code) for code in batch["labels"].tolist()]

    @classmethod
    def right(cls, table: Table) -> list[bool]:
        """Whether prediction and label are the same."""
        return (table[:, 0] == table[:, 1]).tolist()

    @classmethod
    def units(cls, table: Table) -> Int[Tensor, " rows"]:
        """The groups; the rows where the task has none, whose group is 0 everywhere."""
        groups, of_row = table[:, 2:].unique(dim=0, return_inverse=True)
        return of_row if len(groups) > 1 else super().units(table)

    @classmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """The pairs of gold and answer."""
        return confusion(answers, gold)

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


def _name(spec: HeadSpec, code: int) -> str | int:
    return spec.labels[code] if spec.labels else code


def _digits(group: Int[Tensor, " b"]) -> list[Int[Tensor, " b"]]:
    return [group >> bits & 0xFFFFF for bits in (0, 20, 40)]
