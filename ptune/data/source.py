"""Where rows come from: local files and folders (`ptune.data.local`), the hub, or the generated toy tasks."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptune.data import cache, conll
from ptune.data.local import code_names, existing, numbered, read_places, stand_ins, walk
from ptune.data.rows import Placed, Rows
from ptune.errors import InputError, first_line, nearest
from ptune.tasks import all_tasks
from ptune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset


def read(task: TaskSpec, path: str | list[str] | None, lone: bool = False) -> dict[str, Rows]:
    """All splits of `task` that exist: from `path`, else generated (toy/...), else from the hub.

    Args:
        task: Names the splits.
        path: Folders and files, see `TaskData`.
        lone: Whether the training split is enough.

    Raises:
        InputError: a folder, file or split that must exist does not.
    """
    wanted = list(dict.fromkeys([task.train, *task.evaluate]))
    needed = task.train if lone else task.evaluate[0]
    if path is not None:
        splits = read_places(existing(path, needed), task.train, wanted, needed)
    elif task.name.startswith("toy/"):
        splits = {split: _generated(task.name, split) for split in wanted}
    else:
        splits = read_hub(task, wanted, needed)
    splits = {split: _named(_called(rows, task), task) for split, rows in splits.items()}
    if not task.where:
        return splits
    column, value = task.where
    return {split: _where(rows, task.name, column, value, split == needed) for split, rows in splits.items()}


def _called(rows: Rows, task: TaskSpec) -> Rows:
    """The rows of a column file, which names no column, with the words and the tags as a task of ptune calls them."""
    if not rows.origin.removesuffix(".gz").endswith(conll.SUFFIXES) or task.name not in all_tasks():
        return rows
    names = {task.text[0]: conll.WORDS, task.label: conll.TAGS}

    def called() -> Placed:
        for place, row in rows.read():
            yield place, {name: row[column] for name, column in names.items() if column in row} | row

    return Rows(rows.origin, called, lambda: cache.key(rows.digest(), names))


def _named(rows: Rows, task: TaskSpec) -> Rows:
    """The rows of a Dataset with the names of its codes, where those are the task's labels.

    As a label, 1 would be the name 1, and as a code of the names 1, 2, 3 it is the name 2.
    """
    column, names = task.label, rows.names.get(task.label)
    if not names or names != task.labels:
        return rows

    def name(value: object) -> object:
        if isinstance(value, list):
            return [name(item) for item in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

    def named() -> Placed:
        return ((place, row | {column: name(row[column])}) for place, row in rows.read())

    return Rows(rows.origin, named, lambda: cache.key(rows.digest(), names), rows.names)


def _where(rows: Rows, name: str, column: str, value: str, needed: bool) -> Rows:
    """The rows whose `column` has this value; where the split is `needed`, there must be some."""

    def chosen() -> Placed:
        found = False
        for place, row in rows.read():
            if str(row.get(column)) == value:
                found = True
                yield place, row
        if needed and not found:
            raise InputError(
                f"task {name!r}: {rows.origin} has no row with {column} {value!r}; give the file that has them."
            )

    return Rows(rows.origin, chosen, lambda: cache.key(rows.digest(), column, value), rows.names)


def _generated(name: str, split: str) -> Rows:
    """The rows of a toy task, which its file alone decides."""
    from ptune.tasks import toy

    def digest() -> str:
        return cache.key(name, split, cache.content(Path(toy.__file__)))

    return Rows(f"{name} {split}", lambda: numbered(toy.generate(name, split)), digest)


def read_hub(task: TaskSpec, wanted: list[str], needed: str) -> dict[str, Rows]:
    """The splits in `wanted` that the hub's dataset has; where the hub fails, the error says how to use files."""
    files = ", ".join(f"{split}.jsonl.gz" for split in wanted)
    around = f"use --data.path DIR with {files} (or .csv, .parquet, ...) with the hub's column names"
    if not task.hub:
        raise InputError(f"task {task.name!r} has no data on the hub: {around}.")
    import datasets

    name, configuration = task.hub[0], task.hub[1] if len(task.hub) > 1 else None
    try:
        try:
            loaded = datasets.load_dataset(name, configuration)
        except RuntimeError as error:  # for a dataset that is a script the hub keeps a Parquet copy
            if "scripts are no longer supported" not in str(error):
                raise
            loaded = datasets.load_dataset(name, configuration, revision="refs/convert/parquet")
    except Exception as error:  # the hub's errors have no common base: no network, no such name, a bad proxy
        where = f"task {task.name!r}: {'/'.join(task.hub)}"
        raise InputError(f"{where} cannot be loaded ({first_line(error)}): {around}.") from error
    splits = {}
    for split in wanted:
        there = next(
            (name for name in (split, *stand_ins(split, wanted)) if name in loaded and len(loaded[name])), None
        )
        if there:
            rows = loaded[there]
            origin = f"{'/'.join(task.hub)} {there}"
            splits[split] = Rows(origin, partial(walk, rows), partial(_made, rows), code_names(rows))
    if needed not in splits:
        raise InputError(
            f"task {task.name!r}: the hub's dataset has no split {needed!r}, {nearest(needed, map(str, loaded))}"
        )
    return splits


def _made(dataset: "Dataset") -> str:
    """The fingerprint that `datasets` gives a split: name, version and how it was made."""
    return dataset._fingerprint
