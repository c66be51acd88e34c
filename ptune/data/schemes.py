"""The schemes by which tags mark entities: IOB1, IOB2, IOBES and BILOU."""

from collections.abc import Iterable, Sequence

from ptune.errors import InputError
from ptune.heads.tags import SCHEMES, plain_tag

HELP = "mend it, or list the tags by --data.task.labels, and they are read as conlleval does"


def scheme_of(sentences: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The scheme that all sentences follow: "IOB1", "IOB2", "IOBES" or "BILOU"; "" where their tags mark no entities.

    IOB2 begins every entity with B-. IOB1 has B- only for an entity behind another one of its kind.

    Args:
        sentences: the place of each sentence, for errors, and its tags.

    Raises:
        InputError: no scheme allows all tags; it names the place of one that is not allowed.
    """
    sentences = list(sentences)
    if plain_tag(tag for _, tags in sentences for tag in tags):
        return ""
    first: dict[str, str] = {}
    for place, tags in sentences:
        for tag in tags:
            first.setdefault(tag[0], f"{place}: tag {tag!r}")
    ends, units = first.get("E") or first.get("S"), first.get("L") or first.get("U")
    if ends and units:
        raise InputError(f"{units} is of BILOU, but {ends} is of IOBES; {HELP}.")
    names = ("IOBES",) if ends else ("BILOU",) if units else ("IOB2", "IOB1")
    wrong = {}
    for name in names:
        found = ((place, mistake(tags, name)) for place, tags in sentences)
        wrong[name] = next((f"{place}: {said}" for place, said in found if said), "")
        if not wrong[name]:
            return name if {*first} != {"O"} else ""
    raise InputError(f"{'; and '.join(wrong.values())}; {HELP}.")


def mistake(tags: Sequence[str], scheme: str) -> str:
    """The first tag that the scheme does not allow at its place, as part of a sentence; "" where there is none."""
    before = "O"
    for number, tag in enumerate([*tags, "O"], start=1):
        if not allowed(before, tag, scheme):
            what = f"tag {tag!r} of word {number}" if number <= len(tags) else "the end of the sentence"
            return f"{what} stands behind {before!r}, which {scheme} does not allow"
        before = tag
    return ""


def allowed(before: str, tag: str, scheme: str) -> bool:
    """Whether the scheme has `tag` behind `before`."""
    same, letter = before[1:] == tag[1:], tag[0]
    if scheme == "IOB1":
        return letter != "B" or same
    if scheme == "IOB2":
        return letter != "I" or same
    inside = before[0] in "BI"
    return inside == (letter in ("I", "E", "L")) and (same or not inside)


def labels_of(tags: Iterable[str], scheme: str) -> tuple[str, ...]:
    """All tags of the scheme for the kinds of entities in `tags`: O first, then the kinds as they are sorted."""
    kinds = sorted({tag[2:] for tag in tags if tag != "O"})
    return ("O", *(f"{letter}-{kind}" for kind in kinds for letter in SCHEMES[scheme.rstrip("12")]))
