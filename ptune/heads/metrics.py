"""Task metrics: every example becomes one row of a table, and a metric is a function of the whole table.

Processes gather the table, so each example counts once however the examples were shared out. The columns are those of
the head's kind (`Head.columns`). Metrics are fractions, 0 to 1. An undefined one (the correlation of a constant, F1
without positives) is 0.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import binary_f1_score, multiclass_confusion_matrix, multiclass_f1_score
from torchmetrics.utilities.data import dim_zero_cat

from ptune.errors import InputError, nearest
from ptune.heads.base import Metric, Table, head_class
from ptune.tasks.spec import HeadSpec


@final
class Scores(TorchMetric):
    """The metrics of one head over one split: `update(scores, batch)`, then `compute()`, then `reset()`.

    Raises InputError for a metric that the head's kind does not have.
    """

    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, spec: HeadSpec):
        super().__init__()
        check(spec)
        self.spec, self.head = spec, head_class(spec.kind)
        self.add_state("rows", default=[], dist_reduce_fx="cat")  # flat: an empty process gathers an empty vector

    def update(self, scores: Tensor, batch: dict[str, Any]) -> None:
        """Add a batch; `scores` are those of the head's `forward`."""
        rows = self.head.rows(self.spec, scores, batch)
        self.rows.append(rows.float().flatten().to(scores.device))

    @property
    def last(self) -> Table:
        """The rows of the batch that was added last."""
        return self.rows[-1].reshape(-1, len(self.head.columns(self.spec)))

    def compute(self) -> dict[str, float]:
        """The metrics that the head names, over all rows of all processes."""
        columns = len(self.head.columns(self.spec))
        return measure(self.spec, dim_zero_cat(self.rows).reshape(-1, columns))


def check(spec: HeadSpec) -> None:
    """Raise InputError unless the kind of head and its labels can have the metrics that `spec` names."""
    head = head_class(spec.kind)
    for name in spec.metrics:
        if name not in head.metrics:
            fix = nearest(name, head.metrics)
            raise InputError(f"task {spec.task!r}: metric {name!r} is none of a {spec.kind} head's; {fix}")
        head.check_metric(name, spec)


def measure(spec: HeadSpec, table: Table) -> dict[str, float]:
    """The head's metrics of a finished table."""
    table, metrics = table.double().cpu(), head_class(spec.kind).metrics
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of undefined values: they are 0 here
        values = {name: float(metrics[name](table)) for name in spec.metrics}
    return {name: value if math.isfinite(value) else 0.0 for name, value in values.items()}


def majority(
    spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None = None
) -> dict[str, float]:
    """The metrics of always answering the most frequent training label (regression: the mean); {} for spans.

    Labels are the split's: ints, floats for regression, a list of ints a sentence for tagging. `groups` is the column
    that `question_em` needs.
    """
    table = head_class(spec.kind).majority_rows(spec, train_labels, eval_labels, groups)
    return {} if table is None else measure(spec, table)


# One of several classes: prediction, label, group.


def accuracy(table: Table) -> Tensor:
    """The share of right predictions."""
    return (table[:, 0] == table[:, 1]).double().mean()


def binary_f1(table: Table) -> Tensor:
    """F1 of class 1."""
    return binary_f1_score(*_classes(table))


def macro_f1(table: Table) -> Tensor:
    """Mean F1 over the classes."""
    prediction, label = _classes(table)
    return multiclass_f1_score(prediction, label, _count(table), average="macro")


def matthews(table: Table) -> Tensor:
    """Matthews correlation. For constant predictions of two classes torchmetrics' epsilons give an arbitrary value."""
    confusion = multiclass_confusion_matrix(*_classes(table), num_classes=_count(table)).double()
    gold, guess, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = confusion.trace() * total - gold @ guess
    return covariance / ((total**2 - gold @ gold) * (total**2 - guess @ guess)).sqrt()


def question_em(table: Table) -> Tensor:
    """The share of groups whose predictions are all right (MultiRC's exact match)."""
    groups, row_group = table[:, 2:].unique(dim=0, return_inverse=True)
    wrong = (table[:, 0] != table[:, 1]).double()
    return (torch.zeros(len(groups)).double().index_add(0, row_group, wrong) == 0).double().mean()


def _classes(table: Table) -> tuple[Tensor, Tensor]:
    return table[:, 0].long(), table[:, 1].long()


def _count(table: Table) -> int:
    return max(2, int(table[:, :2].max()) + 1)


OF_CLASSES: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "f1": binary_f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "question_em": question_em,
}
"""Metrics of classes that are the same for every row, whether a head or a language model scores them."""


# A number: prediction, label.


def correlation(function: Callable[[Tensor, Tensor], Tensor]) -> Metric:
    """A correlation of predictions and labels, undefined where one of them is constant."""

    def of(table: Table) -> Tensor:
        constant = (table == table[0]).all(0).any()  # rounding would give it a variance
        return table.new_tensor(math.nan) if constant else function(table[:, 0], table[:, 1])

    return of


pearson, spearman = correlation(pearson_corrcoef), correlation(spearman_corrcoef)


# Spans: null over span, exact if span, f1 if span, right if null, threshold.


def at_threshold(metric: int) -> Metric:
    """Column `metric` where the span is given, right-if-null where no answer beats it by more than the threshold."""
    return lambda table: torch.where(table[:, 0] > table[:, 4], table[:, 3], table[:, metric]).mean()


def at_best_threshold(metric: int) -> Metric:
    """The same at the threshold that is best on these very rows, as the official script's best_exact and best_f1."""

    def best(table: Table) -> Tensor:
        order = table[:, 0].argsort()
        difference, gain = table[order, 0], (table[:, metric] - table[:, 3])[order]
        total = torch.cat([gain.new_zeros(1), gain.cumsum(0)])  # the first i rows answered, all others null
        always = torch.tensor([True])
        possible = torch.cat([always, difference[1:] > difference[:-1], always])  # a threshold cannot part equals
        return (table[:, 3].sum() + total[possible].max()) / len(table)

    return best
