"""The schemes by which tags mark entities: IOB1, IOB2, IOBES and BILOU."""

from collections.abc import Iterable, Sequence

from ptune.errors import InputError
from ptune.heads.tags import SCHEMES, allowed, plain_tag

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


def misfit(labels: Sequence[str], scheme: str) -> str:
    """Why sequences of these tags cannot be restricted to those of the scheme, as part of a sentence; "" if they can.

    O must be among the tags: it may stand everywhere outside of entities, so that every sentence has a sequence.
    """
    if "O" not in labels:
        return "the tags have no O, which words outside of entities need"
    letters = SCHEMES[scheme.rstrip("12")]
    other = plain_tag(labels) or next((tag for tag in labels if tag[0] not in f"O{letters}"), "")
    return other and f"tag {other!r} is none of {scheme}'s, which begin with {'-, '.join(letters)}-, or are O"


def labels_of(tags: Iterable[str], scheme: str) -> tuple[str, ...]:
    """All tags of the scheme for the kinds of entities in `tags`: O first, then the kinds as they are sorted."""
    kinds = sorted({tag[2:] for tag in tags if tag != "O"})
    return ("O", *(f"{letter}-{kind}" for kind in kinds for letter in SCHEMES[scheme.rstrip("12")]))
