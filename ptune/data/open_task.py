"""What a task of one's own leaves open, read off its data: its name, its columns, its labels.

`data` is the TaskData whose task it is.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from ptune.data import local, source, splits
from ptune.data.rows import Rows
from ptune.errors import InputError
from ptune.tasks.spec import TaskSpec

MANY = 20
"""Classes may be so many; of more, the column must show that it holds classes."""
SHOWN = 10
"""Labels that a summary lists."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as text: Python's `float` would also take 1_000 and the digits of other scripts."""


TEXTS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text",), ("sentence",))
"""Usual columns of one or two texts."""


def columns_and_labels(data: Any) -> TaskSpec:
    """The task of a data module with name, columns and labels as its data have them, where it leaves them open.

    What is read is added to `data.said`, in words.

    Raises:
        InputError: the data do not tell; the sentence lists the columns there are.
    """
    task, places = data.task, local.folders(data.path)
    if task.name == TaskSpec.name and places:
        task = replace(task, name=name_of(places[0], task.train) or task.name)
    if not (places or task.hub) or not (data.columns_open or data.labels_open):
        return task
    found = source.read(task, data.path, lone=bool(data.holdout))
    rows = found.get(task.train) or next(iter(found.values()))
    task = _columns(data, task, rows)
    if not data.labels_open:
        return task
    if task.train not in found:
        raise InputError(
            f"task {task.name!r}: --data.task.labels must name the labels, because there is no split {task.train!r} to "
            "read them off."
        )
    names = rows.names.get(task.label)
    if names:
        data.said.append(f"labels are those of the dataset: {listed(names)}")
        return replace(task, labels=names)
    return data.take_labels(splits.labels(data, rows), rows.origin)


def _columns(data: Any, task: TaskSpec, rows: Rows) -> TaskSpec:
    """The task with the format's usual columns where it names none."""
    there = data.prepared(next(row for _, row in rows.read()))
    start, names = f"task {task.name!r}: --data.task.", f"of those in {rows.origin}: {', '.join(map(repr, there))}."
    if not task.text:
        text = _usual(there, data.usual_columns(), task.label)
        if not text:
            raise InputError(f"{start}text must name the columns to read, {names}")
        task = replace(task, text=text)
        data.said.append(f"text is [{', '.join(text)}]")
    if task.label == TaskSpec.label and task.label not in there:
        found = _usual(there, ((name,) for name in data.usual_label))
        if not found:
            raise InputError(f"{start}label must name the column of the answer, {names}")
        task = replace(task, label=found[0])
        data.said.append(f"label is {found[0]}")
    data.task = task
    data.task = data.take_columns(there, names)
    data.said += filter(None, [data.remark(there, rows.origin)])
    return data.task


def _usual(there: Iterable[str], candidates: Iterable[tuple[str, ...]], besides: str = "") -> tuple[str, ...]:
    """The first of the candidates whose columns are all there, none of them `besides`; () where none is."""
    names = {*there} - {besides}
    return next((columns for columns in candidates if {*columns} <= names), ())


def answers(data: Any, rows: Rows, empty: bool = False) -> Iterator[tuple[str, Any]]:
    """The label column of every row, with the row's place; a row without a label is an InputError unless `empty`."""
    for place, row in rows.read():
        try:
            value = data.column(data.prepared(row), data.task.label)
            if value is None or (value == "" and not empty) or (isinstance(value, float) and math.isnan(value)):
                raise InputError(f"column {data.task.label!r} is empty; fill it or remove the row.")
        except InputError as error:
            raise InputError(f"{rows.origin}, {place}: {error}") from error
        yield f"{rows.origin}, {place}", value


def name_of(path: str, train: str) -> str:
    """The task's name for files at this path: the folder's, or that of a file which is not called `train`."""
    place = Path(path).expanduser().resolve()
    stem = place.name.partition(".")[0] if place.is_file() else ""
    name = stem if stem not in ("", train) else place.parent.name if stem else place.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def label_name(value: Any) -> str:
    """A label as its name: 1 and 1.0 are "1"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def same_number(a: str, b: str) -> bool:
    """Whether two texts are numbers of one value, as "1" and "1.0" are; floats would merge long whole numbers."""
    return bool(NUMBER.fullmatch(a) and NUMBER.fullmatch(b)) and _value(a) == _value(b)


def _value(number: str) -> Decimal:
    """The value of a text that is a number; NaN for an exponent that is too long."""
    return Decimal(number, Context(traps=[]))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Labels as they are sorted: whole numbers by their value, anything else by its letters."""
    names = {*names}
    whole = all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if whole else 0, name)))


def listed(labels: Sequence[str]) -> str:
    """Labels for a summary, the first ones of many."""
    more = f", ... ({len(labels)})" if len(labels) > SHOWN else ""
    return f"[{', '.join(labels[:SHOWN])}{more}]"


def classes(found: Mapping[str, int], column: str, origin: str, number: bool) -> tuple[str, ...] | None:
    """The classes of a label column in their order, or None where it holds a number.

    A column of numbers with decimals is a number, where `number` allows it. Whole numbers are classes if there are at
    most 20 of them, or if they are the codes 0, 1, 2, ... and each has two rows or more on average.

    Args:
        found: how often each label occurs in the training split.
        column: its name.
        origin: the split.
        number: whether the task may predict a number.

    Raises:
        InputError: it is not clear whether they are classes, or there is one only.
    """
    rows, start = sum(found.values()), f"column {column!r} of {origin}"
    classes_or = "give --data.task.labels for classes, or --data.task.metrics '[pearson,spearman]' for a number"
    if all(NUMBER.fullmatch(name) for name in found):
        if number and any(float(name) % 1 for name in found):
            return None
        codes = {*found} == {*map(str, range(len(found)))} and rows >= 2 * len(found)
        if len(found) > MANY and not codes:
            raise InputError(f"{start} has {len(found)} different numbers: {classes_or}.")
    elif len(found) > MANY and len(found) > rows / 2:
        raise InputError(
            f"{start} has {len(found)} different texts in {rows} rows, which are no classes; name another by "
            "--data.task.label, or the classes by --data.task.labels."
        )
    forms: dict[str | Decimal, str] = {}
    for name in sorted(found):
        plain = name.strip()
        if (other := forms.setdefault(_value(plain) if NUMBER.fullmatch(plain) else plain, name)) != name:
            raise InputError(
                f"{start} has {other!r} and {name!r}, which seem to be one class; write it in one form, or list the "
                "classes by --data.task.labels."
            )
    if len(found) < 2:
        raise InputError(f"{start} has the same value {next(iter(found), '')!r} in all rows: {classes_or}.")
    return in_order(found)
