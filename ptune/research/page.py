"""The page of a report: one HTML file that needs nothing else, with tables to sort and filter, and pictures."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ptune.errors import printable
from ptune.research.pictures.drawing import STYLE, Picture
from ptune.research.tables import Cell, Report, Table

FOLDER = Path(__file__).parent
"""Where the template, its styles and its script lie."""


@final
@dataclass(frozen=True)
class Gallery:
    """A section of pictures."""

    title: str
    note: str
    """What the pictures show and how they are read, in whole sentences."""
    pictures: tuple[Picture, ...]


def page(report: Report, galleries: Sequence[Gallery]) -> str:
    """The page as text. What comes from runs (names, options, errors) is text there and never markup.

    The page loads nothing: its content security policy allows its own styles and script alone, by their hashes.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    style = "".join(file.read_text(encoding="utf-8") for file in (STYLE, FOLDER / "page.css"))
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=report,
        galleries=galleries,
        lead=_lead(report),
        numbers=_numbers,
        kind=_kind,
        drawn=lambda picture, name: Markup(picture.svg(name)),
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        version=version("ptune"),
    )


def _shown(value: Any) -> Any:
    """What an expression of the template writes: without control characters, which could turn a text around."""
    return value if isinstance(value, Markup) else printable(value)


def _hash(text: str) -> str:
    """A hash as content security policies have it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _numbers(table: Table) -> list[bool]:
    """For each column whether it holds numbers, and no words."""
    columns = [[row[i].value for row in table.rows] for i in range(len(table.columns))]
    return [
        any(isinstance(value, float | int) for value in column) and not any(isinstance(value, str) for value in column)
        for column in columns
    ]


def _kind(cell: Cell, number: bool) -> str:
    """The classes of a cell, in a column of numbers or not."""
    if cell.value is not None:
        return "number" if number else "text"
    return f"{'number ' * number}{'failed' if cell.text.startswith('failed') else 'empty'}"


def _lead(report: Report) -> str:
    """How many runs the report is about, and how many of them have no result."""
    done = sum(len(group.runs) for group in report.groups)
    states = Counter(run.state for group in report.groups for run in group.open)
    left = states["failed"] + states["unfinished"]
    missing = sum(len(group.missing) for group in report.groups)
    rows = sum(bool(group.runs) for group in report.groups)
    counts = [f"{done} finished run{'s' * (done != 1)} in {rows} row{'s' * (rows != 1)}"]
    found = {"failed or unfinished": left, "pruned": states["pruned"], "missing": missing}
    counts += [f"{count} {word}" for word, count in found.items() if count]
    return f"{'; '.join(counts)}."
