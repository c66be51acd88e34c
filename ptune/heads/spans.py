"""Answers in a context: finding the best spans among all features of a question, and scoring a text as SQuAD does."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

N_BEST = 20  # of run_squad and utils_qa


@final
@dataclass(frozen=True)
class RankedSpans:
    """The k best spans of each of b questions, best first and all different, and the scores of its answers."""

    spans: Int[Tensor, "b k 2"]
    """Characters [start, end) of the context, (0, 0) where there is no span."""
    score: Float[Tensor, "b k"]
    """Start and end logit of each span, -inf where there is none."""
    null: Float[Tensor, " b"]
    """Start and end logit of token 0, the smallest of the features'."""
    normaliser: Float[Tensor, " b"]
    """What a score exceeds the logarithm of its probability by: over all context tokens and each feature's token 0."""


def decode(
    scores: Float[Tensor, "n t 2"],
    offsets: Int[Tensor, "n t 2"],
    feature_row: Int[Tensor, " n"],
    questions: int,
    max_answer_length: int = 30,
) -> tuple[Int[Tensor, "b 2"], Float[Tensor, " b"]]:
    """The best span of each of the b `questions` over its features, and by how much no answer is preferred to it.

    The span is the first of `ranked_spans`. The second result is its null score minus its score, +inf where there is no
    span.
    """
    found = ranked_spans(scores, offsets, feature_row, questions, max_answer_length)
    return found.spans[:, 0], found.null - found.score[:, 0]


def ranked_spans(
    scores: Float[Tensor, "n t 2"],
    offsets: Int[Tensor, "n t 2"],
    feature_row: Int[Tensor, " n"],
    questions: int,
    max_answer_length: int = 30,
    top_k: int = 1,
) -> RankedSpans:
    """The best spans of each of the b `questions` over its features.

    The search of run_squad and transformers' utils_qa: starts and ends are among the 20 best of a feature, a span lies
    in the context and has at most `max_answer_length` tokens. The n-best are taken among context tokens only, so that
    neither padding nor prompt slots take places. Spans of the same characters, of one feature or of several that
    overlap, are one, with the largest of their scores.

    Args:
        scores: start and end logits.
        offsets: each token's characters in the context, -1 where the token is not context.
        feature_row: which question each feature belongs to.
        questions: their number b.
        max_answer_length: in tokens.
        top_k: number of spans of a question; k is less where there cannot be so many.
    """
    n, t, _ = scores.shape
    max_answer_length = min(max_answer_length, t)  # the memory grows with it
    context = offsets[..., 0] >= 0
    scores = scores.float()
    start, end = (_best(scores[..., side].masked_fill(~context, -torch.inf)) for side in (0, 1))
    beyond = end.new_full((n, max_answer_length - 1), -torch.inf)
    windows = torch.cat([end, beyond], dim=1).unfold(1, max_answer_length, 1)  # n t m: ends in reach of each start
    totals = start[..., None] + windows

    owner = feature_row == torch.arange(questions, device=scores.device)[:, None]  # b n
    if top_k == 1:
        best, where = totals.flatten(1).max(dim=1)
        score, feature = torch.where(owner, best, -torch.inf).max(dim=1)
        spans, score = _characters(offsets, feature, where[feature], max_answer_length)[:, None], score[:, None]
    else:
        spans, score = _distinct(totals, offsets, owner, min(top_k, n * N_BEST**2))
    null = torch.where(owner, scores[:, 0].sum(-1), torch.inf).amin(dim=1)
    possible = context.clone()
    possible[:, 0] = True
    sums = scores.masked_fill(~possible[..., None], -torch.inf).logsumexp(1)  # n 2
    normaliser = torch.where(owner[..., None], sums, -torch.inf).logsumexp(1).sum(-1)
    return RankedSpans(spans.masked_fill(score.isneginf()[..., None], 0), score, null, normaliser)


def _characters(
    offsets: Int[Tensor, "n t 2"], feature: Int[Tensor, " c"], where: Int[Tensor, " c"], longest: int
) -> Int[Tensor, "c 2"]:
    """Characters of spans, given by their feature and their place among all starts and the `longest` ends of each."""
    first = where // longest
    last = (first + where % longest).clamp(max=offsets.shape[1] - 1)
    return torch.stack([offsets[feature, first, 0], offsets[feature, last, 1]], dim=1)


def _distinct(
    totals: Float[Tensor, "n t m"], offsets: Int[Tensor, "n t 2"], owner: Bool[Tensor, "b n"], top_k: int
) -> tuple[Int[Tensor, "b k 2"], Float[Tensor, "b k"]]:
    """The best spans of each question that differ in their characters, and their scores; -inf where there are fewer.

    Of equal scores the first one wins, as in `max`. A token may have no characters, such as a second space, and a span
    of such tokens alone is no answer beside another one.
    """
    spans = offsets.new_zeros(len(owner), top_k, 2)
    score = totals.new_full((len(owner), top_k), -torch.inf)
    for question, features in enumerate(owner):
        feature, first, reach = ((totals > -torch.inf) & features[:, None, None]).nonzero(as_tuple=True)
        values, order = totals[feature, first, reach].sort(descending=True, stable=True)
        where = first * totals.shape[2] + reach
        places = _characters(offsets, feature[order], where[order], totals.shape[2])
        found: dict[tuple[int, ...], int] = {}
        for rank, (begin, end) in enumerate(places.tolist()):
            if begin < end or not found:
                found.setdefault((begin, end), rank)
            if len(found) == top_k:
                break
        kept = torch.tensor([*found.values()], dtype=torch.long, device=totals.device)
        spans[question, : len(kept)], score[question, : len(kept)] = places[kept], values[kept]
    return spans, score


def exact_and_f1(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words against the nearest of `answers`; none, or only empty ones, means unanswerable.

    As SQuAD's official evaluate-v2.0.py. evaluate-v1.1.py differs only where a reference is nothing but articles and
    punctuation: it gives F1 0 even to the same text.
    """
    words = normalise(prediction).split()
    references = [normalise(answer).split() for answer in answers]
    references = [reference for reference in references if reference] or [[]]
    return float(words in references), max(_f1(words, reference) for reference in references)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space, in the official script's order."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    same = sum((Counter(words) & Counter(reference)).values())
    return 2 * same / (len(words) + len(reference))


def _best(scores: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """`scores` with -inf everywhere but at the n-best of each row."""
    values, index = scores.topk(min(N_BEST, scores.shape[1]), dim=1)
    return torch.full_like(scores, -torch.inf).scatter(1, index, values)
