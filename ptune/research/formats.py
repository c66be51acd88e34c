"""A report as Markdown, CSV, LaTeX, one HTML page, or a picture."""

import csv
import io
import re
from collections.abc import Callable, Mapping

from ptune.errors import printable
from ptune.research.galleries import galleries, picture
from ptune.research.page import page
from ptune.research.tables import Report, Table


def markdown(report: Report) -> str:
    """Tables as GitHub has them, with their notes below. A report of one table has no headings."""
    headed = len(report.tables) > 1
    parts = [f"# {_plain(report.title)}"] * headed
    for table in report.tables:
        parts += [f"## {_plain(table.title)}"] * headed
        parts += [markdown_table(table), *_listed(table.notes)]
    if report.notes:
        parts += ["## Notes"] * headed + [*_listed(report.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """The rows alone."""
    head, *body = ([_plain(text) for text in line] for line in (table.columns, *_texts(table)))
    line = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(head)} |", line, *(f"| {' | '.join(texts)} |" for texts in body)])


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def _listed(notes: tuple[str, ...]) -> list[str]:
    return ["\n".join(f"- {_plain(note)}" for note in notes)] * bool(notes)


def _plain(text: str) -> str:
    """A text as it can stand in a cell: one line, and nothing of it is markup."""
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", printable(text))


def comma_separated(report: Report) -> str:
    """One row a number of the tables, unrounded: table, row, column, value, standard deviation, runs, text.

    The columns that rows are about, such as task and method, are those of all tables together.
    """
    names = list(dict.fromkeys(name for table in report.tables for name in table.columns[: table.keys]))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", *names, "row", "column", "value", "deviation", "count", "text"])
    for table in report.tables:
        for number, row in enumerate(table.rows):
            keys = dict(zip(table.columns, (cell.text for cell in row[: table.keys]), strict=False))
            about = [table.name, *(keys.get(name, "") for name in names), number]
            for column, cell in list(zip(table.columns, row, strict=True))[table.keys :]:
                numbers = [cell.value, cell.deviation, cell.count]
                writer.writerow([*about, column, *("" if each is None else each for each in numbers), cell.text])
    return file.getvalue()


TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "†": r"\textdagger{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
"""What stands for letters that LaTeX reads otherwise, or that its old fonts do not have."""


def latex(report: Report) -> str:
    """`table` environments for the package booktabs, with the notes below each."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for table in report.tables:
        head, *body = (" & ".join(map(_tex, line)) + r" \\" for line in (table.columns, *_texts(table)))
        columns = "".join("r" if _numbers(table, i) else "l" for i in range(len(table.columns)))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_tex(table.title)}}}",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    head,
                    r"\midrule",
                    *body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(rf"\par\footnotesize {_tex(note)}" for note in table.notes),
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join([*parts, *(f"% {printable(note)}" for note in report.notes)]) + "\n"


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in printable(text))


def _numbers(table: Table, column: int) -> bool:
    """Whether a column holds numbers."""
    return any(isinstance(row[column].value, float) for row in table.rows)


def html(report: Report) -> str:
    """One page that needs no other file, with all pictures of the runs."""
    return page(report, galleries(report.groups))


def svg(report: Report) -> str:
    """One picture alone: quality against trained parameters, by task."""
    return picture(report.groups)


FORMATS: Mapping[str, Callable[[Report], str]] = {
    ".md": markdown,
    ".csv": comma_separated,
    ".tex": latex,
    ".html": html,
    ".svg": svg,
}
"""The text of a report by the suffix of its file."""
