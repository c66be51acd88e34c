"""`Rows`: the rows of one split as published, with their places."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

Placed = Iterator[tuple[str, dict]]
"""Rows as published, each with its place in the file, such as "line 3" or "row 3", from 1."""


@final
@dataclass(frozen=True)
class Rows:
    """The rows of one split as published. They are read anew each time, so that a large file is never in memory."""

    origin: str
    """The file, or the hub's name of the split; an error sentence begins with it and the place."""
    read: Callable[[], Placed]
    """Reads them; an InputError names the place of what cannot be read."""
    digest: Callable[[], str]
    """Digest of the content they are read from, wherever it lies."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the codes 0, 1, ... in a column, where a Dataset has them."""

    @cached_property
    def _all(self) -> list[tuple[str, dict]]:
        return list(self.read())

    @property
    def rows(self) -> list[dict]:
        """All rows, in memory."""
        return [row for _, row in self._all]

    def where(self, i: int) -> str:
        """The place of row `i`, from 0, with which an error sentence begins."""
        return f"{self.origin}, {self._all[i][0]}"
