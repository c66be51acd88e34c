"""What the formats share whose rows can be written as a template, for a language model's head to read."""

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ptune.backbone.pretrained import MINILM, describe
from ptune.backbone.tokenizer import pieces
from ptune.data import loader
from ptune.data.base import TaskData
from ptune.data.tokens import Batch
from ptune.data.writer import Writer
from ptune.errors import InputError
from ptune.tasks.spec import HeadSpec, TaskSpec
from ptune.tasks.templates import Template

if TYPE_CHECKING:
    from datasets import Dataset

WRITTEN = ("input_ids", "token_type_ids", "slots", "answer_at")
"""Names of the lists that the writer makes of a text."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The texts that Zhao et al. 2021 (*Calibrate Before Use*, section 5) use in place of a row's."""


class Templated(TaskData):
    """Abstract class of rows that a task head reads, or, with a template, the language model's head.

    Args:
        task: Name of a task (`python -m ptune.tasks` lists them) or a TaskSpec, or nothing for files of one's own.
        backbone: Whose tokenizer to use: a hub id, a local folder, or package:NAME/PATH; linked from the model.
        template: Text that a language model completes, such as '{sentence} It was [MASK].'; `task` is the task's own.
            By default there is none and a task head reads the row. `ptune.tasks.templates` explains the notation.
        demonstrations: Number of training rows, drawn by the seed, that precede every text together with their answers.
    """

    template_head: ClassVar[str]
    """Kind of the head that reads a template of this format."""

    def __init__(
        self,
        task: str | TaskSpec | None = None,
        backbone: str = MINILM,
        template: str = "",
        demonstrations: int = 0,
        **common,
    ) -> None:
        self.template_text = template
        self.demonstrations = demonstrations
        super().__init__(task, backbone, **common)

    @property
    def templated(self) -> bool:
        """Whether the language model's head reads the rows, as a template writes them."""
        return bool(self.template_text)

    @cached_property
    def template(self) -> Template:
        """The template, where there is one; an InputError where it is to be the task's, which has none."""
        if self.template_text == "task" and not self.task.template:
            raise InputError(
                f"--data.template task: the task {self.task.name!r} has none of its own; write one, such as "
                "'{sentence} It was [MASK].'"
            )
        return Template(self.task.template if self.template_text == "task" else self.template_text)

    def usual_columns(self) -> tuple[tuple[str, ...], ...]:
        """Those that a template names, or else the format's usual ones."""
        written = (tuple(dict.fromkeys(self.template.columns)),) if self.templated else ()
        return written + super().usual_columns()

    def check(self) -> None:
        """Raise an InputError where the template cannot be read with this backbone."""
        if self.demonstrations < 0:
            raise InputError(f"--data.demonstrations {self.demonstrations}: must be at least 0.")
        if not self.templated:
            if self.demonstrations:
                raise InputError(
                    f"--data.demonstrations {self.demonstrations}: only a template has them; add --data.template task."
                )
            return
        if self.task.label in self.template.columns:
            raise InputError(
                f"--data.template {self.template.text!r} shows the label column {self.task.label!r}, which would show"
                " the model the answer; write [MASK] there."
            )
        lm = describe(self.backbone).lm
        if lm is None:
            raise InputError(
                f"--data.template: backbone {self.backbone!r} has no language model of its own to read it with; leave "
                "it out, or choose another backbone."
            )
        self.causal = lm == "causal"
        if not self.causal and self.tokenizer.mask_token_id is None:
            raise InputError(
                f"--data.template: the tokenizer of backbone {self.backbone!r} has no mask token; choose another "
                "backbone."
            )
        self.writer = Writer(self.template, self.tokenizer, self.causal, self.max_length, self.slots)

    @property
    def head(self) -> HeadSpec:
        """The head this task needs: with a template, the one that reads it."""
        head = super().head
        return replace(head, kind=self.template_head, template=self.template.text) if self.templated else head

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The task's columns, or those of a template that has others."""
        if self.templated and not {*self.template.columns} <= {*self.task.text}:
            return self.template.columns
        return self.task.text

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, with those of the template."""
        return super().recipe() | {"template": self.template_text, "demonstrations": self.demonstrations}

    def learned(self) -> dict[str, Any]:
        """The tokens of the demonstrations that were drawn."""
        return {"front": self.writer.front} if self.demonstrations else {}

    def restore(self, learned: dict[str, Any]) -> None:
        """Put these demonstrations before every text."""
        if self.demonstrations:
            self._set_front(learned["front"])

    def _set_front(self, front: Sequence[int]) -> None:
        self.writer = Writer(self.template, self.tokenizer, self.causal, self.max_length, self.slots, front)

    def settings(self) -> dict[str, Any]:
        """The text around the columns, where there is a template."""
        if not self.templated:
            return {}
        return {"template": self.template.text, "slots": self.slots, "front": self.writer.front, "causal": self.causal}

    def row_settings(self) -> dict[str, Any]:
        """The columns that the template names, where there is one."""
        return {"columns": self.template.columns} if self.templated else {}

    def texts(self, checked: dict) -> dict[str, str]:
        """The texts of a checked row by the names of their columns; with a template, of those that it names."""
        return checked["columns"] if self.templated else super().texts(checked)

    def columns(self, row: dict, empty: bool = False) -> dict[str, str]:
        """The columns that the template names; an empty one is an error unless `empty`."""
        return {name: self.string(row, name, empty) for name in self.template.columns}

    @abstractmethod
    def answer(self, parsed: dict) -> str:
        """The answer of a parsed row, as text."""

    def prepare_rows(self, parsed: "dict[str, Dataset]") -> None:
        """Draw the demonstrations, from the classes in turn, and take them out of the training rows."""
        if not self.demonstrations:
            return
        if self.task.train not in parsed:
            self._missing_train()
        rows = parsed[self.task.train]
        if len(rows) < self.demonstrations:
            raise InputError(
                f"--data.demonstrations {self.demonstrations}: there are {len(rows)} training rows, no more."
            )
        order = list(range(len(rows)))
        random.Random(loader.seed()).shuffle(order)
        of_class: dict[str, int] = {}
        turn = {}  # the first row of every class comes before the second row of any class
        labels = rows["label"][:]
        for i in order:
            name = str(labels[i])
            turn[i] = of_class[name] = of_class.get(name, -1) + 1
        drawn = sorted(order, key=turn.__getitem__)[: self.demonstrations]
        text = " ".join(self.writer.text(rows[i]["columns"], self.answer(rows[i])) for i in drawn)
        front = pieces(self.tokenizer, [text], spaced=False)[0]
        self._set_front(front)
        stay = sorted({*order} - {*drawn})
        numbers = self.kept.get(self.task.train, range(len(rows)))
        self.kept[self.task.train] = [numbers[i] for i in stay]
        parsed[self.task.train] = rows.select(stay)
        if not len(parsed[self.task.train]):
            del parsed[self.task.train]  # an evaluation needs no others, and a fit says that the split is missing

    def written(self, rows: Sequence[dict], fills: Sequence[Sequence[Sequence[int]]]) -> list[dict[str, list]]:
        """Each row, written once for each of its fills: a list of texts under each name."""
        texts = zip(self.writer.columns([row["columns"] for row in rows]), fills, strict=True)
        return [_turned([self.writer.write(columns, fill) for fill in those]) for columns, those in texts]

    def pad_written(self, items: Sequence[Mapping[str, Any]]) -> Batch:
        """The texts of all items, padded: input_ids, attention_mask, token types, slots n×t, and answer_at n×a."""
        texts = {name: [text for item in items for text in item[name]] for name in WRITTEN if name in items[0]}
        places = texts.pop("answer_at")
        fills = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": 0, "slots": False}
        batch: Batch = {name: self.padded(values, fills[name]) for name, values in texts.items()}
        batch["attention_mask"] = self.padded([[1] * len(ids) for ids in texts["input_ids"]], 0)
        longest = max(map(len, places))
        # A shorter answer repeats its last place; the loss and the scores ignore what is read there.
        batch["answer_at"] = torch.tensor([at + at[-1:] * (longest - len(at)) for at in places])
        if not self.slots:
            del batch["slots"]
        return batch

    @cached_property
    def content_free(self) -> Batch:
        """The template without a row: its columns filled with each of `CONTENT_FREE` (Zhao et al. 2021)."""
        mask = self.tokenizer.mask_token or "[MASK]"
        texts = [mask if text == "[MASK]" else text for text in CONTENT_FREE]
        rows = [{"columns": dict.fromkeys(self.template.columns, text), "label": 0} for text in texts]
        return self.collate(self.encode(rows, train=False))


def _turned(texts: list[dict[str, list]]) -> dict[str, list]:
    return {name: [text[name] for text in texts] for name in texts[0]}
