"""`Predictor`: a trained prompt that is called on texts and rows, and answers as transformers' pipelines do."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from ptune.data.base import TaskData
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads import head_class
from ptune.tuning.tuner import PromptTuner

PART = 10_000
"""Rows that are read, checked and sorted by length at a time."""
MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""The dtype that Lightning computes in under each of its mixed precisions."""
NAMES = (("text", "text_pair"), ("question", "context"))
"""Names that pipelines have for the texts of a row, in the order of the task's columns."""

Row = str | tuple[str, ...] | list[str] | Mapping[str, Any]
"""A text, the texts of a pair, the words of a sentence (tagging), or a row with the task's columns."""


@final
class Predictor:
    """A model in eval mode and the data module that reads its rows; `ptune.load` makes one.

    Called on one row it returns one answer, on a list or a `datasets.Dataset` a list of answers in the order of the
    rows, on any other iterable an iterator of them. A row is a text, a tuple of two texts where the task reads a pair,
    or a dict with the task's columns (or with `text` and `text_pair`, or `question` and `context`); for tagging, in
    a list of rows, also a list of words. Rows need no answers. What is returned for a row, by the task's format:

    - classification: `{label, score}`, the score a probability; for one text that is given alone, a list of one, as
      transformers' text-classification pipeline returns. A task without labels: its number is the score;
    - multi_label: a list of `{label, score}`, the labels that are given, the most probable one first;
    - multiple choice: `{label, score, answer}`, where `answer` is the text of the choice;
    - span_qa: `{score, start, end, answer}`, characters of the context; `answer` is "" where there is none;
    - tagging: a list of `{entity_group, score, word, start, end}`, characters of the text, or of its words joined by
      spaces;
    - fill: a list of `{score, token, token_str, sequence}`, five by default.

    With `top_k`, a row of classes, choices, spans or words gets a list of so many of these, best first; with
    `top_k=None` of all classes and choices, of 20 spans, and of the whole vocabulary. Spans are distinct, and where a
    question may have no answer, that is one of them. A number, the tags of a sentence and the labels of a multi-label
    row are one answer, which is the same with `top_k`.

    Args:
        model: a method; its backbone is loaded if it is not yet.
        data: the data module; it need not be set up.
        device: where to compute, such as "cpu" or "cuda:1".
        precision: Lightning's, with which the run was evaluated; mixed ones are kept.
    """

    def __init__(self, model: PromptTuner, data: TaskData, device: str = "cpu", precision: str = "32-true") -> None:
        model.configure_model()
        try:
            self.model = model.to(torch.device(device)).eval()
        except (RuntimeError, AssertionError) as error:  # torch's, of a device that is none or not there
            raise InputError(f"device: {device!r} cannot be used ({str(error).splitlines()[0]}).") from error
        self.data = data
        self.precision = precision
        self.model.check_data(data)

    def __call__(self, rows: Any = None, *, batch_size: int | None = None, **more: Any) -> Any:
        """The answers; see the class.

        Args:
            rows: a row, a list of rows, a `datasets.Dataset`, or an iterable.
            batch_size: rows in a batch; by default the data module's.
            more: `top_k`, and the columns of one row by name, such as `question` and `context`.

        Raises:
            InputError: what is given is no row and no rows; or a mistake in a row, with its number from 1,
                which an iterator tells when it reaches the row.
        """
        asked = "top_k" in more
        top_k = more.pop("top_k", self.data.top_k)
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise InputError(f"top_k: {top_k!r} must be a whole number of at least 1, or None for all.")
        if rows is None and more:
            rows = more
        elif more:
            raise InputError(f"{next(iter(more))}: is no argument; give rows, top_k and batch_size.")
        rows = _checked_rows(rows)
        lists = asked or self.data.several
        if isinstance(rows, str | tuple | Mapping):
            (answer,) = self.answers([rows], top_k, batch_size)
            as_list = lists or (isinstance(rows, str) and self.data.format == "classification")
            return answer if as_list else answer[0]
        found = self.answers(rows, top_k, batch_size)
        found = found if lists else (answer[0] for answer in found)
        return list(found) if isinstance(rows, Sized) else found

    def answers(
        self, rows: Iterable[Row], top_k: int | None = 1, batch_size: int | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The answers to each row in the order of the rows, as lists, best first.

        Args:
            rows: the rows; `PART` of them are held in memory at a time.
            top_k: number of answers to a row, None for all; a number or the tags of a sentence are one.
            batch_size: rows in a batch; by default the data module's.
        """
        rows, number = iter(rows), 0
        while part := list(islice(rows, PART)):
            checked = []
            for row in part:
                number += 1
                try:
                    checked.append(self.checked(row))
                except InputError as error:
                    raise InputError(f"row {number}: {error}") from error
            yield from self.answered(checked, top_k, batch_size)

    def answered(
        self,
        checked: list[dict],
        top_k: int | None = 1,
        batch_size: int | None = None,
        done: Callable[[int], object] = lambda count: None,
    ) -> list[list[dict[str, Any]]]:
        """The answers to rows that are `checked`; `done` is told the number of rows of each batch."""
        head, spec = head_class(self.model.head_spec.kind), self.model.head_spec
        found: list[list[dict[str, Any]]] = [[] for _ in checked]
        for numbers, batch, scores in self.scored(checked, batch_size):
            answers = head.answers(spec, scores, batch, top_k)
            for number, answer in zip(numbers, answers, strict=True):
                found[number] = self.data.presented(checked[number], answer)
            done(len(numbers))
        return found

    def scored(self, checked: list[dict], batch_size: int | None = None) -> Iterator[tuple[list[int], Batch, Tensor]]:
        """Batches of rows that are `checked`, long texts first: numbers of the rows, the batch, its scores.

        A batch is that of `ptune.evaluate` for the same rows, and so are its scores, bit for bit; labels are stand-ins.
        The scores have the form of the head's `forward`.
        """
        if not checked:  # all rows of a part may have mistakes
            return
        size, data = batch_size or self.data.batch_size, self.data
        items = data.items(checked)
        order = sorted(range(len(items)), key=lambda i: -items[i]["length"])
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            batch = data.collate([items[i] for i in numbers])
            batch = self.moved(batch)
            with torch.inference_mode(), self.autocast():
                scores = self.model(batch)
            yield numbers, batch, scores

    def checked(self, row: Row) -> dict:
        """The columns of a row that the model reads.

        Raises:
            InputError: a mistake in the row.
        """
        data = self.data
        if isinstance(row, Mapping):
            given = {str(name): value for name, value in row.items()}
            columns = data.read_columns
            for names in NAMES:
                texts = [given[name] for name in names[: len(columns)] if name in given]
                if len(texts) == len(columns) and not {*columns} <= given.keys():
                    return self._of_texts(texts)
            return data.checked(given, labelled=False)
        texts = [row] if isinstance(row, str) else row
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{row!r:.40} is neither a text, nor texts, nor a row with named columns.")
        return self._of_texts(texts)

    def _of_texts(self, texts: list[str] | tuple[str, ...]) -> dict:
        row = self.data.of_texts(texts)
        # A task's `prepare` makes the columns of `text`, which these are.
        checked = self.data.parse(self.data.unanswered(row))
        return checked | ({"text": texts[0]} if len(texts) == 1 else {})

    def moved(self, batch: Batch) -> Batch:
        """A batch on the model's device."""
        device = self.model.device
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}

    def autocast(self) -> AbstractContextManager:
        """The context of the precision with which the run was evaluated."""
        dtype = MIXED.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.model.device.type, dtype)


def _checked_rows(rows: Any) -> Any:
    """A row or rows; InputError for anything else, at the call and not where the first answer is read."""
    pandas = sys.modules.get("pandas")  # there is no DataFrame where it was not imported
    if pandas and isinstance(rows, pandas.DataFrame):  # its items are the names of its columns
        raise InputError("a pandas DataFrame is no list of rows; give frame.to_dict('records').")
    datasets = sys.modules.get("datasets")
    if datasets and isinstance(rows, datasets.DatasetDict):  # a dict, but of splits and not of columns
        splits = ", ".join(map(repr, rows))
        raise InputError(f"a DatasetDict is no list of rows; give one of its splits by its name: {splits}.")
    if isinstance(rows, bytes | bytearray) or not isinstance(rows, Iterable):
        raise InputError(
            f"{rows!r:.40} is neither a text nor a row nor rows; give a text, a tuple of texts, a dict with named "
            "columns, or a list of them."
        )
    return rows
