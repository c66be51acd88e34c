"""Templates write a row as a text with slots and a mask; verbalizers give the words of each label at the mask.

    {premise} Question: {hypothesis}? [P:3] Answer: [MASK].

`{name}` is a column of the row, `[P:n]` n slots for trained vectors (`[P]` is one), `[MASK]` the place of the answer,
`[SEP]` the tokenizer's separator with a second segment after it; everything else is text. A causal model reads up to
the mask and answers there, so only text may follow it. OpenPrompt (f6fb080) has the same parts in JSON.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from ptune.errors import InputError

_PARTS = re.compile(r"(?P<lead>\s*)(?:\{(?P<column>[^{}]*)\}|\[(?P<mark>[A-Z]+)(?::(?P<count>[^\]]*))?\])")


@final
@dataclass(frozen=True)
class Part:
    """One part of a template; `lead` is the white space before it."""

    kind: Literal["text", "column", "slots", "mask", "sep"]
    lead: str
    text: str = ""
    """The text itself, or the name of the column."""
    count: int = 0
    """Number of slots."""


@final
class Template:
    """A parsed template.

    Args:
        text: the template, in the language of this module.

    Raises:
        InputError: an unknown mark, not exactly one mask, no column, or a number of slots that is not a number.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[Part] = []
        end = 0
        for match in _PARTS.finditer(text):
            self._literal(text[end : match.start()])
            self.parts.append(self._part(match))
            end = match.end()
        self._literal(text[end:])
        self.columns = tuple(part.text for part in self.parts if part.kind == "column")
        self.slots = sum(part.count for part in self.parts)
        masks = sum(part.kind == "mask" for part in self.parts)
        if masks != 1:
            raise self._error(f"has {masks or 'no'} [MASK]{'s' * (masks > 1)}; write one where the answer stands")
        if not self.columns:
            raise self._error("names no column, so that every row would read the same; write one, such as {sentence}")

    def _literal(self, text: str) -> None:
        if text.strip():
            lead = " " if text[0].isspace() else ""
            self.parts.append(Part("text", lead, " ".join(text.split())))
        if "{" in text or "}" in text:
            raise self._error("has a brace without its other half; a column is written {name}")

    def _part(self, match: re.Match) -> Part:
        lead, column, mark, count = (match[name] for name in ("lead", "column", "mark", "count"))
        lead = " " if lead else ""
        if column is not None:
            if not column.strip():
                raise self._error("has a column without a name; write one, such as {sentence}")
            return Part("column", lead, column.strip())
        if mark == "P":
            if count is not None and not (count.isdecimal() and int(count)):
                raise self._error(f"has [P:{count}]; write how many slots as a number, such as [P:3]")
            return Part("slots", lead, count=int(count or 1))
        kinds: dict[str, Literal["mask", "sep"]] = {"MASK": "mask", "SEP": "sep"}
        if mark not in kinds or count is not None:
            raise self._error(f"has {match[0].strip()}, which is not one of [P:n], [MASK] and [SEP]")
        return Part(kinds[mark], lead)

    def _error(self, what: str) -> InputError:
        return InputError(f"--data.template {self.text!r} {what}.")

    def before_mask(self) -> list[Part]:
        """The parts that a causal model reads; an InputError where a column or a slot comes after the mask."""
        place = next(i for i, part in enumerate(self.parts) if part.kind == "mask")
        late = next((part for part in self.parts[place + 1 :] if part.kind != "text"), None)
        if late is not None:
            what = {"column": f"the column {late.text!r}", "slots": "slots", "sep": "[SEP]"}[late.kind]
            raise self._error(
                f"has {what} behind its [MASK], which a causal model would answer before reading; move the mask"
                " behind everything but text"
            )
        return self.parts[: place + 1]


def _label(key: Any, labels: Sequence[str]) -> str:
    """The label that a key means: in YAML 0, true and null are a number, a truth value and nothing."""
    word = "null" if key is None else str(key)
    return next((label for label in labels if not isinstance(key, str) and label.lower() == word.lower()), word)


@final
class Verbalizer:
    """The words that stand for each label: one, or several whose scores are averaged (Schick & Schütze 2021).

    Args:
        words: a word, or a list of them, for each label.
        labels: the task's labels, in the order of their codes.

    Raises:
        InputError: a label without a word, a word for no label, or one word for two labels.
    """

    def __init__(self, words: Mapping[str, str | Sequence[str]], labels: Sequence[str]) -> None:
        lists = {_label(key, labels): [word] if isinstance(word, str) else list(word) for key, word in words.items()}
        unknown = [label for label in lists if label not in labels]
        if unknown:
            raise InputError(f"--data.verbalizer: {unknown[0]!r} is none of the labels {list(labels)}.")
        for label in labels:
            if not lists.get(label) or not all(word.strip() for word in lists[label]):
                raise InputError(
                    f"--data.verbalizer: label {label!r} has no word; give one, such as {{{label}: good}}."
                )
        self.words = tuple(tuple(word.strip() for word in lists[label]) for label in labels)
        seen: dict[str, str] = {}
        for label, words_of in zip(labels, self.words, strict=True):
            for word in words_of:
                if word in seen:
                    raise InputError(
                        f"--data.verbalizer: {word!r} stands for {seen[word]!r} and for {label!r}; give each its own."
                    )
                seen[word] = label
