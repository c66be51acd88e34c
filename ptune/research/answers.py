"""What runs answered, read from their predictions, and whether two answered the same rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import torch

from ptune.errors import InputError, first_line
from ptune.heads.base import Table
from ptune.tasks.spec import HeadSpec
from ptune.tuning.saving import tuples


@final
@dataclass(frozen=True)
class Answers:
    """The answers of one run to one split."""

    file: Path
    head: HeadSpec
    rows: list[int]
    """Numbers of the rows in the split."""
    gold: list[Any]
    right: list[bool | None]
    table: Table
    """What the head's metrics are measured from: "rows columns"."""


def read(file: Path) -> Answers:
    """The answers in a predictions file.

    Raises:
        InputError: it is torn, or of a version that does not say of which head it is.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        names = [name for name in schema.names if name.startswith("table/")]
        found = pq.read_table(file, columns=["row", "gold", "right", *names])
        head = json.loads((schema.metadata or {})[b"head"])
        # A field that the version which wrote the file did not have takes its default.
        spec = HeadSpec(**{field.name: tuples(head[field.name]) for field in fields(HeadSpec) if field.name in head})
        columns = [torch.tensor(found[name].to_pylist(), dtype=torch.float64) for name in names]
        rows, gold, right = (found[name].to_pylist() for name in ("row", "gold", "right"))
        return Answers(file, spec, rows, gold, right, torch.stack(columns, dim=1))
    except KeyError as error:
        raise InputError(
            f"{file} does not say of which head it is; measure the run again by ptune.evaluate."
        ) from error
    except (OSError, ValueError, TypeError, RuntimeError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read ({first_line(error)}).") from error


def check_same(answers: Sequence[Answers]) -> None:
    """Raise InputError, which names the first difference, unless all are answers to the same rows."""
    first = answers[0]
    for other in answers[1:]:
        pair = f"{first.file} and {other.file}"
        if first.rows != other.rows:
            raise InputError(f"{pair} are not of the same rows: {len(first.rows):,} and {len(other.rows):,}.")
        row = next(
            (row for row, *golds in zip(first.rows, first.gold, other.gold, strict=True) if golds[0] != golds[1]), None
        )
        if row is not None:
            raise InputError(f"{pair} differ in what is right in row {row}, so they are not of the same data.")
