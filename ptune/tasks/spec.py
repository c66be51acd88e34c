"""A task is one frozen row: where it comes from, which columns it reads, which metric the field reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from ptune.errors import InputError

Format = Literal["classification", "multiple_choice", "span_qa", "tagging", "fill"]
HeadKind = Literal["classify", "regress", "choice", "span", "tag", "cloze", "cloze_choice", "fill"]

MODULES: dict[Format, str] = {
    "classification": "Classification",
    "multiple_choice": "MultipleChoice",
    "span_qa": "SpanQA",
    "tagging": "Tagging",
    "fill": "Fill",
}


@final
@dataclass(frozen=True)
class HeadSpec:
    """What a data module asks of the model: the form of the head, its labels and the metrics of its scores."""

    task: str
    kind: HeadKind
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    monitor: str
    template: str = ""
    """What the language model is asked; empty: a task head reads the row."""
    words: tuple[tuple[str, ...], ...] = ()
    """cloze: the words that stand for each label."""


@final
@dataclass(frozen=True)
class TaskSpec:
    """One task: data, columns, labels and metrics. All but `text` has a default: a user's own file is a row."""

    name: str = "custom"
    """Flat unique name, as in `--data.task rte`."""
    format: Format = "classification"
    """Which of the task formats it has."""
    text: tuple[str, ...] = ()
    """Columns the model reads, one or two (a question and its context for span_qa, the token list for tagging)."""
    label: str = "label"
    """Column of the answer (span_qa: the hub's `answers` structure; tagging: one tag a token)."""
    labels: tuple[str, ...] = ()
    """Label names in the order of their integer codes; empty means regression (classification only)."""
    choices: tuple[str, ...] = ()
    """multiple_choice: columns of the endings, in the order of their codes."""
    hub: tuple[str, ...] = ()
    """Hub dataset and configuration, e.g. ("nyu-mll/glue", "rte"); empty where there is none."""
    train: str = "train"
    """Split trained on."""
    evaluate: tuple[str, ...] = ("validation", "test")
    """Splits evaluated, where they exist with labels; the first is the one that is monitored and must exist."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The field's metrics, see `ptune.heads.metrics`."""
    monitor: str = ""
    """The metric that chooses the best checkpoint; empty: the first of `metrics`."""
    group: str = ""
    """Column whose equal values form one question (MultiRC's exact match)."""
    prepare: Callable[[dict], dict] | None = None
    """Turns a row as published into one with the columns `text` names (WiC, WSC and COPA written as text)."""
    max_length: int = 128
    """Default limit of tokens a text, special tokens included."""
    where: tuple[str, ...] = ()
    """A column and its value: only these rows belong to the task (a relation of LAMA)."""
    template: str = ""
    """How a language model is asked, see `ptune.tasks.templates`; `--data.template task` selects it."""
    verbalizer: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    """The word or words that stand for each label in the template."""
    verified: bool = True
    """False where nobody could run this row here (its data were not to be had)."""

    @property
    def head(self) -> HeadSpec:
        """The head this task needs."""
        kinds: dict[Format, HeadKind] = {
            "classification": "classify" if self.labels else "regress",
            "multiple_choice": "choice",
            "span_qa": "span",
            "tagging": "tag",
            "fill": "fill",
        }
        monitor = self.monitor or self.metrics[0]
        if monitor not in self.metrics:
            raise InputError(f"task {self.name!r}: monitor {monitor!r} is not among its metrics {list(self.metrics)}.")
        return HeadSpec(self.name, kinds[self.format], self.labels, self.metrics, monitor)
