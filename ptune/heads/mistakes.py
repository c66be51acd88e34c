"""What a model gets right and wrong on a split, as one small table for each kind of answer.

Answers and gold are those of `Head.answers` and `Head.gold`, a list of each with an item a row of the split.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, final

import torch

from ptune.heads.spans import exact_and_f1, normalise
from ptune.heads.tags import entities

MOST = 1000
"""Largest number of pairs in a table of confusions; the rarest are left out."""
PARTS = 5
"""Parts of equal size that numbers are divided into."""
LENGTHS = (1, 2, 3, 5, 9)
"""Numbers of words at which the groups of spans begin."""


@final
@dataclass(frozen=True)
class Mistakes:
    """A table of the answers to a split."""

    kind: Literal["confusion", "labels", "entities", "spans", "numbers"]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def confusion(answers: Iterable[Any], gold: Iterable[Any]) -> Mistakes:
    """How often each pair of gold and answer occurs, the most frequent first: a confusion matrix without its zeros."""
    pairs = Counter(zip(gold, answers, strict=True)).most_common(MOST)
    return Mistakes("confusion", ("gold", "answer", "count"), [(*pair, count) for pair, count in pairs])


def of_labels(labels: Sequence[str], answers: Iterable[list[str]], gold: Iterable[list[str]]) -> Mistakes:
    """For each label the rows that have it, and in how many it is given, missed, and given without being right."""
    pairs = [({*found}, {*true}) for found, true in zip(answers, gold, strict=True)]
    rows = []
    for label in labels:
        given, right = (sum(label in pair[side] for pair in pairs) for side in (0, 1))
        both = sum(label in found & true for found, true in pairs)
        rows.append((label, right, both, right - both, given - both))
    return Mistakes("labels", ("label", "gold", "correct", "missed", "spurious"), rows)


def of_entities(answers: Iterable[list[str]], gold: Iterable[list[str]]) -> Mistakes:
    """For each type of entity what became of the gold ones, and how many are spurious.

    A gold entity is correct where type and words agree; of the wrong type where the words alone agree; of a wrong
    boundary where an answered entity of its type shares a word with it; else missed. An answered entity is spurious
    where no gold entity has its words or, of its type, shares one with it. The last row is the sum.
    """
    counts: dict[str, Counter[str]] = {}
    for found, true in zip(map(entities, answers), map(entities, gold), strict=True):
        for entity in true:
            counts.setdefault(entity[0], Counter()).update(("gold", _fate(entity, found) or "missed"))
        for entity in found:
            if not _fate(entity, true):
                counts.setdefault(entity[0], Counter()).update(("spurious",))
    columns = ("gold", "correct", "wrong type", "wrong boundary", "missed", "spurious")
    rows = [(kind, *(counts[kind][name] for name in columns)) for kind in sorted(counts)]
    total = tuple(map(sum, zip(*(row[1:] for row in rows), strict=True))) or (0,) * len(columns)
    return Mistakes("entities", ("type", *columns), [*rows, ("all", *total)])


def _fate(entity: tuple[str, int, int], others: set[tuple[str, int, int]]) -> str:
    """How an entity is met by those of the other side, in the words of the table; empty where it is not."""
    kind, first, last = entity
    if entity in others:
        return "correct"
    if any((start, end) == (first, last) for _, start, end in others):
        return "wrong type"
    near = any(other == kind and start <= last and first <= end for other, start, end in others)
    return "wrong boundary" if near else ""


def of_spans(answers: Iterable[str], gold: Iterable[list[str]]) -> Mistakes:
    """By the number of words of the first right answer, how many answers match exactly, share words, or share none.

    Words are those of SQuAD's official script, which leaves out articles and punctuation. A question without a right
    answer has no words; its answer matches where none is given.
    """
    counts: dict[int, Counter[str]] = {}
    for answer, texts in zip(answers, gold, strict=True):
        exact, f1 = exact_and_f1(answer, texts)
        words = len(normalise(texts[0]).split()) if texts else 0
        group = max((start for start in LENGTHS if start <= words), default=0)
        counts.setdefault(group, Counter()).update(
            ("questions", "exact" if exact else "overlap" if f1 else "none"),
        )
    names = {start: str(start) if end == start + 1 else f"{start}-{end - 1}" for start, end in pairwise(LENGTHS)}
    names |= {0: "no answer", LENGTHS[-1]: f"{LENGTHS[-1]} or more"}
    columns = ("questions", "exact", "overlap", "none")
    rows = [(names[group], *(counts[group][name] for name in columns)) for group in sorted(counts)]
    return Mistakes("spans", ("words", *columns), rows)


def of_numbers(answers: Sequence[float], gold: Sequence[float]) -> Mistakes:
    """The mean of the errors, and of their absolute values, in parts of equal size from small to large gold numbers."""
    true, found = torch.tensor(gold, dtype=torch.double), torch.tensor(answers, dtype=torch.double)
    rows = []
    for part in true.argsort(stable=True).tensor_split(PARTS):
        if len(part):
            error = found[part] - true[part]
            values = (true[part].min(), true[part].max(), error.mean(), error.abs().mean())
            rows.append((*(float(value) for value in values), len(part)))
    return Mistakes("numbers", ("gold from", "gold to", "mean error", "mean absolute error", "rows"), rows)
