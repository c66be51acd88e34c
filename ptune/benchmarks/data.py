"""`ptune.bench data`: how long a run waits for its data and with how much memory, beside `datasets` alone."""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from ptune.benchmarks.clock import Spread
from ptune.benchmarks.options import at_least
from ptune.benchmarks.start import KINDS, TEXTS
from ptune.errors import InputError, first_line
from ptune.research.tables import Cell, Table, word
from ptune.run.command import place
from ptune.tasks import toy

STARTS = ("first", "later")
"""Of a first start nothing is cached; a later one finds what the first has kept."""
MEASURED = ("seconds", "cpu", "mib", "imports", "imports_cpu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this part."""
    what = "a .jsonl or .jsonl.gz file of pairs whose texts are repeated, such as MRPC's validation split; "
    parser.add_argument("--data", type=place, metavar="FILE", help=f"{what}by default the rows of toy/pair")
    what = "rows of the training split (default: 392,702, as many as MNLI's)"
    parser.add_argument("--rows", type=at_least(1), default=392_702, help=what)
    parser.set_defaults(rounds=1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """For each start of each kind, what its process needed: a list of one entry a round.

    Every start is a process of its own: seconds and CPU seconds beyond the imports, and the largest memory with them.

    Raises:
        InputError: the file has no rows of two texts.
    """
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "data")
        make(pairs(options.data), folder, options.rows)
        for number in range(options.rounds):
            cache = Path(temporary, str(number))
            for kind in KINDS:
                for start in STARTS:
                    own = ended(started(kind, folder, options.backbone, cache))
                    found.setdefault(f"{kind}, {start} start", []).append(own)
            both = [started("ptune", folder, options.backbone, cache / "both") for _ in range(2)]
            for i, process in enumerate(both, start=1):
                found.setdefault(f"ptune, {i} of two at once", []).append(ended(process))
        size = (folder / "train.jsonl").stat().st_size
    return {"rows": options.rows, "bytes": size, "starts": found}


def pairs(file: Path | None) -> list[tuple[str, str]]:
    """Pairs of texts: the first two texts of each row of a file, or the rows of `toy/pair`."""
    if file is None:
        rows = toy.generate("toy/pair", "train")
    else:
        try:
            data = file.read_bytes()
            lines = (gzip.decompress(data) if file.suffix == ".gz" else data).splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"--data {file}: cannot be read ({first_line(error)}); give a .jsonl file.") from error
    found = [[value for value in row.values() if isinstance(value, str)][:2] for row in rows if isinstance(row, dict)]
    if not found or any(len(pair) < 2 for pair in found):
        raise InputError(f"--data {file}: its rows must hold two texts each; give a file of pairs.")
    return [(one, other) for one, other in found]


def make(known: list[tuple[str, str]], folder: Path, rows: int) -> None:
    """Write train.jsonl with so many rows, each with a number of its own, and validation.jsonl with the known ones."""
    folder.mkdir()
    for split, count in (("train", rows), ("validation", len(known))):
        with (folder / f"{split}.jsonl").open("w") as out:
            for i, (one, other) in enumerate(islice(cycle(known), count)):
                out.write(json.dumps({**dict(zip(TEXTS, (f"{one} {i}", other), strict=True)), "label": i % 2}) + "\n")


def started(kind: str, folder: Path, backbone: str, cache: Path) -> subprocess.Popen:
    """A process that measures one start with this cache."""
    folders = {"PTUNE_CACHE": str(cache / "ptune"), "HF_DATASETS_CACHE": str(cache / "datasets")}
    words = [sys.executable, "-m", "ptune.benchmarks.start", kind, str(folder), backbone]
    return subprocess.Popen(words, env=os.environ | folders, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> dict[str, float]:
    """What a process has measured.

    Raises:
        InputError: it has failed, as with a backbone that has no tokenizer.
    """
    out, said = process.communicate()
    if process.returncode:
        reason = said.strip().rpartition("\n")[2]
        raise InputError(f"the start of a run failed ({reason}); try another --backbone or --data.")
    return json.loads(out.splitlines()[-1])


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One table of all starts."""

    def row(name: str, rounds: list[dict[str, float]]) -> tuple[Cell, ...]:
        values = {key: Spread.of([own[key] for own in rounds]) for key in MEASURED}
        return word(name), *(values[key].cell(1, 0 if key == "mib" else 1) for key in MEASURED)

    title = f"A start with {found['rows']:,} rows, {found['bytes'] / 2**20:,.0f} MiB"
    columns = ("start", "seconds", "CPU seconds", "peak MiB", "seconds of imports", "CPU seconds of imports")
    notes = (
        "Every start is a process of its own. Seconds are those beyond the imports, up to the first batch; the peak is "
        "the process's largest memory, imports included. A later start finds what the first one has cached.",
    )
    rows = tuple(row(name, rounds) for name, rounds in found["starts"].items())
    return [Table("data", title, columns, 1, rows, notes)]
