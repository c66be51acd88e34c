"""Multiple choice: one context, several endings, one of them right."""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch.nn.utils.rnn import pad_sequence

from ptune.backbone.tokenizer import encoded, filled, pieces, stand_in
from ptune.data.templated import Templated
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.tasks.spec import TaskSpec

CHOICE = re.compile(r"((?:choice|ending|option|answer|candidate)?_?)([0-9]+|[a-h])", re.ASCII | re.IGNORECASE)
"""Usual names of the columns of choices: ending0, choice_2, optionB, and A to H."""


@final
class MultipleChoice(Templated):
    """A context and c endings; the right one is the label: its number, its column or, with labels, its name.

    The first text column is the first text. Each ending is a second text, after the second text column if there is one
    (SWAG's `sent2`, as in transformers' run_swag). With a template each ending is read at the mask instead.
    """

    format: ClassVar[str] = "multiple_choice"
    template_head = "cloze_choice"
    usual_text = (
        *(("context", "question"), ("passage", "question"), ("article", "question"), ("sent1", "sent2")),
        *(("premise",), ("question",), ("context",), ("text",), ("sentence",)),
    )
    usual_label = ("answer", "gold")

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: one score a choice."""
        return "choice"

    @property
    def columns_open(self) -> bool:
        """Whether the task names no text or no choices."""
        return not (self.task.text and self.task.choices)

    def take_columns(self, columns: Collection[str], there: str) -> TaskSpec:
        """The task with the choices: columns of one name with numbers or letters behind it, or of the letters alone."""
        if self.task.choices:
            return self.task
        found: dict[str, list[str]] = {}
        for name in columns:
            if name not in self.task.text and (match := CHOICE.fullmatch(name)):
                found.setdefault(match[1].lower(), []).append(name)
        choices = tuple(max(found.values(), key=len, default=()))
        if len(choices) < 2:
            raise InputError(
                f"task {self.task.name!r}: --data.task.choices must name the columns of the endings, {there}"
            )
        choices = tuple(sorted(choices, key=lambda name: (len(name), name)))
        self.said.append(f"choices are [{', '.join(choices)}]")
        return replace(self.task, choices=choices)

    def check(self) -> None:
        """Raise an InputError where columns and labels do not fit together."""
        name = self.task.name
        if len(self.task.choices) < 2:
            raise InputError(f"task {name!r}: --data.task.choices must name two or more columns, e.g. '[a,b]'.")
        if len(self.task.text) > 2:
            raise InputError(f"task {name!r}: --data.task.text {list(self.task.text)} names more than two columns.")
        if len(self.task.labels) not in (0, len(self.task.choices)):
            raise InputError(f"task {name!r}: {len(self.task.labels)} labels for {len(self.task.choices)} choices.")
        if not self.task.labels:  # the head and the metrics need the number of classes
            self.task = replace(self.task, labels=self.task.choices)
        super().check()

    def code(self, value: Any) -> int:
        """As for all tasks; a letter is the choice whose column has it behind a common name: B is `option_b`."""
        ends = [match and match[2].lower() for match in map(CHOICE.fullmatch, self.task.labels)]
        letter = str(value).strip().lower()
        return ends.index(letter) if letter.isalpha() and ends.count(letter) == 1 else super().code(value)

    def answer(self, parsed: dict) -> str:
        """The right ending."""
        return parsed["seconds"][parsed["label"]]

    def parse(self, row: dict) -> dict:
        """{first: str, seconds: c strings, label: code}; with a template {columns, seconds: the endings, label}."""
        if self.templated:
            endings = [self.string(row, name).strip() for name in self.task.choices]
            label = self.code(self.column(row, self.task.label))
            return {"columns": self.columns(row, empty=True), "seconds": endings, "label": label}
        first, *begin = self.task.text
        start = [self.string(row, name, empty=True) for name in begin]
        return {
            "first": self.string(row, first),
            "seconds": [" ".join([*start, self.string(row, name)]).strip() for name in self.task.choices],
            "label": self.code(self.column(row, self.task.label)),
        }

    def unanswered(self, row: dict) -> dict:
        """The row with the first choice as its label."""
        return row | {self.task.label: self.task.labels[0]}

    def texts(self, checked: dict) -> dict[str, str]:
        """The first text, or the template's columns, and the endings."""
        first = checked["columns"] if self.templated else {self.task.text[0]: checked["first"]}
        return first | dict(zip(self.task.choices, checked["seconds"], strict=True))

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """[{label, score, answer}], best first; `answer` is the text of the choice that the label stands for."""
        texts = dict(zip(self.task.labels, checked["seconds"], strict=True))
        return [answer | {"answer": texts[answer["label"]]} for answer in super().presented(checked, answers)]

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: input_ids and token_type_ids are lists of c lists."""
        if self.templated:
            return self._written(rows)
        c = len(self.task.choices)
        firsts = [row["first"] for row in rows for _ in range(c)]
        seconds = [second for row in rows for second in row["seconds"]]
        tokens = encoded(self.tokenizer, firsts, seconds, self.budget)
        return [
            {name: values[i * c : (i + 1) * c] for name, values in tokens.items()} | {"label": row["label"]}
            for i, row in enumerate(rows)
        ]

    def _written(self, rows: list[dict]) -> list[dict]:
        """Items of a template: each ending is a text of its own, read at the places of its tokens, `answer_ids`."""
        most = min(self.max_length // 2, self.writer.free)  # a longer ending would displace the text before it
        none = [stand_in(self.tokenizer)]  # for an ending that the tokenizer drops, such as a zero-width space
        endings = [[ids[:most] or none for ids in pieces(self.tokenizer, row["seconds"], spaced=True)] for row in rows]
        fills = [[filled(ids, self.tokenizer, self.causal) for ids in those] for those in endings]
        texts = self.written(rows, fills)
        return [
            text | {"answer_ids": ids, "label": row["label"]}
            for text, ids, row in zip(texts, endings, rows, strict=True)
        ]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts, b·c rows (all choices of a question together), with labels b."""
        labels = {"labels": torch.tensor([item["label"] for item in items])}
        if self.templated:
            ids: list[Any] = [torch.tensor(ids) for item in items for ids in item["answer_ids"]]
            return self.pad_written(items) | labels | {"answer_ids": pad_sequence(ids, True, padding_value=-100)}
        names = [name for name in ("input_ids", "token_type_ids") if name in items[0]]
        texts = [{name: item[name][i] for name in names} for item in items for i in range(len(self.task.choices))]
        return self.pad(texts) | labels
