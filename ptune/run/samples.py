"""Some rows of a split with their texts and answers, right ones and wrong ones, for a reader."""

import random
from collections.abc import Sequence
from typing import Any

from ptune.data.base import TaskData
from ptune.run.predictions import Predictions

LETTERS = 2000
"""Longest text of a cell; the rest of a longer one is left out."""
ANSWERED = ("gold", "answer", "score", "right")


def sample(data: TaskData, kept: Predictions, split: str, most: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Names of columns, and rows: number, texts, gold, answer, its score, and whether it is right.

    Lists of tags, labels or right answers are joined to a text, and their score is the mean.

    Args:
        data: the data module of the run.
        kept: the predictions.
        split: name of the split.
        most: largest number of rows.
        seed: of the draw.
    """
    columns = kept.columns(split)
    places = draw(columns["right"], most, f"{seed}/{split}")
    numbers, *answered = ([columns[name][place] for place in places] for name in ("row", *ANSWERED))
    texts = data.texts_of(split, numbers)
    names = [f"{name} (text)" if name in ("row", *ANSWERED) else name for name in (texts[0] if texts else ())]
    rows = [
        [number, *(text[:LETTERS] for text in found.values()), _text(gold), _text(answer), _mean(score), right]
        for number, found, gold, answer, score, right in zip(numbers, texts, *answered, strict=True)
    ]
    return ["row", *names, *ANSWERED], rows


def draw(right: Sequence[bool | None], most: int, seed: str) -> list[int]:
    """At most `most` places, in order: half of them wrong ones, or as many as there are where one half is too small.

    A place without right or wrong, as every number's is, counts as a right one.
    """
    order = [*range(len(right))]
    random.Random(seed).shuffle(order)
    wrong = [place for place in order if right[place] is False]
    others = [place for place in order if right[place] is not False]
    few = min(len(wrong), max(most // 2, most - len(others)))
    return sorted([*wrong[:few], *others[: most - few]])


def _text(value: Any) -> Any:
    return " | ".join(value) if isinstance(value, list) else value


def _mean(score: float | list[float]) -> float | None:
    if not isinstance(score, list):
        return score
    return sum(score) / len(score) if score else None
