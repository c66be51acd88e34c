"""Files of rows and of answers: rows are read so that a bad one does not hide the others, answers are written whole."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, TextIO

from ptune.data import arrow, conll, readers
from ptune.data.base import TaskData
from ptune.data.local import read_saved
from ptune.errors import InputError
from ptune.tuning.saving import whole

Read = Iterator[tuple[str, Any]]
"""Rows with their places ("new.csv, line 3"): a dict, a text, or the InputError of a row that cannot be read."""


def rows_of(source: str, words: bool) -> Read:
    """The rows of a file by the end of its name, or of stdin ("-").

    JSON lines and CSV go on behind a bad row. A .txt file and stdin have a text on each line; stdin may have a JSON
    object instead.

    Args:
        source: the file, the folder of a saved Dataset, or "-".
        words: whether the task reads words (tagging): a .txt file then has a word on each line, with or without tags.

    Raises:
        InputError: the file cannot be read on.
    """
    if source == "-":
        yield from _lines(sys.stdin, "stdin", json_too=True)
        return
    file = Path(source)
    if file.is_dir():
        yield from ((f"{source}, {place}", row) for place, row in read_saved(file).read())
        return
    match _suffix(source):
        case ".jsonl":
            with readers.opened(file, newline="\n") as text:
                yield from _lines(text, source, json_too=True, texts=False)
        case ".txt" if not words:
            with readers.opened(file, newline="\n") as text:
                yield from _lines(text, source)
        case ".csv" | ".tsv" as suffix:
            tabs = suffix == ".tsv"
            with readers.opened(file, newline="") as text:
                table = (
                    csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text, strict=True)
                )
                yield from _table(table, source)
        case suffix:
            yield from ((f"{source}, {place}", row) for place, row in readers.UNANSWERED[suffix](file))


def asked(source: str, row: Any, data: TaskData) -> Any:
    """What a run with this data module is asked of one of `rows_of`.

    The sentence of a column file, where no column has a name, is its words where the run has another name for them.
    """
    unnamed = data.format == "tagging" and _suffix(source) in conll.SUFFIXES and isinstance(row, dict)
    return row[conll.WORDS] if unnamed and not {*data.read_columns} <= row.keys() else row


def sentence(source: str, row: Any, label: str) -> dict[str, Any]:
    """What stands beside the answers to a row of a column file, whose sentences have no names; {} for other rows.

    Args:
        source: the file.
        row: one of `rows_of`.
        label: the task's column of tags, which may be the number of one.

    Returns:
        {tokens, tags}: the words and what the file says of each: the column `label`, or the last one; without `tags`
        where there are words alone.
    """
    if _suffix(source) not in conll.SUFFIXES or not isinstance(row, dict):
        return {}
    tags = row.get(label, row.get(conll.TAGS))
    return {conll.WORDS: row[conll.WORDS]} | ({} if tags is None else {conll.TAGS: tags})


def _suffix(source: str) -> str:
    """The end of a file's name, without that of gzip."""
    return Path(Path(source).name.removesuffix(".gz")).suffix


def _lines(stream: TextIO, source: str, json_too: bool = False, texts: bool = True) -> Read:
    for number, line in enumerate(stream, start=1):
        place, line = f"{source}, line {number}", line.rstrip("\r\n")
        if not line.strip():
            continue
        if json_too and (line.lstrip().startswith("{") or not texts):
            try:
                yield place, readers.json_row(line, source, number)
            except InputError as error:
                yield place, error
        else:
            yield place, line


def _table(table: Any, source: str) -> Read:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        header = next(table, [])
        readers.check_names(header, f"{source}, line 1")
        start = table.line_num + 1
        for values in table:
            place = f"{source}, line {start}"
            start = table.line_num + 1
            if len(values) == len(header):
                yield place, dict(zip(header, values, strict=True))
            elif values:
                fields = f"{len(values)} fields where the header has {len(header)} ({', '.join(header)})."
                yield place, InputError(f"{place}: {fields}")
    except csv.Error as error:
        raise InputError(f"{source}, line {table.line_num}: malformed row ({error}).") from error


Parts = Iterable[list[dict[str, Any]]]
"""Answers, some at a time, so that they are never all in memory."""


def write(target: str, parts: Parts) -> None:
    """Write answers as they come, by the end of the file's name, whole or not at all; "-" prints JSON lines.

    In CSV, what is a list is JSON.
    """
    if target == "-":
        for answer in chain.from_iterable(parts):
            print(json.dumps(answer, ensure_ascii=False))
        return
    with whole(target) as file:
        match Path(target).suffix:
            case ".jsonl":
                for part in parts:
                    file.write("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in part).encode())
            case ".json":
                before = "[\n"
                for answer in chain.from_iterable(parts):
                    file.write(f"{before}{json.dumps(answer, ensure_ascii=False)}".encode())
                    before = ",\n"
                file.write(b"[]\n" if before == "[\n" else b"\n]\n")
            case ".parquet":
                _write_parquet(file, parts, Path(target).parent)
            case suffix:
                _write_table(file, parts, "\t" if suffix == ".tsv" else ",")


def _write_parquet(file: BinaryIO, parts: Parts, folder: Path) -> None:
    """Parquet's types must be known from the start, which only all answers tell: they go through an Arrow file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with TemporaryDirectory(prefix=".", dir=folder) as temporary:
        rows = Path(temporary, "rows.arrow")
        arrow.write(rows, parts)
        with (
            pa.memory_map(str(rows)) as source,
            pa.ipc.open_stream(source) as stream,
            pq.ParquetWriter(file, stream.schema) as writer,
        ):
            for batch in stream:
                writer.write_batch(batch)


def _write_table(file: BinaryIO, parts: Parts, delimiter: str) -> None:
    """A line with the names of the first answer, which all have, and one an answer."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    answers = chain.from_iterable(parts)
    for first in islice(answers, 1):
        table = csv.DictWriter(text, list(first), delimiter=delimiter, lineterminator="\n")
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in answer.items()} for answer in chain([first], answers))
    text.detach()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
