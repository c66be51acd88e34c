"""A task is one frozen row: where it comes from, which columns it reads, which metric the field reports."""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

from ptune.errors import InputError

if TYPE_CHECKING:
    Name = str
else:
    Name = str | int
    """Name of a column or a label. In YAML a whole number may be one, such as that of a column of a CoNLL file."""


@final
@dataclass(frozen=True)
class HeadSpec:
    """The head that a data module needs: its kind, its labels and the metrics of its scores."""

    task: str
    kind: str
    """Kind of the head, see `ptune.heads`."""
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    monitor: str
    template: str = ""
    """Template that the language model completes; empty where a task head reads the row."""
    words: tuple[tuple[str, ...], ...] = ()
    """The verbalizer's words for each label; empty for heads of other kinds than cloze."""
    decoding: str = ""
    """Scheme whose sequences of tags alone are answered, such as IOB2; empty where each word gets its best tag."""


@runtime_checkable
class Prepare(Protocol):
    """A function from a row as published to a row with the columns that the task reads."""

    @abstractmethod
    def __call__(self, row: dict, /) -> dict:
        """The row with further columns."""


@final
class Unresolved:
    """The name of a function, from a command line or a file. It is never imported: `TaskSpec.check` refuses it."""

    def __init__(self, name: object) -> None:
        if name is None:
            raise ValueError("no name")
        self.name = str(name)

    def __str__(self) -> str:
        return self.name

    def __call__(self, row: dict, /) -> dict:
        """Raise an InputError: there is no function."""
        raise InputError(
            f"--data.task.prepare {self.name!r}: a function can be set from Python only, not from a command line or a"
            " file, but for the name of a task whose function it is, such as wic; leave it out."
        )


@final
@dataclass(frozen=True)
class TaskSpec:
    """One task: data, columns, labels and metrics. Everything but `text` has a default, for a user's own files."""

    name: str = "custom"
    """Flat unique name, as in `--data.task rte`."""
    format: str = ""
    """Its task format, which decides the data module that reads it; if empty, the module that it is given to."""
    text: tuple[Name, ...] = ()
    """Columns the model reads, one or two (a question and its context for span_qa, the token list for tagging); if
    empty, the format's usual ones, where the data have them."""
    label: Name = "label"
    """Column of the answer (span_qa: the answers; tagging: one tag a token); where the data have no column `label`, the
    format's usual one."""
    labels: tuple[Name, ...] = ()
    """Label names in the order of their integer codes; if empty, those of the training split, or none for a number."""
    choices: tuple[Name, ...] = ()
    """multiple_choice: columns of the endings, in the order of their codes."""
    hub: tuple[str, ...] = ()
    """Hub dataset and configuration, e.g. ("nyu-mll/glue", "rte"); empty where there is none."""
    train: str = "train"
    """Split to train on."""
    evaluate: tuple[str, ...] = ("validation", "test")
    """Splits to evaluate, where they exist with labels; the first one must exist and chooses the checkpoint."""
    metrics: tuple[str, ...] = ()
    """Metrics, see `ptune.heads.metrics`; if empty, those that the format's field reports."""
    monitor: str = ""
    """The metric that chooses the best checkpoint; if empty, the first of `metrics`."""
    group: Name = ""
    """Column whose equal values form one question (MultiRC's exact match)."""
    prepare: Prepare | None = None
    """A function that turns a row as published into one with the columns of `text`; set from Python, or by the name of
    the task that has it."""
    max_length: int = 128
    """Largest number of tokens in a text by default, special tokens included."""
    where: tuple[Name, ...] = ()
    """A column and its value: only these rows belong to the task (a relation of LAMA)."""
    template: str = ""
    """Text for a language model to complete, see `ptune.tasks.templates`; `--data.template task` selects it."""
    verbalizer: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """The word or words that stand for each label in the template."""
    verified: bool = False
    """Whether a run on its real data has shown that the row is right."""

    def __post_init__(self) -> None:
        for name in ("label", "group"):
            object.__setattr__(self, name, _name(getattr(self, name)))
        for name in ("text", "labels", "choices", "where"):
            object.__setattr__(self, name, tuple(_name(value) for value in getattr(self, name)))

    @property
    def monitored(self) -> str:
        """The metric that chooses the best checkpoint."""
        return self.monitor or next(iter(self.metrics), "")

    def check(self) -> None:
        """Raise an InputError where the row contradicts itself, whatever its format."""
        parts = self.name.split("/")
        if not re.fullmatch(r"[\w.-]{1,60}(/[\w.-]{1,60})*", self.name) or {".", ".."} & {*parts}:
            raise InputError(
                f"--data.task.name {self.name!r}: may hold letters, digits, '.', '_', '-' and '/' between them, no part"
                " '.' or '..' and none of more than 60 letters; choose such a name."
            )
        start = f"task {self.name!r}: --data.task."
        if not self.text:
            raise InputError(f"{start}text must name the columns to read, e.g. '[a,b]'.")
        if not self.evaluate:
            raise InputError(f"{start}evaluate must name the split to validate on.")
        for split in (self.train, *self.evaluate):
            if not re.fullmatch(r"\w[\w.-]{0,59}", split):
                raise InputError(
                    f"{start}train and evaluate: a split is called as its file, and {split!r} is no name of letters,"
                    " digits, '.', '_' and '-'; rename the file."
                )
        for name in ("text", "labels", "choices", "evaluate", "metrics"):
            values = getattr(self, name)
            twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
            if twice is not None:
                raise InputError(f"{start}{name} {list(values)} names {twice!r} twice; name each once.")
            if not all(value.strip() for value in values):
                raise InputError(f"{start}{name} {list(values)} has an empty name; give it one or remove it.")
        if self.label in (*self.text, *self.choices):
            raise InputError(
                f"{start}label {self.label!r} is also a column that the model reads, which would show it the answer;"
                " remove it from --data.task.text and --data.task.choices."
            )
        if self.metrics and self.monitored not in self.metrics:
            raise InputError(
                f"task {self.name!r}: monitor {self.monitored!r} is not among its metrics {list(self.metrics)}."
            )
        if len(self.where) not in (0, 2):
            raise InputError(f"{start}where {list(self.where)} must be a column and its value, e.g. '[kind,news]'.")
        if isinstance(self.prepare, Unresolved):
            self.prepare({})


def _name(value: Name) -> str:
    """A name as the data have it, where a configuration has a whole number."""
    return str(value) if isinstance(value, int) else value
