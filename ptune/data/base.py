"""`TaskData`: what the data modules share: arguments and their checks, the recipe of a row, the majority."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from jsonargparse.typing import register_type

from ptune.backbone.pretrained import MINILM
from ptune.data import modules, open_task
from ptune.data.answered import Answered
from ptune.data.rows import Rows
from ptune.data.tokens import Batch
from ptune.errors import InputError, nearest
from ptune.tasks import plain, prepare_name, prepare_of
from ptune.tasks import task as find_task
from ptune.tasks.spec import HeadSpec, Prepare, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset


# By default jsonargparse imports what the value names, and so runs the code of whoever wrote a config.yaml.
register_type(Prepare, serializer=prepare_name, deserializer=prepare_of)

LARGEST = 2**31 - 1
"""Largest value of an argument that is a whole number: NumPy's seeds and the tokenizers' lengths have such a limit."""


class TaskData(Answered):
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
        train_rows: Train on so many of the training rows, drawn by `data_seed` after `holdout`; 0 for all.
        data_seed: Seed of these draws; LM-BFF has 13, 21, 42, 87 and 100.
        pad_to_multiple_of: Pad each batch to a multiple of this length, up to max_length, so that a compiled model gets
            few shapes.
    """

    format: ClassVar[str]
    """Name of the task format that the subclass reads, as in `--data.task.format`."""
    usual_text: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Columns that the model reads, for a task that names none; see `usual_columns`."""
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
        train_rows: int = 0,
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
        self.shots, self.holdout, self.train_rows, self.data_seed = shots, holdout, train_rows, data_seed
        self.pad_to_multiple_of = pad_to_multiple_of
        if self.task.format not in ("", self.format):
            self._wrong_format()
        least = {
            "batch_size": 1,
            "slots": 0,
            "workers": 0,
            "shots": 0,
            "train_rows": 0,
            "data_seed": 0,
            "pad_to_multiple_of": 1,
        }
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
        self._rows, self._items, self.kept = {}, {}, {}
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

    def usual_columns(self) -> tuple[tuple[str, ...], ...]:
        """Columns that the model reads, for a task that names none: the first of these that are there."""
        return self.usual_text

    @property
    def columns_open(self) -> bool:
        """Whether the task leaves columns that the model reads to the data."""
        return not self.task.text

    def take_columns(self, columns: Collection[str], there: str) -> TaskSpec:
        """The task with further columns of the format, where it leaves them open; `said` tells which.

        Args:
            columns: those of the data.
            there: names them, at the end of a sentence.

        Raises:
            InputError: they do not tell.
        """
        return self.task

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

    @property
    def head(self) -> HeadSpec:
        """The head this task needs; no I/O: what the task left open was read when this module was made."""
        task = self.task
        return HeadSpec(task.name, self.task_head(task), task.labels, task.metrics, task.monitored)

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
