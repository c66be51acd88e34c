"""Lists that a CSV file holds as texts, as pandas writes them: `['a', 'b']`."""

import ast
import json
import re
from contextlib import suppress

from ptune.errors import InputError

ITEM = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?[0-9]+)"""
"""A text in quotation marks or a whole number, as Python and JSON write them."""
LIST = re.compile(rf"\[(?:\s*{ITEM}\s*(?:,\s*{ITEM}\s*)*)?\]", re.DOTALL)
"""A list as Python and JSON write it. Python itself also takes two texts without a comma, and joins them."""
OF_TEXTS = re.compile(r"\[(?:['\"].*)?\]", re.DOTALL)
"""What looks like a list of texts; `[ ' Yes ' ]`, with a space behind the bracket, is five words."""
OF_CODES = re.compile(r"\[\s*-?[0-9]+(?:[\s,.].*)?\]", re.DOTALL)
"""What looks like a list of numbers."""


def written_list(name: str, text: str, codes: bool = False) -> list[str | int] | None:
    """The list that a text is, as pandas writes lists into a CSV file: `['a', 'b']`; None for any other text.

    Args:
        name: the column, for an error.
        text: what stands in it.
        codes: whether the column may hold codes, so that `[1, 0]` is a list, too; among words, `[1]` is a word.

    Raises:
        InputError: the text looks like a list and is none of texts and whole numbers, such as that of an array, which
            has no commas.
    """
    text = text.strip()
    if not (OF_TEXTS.fullmatch(text) or (codes and OF_CODES.fullmatch(text))):
        return None
    if LIST.fullmatch(text):
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError):
                found = read(text)
                json.dumps(found, ensure_ascii=False).encode()  # no tokenizer can read half of a surrogate pair
                return found
    raise InputError(
        f"column {name!r}: {text!r:.40} looks like a list and is none; save the file as JSON lines or Parquet."
    )
