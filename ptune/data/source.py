"""Where rows come from: local files, the hub, or the generated toy tasks. Errors name the file and the line."""

import csv
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptune.data import conll, limits, squad
from ptune.data.rows import Rows
from ptune.errors import InputError, first_line, nearest
from ptune.tasks.spec import TaskSpec

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".tsv", ".parquet", *conll.SUFFIXES)


def folders(path: str | list[str] | None) -> list[str]:
    """The folders that `--data.path` names."""
    return [path] if isinstance(path, str) else path or []


def read(task: TaskSpec, path: str | list[str] | None) -> dict[str, Rows]:
    """All splits of `task` that exist: from the folders `path`, else generated (toy/...), else from the hub.

    Raises:
        InputError: a folder, file or split that must exist does not, or a file cannot be read.
    """
    splits = _splits(task, path)
    if task.where:
        column, value = task.where
        splits = {split: _where(rows, column, value) for split, rows in splits.items()}
        if not splits[task.evaluate[0]].rows:
            raise InputError(
                f"task {task.name!r}: {splits[task.evaluate[0]].origin} has no row with {column} {value!r}; "
                "give the file that has them."
            )
    return {split: rows for split, rows in splits.items() if rows.rows}


def _where(rows: Rows, column: str, value: str) -> Rows:
    return rows.take([i for i, row in enumerate(rows.rows) if str(row.get(column)) == value])


def _splits(task: TaskSpec, path: str | list[str] | None) -> dict[str, Rows]:
    wanted = [task.train, *task.evaluate]
    if path is not None:
        return read_folders([Path(folder).expanduser() for folder in folders(path)], wanted, task.evaluate[0])
    if task.name.startswith("toy/"):
        from ptune.tasks import toy

        return {split: Rows(toy.generate(task.name, split), f"{task.name} {split}") for split in wanted}
    return read_hub(task, wanted)


def read_folders(places: list[Path], wanted: list[str], needed: str) -> dict[str, Rows]:
    """The splits in `wanted`, each from the first folder that has it as `<split>.jsonl`, `.csv`, ...

    The split `needed` must be among them.
    """
    for folder in places:
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise InputError(f"--data.path: {folder} {what}; give the folder that holds {needed}.jsonl (or .csv, ...).")
    files = {split: [file for folder in places if (file := find(folder, split))] for split in wanted}
    if not files[needed]:
        there = sorted(file.name for folder in places for file in folder.iterdir() if file.is_file()) or ["nothing"]
        tested = any(find(folder, "test") for folder in places)
        instead = ", or choose the checkpoint on the test split: --data.task.evaluate '[test]'" if tested else ""
        raise InputError(
            f"--data.path: {' and '.join(map(str, places))} has no file for the split {needed!r}: add {needed} + one of"
            f" {' '.join(SUFFIXES)} (there is: {', '.join(there[:20])}){instead}."
        )
    return {split: read_file(found[0]) for split, found in files.items() if found}


def find(folder: Path, split: str) -> Path | None:
    """The file of `split` in `folder`, or None; an InputError where there are two."""
    files = [file for suffix in SUFFIXES if (file := folder / f"{split}{suffix}").is_file()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InputError(f"--data.path: {folder} has {names} for one split; keep one of them.")
    return files[0] if files else None


def read_file(file: Path) -> Rows:
    """The rows of a file by the end of its name, also gzipped; in .tsv quotation marks are text."""
    try:
        if file.suffix == ".parquet":
            return _checked(_parquet(file), [], file)
        with limits.decompressed(file) if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)}); make it again.") from error
    name = file.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        pairs = _table(text, file, tabs=name.endswith(".tsv"))
    elif name.endswith(conll.SUFFIXES):
        pairs = conll.rows(io.StringIO(text, newline="\n"), file)
    elif name.endswith(".json") and text.lstrip().startswith("["):
        return _checked(_json_list(text, file), [], file)
    elif name.endswith(".json") and squad.is_document(document := _first(text, file)):
        return _checked([row for _, row in squad.rows(document, file)], [], file)
    else:
        pairs = _json_lines(text, file)
    lines, rows = [], []
    for line, row in pairs:
        lines.append(line)
        rows.append(row)
    return _checked(rows, lines, file)


def _checked(rows: list[dict], lines: list[int], file: Path) -> Rows:
    if not rows:
        raise InputError(f"{file}: the file has no rows; add some or remove it.")
    return Rows(rows, str(file), lines)


def _parquet(file: Path) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as stored:
            limits.check_rows(file, stored.metadata.num_rows)
            blocks, size = [], 0
            for block in stored.iter_batches(1000):
                blocks.append(block)
                size = limits.check_block(file, block, size)
            table = pa.Table.from_batches(blocks, stored.schema_arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{file}: not a Parquet file ({first_line(error)}).") from error
    try:
        return table.to_pylist()
    except (ValueError, OverflowError):  # Python's own type cannot hold a value: find its row and column
        for name in table.column_names:
            for i, value in enumerate(table[name]):
                try:
                    value.as_py()
                except (ValueError, OverflowError) as error:
                    raise InputError(
                        f"{file}, row {i + 1}: column {name!r} holds a value that cannot be read ({first_line(error)});"
                        " mend or remove it."
                    ) from error
        raise


def _json_list(text: str, file: Path) -> list[dict]:
    rows = _parsed(text, str(file))
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{file}, row {i + 1}: expected an object with named columns, got {type(row).__name__}.")
        _check_text(text, row, f"{file}, row {i + 1}")
    return rows


def _first(text: str, file: Path) -> Any:
    """The value of a JSON file's first line, or of the whole file where its first line is none."""
    limits.check_lists(str(file), text)
    try:
        return json.loads(text.lstrip().partition("\n")[0])
    except (ValueError, RecursionError):
        return _parsed(text, str(file))


def _json_lines(text: str, file: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        row = _parsed(line, str(file), number)
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected a JSON object a line, got {type(row).__name__}.")
        _check_text(line, row, place)
        yield number, row


def _parsed(text: str, file: str, line: int = 0) -> Any:
    """The JSON value of a file, or of its line number `line`."""
    place = f"{file}, line {line}" if line else file
    limits.check_lists(place, text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{file}, line {line or error.lineno}"
        raise InputError(f"{where}: malformed JSON ({error.msg}, column {error.colno}).") from error
    except RecursionError as error:
        raise InputError(f"{place}: JSON nested too deeply to be read; give one flat object a row.") from error
    except ValueError as error:  # Python's limit of 4,300 digits
        raise InputError(f"{place}: a whole number has too many digits ({first_line(error)}); shorten it.") from error


def _check_text(written: str, row: dict, place: str) -> None:
    """Raise an InputError for a lone surrogate such as \\ud800: `json` reads it, but no tokenizer can."""
    if "\\ud" not in written and "\\uD" not in written:
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise InputError(f"{place}: a text holds {half}, half of a surrogate pair; write both halves.") from error


def _table(text: str, file: Path, tabs: bool) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise InputError(f"{file}, line 1: a column name occurs twice in {header}; rename one.")
        start = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(header):
                raise InputError(
                    f"{file}, line {start}: {len(values)} fields where the header has {len(header)}"
                    f" ({', '.join(header)})."
                )
            if values:
                yield start, dict(zip(header, values, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: malformed row ({error}).") from error


def read_hub(task: TaskSpec, wanted: list[str]) -> dict[str, Rows]:
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
    if task.evaluate[0] not in loaded:
        near = nearest(task.evaluate[0], map(str, loaded))
        raise InputError(f"task {task.name!r}: the hub's dataset has no split {task.evaluate[0]!r}, {near}")
    return {s: Rows(loaded[s].to_list(), f"{'/'.join(task.hub)} {s}") for s in wanted if s in loaded}
