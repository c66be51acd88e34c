"""Task metrics: every example becomes one row of a table, and a metric is a function of the whole table.

The table is what processes gather, so each example counts once however the examples were shared out.
Metrics are fractions, 0 to 1. An undefined one (the correlation of a constant, F1 without positives) is 0.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import final

import torch
from jaxtyping import Float, Int, Num
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import binary_f1_score, multiclass_confusion_matrix, multiclass_f1_score
from torchmetrics.utilities.data import dim_zero_cat

from ptune.errors import InputError, nearest
from ptune.heads.spans import decode, exact_and_f1
from ptune.tasks.spec import HeadKind, HeadSpec

Table = Num[Tensor, "rows columns"]
Batch = dict  # see ptune.data.base


@final
class Scores(Metric):
    """The metrics of one head over one split: `update(scores, batch)`, then `compute()`, then `reset()`."""

    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, head: HeadSpec):
        super().__init__()
        check(head)
        self.head = head
        self.add_state("rows", default=[], dist_reduce_fx="cat")  # flat: an empty process gathers an empty vector

    def update(self, scores: Tensor, batch: Batch) -> None:
        """Adds a batch; `scores` are the head's: classify b×c, regress b, choice b×c, tag n×t×c, span n×t×2."""
        self.rows.append(ROWS[self.head.kind](self.head, scores, batch).float().flatten().to(scores.device))

    def compute(self) -> dict[str, float]:
        """The metrics the head names, over all rows of all processes."""
        columns = len(COLUMNS[self.head.kind])
        return measure(self.head, dim_zero_cat(self.rows).reshape(-1, columns))


def build(head: HeadSpec) -> Scores:
    """A fresh `Scores` for `head`; a metric its kind does not have is an `InputError`."""
    return Scores(head)


def check(head: HeadSpec) -> None:
    """Raises `InputError` unless the head's metrics are ones its kind and its labels can have."""
    for name in head.metrics:
        if name not in METRICS[head.kind]:
            fix = nearest(name, METRICS[head.kind])
            raise InputError(f"task {head.task!r}: metric {name!r} is none of a {head.kind} head's; {fix}")
        if name == "f1" and head.kind not in ("fill", "span") and len(head.labels) != 2:
            raise InputError(
                f"task {head.task!r}: metric 'f1' is for 2 classes, it has {len(head.labels)}; use 'macro_f1'."
            )
        plain = [label for label in head.labels if label != "O" and label[:2] not in ("B-", "I-", "E-", "S-")]
        if name.startswith("entity_") and plain:
            raise InputError(
                f"task {head.task!r}: metric {name!r} needs tags like B-X, I-X and O, not {plain[0]!r}; use 'accuracy'."
            )


def measure(head: HeadSpec, table: Table) -> dict[str, float]:
    """The head's metrics of a finished table."""
    table = table.double().cpu()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of undefined values: they are 0 here
        values = {name: float(METRICS[head.kind][name](table)) for name in head.metrics}
    return {name: value if math.isfinite(value) else 0.0 for name, value in values.items()}


def majority(
    head: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None = None
) -> dict[str, float]:
    """The metrics of always answering the most frequent training label (regression: the mean); span: {}, it has none.

    Labels are the split's: ints, floats for regression, a list of ints a sentence for tagging. `groups` is the column
    that `question_em` needs.
    """
    if head.kind == "span":
        return {}
    if head.kind == "tag":
        most = Counter(chain.from_iterable(train_labels)).most_common(1)[0][0]
        return measure(head, torch.tensor([_tag_row(head, [most] * len(gold), list(gold)) for gold in eval_labels]))
    labels = torch.tensor(eval_labels)
    if head.kind == "regress":
        mean = sum(train_labels) / len(train_labels)
        return measure(head, torch.stack([torch.full_like(labels, mean), labels], dim=1))
    most = Counter(train_labels).most_common(1)[0][0]
    group = torch.zeros_like(labels) if groups is None else torch.tensor(groups)
    return measure(head, torch.stack([torch.full_like(labels, most), labels, *_digits(group)], dim=1))


# From a batch to rows. The columns of each kind's table:
COLUMNS: dict[HeadKind, tuple[str, ...]] = {
    "classify": ("prediction", "label", "group, bits 0-19", "20-39", "40-59"),  # exact in fp32
    "choice": ("prediction", "label", "group, bits 0-19", "20-39", "40-59"),
    "cloze": ("prediction", "label", "group, bits 0-19", "20-39", "40-59"),
    "cloze_choice": ("prediction", "label", "group, bits 0-19", "20-39", "40-59"),
    "fill": ("prediction", "label", "group, bits 0-19", "20-39", "40-59"),
    "regress": ("prediction", "label"),
    "tag": ("correct entities", "predicted", "gold", "correct words", "words"),
    "span": ("null over span", "exact if span", "f1 if span", "right if null", "threshold"),
}


def _class_rows(head: HeadSpec, scores: Float[Tensor, "b c"], batch: Batch) -> Table:
    labels = batch["labels"]
    group = batch["group"] if "group" in batch else torch.zeros_like(labels)
    return torch.stack([scores.argmax(-1), labels, *_digits(group)], dim=1)


def _digits(group: Int[Tensor, " b"]) -> list[Int[Tensor, " b"]]:
    return [group >> bits & 0xFFFFF for bits in (0, 20, 40)]


def _value_rows(head: HeadSpec, scores: Float[Tensor, " b"], batch: Batch) -> Table:
    return torch.stack([scores.float(), batch["labels"].float()], dim=1)


def _tag_rows(head: HeadSpec, scores: Float[Tensor, "n t c"], batch: Batch) -> Table:
    """One row a sentence: the labelled tokens of its pieces, put together again in their order."""
    labels, predicted = batch["labels"].cpu(), scores.argmax(-1).cpu()
    sentences = batch["feature_row"].cpu() if "feature_row" in batch else torch.arange(len(labels))
    rows = []
    for sentence in range(int(sentences.max()) + 1):
        gold, guess = labels[sentences == sentence], predicted[sentences == sentence]
        words = gold != -100
        rows.append(_tag_row(head, guess[words].tolist(), gold[words].tolist()))
    return torch.tensor(rows)


def _tag_row(head: HeadSpec, predicted: list[int], gold: list[int]) -> list[int]:
    """Counts of one sentence as conlleval's, whose chunks are seqeval's default ones."""
    right = sum(p == g for p, g in zip(predicted, gold, strict=True))
    if not any(name.startswith("entity_") for name in head.metrics):  # its tags need not be chunks
        return [0, 0, 0, right, len(gold)]
    guess, true = ({*get_entities([head.labels[code] for code in codes])} for codes in (predicted, gold))
    return [len(guess & true), len(guess), len(true), right, len(gold)]


def _span_rows(head: HeadSpec, scores: Float[Tensor, "n t 2"], batch: Batch) -> Table:
    references, threshold = batch["references"], batch["null_threshold"]
    spans, null = decode(scores, batch["offsets"], batch["feature_row"], len(references), batch["max_answer_length"])
    rows = []
    for reference, (start, end), difference in zip(references, spans.tolist(), null.tolist(), strict=True):
        answered = exact_and_f1(reference["context"][start:end], reference["answers"])
        rows.append([difference, *answered, exact_and_f1("", reference["answers"])[0], threshold])
    return torch.tensor(rows)


ROWS: dict[HeadKind, Callable[[HeadSpec, Tensor, Batch], Table]] = {
    "classify": _class_rows,
    "choice": _class_rows,
    "cloze": _class_rows,
    "cloze_choice": _class_rows,
    "fill": _class_rows,
    "regress": _value_rows,
    "tag": _tag_rows,
    "span": _span_rows,
}


# From the table to numbers.
def _accuracy(table: Table) -> Tensor:
    return (table[:, 0] == table[:, 1]).double().mean()


def _binary_f1(table: Table) -> Tensor:
    return binary_f1_score(*_classes(table))


def _macro_f1(table: Table) -> Tensor:
    prediction, label = _classes(table)
    return multiclass_f1_score(prediction, label, _count(table), average="macro")


def _matthews(table: Table) -> Tensor:
    """Not torchmetrics': for constant predictions of two classes its epsilons make up a value where it is undefined."""
    confusion = multiclass_confusion_matrix(*_classes(table), num_classes=_count(table)).double()
    gold, guess, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = confusion.trace() * total - gold @ guess
    return covariance / ((total**2 - gold @ gold) * (total**2 - guess @ guess)).sqrt()


def _question_em(table: Table) -> Tensor:
    groups, row_group = table[:, 2:].unique(dim=0, return_inverse=True)
    wrong = (table[:, 0] != table[:, 1]).double()
    return (torch.zeros(len(groups)).double().index_add(0, row_group, wrong) == 0).double().mean()


def _classes(table: Table) -> tuple[Tensor, Tensor]:
    return table[:, 0].long(), table[:, 1].long()


def _count(table: Table) -> int:
    return max(2, int(table[:, :2].max()) + 1)


def _correlation(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Table], Tensor]:
    def correlation(table: Table) -> Tensor:
        constant = (table == table[0]).all(0).any()  # rounding would give it a variance
        return table.new_tensor(math.nan) if constant else function(table[:, 0], table[:, 1])

    return correlation


def _threshold(metric: int) -> Callable[[Table], Tensor]:
    """Column `metric` where the span is given, right-if-null where no answer beats it by more than the threshold."""
    return lambda table: torch.where(table[:, 0] > table[:, 4], table[:, 3], table[:, metric]).mean()


def _best_threshold(metric: int) -> Callable[[Table], Tensor]:
    """The same at the threshold that is best on these very rows, as the official script's best_exact and best_f1."""

    def best(table: Table) -> Tensor:
        order = table[:, 0].argsort()
        difference, gain = table[order, 0], (table[:, metric] - table[:, 3])[order]
        total = torch.cat([gain.new_zeros(1), gain.cumsum(0)])  # the first i rows answered, all others null
        always = torch.tensor([True])
        possible = torch.cat([always, difference[1:] > difference[:-1], always])  # a threshold cannot part equals
        return (table[:, 3].sum() + total[possible].max()) / len(table)

    return best


METRICS: dict[HeadKind, dict[str, Callable[[Table], Tensor]]] = {
    "classify": {
        "accuracy": _accuracy,
        "f1": _binary_f1,
        "macro_f1": _macro_f1,
        "matthews": _matthews,
        "question_em": _question_em,
    },
    "choice": {"accuracy": _accuracy},
    "fill": {"precision_at_1": _accuracy},
    "regress": {
        "pearson": _correlation(pearson_corrcoef),
        "spearman": _correlation(spearman_corrcoef),
    },
    "tag": {
        "entity_f1": lambda table: 2 * table[:, 0].sum() / (table[:, 1] + table[:, 2]).sum(),
        "entity_precision": lambda table: table[:, 0].sum() / table[:, 1].sum(),
        "entity_recall": lambda table: table[:, 0].sum() / table[:, 2].sum(),
        "accuracy": lambda table: table[:, 3].sum() / table[:, 4].sum(),
    },
    "span": {
        "exact_match": _threshold(1),
        "f1": _threshold(2),
        "best_exact_match": _best_threshold(1),
        "best_f1": _best_threshold(2),
    },
}
METRICS |= {"cloze": METRICS["classify"], "cloze_choice": METRICS["choice"]}  # read otherwise, measured alike
