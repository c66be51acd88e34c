"""Multiple choice: one context, several endings, one of them right."""

from dataclasses import replace
from typing import ClassVar

import torch

from ptune.data.base import Batch, TaskData
from ptune.errors import InputError
from ptune.tasks.spec import Format


class MultipleChoice(TaskData):
    """A context and c endings; the right one is the label.

    The first text column is the first text; each ending is the second, behind the second text column if there is one
    (SWAG's `sent2`, as transformers' run_swag does it).
    """

    format: ClassVar[Format] = "multiple_choice"

    def check(self) -> None:
        """Columns and labels fit together."""
        name = self.task.name
        if len(self.task.choices) < 2:
            raise InputError(f"task {name!r}: --data.task.choices must name two or more columns, e.g. '[a,b]'.")
        if len(self.task.text) > 2:
            raise InputError(f"task {name!r}: --data.task.text {list(self.task.text)} names more than two columns.")
        if len(self.task.labels) not in (0, len(self.task.choices)):
            raise InputError(f"task {name!r}: {len(self.task.labels)} labels for {len(self.task.choices)} choices.")
        self._named = bool(self.task.labels)
        if not self._named:  # the head and the metrics count the classes
            self.task = replace(self.task, labels=self.task.choices)

    def parse(self, row: dict) -> dict:
        """{first: str, seconds: c strings, label: code}."""
        first, *begin = self.task.text
        start = [self.string(row, name, empty=True) for name in begin]
        return {
            "first": self.string(row, first),
            "seconds": [" ".join([*start, self.string(row, name)]).strip() for name in self.task.choices],
            "label": self._label(self.column(row, self.task.label)),
        }

    def _label(self, value: object) -> int:
        if self._named:
            return self.code(value)
        codes = range(len(self.task.choices))
        if str(value) not in map(str, codes):
            raise InputError(f"column {self.task.label!r}: {value!r} is not the number of a choice, 0 to {codes[-1]}.")
        return int(str(value))

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: input_ids and token_type_ids are lists of c lists."""
        c = len(self.task.choices)
        firsts = [row["first"] for row in rows for _ in range(c)]
        seconds = [second for row in rows for second in row["seconds"]]
        tokens = self.tokenizer(firsts, seconds, truncation=True, max_length=self.budget, return_attention_mask=False)
        kept = {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
        return [
            {name: values[i * c : (i + 1) * c] for name, values in kept.items()} | {"label": row["label"]}
            for i, row in enumerate(rows)
        ]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts, b·c rows (all choices of a question together), with labels b."""
        names = [name for name in ("input_ids", "token_type_ids") if name in items[0]]
        texts = [{name: item[name][i] for name in names} for item in items for i in range(len(self.task.choices))]
        return self.pad(texts) | {"labels": torch.tensor([item["label"] for item in items])}
