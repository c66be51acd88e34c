"""`ptune.bench step`: what a training step costs by method, beside PEFT, fine-tuning and the bare matrix products."""

import argparse
from collections.abc import Mapping
from typing import Any

from ptune.benchmarks import memory, rows
from ptune.benchmarks.clock import Spread, interleaved, ratio
from ptune.benchmarks.contender import Contender, Setting
from ptune.benchmarks.options import at_least, chosen, require_room
from ptune.errors import note
from ptune.research.tables import Cell, Table, word

COMPARED = {
    rows.AS_RUN: "× PEFT prefix",
    rows.EQUAL: "× PEFT prefix, no dropout",
    rows.FULL: "× fine-tuning",
    rows.FLOOR: "of the floor",
}
"""Headings of the ratios to these rows."""
NOTES = (
    "Medians of the rounds, quartiles in brackets. × is how many times as fast a row is as the one in the heading, of "
    "the floor the matrix products' time in its own, both medians of the ratios of each round.",
    "All rows train on the same batch with the same optimizer (AdamW) in the same loop. -cached reads the kept states "
    "of --cache_frozen, as from the second epoch on.",
    "PEFT-prefix is as its example runs it, with dropout in the frozen backbone. PTuningV2 drops vectors of the prefix "
    "for each text instead; PTuningV2-no-dropout and PEFT-prefix-no-dropout do the same work.",
    "matrix-products are those of PTuningV2's forward and activation backward alone, with nothing between them.",
    "Peak memory is that of a process of the row's own, beyond its libraries (a GPU's: torch's). Bytes are those of "
    "the file with what was trained.",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this part."""
    what = "tokens of the longest text (default: 64 16)"
    parser.add_argument("--tokens", nargs="+", type=at_least(8), default=[64, 16], help=what)
    parser.add_argument("--batch", type=at_least(1), default=32, help="texts in a batch (default: 32)")
    parser.add_argument("--length", type=at_least(1), default=20, help="prompt length (default: 20)")
    parser.add_argument("--steps", type=at_least(1), default=2, help="steps of a row in each round (default: 2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"rows: {', '.join(rows.ROWS)}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of each row and round, and what else a row costs, for each number of tokens.

    Raises:
        InputError: there is no such row, or the tokens do not fit into the backbone.
    """
    names, found = chosen(options.only, rows.ROWS), []
    require_room(options, max(options.tokens))
    for tokens in options.tokens:
        setting = Setting.of(options, tokens=tokens)
        contenders, left_out = ready(names, setting)
        calls = {name: contender.step for name, contender in contenders.items()}
        seconds = interleaved(calls, options.rounds, options.steps, device=options.device)
        found.append(
            {
                "tokens": tokens,
                "batch": options.batch,
                "real_tokens": setting.real_tokens,
                "left_out": left_out,
                "rows": {
                    name: {
                        "seconds": seconds[name],
                        "trained": contender.trained,
                        "stored": contender.stored,
                        "peak_mib": memory.peak(name, setting) if contender.trained else None,
                    }
                    for name, contender in contenders.items()
                },
            }
        )
    return {"settings": found}


def ready(names: list[str], setting: Setting) -> tuple[dict[str, Contender], dict[str, str]]:
    """The rows that can be measured, after a step each, and why the others cannot be."""
    found, left_out = {}, {}
    for name in names:
        try:
            contender = rows.ROWS[name](setting)
            contender.step()
            found[name] = contender
        except ValueError as error:  # an InputError, or what PEFT and transformers refuse
            left_out[name] = str(error)
            note(f"row {name} is left out: {error}")
    return found, left_out


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One for each number of tokens."""
    return [_table(setting) for setting in found["settings"]]


def _table(setting: Mapping[str, Any]) -> Table:
    measured, batch, tokens = setting["rows"], setting["batch"], setting["real_tokens"]
    columns = ("row", "ms a step", "examples/s", "tokens/s", *COMPARED.values(), "peak MiB", "trained", "KiB on disk")
    return Table(
        f"step{setting['tokens']}",
        f"A step of {batch} texts of up to {setting['tokens']} tokens ({tokens:,} without padding)",
        columns,
        1,
        tuple(_row(name, own, measured, batch, tokens) for name, own in measured.items()),
        (*NOTES, *(f"{name} is left out: {reason}" for name, reason in setting["left_out"].items())),
    )


def _row(name: str, own: Mapping[str, Any], measured: Mapping[str, Any], batch: int, tokens: int) -> tuple[Cell, ...]:
    spread = Spread.of(own["seconds"])
    ratios = [
        Cell() if other not in measured else _ratio(own["seconds"], measured[other]["seconds"]) for other in COMPARED
    ]
    per_second = (Cell(f"{n / spread.median:,.0f}", n / spread.median) for n in (batch, tokens))
    costs = (own["peak_mib"], own["trained"], own["stored"] / 1024)
    shown = (Cell(f"{cost:,.0f}", cost) if own["trained"] else Cell() for cost in costs)
    return word(name), spread.cell(1000), *per_second, *ratios, *shown


def _ratio(own: list[float], other: list[float]) -> Cell:
    middle = ratio(own, other).median
    return Cell(f"{middle:.2f}", middle)
