"""`ByTask`: a head for each of several tasks, whose rows share a batch."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.heads.base import Batch, Head, Table
from ptune.heads.linear import LinearHead
from ptune.heads.metrics import OF_CLASSES, Weighted
from ptune.heads.one_of import OneOf
from ptune.tasks.spec import HeadSpec

MEAN = "mean"
"""The mean over the tasks of the first metric of each."""


def named(task: str, name: str) -> str:
    """A label or a metric of one of several tasks; no task has a colon in its name."""
    return f"{task}:{name}"


def parts(spec: HeadSpec) -> list[HeadSpec]:
    """The heads of the single tasks, in their order."""
    found = []
    for task, own in groupby(spec.labels, lambda label: label.partition(":")[0]):
        labels = tuple(label.partition(":")[2] for label in own)
        metrics = tuple(name.partition(":")[2] for name in spec.metrics if name.startswith(f"{task}:"))
        found.append(HeadSpec(task, "classify", labels, metrics, metrics[0]))
    return found


@final
class ByTask(LinearHead, OneOf):
    """One of the classes of a row's own task: scores "b c" of the c classes of all tasks, the lowest for other tasks'.

    A linear layer with an output for each class of every task is a head for each task, since a row's softmax has no
    share in the classes of others. `group` b in a batch is the number of each row's task; labels and metrics of a
    task are called `task:label` and `task:metric`.
    """

    kind = "by_task"
    metrics = OF_CLASSES  # of each task

    def __init__(self, width: int, labels: Sequence[int], dropout: float, bias: bool) -> None:
        super().__init__(width, sum(labels), dropout, bias)
        of_label = torch.arange(len(labels)).repeat_interleave(torch.tensor(labels))
        self.foreign: Tensor
        self.register_buffer("foreign", torch.arange(len(labels))[:, None] != of_label, persistent=False)

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """As many outputs as all tasks have classes."""
        return cls(backbone.output_width, [len(part.labels) for part in parts(spec)], dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        scores = self.project(backbone.pool(hidden, batch))
        return scores.masked_fill(self.foreign[batch["group"]], torch.finfo(scores.dtype).min)

    @classmethod
    def metric(cls, name: str, spec: HeadSpec) -> Weighted | None:
        """A metric of one task, computed of its rows alone, or the mean."""
        heads = parts(spec)
        if name == MEAN:
            each = [found for part in heads if (found := cls.metric(named(part.task, part.monitor), spec))]
            return Weighted(lambda table, weights: torch.stack([one.of(table, weights) for one in each]).mean(0))
        task, _, own = name.partition(":")
        number = next((i for i, part in enumerate(heads) if part.task == task), None)
        if number is None or own not in OF_CLASSES:
            return None
        return _of_task(OF_CLASSES[own], number, sum(len(part.labels) for part in heads[:number]))

    @classmethod
    def units(cls, table: Table) -> Int[Tensor, " rows"]:
        """Each row is its own: the group is its task."""
        return torch.arange(len(table))

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The most frequent training label of each row's task."""
        counts, most = Counter(train_labels), []
        for part in parts(spec):
            own = range(len(most), len(most) + len(part.labels))
            most += [max(own, key=counts.__getitem__)] * len(own)  # of each label's task
        assert groups is not None, "the rows of several tasks have their task's number"
        rows = [[most[label], label, task, 0, 0] for label, task in zip(eval_labels, groups, strict=True)]
        return torch.tensor(rows)

    @classmethod
    def check_metric(cls, name: str, spec: HeadSpec) -> None:
        """As for a task alone."""
        task, _, own = name.partition(":")
        for part in parts(spec):
            if part.task == task:
                super().check_metric(own, part)


def _of_task(metric: Weighted, number: int, first: int) -> Weighted:
    """The metric of the rows of one task, whose labels have codes from `first` on; 0 where it is undefined."""

    def of(table: Table, weights: Float[Tensor, "n rows"]) -> Float[Tensor, " n"]:
        rows = table[:, 2] == number
        own = torch.cat([table[rows, :2] - first, torch.zeros_like(table[rows, 2:])], dim=1)
        return metric.of(own, weights[:, rows]).nan_to_num(0.0)

    return Weighted(of)
