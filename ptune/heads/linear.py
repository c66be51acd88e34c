"""Heads of one linear layer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, final

import torch
from jaxtyping import Float
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.errors import InputError
from ptune.heads.base import Batch, Head, Loss, Table, cross_entropy
from ptune.heads.metrics import OF_CLASSES, accuracy, at_best_threshold, at_threshold, pearson, spearman
from ptune.heads.one_of import OneOf
from ptune.heads.spans import decode, exact_and_f1
from ptune.tasks.spec import HeadSpec


class LinearHead(Head):
    """Dropout and one linear layer from width d to `outputs`, initialised N(0, 0.02²) with zero bias as BERT's.

    There is no bias where the softmax is over endings or tokens: it would change nothing and get no gradient.
    """

    def __init__(self, width: int, outputs: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs, bias)
        nn.init.normal_(self.linear.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def project(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... o"]:
        """The linear layer after dropout."""
        return self.linear(self.dropout(hidden))


@final
class Classify(LinearHead, OneOf):
    """One of c classes for a text or a pair: scores "b c"."""

    kind = "classify"
    metrics = OF_CLASSES

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """c outputs."""
        return cls(backbone.width, len(spec.labels), dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        return self.project(backbone.pool(hidden, batch))


@final
class Regress(LinearHead):
    """A number for a text or a pair: scores "b", in the label's own unit."""

    kind = "regress"
    metrics = {"pearson": pearson, "spearman": spearman}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """One output."""
        return cls(backbone.width, 1, dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, " b"]:
        """The number read from the pooled text."""
        return self.project(backbone.pool(hidden, batch)).squeeze(-1)

    def loss(self, scores: Float[Tensor, " b"], batch: Batch) -> Loss:
        """Squared error; labels "b"."""
        labels = batch["labels"]
        return F.mse_loss(scores.float(), labels.float(), reduction="sum"), torch.tensor(
            len(labels), device=labels.device
        )

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Prediction and label."""
        return ("prediction", "label")

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, " b"], batch: dict[str, Any]) -> Table:
        """The numbers."""
        return torch.stack([scores.float(), batch["labels"].float()], dim=1)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The mean of the training labels."""
        labels, mean = torch.tensor(eval_labels), sum(train_labels) / len(train_labels)
        return torch.stack([torch.full_like(labels, mean), labels], dim=1)


@final
class Choice(LinearHead, OneOf):
    """One of c endings, each read as a text of its own (n = b c): scores "b c"."""

    kind = "choice"
    metrics = {"accuracy": accuracy}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """One output without bias, which would add the same to every ending."""
        return cls(backbone.width, 1, dropout, bias=False)

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an ending."""
        return self.project(backbone.pool(hidden, batch)).view(len(batch["labels"]), -1)


@final
class Span(LinearHead):
    """Start and end of the answer in the text: scores "n t 2"; padding cannot be an answer."""

    kind = "span"
    pools = False
    metrics = {  # noqa: RUF012
        "exact_match": at_threshold(1),
        "f1": at_threshold(2),
        "best_exact_match": at_best_threshold(1),
        "best_f1": at_best_threshold(2),
    }

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """Start and end without bias, which would add the same to every token."""
        return cls(backbone.width, 2, dropout, bias=False)

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "n t 2"]:
        """Start (0) and end (1) scores of every token."""
        scores = self.project(hidden)
        return scores.masked_fill(~batch["attention_mask"].bool()[..., None], torch.finfo(scores.dtype).min)

    def loss(self, scores: Float[Tensor, "n t 2"], batch: Batch) -> Loss:
        """Mean of the cross entropies of start and end; labels "n 2"."""
        total, terms = cross_entropy(scores.transpose(1, 2).flatten(0, 1), batch["labels"].flatten())
        return total / 2, terms // 2

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Null score minus span score, exact match and F1 of the span, exact match of no answer, the threshold."""
        return ("null over span", "exact if span", "f1 if span", "right if null", "threshold")

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, "n t 2"], batch: dict[str, Any]) -> Table:
        """One row a question: the best span of all its features."""
        references, longest = batch["references"], batch["max_answer_length"]
        spans, null = decode(scores, batch["offsets"], batch["feature_row"], len(references), longest)
        rows = []
        for reference, (start, end), difference in zip(references, spans.tolist(), null.tolist(), strict=True):
            answered = exact_and_f1(reference["context"][start:end], reference["answers"])
            unanswered = exact_and_f1("", reference["answers"])[0]
            rows.append([difference, *answered, unanswered, batch["null_threshold"]])
        return torch.tensor(rows)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> None:
        """None: there is no most frequent span."""


@final
class Tag(LinearHead):
    """One of c tags a token: scores "b t c"; tokens labelled -100 do not count."""

    kind = "tag"
    pools = False
    metrics = {  # noqa: RUF012
        "entity_f1": lambda table: 2 * table[:, 0].sum() / (table[:, 1] + table[:, 2]).sum(),
        "entity_precision": lambda table: table[:, 0].sum() / table[:, 1].sum(),
        "entity_recall": lambda table: table[:, 0].sum() / table[:, 2].sum(),
        "accuracy": lambda table: table[:, 3].sum() / table[:, 4].sum(),
    }

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """c outputs."""
        return cls(backbone.width, len(spec.labels), dropout, bias)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b t c"]:
        """Tag scores of every token."""
        return self.project(hidden)

    def loss(self, scores: Float[Tensor, "b t c"], batch: Batch) -> Loss:
        """Cross entropy over labelled tokens; labels "b t"."""
        return cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())

    @classmethod
    def columns(cls, spec: HeadSpec) -> tuple[str, ...]:
        """Counts of a sentence."""
        return ("correct entities", "predicted", "gold", "correct words", "words")

    @classmethod
    def rows(cls, spec: HeadSpec, scores: Float[Tensor, "n t c"], batch: dict[str, Any]) -> Table:
        """One row a sentence: the labelled tokens of its pieces, put together again in their order."""
        labels, predicted = batch["labels"].cpu(), scores.argmax(-1).cpu()
        sentences = batch["feature_row"].cpu() if "feature_row" in batch else torch.arange(len(labels))
        rows = []
        for sentence in range(int(sentences.max()) + 1):
            gold, guess = labels[sentences == sentence], predicted[sentences == sentence]
            words = gold != -100
            rows.append(_counts(spec, guess[words].tolist(), gold[words].tolist()))
        return torch.tensor(rows)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> Table:
        """The most frequent tag for every word."""
        most = Counter(chain.from_iterable(train_labels)).most_common(1)[0][0]
        return torch.tensor([_counts(spec, [most] * len(gold), list(gold)) for gold in eval_labels])

    @classmethod
    def check_metric(cls, name: str, spec: HeadSpec) -> None:
        """Entities need tags that say where they begin."""
        plain = plain_tag(spec.labels)
        if name.startswith("entity_") and plain:
            raise InputError(
                f"task {spec.task!r}: metric {name!r} needs tags like B-X, I-X and O, not {plain!r}; use 'accuracy'."
            )


SCHEMES = {"IOB": "BI", "IOBES": "BIES", "BILOU": "BILU"}
"""Letters before the kind of an entity: it begins, goes on, ends, is a single word (BILOU: last, unit)."""


def plain_tag(labels: Iterable[str]) -> str:
    """The first tag that is none of an entity's, such as B-X, I-X or O, in any of the schemes; empty without one."""
    return next((label for label in labels if label != "O" and (label[:1] not in "BIESLU" or label[1:2] != "-")), "")


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of a sentence as conlleval reads them: kind, first and last word.

    Any sequence of tags in IOB1, IOB2, IOBES or BILOU has some: an entity begins at B, S and U, behind E, S, L and U,
    and wherever the kind changes or no entity is before it. That is seqeval's default, which has no L and U.
    """
    letters = {"L": "E", "U": "S"}
    return {*get_entities([letters.get(tag[0], tag[0]) + tag[1:] for tag in tags])}


def _counts(spec: HeadSpec, predicted: list[int], gold: list[int]) -> list[int]:
    """Counts of one sentence."""
    right = sum(p == g for p, g in zip(predicted, gold, strict=True))
    if not any(name.startswith("entity_") for name in spec.metrics):  # its tags need not be chunks
        return [0, 0, 0, right, len(gold)]
    guess, true = (entities([spec.labels[code] for code in codes]) for codes in (predicted, gold))
    return [len(guess & true), len(guess), len(true), right, len(gold)]
