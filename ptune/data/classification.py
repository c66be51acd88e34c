"""Classification and regression of one or two texts."""

import math
from typing import ClassVar

import torch

from ptune.data.base import Batch, TaskData
from ptune.errors import InputError
from ptune.tasks.spec import Format


class Classification(TaskData):
    """One or two texts and a class, or a number where the task has no labels (regression)."""

    format: ClassVar[Format] = "classification"

    def check(self) -> None:
        """Columns and labels fit together."""
        self._groups: dict[str, int] = {}
        """Numbers of the groups' names, in the order they were read."""
        name, metrics = self.task.name, self.task.metrics
        if len(self.task.text) > 2:
            raise InputError(f"task {name!r}: --data.task.text {list(self.task.text)} names more than two columns.")
        if len(self.task.labels) == 1:
            raise InputError(
                f"task {name!r}: --data.task.labels {list(self.task.labels)} must name two or more classes."
            )
        if not self.task.labels and not set(metrics) <= {"pearson", "spearman"}:
            raise InputError(
                f"task {name!r} has no labels, so it predicts a number: give --data.task.labels '[no,yes]' for classes,"
                " or --data.task.metrics '[pearson,spearman]' for numbers."
            )

    def parse(self, row: dict) -> dict:
        """{texts: 1 or 2 strings, label: code or number, group: int if the task has groups}."""
        parsed = {
            "texts": [self.string(row, name) for name in self.task.text],
            "label": self._label(self.column(row, self.task.label)),
        }
        if self.task.group:
            name = str(self.column(row, self.task.group))
            parsed["group"] = self._groups.setdefault(name, len(self._groups))
        return parsed

    def _label(self, value: object) -> int | float:
        if self.task.labels:
            return self.code(value)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"column {self.task.label!r}: {value!r} is not a number.")
        return number

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: input_ids, token_type_ids where the tokenizer has them, label, group."""
        columns = [list(texts) for texts in zip(*(row["texts"] for row in rows), strict=True)]
        first, second = (*columns, None)[:2]
        tokens = self.tokenizer(first, second, truncation=True, max_length=self.budget, return_attention_mask=False)
        kept = {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
        rest = [{name: row[name] for name in ("label", "group") if name in row} for row in rows]
        return [{name: values[i] for name, values in kept.items()} | rest[i] for i in range(len(rows))]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts with labels b (long, float for regression) and group b where the task has groups."""
        batch = self.pad(items)
        dtype = torch.long if self.task.labels else torch.float
        batch["labels"] = torch.tensor([item["label"] for item in items], dtype=dtype)
        if self.task.group:
            batch["group"] = torch.tensor([item["group"] for item in items])
        return batch
