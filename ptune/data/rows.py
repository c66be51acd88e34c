"""`Rows`: the rows of one split as published, with their file and lines."""

from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True)
class Rows:
    """The rows of one split as published, with their file and lines."""

    rows: list[dict]
    origin: str
    """The file, or the hub's name of the split."""
    lines: list[int] = field(default_factory=list)
    """Line number of each row in a text file, from 1; empty where rows have none."""

    def where(self, i: int) -> str:
        """The place of row `i`, with which an error sentence begins."""
        return f"{self.origin}, line {self.lines[i]}" if self.lines else f"{self.origin}, row {i + 1}"

    def take(self, places: list[int]) -> "Rows":
        """The rows with these numbers, from 0, in this order."""
        return Rows([self.rows[i] for i in places], self.origin, [self.lines[i] for i in places] if self.lines else [])
