"""The runs that a report is about: run directories, and result files that were kept without them."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final

from ptune.errors import InputError, absent
from ptune.research.axes import place_of
from ptune.research.cells import CELL, FAILED, PRUNED_AT, RESULTS
from ptune.run.directory import PREDICTIONS
from ptune.run.resolved import decisive, stored

MARKS = (*RESULTS.values(), "config.yaml", CELL)
"""Files of which each shows that a directory is a run's."""
WHOLE = {"task": str, "method": str, "seed": int, "monitor": str, "metrics": dict, "config": dict}
"""What every result has, of all versions."""
AXES = {"method": "method", "task": "task", "backbone": "backbone", "seed": "seed"}
"""The axes of a grid that name a column of a result."""
ON_ITS_WAY = "is of a checkpoint of a run that was not finished."
"""The end of the sentence about an evaluation that says nothing of what its run has reached."""
State = Literal["done", "failed", "pruned", "unfinished"]


@final
@dataclass(frozen=True)
class Record:
    """One run as a report reads it, finished or not."""

    place: str
    """The directory or file that it was read from."""
    options: Mapping[str, Any]
    """Its choices by name (`lr`, `length`, `template`), with `method`, `task`, `backbone` and `seed`. Those of a run
    directory are its whole configuration, those of a file that was kept are fewer."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What `result.json` holds; {} where the run has none."""
    state: State = "done"
    """Pruned is what a search has stopped, because other trials were ahead."""
    error: str = ""
    """The sentence of a failure, or that of what was pruned, which begins with `pruned at step N`."""
    predictions: Mapping[str, Path] = field(default_factory=dict, repr=False)
    """By split, the file of what was answered row by row."""
    grid: str = ""
    """The folder of the grid that it is a cell of; empty for a run of none."""

    @property
    def task(self) -> str:
        """Name of the task, `?` where a run that failed does not say."""
        return str(self.options.get("task", "?"))

    @property
    def method(self) -> str:
        """Name of the method, `?` where a run that failed does not say."""
        return str(self.options.get("method", "?"))

    @property
    def seed(self) -> int | None:
        """The seed, None where a run that failed does not say."""
        return self.options.get("seed")

    @property
    def evaluation(self) -> bool:
        """Whether it is no run, but a later measurement of the checkpoint of one, whose `hash` it has."""
        return "evaluation_hash" in self.result

    @property
    def splits(self) -> tuple[str, ...]:
        """The measured splits: the one that chooses the checkpoint, then those that are but tested."""
        return tuple(self.result.get("metrics", ()))

    def metric(self, split: str, name: str) -> float | None:
        """A metric of a split, a fraction (a loss in nats); None where the run has none."""
        return number(self.result.get("metrics", {}).get(split, {}).get(name))

    def cost(self, name: str) -> float | None:
        """A number of the result by its key, such as `seconds`; None where the run has none."""
        return number(self.result.get(name))

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The validations in their order, as `ptune.run.history` keeps them; () where the result has none."""
        return self.result.get("history") or ()


def number(value: object) -> float | None:
    """A finite number; None for anything else, such as a null."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def read(places: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The runs at these places, in the order of their paths, and sentences about what was left out.

    A place is a run directory, a result file, or a folder that is searched for both. What is found while searching and
    is no run is left out with a sentence; what was named itself is refused.

    Raises:
        InputError: a place does not exist, is no run, or there is no run at all.
    """
    records: list[Record] = []
    notes: list[str] = []
    for place in places:
        if not place.exists():
            raise InputError(absent(place, "give run directories, or folders of them."))
        for found in [place] if place.is_file() else _search(place):
            try:
                records += _directory(found, notes) if found.is_dir() else [_file(found)]
            except InputError as error:
                if found == place:
                    raise
                notes.append(f"left out: {error}")
    if not records:
        raise InputError(
            f"{', '.join(map(str, places))}: no run there; give run directories, or folders of them."
            + "".join(f" {note}" for note in notes[:1])
        )
    unique = {record.place: record for record in records}  # a place may be named twice, or lie in another
    return _once(list(unique.values()), notes), notes


def _search(folder: Path) -> Iterator[Path]:
    """The run directories and JSON files below a folder, which may be a run directory itself."""
    for name, folders, files in os.walk(folder):
        folders.sort()
        if any(mark in files for mark in MARKS):
            folders.clear()  # what a run has written is no other run: W&B keeps a config.yaml, too
            yield Path(name)
        else:
            yield from (Path(name, file) for file in sorted(files) if file.endswith(".json"))


def _once(records: list[Record], notes: list[str]) -> list[Record]:
    """The runs without repetitions: of those with one hash, which are one configuration, the first.

    Evaluations are one where their run, its checkpoint and steps are, too: runs that differ in how they were trained
    may be evaluated with the same options.
    """
    first: dict[tuple, Record] = {}
    kept = []
    for record in records:
        found = record.result
        identity = found.get("evaluation_hash" if record.evaluation else "hash")
        of = tuple(found.get(name) for name in ("hash", "checkpoint", "steps")) if record.evaluation else ()
        same = first.setdefault((identity, *of), record) if isinstance(identity, str) else record
        if same is record:
            kept.append(record)
        else:
            notes.append(f"counted once: {record.place} is the same run as {same.place} (hash {identity}).")
    return kept


def _file(file: Path) -> Record:
    result = _result(file)
    return Record(str(file), _options(result), result)


def _directory(folder: Path, notes: list[str]) -> list[Record]:
    """The run of a directory, and the later evaluations of its checkpoint."""
    results = [folder / name for name in RESULTS.values() if (folder / name).exists()]
    grid = _grid(folder)
    if results:
        first = replace(_finished(results[0], str(folder)), grid=grid)
        if not (_on_its_way(first) and (folder / "config.yaml").exists()):
            return [first, *_evaluations(folder, results[0], notes)]
        notes.append(f"left out: {results[0]} {ON_ITS_WAY}")
    options = _begun(folder)
    if (folder / FAILED).exists():
        error = str(_mapping(folder / FAILED).get("error", "")).removeprefix("error: ")
        state: State = "pruned" if error.startswith(PRUNED_AT) else "failed"
        return [Record(str(folder), options, state=state, error=error, grid=grid)]
    return [Record(str(folder), options, state="unfinished", grid=grid)]


def _grid(folder: Path) -> str:
    """The folder of the grid in which a directory lies where the grid has made it; "" for any other one."""
    values = _mapping(folder / CELL).get("values") if (folder / CELL).exists() else None
    place, own = Path(os.path.abspath(folder)), place_of(values or {}).parts
    return str(Path(*place.parts[: -len(own)])) if own and place.parts[-len(own) :] == own else ""


def _finished(file: Path, place: str) -> Record:
    """What a result file in a run directory says, with the predictions that it names."""
    result = _result(file)
    name = result.get("predictions") or (PREDICTIONS if file.name == RESULTS["fit"] else "")
    kept = file.parent / str(name)
    predictions = {split: found for split in result["metrics"] if (found := kept / f"{split}.parquet").is_file()}
    return Record(place, _configured(file.parent) | _options(result), result, predictions=predictions)


def _evaluations(folder: Path, first: Path, notes: list[str]) -> list[Record]:
    """Those in a run directory that say whose checkpoint they measure, beside its first result file."""
    found = []
    for file in sorted({*folder.glob("evaluation*.json")} - {first}):
        try:
            record = _finished(file, str(file))
            if _on_its_way(record):
                notes.append(f"left out: {file} {ON_ITS_WAY}")
            elif record.evaluation:
                found.append(record)
        except InputError as error:
            notes.append(f"left out: {error}")
    return found


def _on_its_way(record: Record) -> bool:
    """Whether it is an evaluation of a run that had no result then."""
    return record.evaluation and record.result.get("hash") is None


def _result(file: Path) -> dict[str, Any]:
    """A result file of any version.

    Raises:
        InputError: it is torn, or no result.
    """
    found = _mapping(file)
    for name, kind in WHOLE.items():
        if not isinstance(found.get(name), kind):
            raise InputError(f"{file}: no result of ptune: it has no {name!r}; remove it, or give another folder.")
    metrics = found["metrics"].values()
    if not found["metrics"] or not all(isinstance(values, dict) and found["monitor"] in values for values in metrics):
        raise InputError(f"{file}: no result of ptune: a split has no {found['monitor']!r}; give another folder.")
    return found


def _options(result: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a finished run; what the result itself says wins."""
    return {**result["config"], **{name: result[name] for name in ("method", "task", "backbone", "seed")}}


def _begun(folder: Path) -> dict[str, Any]:
    """What is known of the choices of a run without a result: from its configuration, or its grid's command line."""
    found: dict[str, Any] = {}
    if (folder / CELL).exists():
        cell = _mapping(folder / CELL)
        words = [str(word) for word in cell.get("words", ())]
        pairs = [(name, value) for name, value in zip(words[::2], words[1::2], strict=False) if name != "--config"]
        found = _short({name.removeprefix("--"): _value(value) for name, value in pairs})
        found = {AXES[axis]: value for axis, value in cell.get("values", {}).items() if axis in AXES} | found
    found |= _configured(folder)
    found["seed"] = int(found["seed"]) if str(found.get("seed", "")).isdecimal() else None
    return found


def _configured(folder: Path) -> dict[str, Any]:
    """The options in a run's configuration that its numbers follow from; {} where there is no whole one."""
    return _short(decisive(found)) if (found := stored(folder / "config.yaml")) else {}


def _short(options: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted options by the names that a result gives them."""
    names = {"model": "method", "data.task": "task", "seed_everything": "seed"}
    short = {names.get(name, name.rpartition(".")[2]): value for name, value in options.items() if name != "data"}
    task = short.get("task")
    return short | ({"task": task.get("name")} if isinstance(task, dict) else {})


def _value(text: str) -> Any:
    """A word of a command line as the value that it means."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no whole JSON ({error}); remove it, or write it again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: no result of ptune: it holds no mapping; remove it, or give another folder.")
    return found
