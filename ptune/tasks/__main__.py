"""`python -m ptune.tasks`: a list of all tasks, of one family (`lama/*`), or everything about one task.

python -m ptune.tasks
python -m ptune.tasks 'lama/*'
python -m ptune.tasks rte
"""

import os
import sys
from collections.abc import Iterable

from ptune.errors import InputError
from ptune.tasks import TaskSpec, listed, task

USAGE = "usage: python -m ptune.tasks [NAME], where NAME is a task, such as rte, or a family, such as 'lama/*'."
COLUMNS = ("task", "format", "labels", "metrics (monitored first)", "source", "verified")
FILES = ".jsonl, .json, .csv, .tsv, .parquet, .jsonl.gz or .csv.gz"


def answer_kind(row: TaskSpec) -> str:
    """What an answer is: the labels, or how many there are."""
    if row.choices:
        return f"{len(row.choices)} choices"
    if row.labels:
        return ", ".join(row.labels) if len(row.labels) <= 4 else f"{len(row.labels)} labels"
    return "a number" if row.format == "classification" else "-"


def metrics(row: TaskSpec) -> list[str]:
    """The metrics, the monitored one first."""
    return sorted(row.metrics, key=lambda name: name != row.monitored)


def source(row: TaskSpec) -> str:
    """Where the rows come from without `--data.path`."""
    return "generated" if row.name.startswith("toy/") else "/".join(row.hub) or "--data.path only"


def line(name: str, rows: list[TaskSpec]) -> tuple[str, ...]:
    """The cells of one task, or of a family, whose rows share one line."""
    return (
        name,
        _joined(row.format for row in rows),
        answer_kind(rows[0]) if len(rows) == 1 else f"{len(rows)} tasks",
        _joined(metric for row in rows for metric in metrics(row)),
        _joined(source(row) for row in rows),
        "yes" if all(row.verified for row in rows) else "no",
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def table(names: dict[str, list[TaskSpec]]) -> str:
    """One line a name, in columns."""
    lines = [COLUMNS, *(line(name, rows) for name, rows in names.items())]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines]
    return "\n".join(
        [*text, "", "verified: no = nobody has run it here, because its data or its training data were not available."]
    )


def page(row: TaskSpec) -> str:
    """Everything about one task."""
    first, *others = row.evaluate
    facts = {
        "format": row.format,
        "reads": ", ".join(row.text),
        "choices": ", ".join(row.choices),
        "answer": row.label,
        "labels": ", ".join(row.labels) or answer_kind(row).strip("-"),
        "splits": f"{row.train} to train on, {first} to choose the checkpoint on"
        + (f", {' and '.join(others)} where labelled" if others else ""),
        "metrics": ", ".join(metrics(row)),
        "groups": row.group,
        "only rows": " = ".join(row.where),
        "max_length": str(row.max_length),
        "template": row.template,
        "verbalizer": ", ".join(f"{label}: {_word(word)}" for label, word in row.verbalizer.items()),
        "source": source(row),
        "--data.path": f"a folder with {_files(row)}, each {FILES}",
        "columns": _columns(row),
        "verified": "yes" if row.verified else "no",
    }
    width = max(map(len, facts))
    return "\n".join([row.name, *(f"  {name.ljust(width)}  {text}" for name, text in facts.items() if text)])


def _word(word: object) -> str:
    return word if isinstance(word, str) else " or ".join(word)  # type: ignore[arg-type]


def _files(row: TaskSpec) -> str:
    first, *others = row.evaluate
    needed = " and ".join(dict.fromkeys((row.train, first)))
    return f"{needed} (and {', '.join(others)})" if others else needed


def _columns(row: TaskSpec) -> str:
    names = dict.fromkeys((*row.text, *row.choices, row.label, row.group, *row.where[:1]))
    if row.prepare is None:
        return ", ".join(name for name in names if name)
    made = (getattr(row.prepare, "__doc__", None) or "").partition("\n")[0]
    return f"as published, of which {' and '.join(row.text)} is made: {made}"


def text(args: list[str]) -> str:
    """The command's output; an InputError names a wrong argument."""
    if {"-h", "--help"} & {*args}:
        return USAGE
    option = next((arg for arg in args if arg.startswith("-")), None)
    if option is not None:
        raise InputError(f"option {option} does not exist; {USAGE}")
    if len(args) > 1:
        raise InputError(f"{len(args)} names, {' '.join(args)}, where one is shown at a time; {USAGE}")
    if not args:
        return table(listed())
    family = listed().get(args[0], [])
    return table({row.name: [row] for row in family}) if len(family) > 1 else page(task(args[0]))


def main(args: list[str] | None = None) -> int:
    """Print the list or one task; exit code 2 after a mistake in `args` (the process's own by default)."""
    try:
        print(text(sys.argv[1:] if args is None else args), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
