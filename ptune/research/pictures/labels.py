"""Labels of pictures: how wide a text is, and places where no two overlap."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

SIZE = 12
"""Height of a letter's box, in units of a picture that is 400 wide."""
LINE = 14
"""Distance between two lines of text."""
WIDTHS = {"ijl.,:;'|! ": 0.34, "frtI()[]/-": 0.46, "mwMW@%—…": 1.0, "ABCDEFGHJKLNOPQRSTUVXYZ_±": 0.76}
"""Widths of letters in parts of their size, at least those of DejaVu Sans, a wide font; any other has 0.65."""


@final
@dataclass(frozen=True)
class Box:
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: "Box") -> bool:
        """Whether it lies inside the other."""
        return (
            other.left <= self.left
            and other.top <= self.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


def width(text: str) -> float:
    """The width of a text in letters of SIZE, not less than it has in common fonts."""
    return SIZE * sum(_width(letter) for letter in text)


def _width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return next((part for letters, part in WIDTHS.items() if letter in letters), 0.65)


def cut(text: str, most: float) -> str:
    """A text that is at most so wide; the end of a longer one is an ellipsis."""
    if width(text) <= most:
        return text
    while text and width(text + "…") > most:
        text = text[:-1]
    return text.rstrip() + "…"


def spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights near the wanted ones, each a LINE or more from the next, between low and high if there is room.

    Where there is not, they go on beyond `high`.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    places, free = list(wanted), low
    for i in order:
        places[i] = max(wanted[i], free)
        free = places[i] + LINE
    room = max(high, low + LINE * (len(wanted) - 1))
    for i in reversed(order):
        places[i] = min(places[i], room)
        room = places[i] - LINE
    return places


def place(
    texts: Sequence[str], points: Sequence[tuple[float, float]], taken: Sequence[Box], area: Box
) -> list[Box | None]:
    """A box for each text near its point, greedily: it meets no other label and nothing taken, and lies in the area.

    The highest point is the first. The places tried are right, left, above and below of a point, then farther ones; a
    text that fits nowhere has None.
    """
    placed: dict[int, Box] = {}
    for i in sorted(range(len(texts)), key=lambda i: (points[i][1], i)):
        used = [*taken, *placed.values()]
        for box in _around(points[i], width(texts[i]), area):
            if box.within(area) and not any(box.meets(other) for other in used):
                placed[i] = box
                break
    return [placed.get(i) for i in range(len(texts))]


def _around(point: tuple[float, float], wide: float, area: Box) -> Iterator[Box]:
    """Boxes around a point, the best first, moved sideways into the area."""
    x, y = point
    for far in (8.0, 16.0, 28.0, 42.0, 60.0):
        for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            left = min(max(x + dx * far - wide * (1 - dx) / 2, area.left), area.right - wide)
            middle = y + dy * (far + LINE / 2 - 2)
            yield Box(left, middle - LINE / 2, left + wide, middle + LINE / 2)
