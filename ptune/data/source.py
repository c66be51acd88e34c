"""Where rows come from: local files, folders of `datasets`, the hub, or the generated toy tasks."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ptune.data import cache, conll
from ptune.data.readers import READERS, SUFFIXES, UNANSWERED, Reader
from ptune.data.rows import Placed, Rows
from ptune.errors import InputError, absent, first_line, nearest
from ptune.tasks import all_tasks
from ptune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = ("validation", "dev", "val", "valid")
"""Names of the split that a checkpoint is chosen on; each stands for the others where those are not there."""
SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that `save_to_disk` of a DatasetDict or a Dataset has written."""
BLOCK = 1000
"""Number of rows of a Dataset that are in memory at a time."""


def folders(path: str | list[str] | None) -> list[str]:
    """The folders and files that `--data.path` names."""
    return [path] if isinstance(path, str) else path or []


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

    return Rows(f"{name} {split}", lambda: _numbered(toy.generate(name, split)), digest)


def existing(path: str | list[str] | None, needed: str) -> list[Path]:
    """The folders and files that `--data.path` names.

    Args:
        path: the option's value.
        needed: the split that there must be, for the sentence.

    Raises:
        InputError: one of them does not exist.
    """
    places = [Path(place).expanduser() for place in folders(path)]
    for place in places:
        if not place.exists():
            fix = f"give the folder that holds {needed}.jsonl (or .csv, ...)."
            raise InputError(f"--data.path {absent(place, fix)}")
    return places


def read_places(places: list[Path], train: str, wanted: list[str], needed: str) -> dict[str, Rows]:
    """The splits in `wanted`, each from the first of the folders and files that has it; `needed` must be among them."""
    files = [place for place in places if place.is_file()]
    if len(files) > 1:
        raise InputError(
            f"--data.path: {' and '.join(map(str, files))} are both files, and a file is the training split; give one,"
            f" or a folder with {train}.csv and {needed}.csv (or .jsonl, ...)."
        )
    splits = {}
    for split in wanted:
        answered = split in (train, needed)
        found = {
            name: rows
            for name in (split, *_stand_ins(split, wanted))
            if (rows := next(filter(None, (_at(place, name, train, answered) for place in places)), None))
        }
        if len(found) > 1 and split not in found:
            raise InputError(
                f"--data.path: {' and '.join(found)} may stand for the split {split!r}; choose one of them, such as"
                f" --data.task.evaluate '[{next(iter(found))}]'."
            )
        if found:
            splits[split] = next(iter(found.values()))
    if needed not in splits:
        _missing(places, needed, train, [*splits])
    return splits


def _stand_ins(split: str, wanted: list[str]) -> list[str]:
    """Other names of a split, which are not splits of their own."""
    return [name for name in NAMES if split in NAMES and name not in wanted]


def _at(place: Path, split: str, train: str, answered: bool = True) -> Rows | None:
    """The rows of a split in a folder, or in a file, which is the training split; `answered` as in `read_file`."""
    if place.is_file():
        return read_file(place) if split == train else None
    if (place / "dataset_dict.json").is_file():
        return read_saved(place / split) if (place / split).is_dir() else None
    if (place / "state.json").is_file():
        return read_saved(place) if split == train else None
    file = find(place, split)
    return None if file is None else read_file(file, answered)


def _missing(places: list[Path], needed: str, train: str, found: list[str]) -> None:
    """Raise an InputError for the split that must be there and is not."""
    there = sorted(path.name for place in places if place.is_dir() for path in place.iterdir() if _shown(path))
    instead = _renamed(there, needed)
    if files := [place.name for place in places if place.is_file()]:
        instead = f"; a file alone ({files[0]}) is the training split, so give the folder that holds it"
        there += files
    if train in found and needed != train:
        instead += ", or choose the checkpoint on rows held out of the training split: --data.holdout 0.1"
    if any(_at(place, "test", train) for place in places):
        instead += ", or choose the checkpoint on the test split: --data.task.evaluate '[test]'"
    raise InputError(
        f"--data.path: {' and '.join(map(str, places))} has no file for the split {needed!r}: add {needed} + one of"
        f" {' '.join(SUFFIXES)} (there is: {', '.join((there or ['nothing'])[:20])}){instead}."
    )


def _renamed(files: Sequence[str], split: str) -> str:
    """The part of a sentence that says how to rename the first file that is almost called as a split: dev-v1.1.json."""
    for name in files:
        word = re.split(r"[^a-z]", name, maxsplit=1)[0]
        end = next((end for end in SUFFIXES if name.endswith(end)), "")
        if end and word in (split, *(NAMES if split in NAMES else ())):
            return f", or rename {name} to {word}{end}"
    return ""


def _shown(path: Path) -> bool:
    return path.is_file() or (path / "state.json").is_file()


def find(folder: Path, split: str) -> Path | None:
    """The file of `split` in `folder`, or None; an InputError where there are two."""
    ends = [f"{suffix}{gz}" for suffix in READERS for gz in ("", ".gz")]
    files = [file for end in ends if (file := folder / f"{split}{end}").is_file()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InputError(f"--data.path: {folder} has {names} for one split; keep one of them.")
    return files[0] if files else None


def read_file(file: Path, answered: bool = True) -> Rows:
    """The rows of a file by the end of its name, also gzipped; in .tsv quotation marks are text.

    Where `answered` is false, words may have no tags and questions no answers: the rows then lack that column.
    """
    suffix = Path(file.name.removesuffix(".gz")).suffix
    if suffix not in READERS:
        raise InputError(f"--data.path: {file} ends with none of {' '.join(SUFFIXES)}; rename or convert it.")
    reader = (READERS if answered else UNANSWERED)[suffix]
    return Rows(str(file), partial(_some, reader, file), partial(_content, [file], suffix))


def _some(reader: Reader, file: Path) -> Placed:
    """The rows of a file, which must have some."""
    empty = True
    for pair in reader(file):
        empty = False
        yield pair
    if empty:
        raise InputError(f"{file}: the file has no rows; add some or remove it.")


def _content(files: Sequence[Path], kind: str) -> str:
    """Digest of the files' bytes, wherever they lie, and of how they are read."""
    try:
        return cache.key(kind, *(cache.content(file) for file in files))
    except OSError as error:
        raise InputError(f"{files[0]}: cannot be read ({first_line(error)}); make it again.") from error


def read_saved(folder: Path) -> Rows:
    """The rows of a Dataset that `save_to_disk` has written."""
    import datasets

    try:
        saved = datasets.load_from_disk(folder)
    except Exception as error:  # what datasets and pyarrow raise for a damaged folder has no common base
        raise InputError(f"{folder}: cannot be read ({first_line(error)}); save the dataset again.") from error
    if not len(saved):
        raise InputError(f"{folder}: the dataset has no rows; add some or remove it.")
    files = sorted(file for file in folder.iterdir() if file.suffix in (".arrow", ".json"))
    saved = cast("Dataset", saved)
    return Rows(str(folder), partial(_walk, saved), partial(_content, files, "datasets"), _names(saved))


def _walk(dataset: "Dataset") -> Placed:
    return _numbered(_blockwise(dataset))


def _names(dataset: "Dataset") -> dict[str, tuple[str, ...]]:
    """The names of the codes in each column of codes, or of lists of codes."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    return {name: tuple(feature.names) for name, feature in inner.items() if hasattr(feature, "names")}


def _numbered(rows: Iterable[dict]) -> Placed:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _blockwise(dataset: "Dataset") -> Iterator[dict]:
    for block in dataset.with_format(None).iter(BLOCK):
        columns = cast("dict[str, list]", block)
        yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


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
            (name for name in (split, *_stand_ins(split, wanted)) if name in loaded and len(loaded[name])), None
        )
        if there:
            rows = loaded[there]
            origin = f"{'/'.join(task.hub)} {there}"
            splits[split] = Rows(origin, partial(_walk, rows), partial(_made, rows), _names(rows))
    if needed not in splits:
        raise InputError(
            f"task {task.name!r}: the hub's dataset has no split {needed!r}, {nearest(needed, map(str, loaded))}"
        )
    return splits


def _made(dataset: "Dataset") -> str:
    """The fingerprint that `datasets` gives a split: name, version and how it was made."""
    return dataset._fingerprint
