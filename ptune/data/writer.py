"""Rows written as token ids, in the form of a template."""

import re
from collections.abc import Mapping, Sequence
from typing import final

from transformers import PreTrainedTokenizerBase

from ptune.backbone.tokenizer import Frame, pieces, stand_in
from ptune.errors import InputError
from ptune.tasks.templates import Template


@final
class Writer:
    """Writes texts with special tokens, slots and the positions of the answer, and cuts the columns to the budget.

    Args:
        template: the template.
        tokenizer: the backbone's tokenizer.
        causal: whether the model predicts the token after those it has read.
        budget: largest number of tokens in a text, everything included.
        slots: number of the method's slots; they precede the text where the template has none.
        front: tokens put before every text (demonstrations).

    Raises:
        InputError: the template's own words leave too few tokens for the columns, or its number of slots is not the
            method's.
    """

    MIN_FREE = 8
    """Smallest number of tokens that must be left for all columns together."""

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        causal: bool,
        budget: int,
        slots: int = 0,
        front: Sequence[int] = (),
    ) -> None:
        if template.slots and template.slots != slots:
            raise InputError(
                f"--data.template {template.text!r} has {template.slots} slots, but the method fills {slots}; "
                + (
                    f"use --model.length {template.slots}."
                    if slots
                    else "leave them out, or choose a method with slots."
                )
            )
        self.template, self.tokenizer, self.causal, self.budget = template, tokenizer, causal, budget
        self.slots = slots
        self.frame = Frame.of(tokenizer)
        self.parts = template.before_mask() if causal else template.parts
        self.front = list(front)
        self.literals = [
            pieces(tokenizer, [part.text], self._spaced(i))[0] if part.kind == "text" else []
            for i, part in enumerate(self.parts)
        ]
        own = self._own()
        self.free = budget - own
        """Number of tokens left for the columns and the fill of the mask."""
        if self.free < self.MIN_FREE:
            raise InputError(
                f"--data.max_length {budget}: template, slots{' and demonstrations' if front else ''} take {own} "
                f"tokens, which leaves {max(self.free, 0)} for the columns; raise it by {self.MIN_FREE - self.free} or "
                "more."
            )

    def _own(self) -> int:
        marks = len(self.frame.begin) + (0 if self.causal else len(self.frame.end)) + len(self.front)
        seps = sum(part.kind == "sep" for part in self.parts) * len(self.frame.between)
        return marks + seps + self.slots + sum(map(len, self.literals))

    def columns(self, rows: Sequence[Mapping[str, str]]) -> list[dict[int, list[int]]]:
        """The tokens of each row's columns, by the index of their part of the template."""
        found = {
            i: pieces(self.tokenizer, [row[part.text] for row in rows], self._spaced(i))
            for i, part in enumerate(self.parts)
            if part.kind == "column"
        }
        return [{i: ids[row] for i, ids in found.items()} for row in range(len(rows))]

    def _spaced(self, i: int) -> bool:
        return bool(self.parts[i].lead or (self.front and not i))

    def write(self, columns: Mapping[int, list[int]], fill: Sequence[int]) -> dict[str, list]:
        """One text: `input_ids`, `token_type_ids`, `slots` (bool) of its tokens; `answer_at`, the positions to read.

        Args:
            columns: tokens of the columns, cut here, the longest first, until the text fits.
            fill: tokens at the place of the mask.

        Raises:
            InputError: `fill` alone has more than `free` tokens.
        """
        if len(fill) > self.free:
            raise InputError(
                f"--data.max_length {self.budget}: an answer takes {len(fill)} tokens where the template leaves "
                f"{self.free}; raise it by {len(fill) - self.free} or more."
            )
        cut = _fit(columns, self.free - len(fill))
        frame, loose = self.frame, 0 if self.template.slots else self.slots
        ids = [*frame.begin, *[stand_in(self.tokenizer)] * loose, *self.front]
        slots = [False] * len(frame.begin) + [True] * loose + [False] * len(self.front)
        types, segment, at = [frame.first] * len(ids), frame.first, 0
        for i, part in enumerate(self.parts):
            match part.kind:
                case "text":
                    new = self.literals[i]
                case "column":
                    new = cut[i]
                case "slots":
                    new = [stand_in(self.tokenizer)] * part.count
                case "sep":
                    new = frame.between
                case _:
                    if (
                        not ids
                    ):  # empty columns and no special first token: a causal model needs one token to predict from
                        ids, slots, types = [stand_in(self.tokenizer)], [False], [segment]
                    at, new = len(ids), list(fill)
            ids += new
            slots += [part.kind == "slots"] * len(new)
            types += [segment] * len(new)
            segment = frame.second if part.kind == "sep" else segment
        if not self.causal:
            ids += frame.end
            slots += [False] * len(frame.end)
            types += [segment] * len(frame.end)
        first = at - self.causal  # a causal model predicts a token at the position of the one before
        text = {"input_ids": ids, "slots": slots, "answer_at": list(range(first, at + len(fill)))}
        return text | ({"token_type_ids": types} if frame.typed else {})

    def text(self, row: Mapping[str, str], word: str) -> str:
        """The row and its answer as plain text, without slots: a demonstration."""
        said = {"text": lambda part: part.text, "column": lambda part: row[part.text], "mask": lambda part: word}
        texts = [said[part.kind](part) if part.kind in said else "" for part in self.template.parts]
        leads = [part.lead if part.kind in said else " " for part in self.template.parts]
        return re.sub(" +", " ", "".join(lead + text for lead, text in zip(leads, texts, strict=True))).strip()


def _fit(columns: Mapping[int, list[int]], free: int) -> dict[int, list[int]]:
    """Columns cut at their ends to `free` tokens in all (0 or more), always the longest first."""
    lengths = {i: len(ids) for i, ids in columns.items()}
    while sum(lengths.values()) > free:
        longest = max(lengths, key=lengths.__getitem__)
        second = max([length for i, length in lengths.items() if i != longest], default=0)
        over = sum(lengths.values()) - free
        lengths[longest] -= min(over, max(lengths[longest] - second, 1))
    return {i: ids[: lengths[i]] for i, ids in columns.items()}
