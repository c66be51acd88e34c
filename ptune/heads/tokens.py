"""Heads of one linear layer that read every token of a text: spans and tags."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.errors import InputError
from ptune.heads.base import Answer, Batch, Head, Loss, Table, cross_entropy
from ptune.heads.linear import LinearHead
from ptune.heads.metrics import at_best_threshold, at_threshold, of_counts
from ptune.heads.mistakes import Mistakes, confusion, of_entities, of_spans
from ptune.heads.spans import N_BEST, decode, exact_and_f1, ranked_spans
from ptune.heads.tags import entities, plain_tag
from ptune.heads.viterbi import best_tags
from ptune.tasks.spec import HeadSpec


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
        return cls(backbone.output_width, 2, dropout, bias=False)

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
    def answers(
        cls, spec: HeadSpec, scores: Float[Tensor, "n t 2"], batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """Spans as texts, with `start` and `end` (characters of the context); "" from 0 to 0 for no answer.

        No two are the same; with `top_k=None` there are up to 20. The score is the product of the probabilities of the
        span's first and last token among the tokens of the context in all windows and token 0 of each, which stands for
        no answer. Where questions may have none, it is one of the answers, as `handle_impossible_answer` of the
        question-answering pipeline of transformers 4 has it: before the first span that it exceeds by more than the
        threshold. So scores fall, but for that of no answer under a threshold that is not 0.
        """
        references, top_k, threshold = batch["references"], top_k or N_BEST, batch["null_threshold"]
        windows = (batch["offsets"], batch["feature_row"], len(references), batch["max_answer_length"])
        found = ranked_spans(scores, *windows, top_k)
        spans, counts = found.spans.tolist(), (~found.score.isneginf()).sum(1).tolist()
        values = (found.score - found.normaliser[:, None]).exp().tolist()
        nulls = (found.null - found.normaliser).exp().tolist()
        before = (~(found.null[:, None] - found.score > threshold)).sum(1).tolist()
        answers = []
        for i, reference in enumerate(references):
            ranked = [*zip(spans[i], values[i], strict=True)][: counts[i]]
            if threshold < torch.inf or not ranked:
                ranked.insert(before[i], ([0, 0], nulls[i]))
            answers.append(
                [
                    {"answer": reference["context"][start:end], "score": score, "start": start, "end": end}
                    for (start, end), score in ranked[:top_k]
                ]
            )
        return answers

    @classmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list[list[str]]:
        """The texts that are right, none for a question without an answer."""
        return [reference["answers"] for reference in batch["references"]]

    @classmethod
    def right(cls, table: Table) -> list[bool]:
        """Whether the answer that is given, a span or none, matches exactly."""
        return torch.where(table[:, 0] > table[:, 4], table[:, 3], table[:, 1]).bool().tolist()

    @classmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """The answers by the length of the right one."""
        return of_spans(answers, gold)

    @classmethod
    def majority_rows(
        cls, spec: HeadSpec, train_labels: Sequence, eval_labels: Sequence, groups: Sequence[int] | None
    ) -> None:
        """None: there is no most frequent span."""


@final
class Tag(LinearHead):
    """One of c tags a token: scores "b t c"; tokens labelled -100 do not count.

    Each word gets the tag with the highest score, or with `HeadSpec.decoding` the one it has in the best sequence of
    tags that a scheme allows (`ptune.heads.viterbi`).
    """

    kind = "tag"
    pools = False
    metrics = {  # noqa: RUF012
        "entity_f1": of_counts(lambda right, given, gold, *_: 2 * right / (given + gold)),
        "entity_precision": of_counts(lambda right, given, *_: right / given),
        "entity_recall": of_counts(lambda right, given, gold, *_: right / gold),
        "accuracy": of_counts(lambda *counts: counts[3] / counts[4]),
    }

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """c outputs."""
        return cls(backbone.output_width, len(spec.labels), dropout, bias)

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
        guesses, gold = _decoded(spec, batch, scores), _by_sentence(batch, batch["labels"])
        return torch.tensor([_counts(spec, *pair) for pair in zip(guesses, gold, strict=True)])

    @classmethod
    def answers(
        cls, spec: HeadSpec, scores: Float[Tensor, "n t c"], batch: dict[str, Any], top_k: int | None = 1
    ) -> list[list[Answer]]:
        """The tag of each word and, as the score, the list of their probabilities."""
        pairs = zip(_decoded(spec, batch, scores), _sentences(batch, scores.float().softmax(-1)), strict=True)
        return [
            [{"answer": [spec.labels[code] for code in codes], "score": table[range(len(codes)), codes].tolist()}]
            for codes, table in pairs
        ]

    @classmethod
    def gold(cls, spec: HeadSpec, batch: dict[str, Any]) -> list[list[str]]:
        """The tags of each row's words."""
        return [[spec.labels[code] for code in codes] for codes in _by_sentence(batch, batch["labels"])]

    @classmethod
    def right(cls, table: Table) -> list[bool]:
        """Whether every word has its tag."""
        return (table[:, 3] == table[:, 4]).tolist()

    @classmethod
    def mistakes(cls, spec: HeadSpec, answers: Sequence, gold: Sequence) -> Mistakes:
        """The types of entities, or the confusions of tags that mark none."""
        if plain_tag(spec.labels):
            return confusion(chain.from_iterable(answers), chain.from_iterable(gold))
        return of_entities(answers, gold)

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


def _decoded(spec: HeadSpec, batch: dict[str, Any], scores: Float[Tensor, "n t c"]) -> list[list[int]]:
    """The codes of the answered tags, a list for each sentence."""
    if not spec.decoding:
        return _by_sentence(batch, scores.argmax(-1))
    words = _sentences(batch, scores)
    lengths = torch.tensor([len(each) for each in words])
    found = best_tags(pad_sequence(words, batch_first=True), lengths, spec.labels, spec.decoding)
    return [codes[:n] for codes, n in zip(found.tolist(), lengths.tolist(), strict=True)]


def _by_sentence(batch: dict[str, Any], values: Num[Tensor, "n t"]) -> list[list]:
    """The values of the labelled tokens, a list for each sentence."""
    return [found.tolist() for found in _sentences(batch, values)]


def _sentences(batch: dict[str, Any], values: Num[Tensor, "n t *c"]) -> list[Num[Tensor, "w *c"]]:
    """The values of the labelled tokens of each sentence, whose pieces are put together again in order."""
    labels, values = batch["labels"].cpu(), values.cpu()
    sentences = batch["feature_row"].cpu() if "feature_row" in batch else torch.arange(len(labels))
    found = []
    for sentence in range(int(sentences.max()) + 1):
        pieces = sentences == sentence
        found.append(values[pieces][labels[pieces] != -100])
    return found


def _counts(spec: HeadSpec, predicted: list[int], gold: list[int]) -> list[int]:
    """Counts of one sentence."""
    right = sum(p == g for p, g in zip(predicted, gold, strict=True))
    if not any(name.startswith("entity_") for name in spec.metrics):  # its tags need not be chunks
        return [0, 0, 0, right, len(gold)]
    guess, true = (entities([spec.labels[code] for code in codes]) for codes in (predicted, gold))
    return [len(guess & true), len(guess), len(true), right, len(gold)]
