"""Exact readers of local files: each yields every row as the file says it, with its place.

Texts stay texts (a date, "1", "NA" and "null" of a CSV file), numbers stay numbers, a column that a row lacks is not
there, and what cannot be read is an InputError with file and line. The builders of `datasets` guess types instead:
dates become times, 1 beside 1.5 becomes 1.0, and a missing column becomes null.
"""

import csv
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ptune.data import conll, limits, squad
from ptune.data.rows import Placed
from ptune.errors import InputError, first_line

Reader = Callable[[Path], Placed]
"""Reads a file: its rows with their places."""

BLOCK = 1000
"""Number of rows of a Parquet file that are read at a time."""


@contextmanager
def opened(file: Path, newline: str) -> Iterator[TextIO]:
    """The text of a file in UTF-8, also gzipped, without its byte order mark; `newline` is that of `io.TextIOWrapper`.

    Raises:
        InputError: the file cannot be read, is damaged, or is not UTF-8.
    """
    try:
        with (
            limits.decompressed(file) if file.suffix == ".gz" else file.open("rb") as data,
            io.TextIOWrapper(data, encoding="utf-8-sig", newline=newline) as text,  # type: ignore[arg-type]
        ):
            yield text
    except UnicodeDecodeError as error:  # its position counts from the beginning of a block
        raise InputError(f"{file}: not UTF-8 at byte {_wrong_byte(file, error)}; save it as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)}); make it again.") from error


def _wrong_byte(file: Path, error: UnicodeDecodeError) -> int:
    """Position of the first byte of a file that is not UTF-8."""
    try:
        with limits.decompressed(file) if file.suffix == ".gz" else file.open("rb") as data:
            data.read().decode("utf-8-sig")
    except UnicodeDecodeError as whole:
        error = whole
    return error.start


def json_lines(file: Path) -> Placed:
    """Rows of a file with a JSON object on each line; empty lines are left out."""
    with opened(file, newline="\n") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            yield f"line {number}", json_row(line, str(file), number)


def json_row(line: str, file: str, number: int) -> dict:
    """The object on line `number` of a file; InputError with the place where there is none."""
    row = _parsed(line, file, number)
    if not isinstance(row, dict):
        raise InputError(f"{file}, line {number}: expected a JSON object a line, got {type(row).__name__}.")
    _check_text(line, row, f"{file}, line {number}")
    return row


def json_list(file: Path) -> Placed:
    """Rows of a file that is one JSON list of objects."""
    with opened(file, newline="\n") as stream:
        text = stream.read()
    for number, row in enumerate(_parsed(text, str(file)), start=1):
        place = f"{file}, row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{place}: expected an object with named columns, got {type(row).__name__}.")
        _check_text(text, row, place)
        yield f"row {number}", row


def json_file(file: Path, answered: bool = True) -> Placed:
    """Rows of a file that is a list of objects, a document as SQuAD's, or has an object on each line.

    Where `answered` is false, questions of a document may have no answers.
    """
    if _begins(file) == "[":
        yield from json_list(file)
    elif squad.is_document(document := _first(file)):
        yield from ((f"row {number}", row) for number, row in squad.rows(document, file, answered))
    else:
        yield from json_lines(file)


def _begins(file: Path) -> str:
    """The first letter of a file that is no white space."""
    with opened(file, newline="\n") as text:
        while block := text.read(1000):
            if block.strip():
                return block.lstrip()[0]
    return ""


def _first(file: Path) -> Any:
    """The value of a JSON file's first line, or of the whole file where its first line is none."""
    with opened(file, newline="\n") as text:
        line = next((line for line in text if line.strip()), "{}")
    limits.check_lists(str(file), line)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        with opened(file, newline="\n") as text:
            return _parsed(text.read(), str(file))


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


def commas(file: Path) -> Placed:
    """Rows of a file with commas between the fields and a header; a quoted field may hold line breaks."""
    with opened(file, newline="") as text:
        yield from _table(csv.reader(text, strict=True), file)


def tabs(file: Path) -> Placed:
    """Rows of a file with tabs between the fields and a header; quotation marks are text."""
    with opened(file, newline="") as text:
        yield from _table(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), file)


def check_names(names: list[str], place: str) -> None:
    """Raise InputError for a table with two columns of one name, of which a row could hold the last one alone."""
    if len(set(names)) < len(names):
        raise InputError(f"{place}: a column name occurs twice in {names}; rename one.")


def _table(reader: Any, file: Path) -> Placed:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        header = next(reader, None)
        if header is None:
            return
        others = {",", ";", "\t"} - {reader.dialect.delimiter}
        if len(header) == 1 and others & {*header[0]}:
            raise InputError(
                f"{file}, line 1: one column {header[0]!r}; the fields of a .csv are separated by commas and "
                "those of a .tsv by tabs; save the file so."
            )
        check_names(header, f"{file}, line 1")
        start = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(header):
                raise InputError(
                    f"{file}, line {start}: {len(values)} fields where the header has {len(header)}"
                    f" ({', '.join(header)})."
                )
            if values:
                yield f"line {start}", dict(zip(header, values, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: malformed row ({error}).") from error


def parquet(file: Path) -> Placed:
    """Rows of a Parquet file, with its own types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = size = 0
    try:
        with pq.ParquetFile(file) as stored:
            limits.check_rows(file, stored.metadata.num_rows)
            check_names(stored.schema_arrow.names, str(file))
            for block in stored.iter_batches(BLOCK):
                size = limits.check_block(file, block, size)
                for row in _values(block, file, number):
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{file}: not a Parquet file ({first_line(error)}).") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)}); make it again.") from error


def _values(block: Any, file: Path, before: int) -> list[dict]:
    """The rows of a block that `before` rows precede; an InputError where Python's type cannot hold a value."""
    try:
        return block.to_pylist()
    except (ValueError, OverflowError):
        for name in block.schema.names:
            for i, value in enumerate(block[name]):
                try:
                    value.as_py()
                except (ValueError, OverflowError) as error:
                    raise InputError(
                        f"{file}, row {before + i + 1}: column {name!r} holds a value that cannot be read"
                        f" ({first_line(error)}); mend or remove it."
                    ) from error
        raise


def columns(file: Path, tagged: bool = True) -> Placed:
    """Sentences of a file with a word on each line and its tags, which may be missing where `tagged` is false."""
    with opened(file, newline="\n") as text:
        yield from ((f"line {number}", row) for number, row in conll.rows(text, file, tagged))


READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_file,
    ".csv": commas,
    ".tsv": tabs,
    ".parquet": parquet,
    **dict.fromkeys(conll.SUFFIXES, columns),
}
"""The reader of each kind of file, by the end of its name."""
UNANSWERED: dict[str, Reader] = READERS | {
    ".json": partial(json_file, answered=False),
    **dict.fromkeys(conll.SUFFIXES, partial(columns, tagged=False)),
}
"""The reader of each kind of file whose rows need no answers."""
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".tsv", ".parquet", *conll.SUFFIXES)
"""How the names of files usually end that can be read; all but .parquet may be gzipped."""
