"""Span QA: a question, a context, and the span of the context that answers it, or none (SQuAD 1.1 and 2.0)."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from ptune.data.base import TaskData
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

MAX_QUESTION = 64
"""Tokens of a question, as in run_squad; a longer one is cut, so that enough tokens are left for the context."""
STRIDE = 128
"""Tokens that neighbouring windows share by default, as in run_squad."""
FOUND = "the first occurrence of whole words, or else the first one"
"""Which occurrence of an answer is taken that has no place."""
REFERENCE = ("id", "context", "answers")


@final
class SpanQA(TaskData):
    """A context is read in overlapping windows; the answer is the best span in any of them.

    In training each window is a row. In evaluation a row is a question with all its windows. Token 0 means "no
    answer in this window"; a question gets no answer only where the data have such questions (SQuAD 2.0).

    An answer without a place in its context is the first occurrence that is whole words, or else the first occurrence.

    Args:
        stride: Number of tokens that neighbouring windows share; by default 128, or half of a window if that is less.
        max_answer_length: Largest number of tokens in an answer.
        null_threshold: No answer is given where its score exceeds the best span's by more than this.
    """

    format: ClassVar[str] = "span_qa"
    classless = "an answer is a span of its context, not a class"
    reported = ("f1", "exact_match")
    usual_text = (("question", "context"),)
    usual_label = ("answers", "answer")

    def __init__(
        self, *args, stride: int | None = None, max_answer_length: int = 30, null_threshold: float = 0.0, **kwargs
    ):
        self.stride = stride
        self.max_answer_length = max_answer_length
        self.null_threshold = null_threshold
        super().__init__(*args, **kwargs)

    def remark(self, row: dict, origin: str) -> str:
        """Where answers without a place are taken to be."""
        placed = _parts(row.get(self.task.label))[1] is not None
        return "" if placed else f"answers are looked for in the context: {FOUND}"

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: the first and the last token of the answer."""
        return "span"

    def check(self) -> None:
        """Raise an InputError where the task does not name two columns, or an argument is out of its range."""
        if len(self.task.text) != 2:
            raise InputError(
                f"task {self.task.name!r}: --data.task.text must name two columns, e.g. '[question,context]'."
            )
        for name, value, least in (("stride", self.stride, 0), ("max_answer_length", self.max_answer_length, 1)):
            if value is not None and value < least:
                raise InputError(f"--data.{name} {value}: must be at least {least}.")
        if math.isnan(self.null_threshold):
            raise InputError(f"--data.null_threshold {self.null_threshold}: must be a number.")

    def texts(self, checked: dict) -> dict[str, str]:
        """Question and context."""
        return dict(zip(self.task.text, (checked["question"], checked["context"]), strict=True))

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """[{score, start, end, answer}]: the text and its characters in the context; "" from 0 to 0 for no answer."""
        return [{key: answer[key] for key in ("score", "start", "end", "answer")} for answer in answers]

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, with those of windows and answers."""
        names = ("stride", "max_answer_length", "null_threshold")
        return super().recipe() | {name: getattr(self, name) for name in names}

    def learned(self) -> dict[str, Any]:
        """Whether there are questions without an answer."""
        return {"nullable": self.nullable}

    def restore(self, learned: dict[str, Any]) -> None:
        """Set whether a question may get no answer."""
        self.nullable = learned["nullable"]

    def settings(self) -> dict:
        """The stride, and the constants of this file."""
        return {"stride": self.stride, "default": STRIDE, "question": MAX_QUESTION}

    def parse(self, row: dict) -> dict:
        """{id, question, context: str, answers: their texts, start: first character of the first or -1}."""
        question, context = (self.string(row, name) for name in self.task.text)
        texts, start = self._answers(self.column(row, self.task.label), context)
        return {
            "id": str(row.get("id", "")),
            "question": question.strip(),
            "context": context,
            "answers": texts,
            "start": start,
        }

    def _answers(self, value: Any, context: str) -> tuple[list[str], int]:
        """The answers' texts and the first character of the first one, -1 where there is no answer.

        Answers without a place are looked for in the context (`occurrence`). Those that are there come first, and one
        must be there; the others are references of an evaluation alone.
        """
        name = self.task.label
        texts, starts = _parts(value)
        if texts is None or not (starts is None or isinstance(starts, list | tuple)):
            raise InputError(
                f"column {name!r} must be a text, a list of texts, or {{'text': [...], 'answer_start': [...]}}, not "
                f"{value!r:.60}."
            )
        if starts is not None and len(texts) != len(starts):
            raise InputError(f"column {name!r} has {len(texts)} texts but {len(starts)} answer_start; give one a text.")
        for text, start in zip(texts, starts or [0] * len(texts), strict=True):
            if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
                raise InputError(f"column {name!r}: answer {text!r} at {start!r} must be a text and a whole number.")
            if starts is None:
                continue
            if not text or start < 0 or context[start : start + len(text)] != text:
                there = context[max(start, 0) :][: max(len(text), 10)]
                raise InputError(
                    f"column {name!r}: answer {text!r} is not at answer_start {start} of the context, {there!r} is."
                )
        if starts is None:
            texts = [text.strip() for text in texts if text.strip()]
            places = {text: occurrence(text, context) for text in texts}
            texts = sorted(texts, key=lambda text: places[text] < 0)
            starts = [places[text] for text in texts]
            if texts and starts[0] < 0:
                raise InputError(f"column {name!r}: answer {texts[0]!r} is not in the context, {context!r:.60}.")
        return list(texts), starts[0] if starts else -1

    def unanswered(self, row: dict) -> dict:
        """The row without an answer, as SQuAD 2.0 writes it."""
        return row | {self.task.label: {"text": [], "answer_start": []}}

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """Items with lists of windows: input_ids, token_type_ids and span (the answer's first and last token).

        For evaluation also offsets (-1 outside of the context), id, context and answers.
        """
        if not self.tokenizer.is_fast:
            raise InputError(
                f"backbone {self.backbone!r}: its tokenizer keeps no character offsets; span_qa needs them."
            )
        free = self.budget - self.tokenizer.num_special_tokens_to_add(pair=True)
        longest = min(MAX_QUESTION, free // 2)
        tokens = self.tokenizer(
            self._shortened([row["question"] for row in rows], longest),
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=self.budget,
            stride=self._overlap(free - longest),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        names = [name for name in ("input_ids", "token_type_ids") if name in tokens]
        items: list[dict] = []
        before = -1
        for window, i in enumerate(tokens["overflow_to_sample_mapping"]):
            row = rows[i]
            if train or i != before:
                kept = {} if train else {name: row[name] for name in REFERENCE}
                items.append({"answerable": row["start"] >= 0, **kept})
            before = i
            offsets = [
                list(span) if part == 1 else [-1, -1]
                for part, span in zip(tokens.sequence_ids(window), tokens["offset_mapping"][window], strict=True)
            ]
            columns = {name: tokens[name][window] for name in names}
            columns["span"] = answer_tokens(offsets, row["start"], row["answers"])
            for name, value in (columns if train else columns | {"offsets": offsets}).items():
                items[-1].setdefault(name, []).append(value)
        return items

    def _overlap(self, free: int) -> int:
        """The stride; `free` is the number of tokens that the context has at least."""
        if self.stride is None:
            return min(STRIDE, free // 2)
        if self.stride >= free:
            raise InputError(
                f"--data.stride {self.stride}: must be below {free}, the tokens of context that --data.max_length"
                f" {self.max_length} leaves beside a long question and {self.slots} prompt slots."
            )
        return self.stride

    def _shortened(self, questions: list[str], longest: int) -> list[str]:
        """The questions, cut after `longest` tokens."""
        tokens = self.tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [offsets[longest - 1][1] if len(offsets) > longest else None for offsets in tokens["offset_mapping"]]
        return [question[:end] for question, end in zip(questions, ends, strict=True)]

    @cached_property
    def nullable(self) -> bool:
        """Whether any split has questions without an answer; known after setup."""
        return not all(all(items["answerable"][:]) for items in self._items.values())

    def gold(self, items: "Dataset") -> list:
        """No labels: a span has no class that could be the most frequent."""
        return []

    def collate(self, items: list[dict]) -> Batch:
        """The n padded windows of b rows, with labels n×2 (first and last token of the answer, 0 where it is not).

        For evaluation also feature_row n (the row of each window), offsets n×t×2 (characters of the context, -1
        elsewhere), references (b dicts id, context, answers), null_threshold (inf where there is always an answer) and
        max_answer_length.
        """
        names = [name for name in ("input_ids", "token_type_ids") if name in items[0]]
        batch = self.pad([{n: item[n][i] for n in names} for item in items for i in range(len(item["span"]))])
        spans = [span for item in items for span in item["span"]]
        batch["labels"] = torch.tensor([[self.after_slots(token) if token else 0 for token in span] for span in spans])
        if "context" in items[0]:
            none = [-1, -1]
            batch["offsets"] = self.align([window for item in items for window in item["offsets"]], none, none)
            batch["feature_row"] = torch.tensor([row for row, item in enumerate(items) for _ in item["span"]])
            batch["references"] = [{name: item[name] for name in REFERENCE} for item in items]
            batch["null_threshold"] = self.null_threshold if self.nullable else float("inf")
            batch["max_answer_length"] = self.max_answer_length
        return batch


def occurrence(text: str, context: str) -> int:
    """First character of the first occurrence of `text` that is whole words, else of the first one; -1 without any."""
    found = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", context)
    return found.start() if found else context.find(text)


def _parts(value: Any) -> tuple[list | tuple | None, Any]:
    """The texts of an answer column and their places, None where it does not give them."""
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            return [texts], [starts] if isinstance(starts, int) else starts
        return texts if isinstance(texts, list | tuple) else None, starts
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Mapping) for item in value):  # as SQuAD's own
            return [item.get("text") for item in value], [item.get("answer_start") for item in value]
        return value, None
    return ([value], None) if isinstance(value, str) else (None, None)


def answer_tokens(offsets: list[list[int]], start: int, answers: list[str]) -> list[int]:
    """First and last token of the first answer, which begins at character `start`; [0, 0] unless it lies in the window.

    `offsets` are the tokens' characters in the context, -1 outside of it.
    """
    if not answers:
        return [0, 0]
    end = start + len(answers[0])
    inside = [token for token, (begin, _) in enumerate(offsets) if begin >= 0]
    begins, ends = ([offsets[token][side] for token in inside] for side in (0, 1))
    if not inside or begins[0] > start or ends[-1] < end:
        return [0, 0]
    first, last = bisect_right(ends, start), bisect_left(begins, end) - 1
    return [inside[first], inside[last]] if first <= last else [0, 0]
