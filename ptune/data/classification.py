"""Classification and regression of one or two texts, by a task head or by a template's word."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
import xxhash

from ptune.backbone.pretrained import MINILM
from ptune.backbone.tokenizer import answers
from ptune.data import open_task
from ptune.data.open_task import NUMBER
from ptune.data.rows import Rows
from ptune.data.templated import Templated
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.tasks.spec import HeadSpec, TaskSpec
from ptune.tasks.templates import Verbalizer

CORRELATIONS = {"pearson", "spearman"}
"""The metrics of a number."""


def number(column: str, value: object) -> float:
    """The number in `column`, finite as a 32-bit float."""
    try:
        written = not isinstance(value, str) or NUMBER.fullmatch(value.strip())
        found = float(value) if written else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    except OverflowError:
        found = math.inf
    if math.isnan(found):
        raise InputError(f"column {column!r}: {value!r:.40} is not a number.")
    if abs(found) > torch.finfo(torch.float32).max:
        raise InputError(f"column {column!r}: {value!r:.40} is beyond a 32-bit float, which ends at 3.4e38.")
    return found


def group_number(name: str) -> int:
    """The number of a group: 60 bits of a digest of its name, so that it is the same wherever a row is read."""
    return xxhash.xxh3_64_intdigest(name.encode()) >> 4


@final
class Classification(Templated):
    """One or two texts and a class, or a number where the task has no labels (regression).

    Args:
        verbalizer: With a template, the word or the words that stand for each label, such as '{no: bad, yes: [good,
            great]}'; by default the task's.
    """

    format: ClassVar[str] = "classification"
    template_head = "cloze"
    reported = ("accuracy", "macro_f1")
    usual_text = open_task.TEXTS
    usual_label = ("labels",)

    def __init__(
        self,
        task: str | TaskSpec | None = None,
        backbone: str = MINILM,
        verbalizer: dict[str, str | list[str]] | None = None,
        **common,
    ) -> None:
        self.words = verbalizer
        super().__init__(task, backbone, **common)

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: classes, or a number where the task has no labels."""
        return "classify" if task.labels else "regress"

    @property
    def labels_open(self) -> bool:
        """Whether the task has neither labels nor the metrics of a number."""
        return not self.task.labels and not (self.task.metrics and {*self.task.metrics} <= CORRELATIONS)

    def read_labels(self, rows: Rows) -> list[dict]:
        """How often each label occurs: {name, count}."""
        column, found = self.task.label, Counter[str]()
        for place, value in open_task.answers(self, rows):
            if isinstance(value, list | tuple):
                raise InputError(f"{place}: column {column!r} holds a list of labels; use --data MultiLabel.")
            found[open_task.label_name(value)] += 1
        return [{"name": name, "count": count} for name, count in found.items()]

    def take_labels(self, found: list[dict], origin: str) -> TaskSpec:
        """The task with the classes as they are sorted, or with a number where the column has decimals."""
        column, counts = self.task.label, {row["name"]: row["count"] for row in found}
        labels = open_task.classes(counts, column, origin, number=not self.task.metrics)
        if labels is None:
            self.said.append(f"{column} has decimals and is a number (with --data.task.labels, a class)")
            return replace(self.task, metrics=("pearson", "spearman"))
        self.said.append(f"labels are those of the training split, sorted: {open_task.listed(labels)}")
        return replace(self.task, labels=labels)

    def check(self) -> None:
        """Raise an InputError where columns, labels and template do not fit together."""
        name, metrics = self.task.name, self.task.metrics
        if len(self.task.text) > 2:
            raise InputError(f"task {name!r}: --data.task.text {list(self.task.text)} names more than two columns.")
        if len(self.task.labels) == 1:
            raise InputError(
                f"task {name!r}: --data.task.labels {list(self.task.labels)} must name two or more classes."
            )
        if not self.task.labels and not {*metrics} <= CORRELATIONS:
            raise InputError(
                f"task {name!r} has no labels, so it predicts a number: give --data.task.labels '[no,yes]' for classes,"
                " or --data.task.metrics '[pearson,spearman]' for numbers."
            )
        super().check()
        if not self.templated:
            if self.words:
                raise InputError("--data.verbalizer: only a template has words for labels; add --data.template.")
            return
        if not self.task.labels:
            raise InputError(f"--data.template: task {name!r} predicts a number, and a word is a class; leave it out.")
        self.verbalizer = Verbalizer(self.task.verbalizer if self.words is None else self.words, self.task.labels)
        self.fills = answers(self.verbalizer.words, self.tokenizer, self.causal).fills

    @property
    def head(self) -> HeadSpec:
        """The head this task needs, with the words of a verbalizer."""
        return replace(super().head, words=self.verbalizer.words) if self.templated else super().head

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, with the verbalizer."""
        return super().recipe() | ({"verbalizer": self.words} if self.words else {})

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """[{label, score}], best first: labels with their probabilities, or the label column's name and the number."""
        if self.task.labels:
            return super().presented(checked, answers)
        return [{"label": self.task.label, "score": answer["score"]} for answer in answers]

    def settings(self) -> dict[str, Any]:
        """The template's settings, and the tokens at its mask."""
        return super().settings() | ({"fills": self.fills} if self.templated else {})

    def answer(self, parsed: dict) -> str:
        """The first word of the row's label."""
        return self.verbalizer.words[parsed["label"]][0]

    def parse(self, row: dict) -> dict:
        """{texts: 1 or 2 strings, label: code or number, group: int if the task has groups}.

        With a template `columns`, those that it names, take the place of `texts`.
        """
        parsed: dict[str, Any] = {"label": self._label(self.column(row, self.task.label))}
        if self.templated:
            parsed["columns"] = self.columns(row)
        else:
            parsed["texts"] = [self.string(row, name) for name in self.task.text]
        if self.task.group:
            parsed["group"] = group_number(str(self.column(row, self.task.group)))
        return parsed

    def unanswered(self, row: dict) -> dict:
        """The row with stand-ins for its label and its group."""
        return super().unanswered(row) | ({self.task.group: ""} if self.task.group else {})

    def _label(self, value: object) -> int | float:
        if isinstance(value, list | tuple):
            raise InputError(f"column {self.task.label!r} holds a list of labels; use --data MultiLabel.")
        if self.task.labels:
            return self.code(value)
        return number(self.task.label, value)

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: input_ids, token_type_ids where the tokenizer has them, label, group."""
        rest = [{name: row[name] for name in ("label", "group") if name in row} for row in rows]
        if self.templated:
            texts = self.written(rows, [self.fills] * len(rows))
            return [text | more for text, more in zip(texts, rest, strict=True)]
        texts = self.encode_texts([row["texts"] for row in rows])
        return [text | more for text, more in zip(texts, rest, strict=True)]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts with labels b (long, float for regression) and group b where the task has groups."""
        batch = self.pad_written(items) if self.templated else self.pad(items)
        dtype = torch.long if self.task.labels else torch.float
        batch["labels"] = torch.tensor([item["label"] for item in items], dtype=dtype)
        if self.task.group:
            batch["group"] = torch.tensor([item["group"] for item in items])
        return batch
