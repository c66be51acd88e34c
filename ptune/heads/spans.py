"""Answers in a context: finding the best span among all features of a question, and scoring its text as SQuAD does."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

N_BEST = 20  # of run_squad and utils_qa


@final
@dataclass(frozen=True)
class BestSpans:
    """The best span of each of b questions, and the scores of its answers."""

    spans: Int[Tensor, "b 2"]
    """Characters [start, end) of the context, (0, 0) where there is no span."""
    score: Float[Tensor, " b"]
    """Start and end logit of the span, -inf where there is none."""
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

    The span is that of `best_spans`. The second result is its null score minus its score, +inf where there is no span.
    """
    found = best_spans(scores, offsets, feature_row, questions, max_answer_length)
    return found.spans, found.null - found.score


def best_spans(
    scores: Float[Tensor, "n t 2"],
    offsets: Int[Tensor, "n t 2"],
    feature_row: Int[Tensor, " n"],
    questions: int,
    max_answer_length: int = 30,
) -> BestSpans:
    """The best span of each of the b `questions` over its features.

    The search of run_squad and transformers' utils_qa: starts and ends are among the 20 best of a feature, a span lies
    in the context and has at most `max_answer_length` tokens. The n-best are taken among context tokens only, so that
    neither padding nor prompt slots take places.

    Args:
        scores: start and end logits.
        offsets: each token's characters in the context, -1 where the token is not context.
        feature_row: which question each feature belongs to.
        questions: their number b.
        max_answer_length: in tokens.
    """
    n, t, _ = scores.shape
    context = offsets[..., 0] >= 0
    scores = scores.float()
    start, end = (_best(scores[..., side].masked_fill(~context, -torch.inf)) for side in (0, 1))
    beyond = end.new_full((n, max_answer_length - 1), -torch.inf)
    windows = torch.cat([end, beyond], dim=1).unfold(1, max_answer_length, 1)  # n t m: ends in reach of each start
    best, where = (start[..., None] + windows).flatten(1).max(dim=1)
    first = where // max_answer_length
    last = (first + where % max_answer_length).clamp(max=t - 1)

    owner = feature_row == torch.arange(questions, device=scores.device)[:, None]  # b n
    score, feature = torch.where(owner, best, -torch.inf).max(dim=1)
    null = torch.where(owner, scores[:, 0].sum(-1), torch.inf).amin(dim=1)
    span = torch.stack([offsets[feature, first[feature], 0], offsets[feature, last[feature], 1]], dim=1)
    possible = context.clone()
    possible[:, 0] = True
    sums = scores.masked_fill(~possible[..., None], -torch.inf).logsumexp(1)  # n 2
    normaliser = torch.where(owner[..., None], sums, -torch.inf).logsumexp(1).sum(-1)
    return BestSpans(span.masked_fill(score.isneginf()[:, None], 0), score, null, normaliser)


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
