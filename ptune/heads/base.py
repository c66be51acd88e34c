"""`Head`: what every head of a task is, and `kinds`, which finds them.

A head's `loss` returns a sum and the number of terms in it, not a mean: only so can processes that hold different
numbers of tokens agree on the mean over the global batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.errors import InputError, nearest
from ptune.heads.mistakes import Mistakes
from ptune.tasks.spec import HeadSpec

Batch = dict[str, Tensor]
Loss = tuple[Float[Tensor, ""], Int[Tensor, ""]]
Table = Num[Tensor, "rows columns"]
"""One row an example; a metric is a function of the whole table."""
Metric = Callable[[Table], Tensor]
Answer = dict[str, Any]
"""`answer` (a label's name, a number, a text, or a list with an item a word) and `score`, in Python's values."""


class Head(nn.Module, ABC):
    """Scores of a task from a backbone's last hidden states, their loss, and what its metrics are computed from.

    A head owns everything that differs between kinds of tasks. A new kind is one final subclass in this package.
    """

    kind: ClassVar[str]
    """Name of the kind, the `kind` of a HeadSpec."""
    pools: ClassVar[bool] = True
    """Whether it reads one vector a text, not every token."""
    lm: ClassVar[bool] = False
    """Whether it reads with the backbone's language-model head."""
    metrics: ClassVar[Mapping[str, Metric]]
    """The metrics that this kind has, each a function of the table; fractions from 0 to 1."""

    @classmethod
    @abstractmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> "Head":
        """The head that a task asks for, on this backbone; `bias` where it makes a difference."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Tensor:
        """Scores of a batch from the backbone's last hidden states."""

    def reads(self, batch: Batch, backbone: Backbone) -> Int[Tensor, "n a"] | None:
        """The places of the tokens that `forward` reads of each text; None for all of them."""
        if self.lm:
            return batch["answer_at"]
        return backbone.pooled_places(batch) if self.pools else None

    @abstractmethod
    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed loss against `batch["labels"]` and the number of terms summed."""

    @classmethod
    @abstractmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """What the columns of the table hold."""

    @classmethod
    @abstractmethod
    def rows(cls, spec: HeadSpec, scores: Tensor, batch: dict[str, Any]) -> Table:
        """The rows of a batch; `scores` are those of `forward`."""

    @classmethod
    @abstractmethod
    def answers(
        cls, spec: HeadSpec, scores: Tensor, batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """The answers to each row of a batch, best first; the first one is what `rows` counts as the prediction.

        Args:
            spec: the head.
            scores: those of `forward`.
            batch: the batch; its labels are not read.
            top_k: number of answers to a row, None for all; a kind whose row has one answer gives that.
        """

    @classmethod
    @abstractmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list:
        """The right answer to each row, in the form of `answers`; for spans the list of the texts that are right."""

    @classmethod
    @abstractmethod
    def right(cls, table: Table) -> list[bool] | None:
        """Whether each row of the table is answered right; None for a kind whose answers are more or less right."""

    @classmethod
    def units(cls, table: Table) -> Int[Tensor, " rows"]:
        """Number of the unit that each row of the table belongs to, from 0. What is drawn at random is units.

        Here each row is its own; rows that are parts of one question depend on each other.
        """
        return torch.arange(len(table))

    @classmethod
    @abstractmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """What is right and wrong in the answers to a split, as a small table.

        Both have an item a row of the split, in the forms of `answers` and `gold`.
        """

    @classmethod
    @abstractmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table | None:
        """The table of always answering the most frequent training label; None for a kind without a majority."""

    @classmethod
    def metric(cls, name: str, spec: HeadSpec) -> Metric | None:
        """The metric of this name; None where the kind has none."""
        return cls.metrics.get(name)

    @classmethod
    def check_metric(cls, name: str, spec: HeadSpec) -> None:
        """Raise InputError where the metric `name` of this kind cannot be computed with the labels of the task."""


def kinds() -> dict[str, type[Head]]:
    """The final heads of this package by their kind."""
    package = import_module("ptune.heads")
    modules = [import_module(f"ptune.heads.{info.name}") for info in iter_modules(package.__path__)]
    return {
        cls.kind: cls
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Head) and "__final__" in vars(cls)
    }


def head_class(kind: str) -> type[Head]:
    """The head of this kind; InputError where there is none."""
    found = kinds()
    if kind not in found:
        raise InputError(f"head: no kind {kind!r}; {nearest(kind, found)}")
    return found[kind]


def cross_entropy(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Loss:
    """Summed over the labels that are not -100, and their number."""
    total = F.cross_entropy(scores.float(), labels, ignore_index=-100, reduction="sum")
    return total, (labels != -100).sum()
