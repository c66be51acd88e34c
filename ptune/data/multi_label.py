"""Classification of one or two texts where a row has any number of labels."""

from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar, final

import torch

from ptune.backbone.pretrained import MINILM
from ptune.data import open_task
from ptune.data.base import TaskData
from ptune.data.rows import Rows
from ptune.data.tokens import Batch
from ptune.data.written import written_list
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.tasks.spec import TaskSpec

BITS = {"0": False, "1": True, "False": False, "True": True}
"""What a matrix of labels has in each of its columns."""


@final
class MultiLabel(TaskData):
    """One or two texts and a list of labels, which may be empty.

    Args:
        separator: Text between the labels where their column is a text, such as ','; without one it must be a list, in
            a CSV file a written one: "['a', 'b']".
    """

    format: ClassVar[str] = "multi_label"
    several = True
    classless = "a row has any number of labels, not one class"
    reported = ("micro_f1", "macro_f1", "exact_match")
    usual_text = open_task.TEXTS
    usual_label = ("labels",)

    def __init__(
        self, task: str | TaskSpec | None = None, backbone: str = MINILM, separator: str = "", **common
    ) -> None:
        self.separator = separator
        super().__init__(task, backbone, **common)

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: each label by itself."""
        return "multi_label"

    @property
    def labels_open(self) -> bool:
        """Whether the task has no labels."""
        return not self.task.labels

    def read_labels(self, rows: Rows) -> list[dict]:
        """How often each label occurs: {name, count}."""
        found = Counter[str]()
        for place, value in open_task.answers(self, rows, empty=True):
            try:
                found.update(map(open_task.label_name, self._listed(value)))
            except InputError as error:
                raise InputError(f"{place}: {error}") from error
        return [{"name": name, "count": count} for name, count in found.items()]

    def take_labels(self, found: list[dict], origin: str) -> TaskSpec:
        """The task with the labels as they are sorted."""
        labels = open_task.in_order(row["name"] for row in found)
        self.said.append(f"labels are those of the training split, sorted: {open_task.listed(labels)}")
        return replace(self.task, labels=labels)

    def check(self) -> None:
        """Raise an InputError where the task has too many columns or too few labels."""
        name, labels = self.task.name, list(self.task.labels)
        if len(self.task.text) > 2:
            raise InputError(f"task {name!r}: --data.task.text {list(self.task.text)} names more than two columns.")
        if len(labels) < 2:
            raise InputError(f"task {name!r}: --data.task.labels {labels} must name two or more labels.")

    def parse(self, row: dict) -> dict:
        """{texts: 1 or 2 strings, label: 0 or 1 for each label}."""
        codes = {self.code(label) for label in self._listed(self.column(row, self.task.label))}
        return {
            "texts": [self.string(row, name) for name in self.task.text],
            "label": [int(code in codes) for code in range(len(self.task.labels))],
        }

    def _listed(self, value: Any) -> list:
        """The labels of a row."""
        if isinstance(value, str) and (found := written_list(self.task.label, value, codes=True)) is not None:
            value = found
        if isinstance(value, str) and self.separator:
            return self._names([label for part in value.split(self.separator) if (label := part.strip())])
        if not isinstance(value, list | tuple):
            fix = "; if it holds labels, give what stands between them, such as --data.separator ','"
            raise InputError(
                f"column {self.task.label!r} must be a list of labels, not {value!r:.40}"
                f"{fix if isinstance(value, str) else ''}."
            )
        if not all(isinstance(label, str | int | float) and label != "" for label in value):
            raise InputError(f"column {self.task.label!r}: {value!r:.40} is no list of names or codes of labels.")
        return self._names(list(value))

    def _names(self, value: list) -> list:
        """The labels of a row, which are no row of a matrix: its 0 and 1 would be two codes, each many times."""
        given = [BITS.get(open_task.label_name(label)) for label in value]
        if None not in given and len({*given}) < len(given):
            codes = [code for code, there in enumerate(given) if there]
            raise InputError(
                f"column {self.task.label!r}: {value!r:.40} seems to have a 0 or a 1 for each label; give the names or "
                f"codes of the labels that the row has, which would be {codes!r:.40}."
            )
        return value

    def missing(self, value: Any) -> bool:
        """Whether the labels are not published; with a separator, an empty text is a row without any label."""
        no_label = bool(self.separator) and isinstance(value, str) and not value.strip()
        return not no_label and super().missing(value)

    def unanswered(self, row: dict) -> dict:
        """The row without any label."""
        return row | {self.task.label: []}

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """[{label, score}] of the labels that are given, the most probable one first."""
        (answer,) = answers
        pairs = zip(answer["answer"], answer["score"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, with the separator."""
        return super().recipe() | ({"separator": self.separator} if self.separator else {})

    def row_settings(self) -> dict[str, Any]:
        """The separator."""
        return {"separator": self.separator}

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: input_ids, token_type_ids where the tokenizer has them, label."""
        texts = self.encode_texts([row["texts"] for row in rows])
        return [text | {"label": row["label"]} for text, row in zip(texts, rows, strict=True)]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts with labels b×c of 0 and 1."""
        return self.pad(items) | {"labels": torch.tensor([item["label"] for item in items])}
