"""Results that are kept to be committed: what finished runs reached and answered, small and without private parts."""

import io
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptune.errors import InputError
from ptune.research.cells import CELL
from ptune.research.records import Record
from ptune.run.directory import PREDICTIONS
from ptune.run.disk import told
from ptune.tuning.saving import write_whole

PLACES = ("backbone", "path", "run_dir", "checkpoint", "command")
"""Keys of a result whose values name places on a machine."""
FOLDERS = re.compile(r"(?<![^\s='\"\[,({])[~.]{0,2}/(?:[^/'\",\]]+/)*")
"""The folders of a path that begins with `/`, `./`, `../` or `~/`, also within a list or behind an option's name."""
COMPARED = ("row", "gold", "right", "table/")
"""How the columns of predictions begin that comparisons are made of (`ptune.research.answers`)."""


def keep(records: Sequence[Record], folder: Path) -> int:
    """Write `result.json` and `predictions/<split>.parquet` of each finished run, and return the number of runs.

    Below the folder runs lie as they do below the one that they have in common; cells of a grid, as in its folder, with
    their values in `cell.json`. A result is kept without the host's name, and places on the machine by their last
    names; predictions with the columns that comparisons are made of.

    Args:
        records: the runs; those without a result are left out.
        folder: where to.

    Raises:
        InputError: the folder holds something already or cannot be written, or no run is finished.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--keep {folder}: is there already; choose another folder, or remove it.")
    done = {_name(record): record for record in records if record.state == "done"}
    if not done:
        raise InputError(f"--keep {folder}: none of these runs is finished, so there is nothing to keep.")
    root = os.path.commonpath([Path(record.grid or name.parent) for name, record in done.items()])
    with told(folder, "choose another --keep."):
        for name, record in done.items():
            place = folder / name.relative_to(root)
            (place / PREDICTIONS).mkdir(parents=True)
            for split, file in record.predictions.items():
                write_whole(place / PREDICTIONS / f"{split}.parquet", _compared(file))
            result = public({key: value for key, value in record.result.items() if key not in ("host", PREDICTIONS)})
            write_whole(place / "result.json", (json.dumps(result, indent=2) + "\n").encode())
            if record.grid:
                values = json.loads((name / CELL).read_text(encoding="utf-8"))["values"]
                write_whole(place / CELL, (json.dumps({"values": public(values)}, indent=2) + "\n").encode())
    return len(done)


def public(value: Any, key: str = "") -> Any:
    """A value of a result, below a key, in which places on the machine are named without their folders."""
    if isinstance(value, dict):
        return {name: public(item, name.rpartition(".")[2]) for name, item in value.items()}
    if isinstance(value, list):
        return [public(item, key) for item in value]
    if not isinstance(value, str) or key not in PLACES:
        return value
    if key == "command":
        return shlex.join(FOLDERS.sub("", word) for word in shlex.split(value))
    return FOLDERS.sub("", value)


def _name(record: Record) -> Path:
    """Where a run lies, as a folder: that of a file beside a run is one of its own."""
    place = Path(os.path.abspath(record.place))
    if place.suffix != ".json":
        return place
    return place.parent.with_name(f"{place.parent.name}-{place.stem}") if record.evaluation else place.with_suffix("")


def _compared(file: Path) -> bytes:
    """A file of predictions with its metadata and the columns that comparisons need, as small as it gets."""
    import pyarrow.parquet as pq

    schema, kept = pq.read_schema(file), io.BytesIO()
    found = pq.read_table(file, columns=[name for name in schema.names if name.startswith(COMPARED)])
    pq.write_table(found, kept, compression="zstd", compression_level=19)
    return kept.getvalue()
