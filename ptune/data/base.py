"""What the data modules share: arguments, reading, checks, the cache, padding, prompt slots, loaders, the majority."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import lightning as L
import torch
from jaxtyping import Shaped
from jsonargparse.typing import register_type
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptune.backbone.pretrained import MINILM
from ptune.backbone.tokenizer import load, stand_in, text_start
from ptune.data import cache, modules, open_task, splits
from ptune.data.draws import DEV, HOLDOUT
from ptune.data.loader import BucketSampler, EvalSampler, InOrder, Loader
from ptune.data.rows import Rows
from ptune.data.source import folders, read
from ptune.errors import InputError, nearest
from ptune.heads.base import Answer
from ptune.tasks import plain, prepare_name, prepare_of
from ptune.tasks import task as find_task
from ptune.tasks.spec import HeadSpec, Prepare, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset


# By default jsonargparse imports what the value names, and so runs the code of whoever wrote a config.yaml.
register_type(Prepare, serializer=prepare_name, deserializer=prepare_of)

LARGEST = 2**31 - 1
"""Largest value of an argument that is a whole number: NumPy's seeds and the tokenizers' lengths have such a limit."""

Batch = dict[str, Any]
"""A collated batch: tensors on the CPU, and for span evaluation the list `references`."""


class TaskData(L.LightningDataModule, ABC):
    """Rows of one task, tokenized and batched. This class is abstract: each task format has one subclass.

    A row of any origin becomes a batch in the same three steps: `checked`, `items` and `collate`; `batches` takes them
    all, for rows with and without answers.

    A subclass with arguments of its own sets them before it calls `super().__init__`, which ends with `check()`.

    Args:
        task: Name of a task (`python -m ptune.tasks` lists them) or a TaskSpec; for files of one's own it may be left
            out, or leave columns, labels and metrics open: they are read off the files.
        backbone: Whose tokenizer to use: a hub id, a local folder, or package:NAME/PATH; linked from the model.
        path: Folder with local files `<split>.jsonl`, `.csv`, `.tsv`, `.parquet`, ..., or one that `save_to_disk` of
            datasets has written; a file, which is the training split; or several of them: each split is read from the
            first one that has it. By default the data come from the hub.
        batch_size: Rows in a batch, for each process.
        max_length: Largest number of tokens in a text, with special tokens and prompt slots; by default the task's.
        slots: Prompt slots put into every text; linked from the model.
        workers: Processes that prepare batches; with 0 the main process prepares them.
        shots: Number of rows of each class to train on; the checkpoint is chosen on as many other rows of the training
            split (`dev`). They are drawn as in LM-BFF. 0 takes all rows.
        holdout: Share of the training rows that are held out to choose the checkpoint on (`holdout`), drawn by class
            where there are classes, whole where rows belong together (a question's answers, a context's questions).
        data_seed: Seed of these draws; LM-BFF has 13, 21, 42, 87 and 100.
        pad_to_multiple_of: Pad each batch to a multiple of this length, up to max_length, so that a compiled model gets
            few shapes.
    """

    format: ClassVar[str]
    """Name of the task format that the subclass reads, as in `--data.task.format`."""
    several: ClassVar[bool] = False
    """Whether a row has a list of answers by itself, as entities are."""
    top_k: ClassVar[int] = 1
    """Number of answers to a row that are given without being asked for."""
    classless: ClassVar[str] = ""
    """Why a row of this format has no class of its own, which few shots could be drawn by; empty where it has one."""
    usual_text: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Columns that the model reads, for a task that names none: the first of these that are there."""
    usual_label: ClassVar[tuple[str, ...]] = ()
    """Columns of the answer where there is no column `label`, in the same way."""
    reported: ClassVar[tuple[str, ...]] = ("accuracy",)
    """The metrics that the format's field reports, for a task that names none; the first one is monitored."""

    def __init__(
        self,
        task: str | TaskSpec | None = None,
        backbone: str = MINILM,
        path: str | list[str] | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        slots: int = 0,
        workers: int = 0,
        shots: int = 0,
        holdout: float = 0.0,
        data_seed: int = 13,
        pad_to_multiple_of: int = 1,
    ):
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a split may have fewer rows than processes
        if task is None and path is None:
            raise InputError(
                "--data.task is missing: name a task, which python -m ptune.tasks lists, or give --data.path DIR with "
                "files of your own."
            )
        self.task = find_task(task) if isinstance(task, str) else TaskSpec() if task is None else task
        self.backbone = backbone
        self.path = path
        self.batch_size = batch_size
        self.max_length = self.task.max_length if max_length is None else max_length
        self.slots = slots
        self.workers = workers
        self.shots, self.holdout, self.data_seed = shots, holdout, data_seed
        self.pad_to_multiple_of = pad_to_multiple_of
        if self.task.format not in ("", self.format):
            self._wrong_format()
        least = {"batch_size": 1, "slots": 0, "workers": 0, "shots": 0, "data_seed": 0, "pad_to_multiple_of": 1}
        for name, smallest in (least | {"max_length": 1}).items():
            if getattr(self, name) < smallest:
                raise InputError(f"--data.{name} {getattr(self, name)}: must be at least {smallest}.")
            if getattr(self, name) > LARGEST:
                raise InputError(f"--data.{name} {getattr(self, name)}: must be at most {LARGEST}.")
        given = self.task
        self.said: list[str] = []
        """What was read off the data, in words."""
        self.task = open_task.columns_and_labels(self)
        self.task = replace(self.task, format=self.format, metrics=self.task.metrics or self.field_metrics(self.task))
        self.completed = None if self.task == given else self.task
        """The task with all that it left open; None where it left nothing open."""
        self.task.check()
        if shots:
            self._check_shots()
        if holdout:
            self._check_holdout()
        if self.max_length - slots < 8:
            raise InputError(
                f"--data.max_length {self.max_length}: leaves {self.max_length - slots} tokens for the text beside"
                f" {slots} prompt slots; raise it by {8 - self.max_length + slots} or more."
            )
        self._rows: dict[str, Dataset] = {}
        """Checked rows of each split; known after setup."""
        self._items: dict[str, Dataset] = {}
        """Tokenized rows of each split; known after setup."""
        self.check()

    def _wrong_format(self) -> NoReturn:
        known = modules()
        if self.task.format not in known:
            near = nearest(self.task.format, {*known, self.format})
            raise InputError(f"--data.task.format {self.task.format!r}: {near}")
        raise InputError(
            f"task {self.task.name!r} is a {self.task.format} task, not {self.format}: use --data"
            f" {known[self.task.format].__name__}."
        )

    def remark(self, row: dict, origin: str) -> str:
        """What a user should know of how such rows of this file are read; "" where it goes without saying."""
        return ""

    @property
    def labels_open(self) -> bool:
        """Whether the task leaves its labels to the training split."""
        return False

    def read_labels(self, rows: Rows) -> list[dict]:
        """What the label column of the training split holds, as rows of plain values, which are kept in the cache."""
        raise NotImplementedError

    def take_labels(self, found: list[dict], origin: str) -> TaskSpec:
        """The task with its labels; `said` tells which.

        Args:
            found: what `read_labels` has read.
            origin: where.

        Raises:
            InputError: the column does not tell the labels.
        """
        raise NotImplementedError

    def _check_shots(self) -> None:
        """Raise an InputError where no few shots can be drawn by class."""
        start = f"--data.shots {self.shots}: "
        if self.classless:
            raise InputError(f"{start}{self.classless}, and the shots are drawn by class; leave it out.")
        if not (self.task.labels or self.task.choices):
            raise InputError(f"{start}task {self.task.name!r} has no classes to draw from; leave it out.")
        if DEV in (self.task.train, *self.task.evaluate):
            raise InputError(
                f"{start}the checkpoint is chosen on rows drawn from the training split, which are called {DEV!r} like"
                f" a file of task {self.task.name!r}; rename the file and its split in --data.task.evaluate."
            )

    def _check_holdout(self) -> None:
        """Raise an InputError where no rows can be held out."""
        start = f"--data.holdout {self.holdout:g}: "
        if not 0 < self.holdout < 1:
            raise InputError(f"{start}must be a share of the training rows, above 0 and below 1.")
        if self.shots:
            raise InputError(f"{start}the shots have rows of their own to choose the checkpoint on; leave it out.")
        if HOLDOUT in (self.task.train, *self.task.evaluate):
            raise InputError(
                f"{start}the rows that are held out are called {HOLDOUT!r} like a file of task {self.task.name!r};"
                " rename the file and its split in --data.task.evaluate."
            )

    def check(self) -> None:
        """Raise an InputError where the task's row or an argument does not suit the format.

        Called at the end of `__init__`, when all attributes are set.
        """

    @classmethod
    @abstractmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head that reads the rows of `task` (`ptune.heads`), without a template."""

    @classmethod
    def field_metrics(cls, task: TaskSpec) -> tuple[str, ...]:
        """The metrics of `task` where it names none."""
        return cls.reported

    @abstractmethod
    def parse(self, row: dict) -> dict:
        """The checked columns of `row` that `encode` needs; the caller adds the place to an InputError.

        All rows have the same columns, of texts, numbers or lists of them, as Arrow holds them.
        """

    @abstractmethod
    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """Items of parsed rows, without slots: `input_ids` (a list, or a list of lists), token types, labels, ..."""

    @abstractmethod
    def collate(self, items: list[dict]) -> Batch:
        """A batch of items, padded, with slots."""

    def unanswered(self, row: dict) -> dict:
        """`row` with stand-ins in the columns that only a loss or a metric reads, so that `parse` takes it."""
        return row | {self.task.label: self.task.labels[0] if self.task.labels else 0}

    def checked(self, row: dict, labelled: bool = True) -> dict:
        """The parsed columns of a row as published, of which `items` makes an item.

        Where it is not `labelled`, its answer is not read and need not be there.

        Raises:
            InputError: a mistake in the row; the caller adds its place.
        """
        row = self.prepared(row)
        return self.parse(row if labelled else self.unanswered(row))

    def items(self, checked: list[dict], train: bool = False) -> list[dict]:
        """Tokenized rows, of which `collate` makes a batch; `length` is the number of tokens of the longest text."""
        return [item | {"length": _longest(item["input_ids"])} for item in self.encode(checked, train)]

    def batches(self, rows: Sequence[dict], labelled: bool = True) -> Iterator[tuple[list[int], Batch]]:
        """Batches of rows as published, in the order of evaluation, long texts first, with their numbers in `rows`.

        Where the rows are not `labelled`, `labels` (and `group`, `references`) hold stand-ins, so that a batch has
        the same keys and shapes and its scores are those of an evaluation. All rows are in memory: a large file is
        read in parts.

        Raises:
            InputError: a mistake in a row, with its number from 1.
        """
        parsed = []
        for number, row in enumerate(rows, start=1):
            try:
                parsed.append(self.checked(row, labelled))
            except InputError as error:
                raise InputError(f"row {number}: {error}") from error
        items = self.items(parsed)
        order = sorted(range(len(items)), key=lambda i: -items[i]["length"])
        for start in range(0, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size]
            yield numbers, self.collate([items[i] for i in numbers])

    # ---- answers

    def of_texts(self, texts: Sequence[str]) -> dict:
        """The row that `parse` takes, without an answer, of the texts that the model reads, in the task's order.

        Raises:
            InputError: their number is not that of the task's columns.
        """
        columns = self.read_columns
        if len(texts) != len(columns):
            raise InputError(
                f"{len(texts)} text{'s' * (len(texts) != 1)} for a task that reads {len(columns)} "
                f"({', '.join(columns)}); give {self.as_texts(columns)}, or a row with named columns."
            )
        return dict(zip(columns, texts, strict=True))

    def as_texts(self, columns: Sequence[str]) -> str:
        """How a row is given as texts, in words."""
        return f"a tuple of {len(columns)}" if len(columns) > 1 else "one text"

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The columns that a row's texts stand in."""
        return self.task.text

    def row_numbers(self, split: str) -> Sequence[int]:
        """The number that each item of `split` has among the rows that were read, from 0; call it after setup."""
        return range(len(self._items[split]))

    def worded(self, answer: Any) -> Any:
        """An answer of the head as the data write it."""
        return answer

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """The answers to a checked row in the form of a pipeline of transformers; here {label, score}, best first."""
        return [{"label": answer["answer"], "score": answer["score"]} for answer in answers]

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, in JSON's types: a module built with them makes the same batches.

        A `prepare` function is named after the task of ptune that has it; one of the user's own cannot be read again.
        """
        return {
            "task": plain(self.task),
            "max_length": self.max_length,
            "pad_to_multiple_of": self.pad_to_multiple_of,
        }

    def learned(self) -> dict[str, Any]:
        """What reading a row depends on beside `recipe`, read from the data in `setup`, in JSON's types."""
        return {}

    def restore(self, learned: dict[str, Any]) -> None:
        """Set what `learned` has returned, instead of a `setup`."""

    def settings(self) -> dict[str, Any]:
        """Further values that the items depend on; they are part of the cache's key."""
        return {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer; without a padding token it pads with its end token, which the mask hides."""
        return load(self.backbone)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Everything that decides what the tokenizer returns; part of the cache's key."""
        return cache.fingerprint(self.tokenizer)

    @cached_property
    def slot_at(self) -> int:
        """Index of the first prompt slot: 1 after a special first token ([CLS], <s>), else 0."""
        return text_start(self.tokenizer)

    @property
    def budget(self) -> int:
        """Largest number of tokens in a text with its special tokens, without the prompt slots."""
        return self.max_length - self.slots

    @property
    def head(self) -> HeadSpec:
        """The head this task needs; no I/O: what the task left open was read when this module was made."""
        task = self.task
        return HeadSpec(task.name, self.task_head(task), task.labels, task.metrics, task.monitored)

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls this in one process of each machine."""
        self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenize all splits, or find them in the cache.

        Raises:
            InputError: a mistake in the data, with file and line; no training split where `stage` is "fit".
        """
        self._load()
        if stage == "fit" and self.task.train not in self._items:
            self._missing_train()

    def _missing_train(self) -> None:
        where = " and ".join(folders(self.path)) or "/".join(self.task.hub)
        raise InputError(
            f"task {self.task.name!r}: {where} has no split {self.task.train!r} to train on; add that file."
        )

    def _load(self) -> None:
        if self._items:
            return
        sources = self._read()
        rows = {name: found for name, source in sources.items() if len(found := splits.checked(self, name, source))}
        if self.shots or self.holdout:
            if self.task.train not in rows:
                self._missing_train()
            rows |= splits.drawn(self, rows[self.task.train], sources[self.task.train].origin)
        self.prepare_rows(rows)
        self._items = {name: splits.tokenized(self, name, found) for name, found in rows.items()}
        self._rows = rows

    def _read(self) -> dict[str, Rows]:
        return read(self.task, self.path, lone=bool(self.holdout))

    def row_settings(self) -> dict[str, Any]:
        """Values that `parse` depends on beside the task; they are part of the checked rows' key in the cache."""
        return {}

    def prepare_rows(self, parsed: "dict[str, Dataset]") -> None:
        """Change which checked rows the splits have before they are encoded; by default they stay as they are."""

    def prepared(self, row: dict) -> dict:
        """The row with the columns that the task's function makes; an InputError where it lacks what that reads."""
        if self.task.prepare is None:
            return row
        try:
            return self.task.prepare(row)
        except KeyError as error:
            raise InputError(f"no column {error.args[0]!r}, {nearest(str(error.args[0]), row)}") from error
        except (TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"a column does not have the form that task {self.task.name!r} expects ({error})."
            ) from error

    def column(self, row: dict, name: str) -> Any:
        """The value of column `name`, which must be there."""
        if name not in row:
            raise InputError(f"no column {name!r}, {nearest(name, row)}")
        return row[name]

    def string(self, row: dict, name: str, empty: bool = False) -> str:
        """The text in column `name`; an empty one or NaN is an error unless `empty`."""
        value = self.column(row, name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            value = ""
        if not isinstance(value, str | int | float):
            raise InputError(f"column {name!r} must be text, not {type(value).__name__}.")
        if not str(value).strip() and not empty:
            raise InputError(f"column {name!r} is empty; fill it or remove the row.")
        return str(value)

    def code(self, value: Any) -> int:
        """The integer code of a class label given as a name or a code.

        Codes are not accepted where a label's own name is a number: "1" would then have two meanings.
        """
        labels = self.task.labels
        name = open_task.label_name(value)
        if name in labels:
            return labels.index(name)
        number = str(int(value)) if isinstance(value, bool) else name
        codes = [str(code) for code in range(len(labels))]
        if number in codes and not any(label.lstrip("-").isdecimal() for label in labels):
            return int(number)
        raise InputError(f"column {self.task.label!r}: label {name!r} is none of {list(labels)} nor their code.")

    def encode_texts(self, texts: list[list[str]]) -> list[dict]:
        """input_ids, and token_type_ids where the tokenizer has them, of rows of one text or two, cut to the budget."""
        first, second = (*(list(column) for column in zip(*texts, strict=True)), None)[:2]
        tokens = self.tokenizer(first, second, truncation=True, max_length=self.budget, return_attention_mask=False)
        kept = {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
        return [{name: values[i] for name, values in kept.items()} for i in range(len(texts))]

    def align(self, values: list[list], slot: Any, fill: Any) -> Shaped[Tensor, "n t *rest"]:
        """One value for each token, as a tensor: `slot` at the prompt slots, `fill` at the padding on the right."""
        at, p = self.slot_at, self.slots
        return self.padded([row[:at] + [slot] * p + row[at:] for row in values], fill)

    def padded(self, values: list[list], fill: Any) -> Shaped[Tensor, "n t *rest"]:
        """One value for each token of texts that have their slots, as a tensor: `fill` at the padding on the right.

        `t` is the length of the longest text, raised to a multiple of `pad_to_multiple_of` but not above `max_length`.
        """
        longest, step = max(map(len, values)), self.pad_to_multiple_of
        t = max(longest, min(-(-longest // step) * step, self.max_length))
        return torch.tensor([row + [fill] * (t - len(row)) for row in values])

    def after_slots(self, position: int) -> int:
        """The position, with the prompt slots, of the token at `position` of the text without them."""
        return position + self.slots if position >= self.slot_at else position

    def pad(self, texts: list[dict]) -> Batch:
        """input_ids, attention_mask, slots, and token types where the tokenizer has them, n×t, of n tokenized texts."""
        tokenizer, ids = self.tokenizer, [text["input_ids"] for text in texts]
        batch: Batch = {
            "input_ids": self.align(ids, stand_in(tokenizer), tokenizer.pad_token_id),
            "attention_mask": self.align([[1] * len(row) for row in ids], 1, 0),
        }
        if "token_type_ids" in texts[0]:
            batch["token_type_ids"] = self.align([text["token_type_ids"] for text in texts], 0, 0)
        if self.slots:
            batch["slots"] = self.align([[False] * len(row) for row in ids], True, False)
        return batch

    def fingerprints(self) -> dict[str, str]:
        """A digest of each split's rows as they are trained on or evaluated; call it after setup.

        It is the fingerprint of the tokenized Dataset: of its content, wherever the files lie.
        """
        return {split: items._fingerprint for split, items in self._items.items()}

    @property
    def splits(self) -> list[str]:
        """The evaluated splits that exist with labels, in the task's order; call it after setup."""
        return [split for split in self.evaluated if split in self._items]

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits to evaluate, the one that the checkpoint is chosen on first; `shots` and `holdout` draw it."""
        return (*([DEV] * bool(self.shots) or [HOLDOUT] * bool(self.holdout)), *self.task.evaluate)

    @property
    def chosen_on(self) -> str:
        """Name of the split whose metric chooses the best checkpoint."""
        return self.evaluated[0]

    @property
    def chosen_how(self) -> str:
        """The split whose metric chooses the best checkpoint and, where it is drawn, how."""
        if not self.holdout:
            return self.chosen_on
        return f"{HOLDOUT}, {100 * self.holdout:g} % of the training rows, drawn by data_seed {self.data_seed}"

    @property
    def chosen_on_test(self) -> bool:
        """Whether the checkpoint is chosen on the test split, so that its metrics there are no held-out result."""
        return self.chosen_on.split("_")[0] == "test"

    def train_dataloader(self) -> Loader:
        """Training batches of texts of similar lengths, in an order that the seed and the epoch decide."""
        if self.task.train not in self._items:
            self._missing_train()
        items = self._items[self.task.train]
        return self._loader(items, BucketSampler(items["length"][:], self.batch_size))

    def val_dataloader(self) -> Loader:
        """Batches of the split that is monitored."""
        return self.loader(self.splits[0])

    def test_dataloader(self) -> Loader:
        """Batches of the last evaluated split, which is the test split where there is one with labels."""
        return self.loader(self.splits[-1])

    def predict_dataloader(self) -> Loader:
        """Batches of the same split as `test_dataloader`, in the order of its rows."""
        items = self._items[self.splits[-1]]
        return self._loader(items, InOrder(items["length"][:], self.batch_size))

    def loader(self, split: str) -> Loader:
        """Batches of `split` for evaluation: each row once over all processes, long texts first; after setup."""
        if split not in self._items:
            raise InputError(f"task {self.task.name!r} has no split {split!r}, {nearest(split, self._items)}")
        items = self._items[split]
        return self._loader(items, EvalSampler(items["length"][:], self.batch_size))

    def _loader(self, items: "Dataset", sampler: BucketSampler | EvalSampler | InOrder) -> Loader:
        return Loader(  # by keywords: Lightning replaces some of them for predictions
            dataset=items,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def gold(self, items: "Dataset") -> list:
        """The gold labels of `items`: codes, numbers, or a list of codes for each sentence."""
        return items["label"][:]

    def majority(self, split: str) -> dict[str, float]:
        """The task's metrics on `split` where every answer is the most frequent training label; call it after setup.

        In regression every answer is the mean. The result is {} for spans, and without a training split.
        """
        from ptune.heads.metrics import majority

        if self.task.train not in self._items:
            return {}
        train, items = self._items[self.task.train], self._items[split]
        groups = items["group"][:] if "group" in items.column_names else None
        return majority(self.head, self.gold(train), self.gold(items), groups)


def _longest(ids: list) -> int:
    return max(len(row) for row in ids) if ids and isinstance(ids[0], list) else len(ids)
