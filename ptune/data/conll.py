"""Column files of the CoNLL shared tasks: a word a line with its tags, an empty line after each sentence."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ptune.errors import InputError

SUFFIXES = (".conll", ".conllu", ".bio", ".iob", ".iob2", ".txt")
"""How the names of such files end."""
WORDS, TAGS = "tokens", "tags"
"""The columns of a row: the words, and the file's last column."""

BEGIN = "-DOCSTART-"
"""Word of the line that begins a document."""
COMMENT = re.compile(r"#\s*[^\t=]+ = |#\s*new(doc|par)\b")
"""A comment as CoNLL-U has it."""
GAP = re.compile(r"[ \t]+")
"""Only these part columns: a word may hold any other white space."""


def rows(lines: Iterable[str], file: Path, tagged: bool = True) -> Iterator[tuple[int, dict]]:
    """The sentences of a file, each with the line of its first word.

    A row has the columns `tokens`, `tags` (the last column), and, where there are more than two, all columns by their
    numbers: "1", "2", ... Columns are parted by a tab where the first line of words has one, else by spaces. In CoNLL-U
    (ten columns, the first a number) the words are column 2, and ranges (1-2) and empty nodes (1.1) are left out.
    `-DOCSTART-` lines are left out, and so are comments: lines that begin with #, stand above a sentence, and read
    `# key = value` or have another number of columns than the words.

    Args:
        lines: the file's lines with their ends.
        file: named in errors.
        tagged: whether there must be tags; else a file of one column has words alone.

    Raises:
        InputError: a line has another number of columns than the first one, or tags are missing.
    """
    lines = [line.rstrip("\r\n\t ") for line in lines]
    first = next((line for line in lines if line and line[0] != "#" and not line.startswith(BEGIN)), "")
    tabs = "\t" in first
    columns = len(_fields(first, tabs))
    numbers = columns == 10 and tabs and first.split("\t")[0].replace("-", "").replace(".", "").isdecimal()
    sentence: list[list[str]] = []
    start = 0
    for number, line in enumerate([*lines, ""], start=1):
        if not line or line.startswith(BEGIN):
            if sentence:
                yield start, _row(sentence, numbers)
            sentence = []
            continue
        fields = _fields(line, tabs)
        if line[0] == "#" and not sentence and (COMMENT.match(line) or len(fields) != columns):
            continue
        if len(fields) != columns or (tagged and columns == 1):
            what = f"{len(fields)} column{'s' * (len(fields) != 1)}"
            where = f" where the first line has {columns}" if len(fields) != columns else ""
            raise InputError(
                f"{file}, line {number}: {what}{where}, in {line!r:.40}; give a word and its tags, parted by "
                f"{'a tab' if tabs else 'a space or a tab'}, on each line."
            )
        if not numbers or fields[0].isdecimal():
            start = start if sentence else number
            sentence.append(fields)


def _fields(line: str, tabs: bool) -> list[str]:
    return [field.strip(" ") for field in line.split("\t")] if tabs else GAP.split(line.strip(" \t"))


def _row(sentence: list[list[str]], numbers: bool) -> dict[str, list[str]]:
    columns = [list(column) for column in zip(*sentence, strict=True)]
    numbered = {str(i): column for i, column in enumerate(columns, start=1)} if len(columns) > 2 else {}
    tags = {TAGS: columns[-1]} if len(columns) > 1 else {}
    return {WORDS: columns[1 if numbers else 0]} | tags | numbered
