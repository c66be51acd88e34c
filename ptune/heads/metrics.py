"""Task metrics: every example becomes one row of a table, and a metric is a function of the whole table.

Processes gather the table, so each example counts once however the examples were shared out. The columns are those of
the head's kind (`Head.columns`). Metrics are fractions, 0 to 1. An undefined one (the correlation of a constant, F1
without positives) is 0.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric as TorchMetric
from torchmetrics.utilities.data import dim_zero_cat

from ptune.errors import InputError, nearest
from ptune.heads.base import Metric, Table, head_class
from ptune.tasks.spec import HeadSpec

Statistics = Num[Tensor, "rows s"]
"""What of every row a metric needs the sum of."""


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
        if head.metric(name, spec) is None:
            fix = nearest(name, head.metrics)
            raise InputError(f"task {spec.task!r}: metric {name!r} is none of a {spec.kind} head's; {fix}")
        head.check_metric(name, spec)


def measure(spec: HeadSpec, table: Table) -> dict[str, float]:
    """The head's metrics of a finished table."""
    table, metrics = table.double().cpu(), {name: head_class(spec.kind).metric(name, spec) for name in spec.metrics}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of undefined values: they are 0 here
        values = {name: float(metric(table)) for name, metric in metrics.items() if metric}
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


def resampled(spec: HeadSpec, name: str, table: Table, weights: Float[Tensor, "b rows"]) -> Float[Tensor, " b"]:
    """A metric of b resamples of a finished table, which hold each of its rows as many times as `weights` says.

    It is quick where the metric is `Weighted`, and measures each resample otherwise. All rows of one unit
    (`Head.units`) must have the same weight.
    """
    table, weights, metric = table.double().cpu(), weights.double(), head_class(spec.kind).metric(name, spec)
    assert metric is not None, f"{name} is not among the metrics of {spec}"
    if isinstance(metric, Weighted):
        values = metric.of(table, weights)
    else:
        values = torch.stack([metric(table.repeat_interleave(row.long(), dim=0)) for row in weights])
    return values.nan_to_num(0.0, 0.0, 0.0)


@final
@dataclass(frozen=True)
class Weighted:
    """A metric of a table whose rows count as many times as a weight says, for b weightings at once."""

    of: Callable[[Table, Float[Tensor, "b rows"]], Float[Tensor, " b"]]

    def __call__(self, table: Table) -> Tensor:
        """The metric of a table whose rows count once."""
        return self.of(table, torch.ones(1, len(table), dtype=torch.float64))[0]


def of_sums(statistics: Callable[[Table], Statistics], metric: Callable[[Float[Tensor, "b s"]], Tensor]) -> Weighted:
    """A metric that depends on nothing but the sums over the rows of their `statistics`, "rows s"."""
    return Weighted(lambda table, weights: metric(weights @ statistics(table).double()))


def mean(values: Callable[[Table], Tensor]) -> Weighted:
    """The mean of a value of every row."""

    def statistics(table: Table) -> Statistics:
        value = values(table).double()
        return torch.stack([value, torch.ones_like(value)], dim=1)

    return of_sums(statistics, lambda sums: sums[..., 0] / sums[..., 1])


def of_counts(metric: Callable[..., Tensor]) -> Weighted:
    """A metric from the sums of the table's own columns, which count something."""
    return of_sums(lambda table: table, lambda sums: metric(*sums.unbind(-1)))


# One of several classes: prediction, label, group.

accuracy = mean(lambda table: table[:, 0] == table[:, 1])
"""The share of right predictions."""


def _by_class(table: Table) -> Statistics:
    """Of every row for each of c classes whether it is rightly given, given, and right: "rows 3c"."""
    classes = max(2, int(table[:, :2].max()) + 1) if len(table) else 2  # one of several tasks may have no rows
    prediction, label = (F.one_hot(table[:, i].long(), classes) for i in (0, 1))
    return torch.cat([prediction * label, prediction, label], dim=1)


def _f1(sums: Float[Tensor, "b s"]) -> Float[Tensor, "b c"]:
    """F1 of each of c classes from the sums of `_by_class`; NaN for one that is neither given nor right anywhere."""
    both, given, right = sums.unflatten(-1, (3, -1)).unbind(-2)
    return 2 * both / (given + right)


def _matthews(sums: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    both, given, right = sums.unflatten(-1, (3, -1)).unbind(-2)
    total = right.sum(-1)
    covariance = both.sum(-1) * total - (given * right).sum(-1)
    return covariance / ((total**2 - right.square().sum(-1)) * (total**2 - given.square().sum(-1))).sqrt()


binary_f1 = of_sums(_by_class, lambda sums: _f1(sums)[..., 1])
"""F1 of class 1."""
macro_f1 = of_sums(_by_class, lambda sums: _f1(sums).nanmean(-1))
"""Mean F1 over the classes that occur."""
matthews = of_sums(_by_class, _matthews)
"""Matthews correlation, of any number of classes (Gorodkin 2004)."""


def _questions(table: Table) -> Statistics:
    """The share of every row in its group, if all predictions of the group are right, and that share: "rows 2"."""
    groups, of_row, sizes = table[:, 2:].unique(dim=0, return_inverse=True, return_counts=True)
    wrong = (table[:, 0] != table[:, 1]).double()
    right = torch.zeros(len(groups)).double().index_add(0, of_row, wrong) == 0
    return torch.stack([right[of_row], torch.ones(len(table))], dim=1) / sizes[of_row, None].double()


question_em = of_sums(_questions, lambda sums: sums[..., 0] / sums[..., 1])
"""The share of groups whose predictions are all right (MultiRC's exact match)."""

OF_CLASSES: Mapping[str, Weighted] = {
    "accuracy": accuracy,
    "f1": binary_f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "question_em": question_em,
}
"""Metrics of classes that are the same for every row, whether a head or a language model scores them."""


# A number: prediction, label.


def _moments(table: Table) -> Statistics:
    """One, both numbers less those of the first row, so that constants have no variance, their squares and product."""
    x, y = (table - table[0]).double().T
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)


def _pearson(sums: Float[Tensor, "b 6"]) -> Float[Tensor, " b"]:
    n, x, y, xx, yy, xy = sums.unbind(-1)
    return (n * xy - x * y) / ((n * xx - x * x) * (n * yy - y * y)).sqrt()


pearson = of_sums(_moments, _pearson)
"""Pearson's correlation of predictions and labels."""


def _spearman(table: Table, weights: Float[Tensor, "b rows"]) -> Float[Tensor, " b"]:
    """Pearson's of the ranks, which depend on the weights."""
    x, y = (_ranks(column, weights) for column in table.T)
    moments = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=-1)
    return _pearson((weights[..., None] * moments).sum(1))


def _ranks(values: Float[Tensor, " rows"], weights: Float[Tensor, "b rows"]) -> Float[Tensor, "b rows"]:
    """The ranks of numbers that occur as often as their weights say, less the mean rank; equal numbers share theirs."""
    levels, of_row = values.unique(return_inverse=True)
    counts = weights.new_zeros(len(weights), len(levels)).index_add(1, of_row, weights)
    ranks = counts.cumsum(1) - counts / 2 - weights.sum(1, keepdim=True) / 2
    return ranks[:, of_row].masked_fill(values.isnan(), math.nan)  # they are sorted in the order of their rows


spearman = Weighted(_spearman)
"""Spearman's correlation of predictions and labels."""


# Spans: null over span, exact if span, f1 if span, right if null, threshold.


def at_threshold(metric: int) -> Metric:
    """Column `metric` where the span is given, right-if-null where no answer beats it by more than the threshold."""
    return mean(lambda table: torch.where(table[:, 0] > table[:, 4], table[:, 3], table[:, metric]))


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
