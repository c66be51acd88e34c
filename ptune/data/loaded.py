"""`LoadedSplits`: the splits of a task, read and tokenized once, and their loaders for training and evaluation."""

from abc import ABC
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import lightning as L
import torch

from ptune.data import splits
from ptune.data.draws import DEV, HOLDOUT
from ptune.data.loader import BucketSampler, EvalSampler, InOrder, Loader
from ptune.data.local import folders
from ptune.data.rows import Rows
from ptune.data.source import read
from ptune.data.tokens import Tokens
from ptune.errors import InputError, nearest
from ptune.heads import Batch

if TYPE_CHECKING:
    from datasets import Dataset


class LoadedSplits(L.LightningDataModule, Tokens, ABC):
    """All rows of a task by split, taken through the steps of `TaskData`, as Lightning asks for them."""

    classless: ClassVar[str] = ""
    """Why a row of this format has no class of its own, which few shots could be drawn by; empty where it has one."""
    path: str | list[str] | None
    batch_size: int
    workers: int
    shots: int
    holdout: float
    train_rows: int
    data_seed: int
    numbered: frozenset[str] = frozenset()
    """Splits whose batches hold `numbers`: the split's name and the numbers of the batch's items in it."""
    kept: dict[str, list[int]]
    """Numbers of the rows of a split that `prepare_rows` has kept; not there where it keeps all of them."""
    _rows: "dict[str, Dataset]"
    """Checked rows of each split; known after setup."""
    _items: "dict[str, Dataset]"
    """Tokenized rows of each split; known after setup."""

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
        if self.train_rows and self.task.train in rows:
            rows[self.task.train] = splits.fewer(self, rows[self.task.train])
        self.prepare_rows(rows)
        self._items = {name: splits.tokenized(self, name, found) for name, found in rows.items()}
        self._rows = rows

    def _read(self) -> dict[str, Rows]:
        return read(self.task, self.path, lone=bool(self.holdout))

    def prepare_rows(self, parsed: "dict[str, Dataset]") -> None:
        """Change which checked rows the splits have before they are encoded; by default they stay as they are."""

    def row_numbers(self, split: str) -> Sequence[int]:
        """The number that each item of `split` has among the rows that were read, from 0; call it after setup."""
        return self.kept.get(split, range(len(self._items[split])))

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
        return self._loader(self.task.train, BucketSampler)

    def val_dataloader(self) -> Loader:
        """Batches of the split that is monitored."""
        return self.loader(self.splits[0])

    def test_dataloader(self) -> Loader:
        """Batches of the last evaluated split, which is the test split where there is one with labels."""
        return self.loader(self.splits[-1])

    def predict_dataloader(self) -> Loader:
        """Batches of the same split as `test_dataloader`, in the order of its rows."""
        return self._loader(self.splits[-1], InOrder)

    def loader(self, split: str) -> Loader:
        """Batches of `split` for evaluation: each row once over all processes, long texts first; after setup."""
        if split not in self._items:
            raise InputError(f"task {self.task.name!r} has no split {split!r}, {nearest(split, self._items)}")
        return self._loader(split, EvalSampler)

    def items_of(self, split: str) -> "Dataset":
        """The tokenized rows of a split, of which `collate` makes batches; call it after setup."""
        return self._items[split]

    def _loader(self, split: str, sampler: type[BucketSampler | EvalSampler | InOrder]) -> Loader:
        items, collate = self._items[split], self.collate
        lengths = items["length"][:]
        if split in self.numbered:
            items, collate = items.add_column("number", [*range(len(items))]), partial(self._with_numbers, split)  # type: ignore[call-arg]
        return Loader(  # by keywords: Lightning replaces some of them for predictions
            dataset=items,
            batch_size=self.batch_size,
            sampler=sampler(lengths, self.batch_size),
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _with_numbers(self, split: str, items: list[dict]) -> Batch:
        return self.collate(items) | {"numbers": (split, [item["number"] for item in items])}  # type: ignore[return-value]
