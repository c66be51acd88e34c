"""From a split as published to its checked and its tokenized rows, each a memory-mapped Dataset from the cache.

Checked rows are found by the bytes of their file and by what `parse` depends on, tokenized ones by the content of the
checked rows and by what `encode` depends on. So a later start reads no rows, whichever process it is. `data` is the
TaskData whose split it is.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ptune.data import arrow, cache
from ptune.data.draws import few, held_out
from ptune.data.rows import Rows
from ptune.errors import InputError
from ptune.tasks import plain

if TYPE_CHECKING:
    from datasets import Dataset

NOT_READ = {"name", "hub", "train", "evaluate", "metrics", "monitor", "max_length", "where", "template", "verbalizer"}
"""Fields of a task that `parse` does not depend on; `where` is part of what a split's rows are."""
TOGETHER = ("group", "context")
"""Columns of checked rows whose equal values stay in one split: a question's answers, the questions of a context."""


def checked(data: Any, split: str, source: Rows) -> "Dataset":
    """The checked rows of a split; none of one whose labels are not public, unless it is needed.

    What a `parse` or a `prepare` outside of this package returns is not known by its name, and is not cached.

    Raises:
        InputError: a mistake in a row, with its file and line, or the file cannot be read.
    """
    optional = split not in (data.task.train, data.chosen_on)
    return _kept(data, split, "rows", source, lambda: _parsed(data, source, optional), optional)


def labels(data: Any, source: Rows) -> list[dict]:
    """What the data module reads in the label column of the training split."""
    return _kept(data, data.task.train, "labels", source, lambda: iter([data.read_labels(source)])).to_list()


def _kept(
    data: Any, split: str, what: str, source: Rows, blocks: Callable[[], arrow.Blocks], *more: object
) -> "Dataset":
    """The rows of `blocks`, from the cache where the code that makes them is this package's."""
    code = (type(data), *filter(None, [data.task.prepare]))
    if not all(str(part.__module__).startswith("ptune.") for part in code):
        return cache.in_memory(blocks())
    task = {name: value for name, value in plain(data.task).items() if name not in NOT_READ}
    key = cache.key(cache.release(), data.format, task, data.row_settings(), *more, source.digest())
    return cache.cached(_entry(data, split, what, key), blocks, f"reading {what} of {split}")


def _parsed(data: Any, source: Rows, optional: bool) -> Iterator[list[dict]]:
    if optional and all(data.missing(row.get(data.task.label)) for _, row in source.read()):
        return
    block: list[dict] = []
    for place, row in source.read():
        try:
            block.append(data.checked(row))
        except InputError as error:
            raise InputError(f"{source.origin}, {place}: {error}") from error
        if len(block) == cache.BLOCK:
            yield block
            block = []
    yield block


def drawn(data: Any, train: "Dataset", origin: str) -> "dict[str, Dataset]":
    """The rows that stay in the training split, and those drawn from it to choose the checkpoint on."""
    if data.shots:
        parts = few([data.task.labels[code] for code in train["label"][:]], data.shots, data.data_seed, origin)
    else:
        together = next((name for name in TOGETHER if name in train.column_names), None)
        by_class = data.task.labels and not data.classless and not together
        classes = list(map(str, train["label"][:])) if by_class else [""] * len(train)
        parts = held_out(classes, train[together][:] if together else None, data.holdout, data.data_seed)
    how = (train._fingerprint, data.shots, data.holdout, data.data_seed)
    names = (data.task.train, data.chosen_on)
    return {
        split: train.select(places, new_fingerprint=cache.key(how, split == data.chosen_on))
        for split, places in zip(names, parts, strict=True)
    }


def fewer(data: Any, train: "Dataset") -> "Dataset":
    """So many training rows as `--data.train_rows` says, drawn by `data_seed`, in the order of the file.

    Raises:
        InputError: there are not so many.
    """
    if data.train_rows > len(train):
        raise InputError(
            f"--data.train_rows {data.train_rows}: task {data.task.name!r} has {len(train)} rows to train on; use so "
            "many or less, or leave it out for all."
        )
    places = sorted(np.random.RandomState(data.data_seed).permutation(len(train))[: data.train_rows].tolist())
    key = cache.key(train._fingerprint, "fewer", data.train_rows, data.data_seed)
    return train.select(places, new_fingerprint=key)


def tokenized(data: Any, split: str, rows: "Dataset") -> "Dataset":
    """The items of a split's checked rows: those of an evaluation where the training split is evaluated, too."""
    train = split == data.task.train and split not in data.evaluated
    settings = [data.format, data.tokenizer_fingerprint, data.budget, train, data.settings()]
    key = cache.key(cache.release(), settings, rows._fingerprint)
    blocks = (block.to_pylist() for block in rows.with_format("arrow").iter(cache.BLOCK))  # type: ignore[union-attr]
    return cache.cached(
        _entry(data, split, "tokens", key),
        lambda: (data.items(block, train) for block in blocks),
        f"tokenizing {split}",
        len(rows),
    )


def _entry(data: Any, split: str, what: str, key: str) -> str:
    """Name of an entry of the cache."""
    return f"{re.sub('[^a-z0-9_]+', '-', data.task.name.lower())}-{split}-{what}-{key}"
