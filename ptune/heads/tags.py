"""How tags mark entities, in the schemes IOB1, IOB2, IOBES and BILOU."""

from collections.abc import Iterable, Sequence

from seqeval.metrics.sequence_labeling import get_entities

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


def allowed(before: str, tag: str, scheme: str) -> bool:
    """Whether the scheme has `tag` behind `before`; a sentence begins behind an O and ends before one."""
    same, letter = before[1:] == tag[1:], tag[0]
    if scheme == "IOB1":
        return letter != "B" or same
    if scheme == "IOB2":
        return letter != "I" or same
    inside = before[0] in "BI"
    return inside == (letter in ("I", "E", "L")) and (same or not inside)


def groups(tags: Sequence[str], labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sentence in order: kind, first and last word.

    Where `labels` has tags that are none of an entity's, neighbouring words of one tag are a group, as in transformers'
    pipelines.
    """
    if not plain_tag(labels):
        return sorted(entities(tags), key=lambda entity: entity[1])
    found: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        if found and found[-1][0] == tag and found[-1][2] == place - 1:
            found[-1] = (tag, found[-1][1], place)
        elif tag != "O":
            found.append((tag, place, place))
    return found
