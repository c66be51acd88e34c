"""`python -m ptune.tasks`: a list of all tasks, of one family (`lama/*`), or everything about one task.

python -m ptune.tasks
python -m ptune.tasks 'lama/*'
python -m ptune.tasks rte
python -m ptune.tasks rte --data.path DIR     with the first row of the files in DIR
"""

import json
import os
import sys
from collections.abc import Iterable

from ptune.errors import InputError, printable
from ptune.run.given import check_path
from ptune.tasks import TaskSpec, listed, task

USAGE = (
    "usage: python -m ptune.tasks [NAME] [--data.path DIR], where NAME is a task, such as rte, or a family, such as"
    " 'lama/*'; DIR holds files of which a row is shown."
)
COLUMNS = ("task", "format", "labels", "metrics (monitored first)", "source", "verified")
LONGEST = 200
"""Characters of a text that are shown of an example row."""
FILES = ".jsonl, .json, .csv, .tsv, .parquet, .jsonl.gz or .csv.gz"
MORE = {"tagging": ", or .conll, .bio, .iob2 or .txt of CoNLL's columns", "span_qa": ", or SQuAD's own .json"}
"""Files of some formats."""


def answer_kind(row: TaskSpec) -> str:
    """What an answer is: the labels, or how many there are."""
    if row.choices:
        return f"{len(row.choices)} choices"
    if row.labels:
        return ", ".join(row.labels) if len(row.labels) <= 4 else f"{len(row.labels)} labels"
    if row.format == "classification":
        return "a number" if row.metrics else "those of the training split"
    return "-"


def metrics(row: TaskSpec) -> list[str]:
    """The metrics, the monitored one first."""
    if not row.metrics:
        return ["those of its field"]
    return sorted(row.metrics, key=lambda name: name != row.monitored)


def source(row: TaskSpec) -> str:
    """Where the rows come from without `--data.path`."""
    return "generated" if row.name.startswith("toy/") else "/".join(row.hub) or "--data.path only"


def line(name: str, rows: list[TaskSpec]) -> tuple[str, ...]:
    """The cells of one task, or of a family, whose rows share one line."""
    return (
        name,
        _joined(row.format or "any" for row in rows),
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


def page(row: TaskSpec, path: str | None = None) -> str:
    """Everything about one task, with a row of the files in the folder `path`, or of a generated task."""
    first, *others = row.evaluate
    facts = {
        "format": row.format or "any",
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
        "--data.path": f"a folder with {_files(row)}, each {FILES}{MORE.get(row.format, '')}",
        "columns": _columns(row),
        "verified": "yes" if row.verified else "no",
        "example": _example(row, path) if path or row.name.startswith("toy/") else "",
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


def _example(row: TaskSpec, path: str | None) -> str:
    """The first row there is, long texts cut."""
    from ptune.data.source import read

    _, first = next(next(iter(read(row, path).values())).read())
    return printable(
        json.dumps({name: _short(value) for name, value in first.items()}, ensure_ascii=False, default=str)
    )


def _short(value: object) -> object:
    return f"{value[:LONGEST]}..." if isinstance(value, str) and len(value) > LONGEST else value


def text(args: list[str]) -> str:
    """The command's output; an InputError names a wrong argument."""
    if {"-h", "--help"} & {*args}:
        return USAGE
    args, path = _without_path(args)
    if path is not None:
        check_path("option --data.path", path)
    option = next((arg for arg in args if arg.startswith("-")), None)
    if option == "--data.path":
        raise InputError(f"option {option} names no folder; {USAGE}")
    if option is not None:
        raise InputError(f"option {option} does not exist; {USAGE}")
    if len(args) > 1:
        raise InputError(f"{len(args)} names, {' '.join(args)}, where one is shown at a time; {USAGE}")
    if not args:
        return table(listed())
    family = listed().get(args[0], [])
    return table({row.name: [row] for row in family}) if len(family) > 1 else page(task(args[0]), path)


def _without_path(args: list[str]) -> tuple[list[str], str | None]:
    """The words but for `--data.path DIR`, and DIR."""
    for i, word in enumerate(args):
        option, equals, inline = word.partition("=")
        if option == "--data.path" and (equals or i + 1 < len(args)):
            return [*args[:i], *args[i + 2 - bool(equals) :]], inline if equals else args[i + 1]
    return args, None


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
