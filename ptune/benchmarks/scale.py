"""`ptune.bench scale`: how a step of P-Tuning v2 grows with its sizes, and how a start grows with the rows."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from ptune.benchmarks import data
from ptune.benchmarks.clock import Spread, interleaved
from ptune.benchmarks.contender import Setting
from ptune.benchmarks.options import at_least, chosen
from ptune.benchmarks.ours import ours
from ptune.benchmarks.shapes import MINILM_L6, random_bert
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.research.pictures.curves import Curve, curves
from ptune.research.pictures.drawing import Picture, file
from ptune.research.tables import Cell, Table

SIZES: dict[str, tuple[int, ...]] = {
    "length": (1, 16, 32, 64, 128, 256),
    "tokens": (16, 32, 64, 128, 256, 512),
    "depth": (1, 2, 4, 8, 12),
    "width": (128, 256, 384, 512, 768),
}
"""What is varied in a step, everything else being that of `ptune.bench step`, and its values.

A prefix has at least one vector: without any, nothing below the head is trained.
"""
ROWS = (1_000, 10_000, 100_000, 1_000_000)
POSITIONS = 512
NAMES = {
    "length": "prompt length, vectors",
    "tokens": "tokens of a text",
    "depth": "layers",
    "width": "width of the layers",
    "rows": "training rows",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this part."""
    parser.add_argument("--tokens", type=at_least(8), default=64, help="tokens, if not varied (default: 64)")
    parser.add_argument("--batch", type=at_least(1), default=32, help="texts in a batch (default: 32)")
    parser.add_argument("--length", type=at_least(1), default=20, help="prompt length, if not varied (default: 20)")
    parser.add_argument("--most", type=at_least(1), default=ROWS[-1], help="leave out greater values, such as of rows")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.set_defaults(rounds=5)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """For each size and value, seconds of a step by round, and the step's arithmetic; for rows, what a start needs.

    The backbones are random BERTs of the sizes; `--backbone` gives the tokenizer of the rows alone.
    """
    found = {}
    for name in chosen(options.only, NAMES):
        if name == "rows":
            found[name] = _rows(options)
        else:
            values = [value for value in SIZES[name] if value <= options.most]
            found[name] = _steps(name, values, options)
    return {"batch": options.batch, "tokens": options.tokens, "length": options.length, "sizes": found}


def _steps(name: str, values: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    row, calls, products = ours(PTuningV2), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for value in values:
            shape = {"hidden_size": MINILM_L6["hidden_size"], "num_hidden_layers": MINILM_L6["num_hidden_layers"]}
            sizes = {"tokens": options.tokens, "length": options.length, "batch": options.batch}
            sizes |= {name: value} if name in sizes else {}
            shape |= {"depth": {"num_hidden_layers": value}, "width": {"hidden_size": value}}.get(name, {})
            shape["intermediate_size"] = 4 * shape["hidden_size"]
            place = random_bert(Path(folder, f"{name}-{value}"), **shape, max_position_embeddings=POSITIONS)
            common = {"device": options.device, "precision": options.precision}
            calls[str(value)] = row(Setting(place, **sizes, **common)).step
            products.append(multiplications(**sizes, layers=shape["num_hidden_layers"], width=shape["hidden_size"]))
        seconds = interleaved(calls, options.rounds, device=options.device)
    return {"values": list(values), "products": products, "seconds": list(seconds.values())}


def multiplications(tokens: int, length: int, batch: int, layers: int, width: int) -> int:
    """Multiplications of a step of P-Tuning v2 in the matrix products of a BERT's layers.

    Forward, a token passes matrices of `12 d^2` numbers in a layer: query, key, value and output `d^2` each, two of
    `4 d^2`; in the last layer the token that the head reads passes all, the others query, key and value alone. Each of
    the t queries meets p + t keys and values, `2 t (p + t) d` a text. Backward, the gradient of the
    hidden states passes the same matrices once, but for query, key and value of the first layer, whose input has none,
    and attention takes twice its forward products. So the step is linear in p, layers and batch, and has a quadratic
    part in t and in d.
    """
    matrices = width**2 * (tokens * (24 * layers - 3) - 18 * (tokens - 1))
    attention = 6 * layers * tokens * (length + tokens) * width
    return batch * (matrices + attention)


def _rows(options: argparse.Namespace) -> dict[str, Any]:
    values, starts = [value for value in ROWS if value <= options.most], []
    known = data.pairs(None)
    with tempfile.TemporaryDirectory() as temporary:
        for value in values:
            folder, cache = Path(temporary, str(value)), Path(temporary, f"cache-{value}")
            data.make(known, folder, value)
            own = {start: data.ended(data.started("ptune", folder, options.backbone, cache)) for start in data.STARTS}
            starts.append(own)
    return {"values": values, "starts": starts}


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One for each size."""
    return [_rows_table(each) if name == "rows" else _table(name, each, found) for name, each in found["sizes"].items()]


def expected(products: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Seconds in proportion to the arithmetic: as many multiplications a second as the measured ones in the mean."""
    rate = geometric_mean([own / many for own, many in zip(seconds, products, strict=True)])
    return [rate * many for many in products]


def _table(name: str, each: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    spreads = [Spread.of(seconds) for seconds in each["seconds"]]
    slope = expected(each["products"], [spread.median for spread in spreads])
    rows = zip(each["values"], spreads, each["products"], slope, strict=True)
    others = {key: found[key] for key in ("batch", "tokens", "length") if key != name}
    return Table(
        name,
        f"A step by {NAMES[name]}; {', '.join(f'{key} {value}' for key, value in others.items())}",
        (NAMES[name], "ms a step", "expected ms", "billion multiplications"),
        1,
        tuple(
            (
                Cell(f"{value:,}", value),
                spread.cell(1000),
                Cell(f"{1000 * guess:,.1f}", guess),
                Cell(f"{many / 1e9:,.2f}", many),
            )
            for value, spread, many, guess in rows
        ),
        (
            "Medians of the rounds, quartiles in brackets. Expected is in proportion to the multiplications of the "
            "layers' matrix products, at the measured rows' mean rate.",
        ),
    )


def _rows_table(each: Mapping[str, Any]) -> Table:
    keys = [(start, key, digits) for start in data.STARTS for key, digits in (("seconds", 1), ("mib", 0))]
    return Table(
        "rows",
        "A start by training rows",
        (NAMES["rows"], *(f"{start} start, {'MiB' if key == 'mib' else key}" for start, key, _ in keys)),
        1,
        tuple(
            (
                Cell(f"{value:,}", value),
                *(Cell(f"{own[start][key]:,.{digits}f}", own[start][key]) for start, key, digits in keys),
            )
            for value, own in zip(each["values"], each["starts"], strict=True)
        ),
        ("Every start is a process of its own: seconds beyond the imports, the largest memory with them.",),
    )


def picture(found: Mapping[str, Any]) -> str:
    """The text of an SVG file: for each size what was measured, with the expected slope beside it."""
    return file([picture_ for name, each in found["sizes"].items() for picture_ in _pictures(name, each)])


def _pictures(name: str, each: Mapping[str, Any]) -> list[Picture]:
    if name != "rows":
        medians = [Spread.of(seconds).median for seconds in each["seconds"]]
        slope = expected(each["products"], medians)
        measured = {
            value: tuple(1000 * second for second in seconds)
            for value, seconds in zip(each["values"], each["seconds"], strict=True)
        }
        return [_picture(name, "Milliseconds of a step", measured, [1000 * value for value in slope])]
    first = [own["first"] for own in each["starts"]]
    seconds, memory = ([own[key] for own in first] for key in ("seconds", "mib"))
    return [
        _picture(name, "Seconds of a first start", _once(each["values"], seconds), _line(each["values"], seconds, 0)),
        _picture(name, "MiB of a first start", _once(each["values"], memory), _line(each["values"], memory, memory[0])),
    ]


def _once(values: Sequence[float], measured: Sequence[float]) -> dict[float, tuple[float, ...]]:
    return {value: (own,) for value, own in zip(values, measured, strict=True)}


def _line(values: Sequence[int], measured: Sequence[float], base: float) -> list[float]:
    """What is in proportion to the values beside a base, and ends where the measured ends."""
    return [base + (measured[-1] - base) * value / values[-1] for value in values]


def _picture(name: str, title: str, measured: Mapping[float, tuple[float, ...]], slope: Sequence[float]) -> Picture:
    found = {"measured": measured, "expected": _once(list(measured), slope)}
    rows = [Curve(who, {**points}, look) for look, (who, points) in enumerate(found.items())]
    return curves(f"{title} by {NAMES[name]}", title, NAMES[name], rows)
