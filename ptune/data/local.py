"""The files and folders of `--data.path`: which of them holds a split, and its rows."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ptune.data import cache
from ptune.data.readers import READERS, SUFFIXES, UNANSWERED, Reader
from ptune.data.rows import Placed, Rows
from ptune.errors import InputError, absent, first_line

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = ("validation", "dev", "val", "valid")
"""Names of the split that a checkpoint is chosen on; each stands for the others where those are not there."""
BLOCK = 1000
"""Number of rows of a Dataset that are in memory at a time."""


def folders(path: str | list[str] | None) -> list[str]:
    """The folders and files that `--data.path` names."""
    return [path] if isinstance(path, str) else path or []


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
            for name in (split, *stand_ins(split, wanted))
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


def stand_ins(split: str, wanted: list[str]) -> list[str]:
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
    return Rows(str(folder), partial(walk, saved), partial(_content, files, "datasets"), code_names(saved))


def walk(dataset: "Dataset") -> Placed:
    """The rows of a Dataset with their numbers, a block in memory at a time."""
    return numbered(_blockwise(dataset))


def code_names(dataset: "Dataset") -> dict[str, tuple[str, ...]]:
    """The names of the codes in each column of codes, or of lists of codes."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    return {name: tuple(feature.names) for name, feature in inner.items() if hasattr(feature, "names")}


def numbered(rows: Iterable[dict]) -> Placed:
    """Rows with their numbers, from 1, as the place that an error names."""
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _blockwise(dataset: "Dataset") -> Iterator[dict]:
    for block in dataset.with_format(None).iter(BLOCK):
        columns = cast("dict[str, list]", block)
        yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
