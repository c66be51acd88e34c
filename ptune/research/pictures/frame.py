"""The frame of a picture: title, axes with ticks, and the area between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import final

from ptune.research.pictures.axes import Axis
from ptune.research.pictures.drawing import WIDTH, line, tag, word
from ptune.research.pictures.labels import LINE, Box, cut, width

TOP = 44
"""Height of title and name of the vertical axis."""
BOTTOM = 38
"""Height of ticks and name of the horizontal axis."""


@final
@dataclass(frozen=True)
class Frame:
    """Where the drawing is."""

    area: Box
    x: Axis
    y: Axis

    @property
    def height(self) -> float:
        """Of the whole picture."""
        return self.area.bottom + BOTTOM

    def elements(self, title: str, x_name: str, y_name: str) -> str:
        """Title, grid, axes, ticks and their names; ticks of the horizontal axis that would overlap are left out."""
        area, y = self.area, self.area.bottom
        drawn = [word(0, 13, cut(title, WIDTH), "title"), word(0, 30, cut(y_name, WIDTH), "soft")]
        for place, name in self.y.ticks:
            drawn.append(line([(area.left, place), (area.right, place)], "rule"))
            drawn.append(word(area.left - 6, place + 4, name, "soft", "end"))
        drawn.append(line([(area.left, y), (area.right, y)], "base"))
        end = -1e9
        for place, name in self.x.ticks:
            half = width(name) / 2
            middle = min(max(place, half), WIDTH - half)
            if middle - half >= end:
                drawn.append(line([(place, y), (place, y + 4)], "base"))
                drawn.append(word(middle, y + 17, name, "soft", "middle"))
                end = middle + half + 6
        if self.x.gap is not None:  # two strokes that break the axis
            for x in (self.x.gap - 2, self.x.gap + 2):
                drawn.append(line([(x - 2, y + 4), (x + 2, y - 4)], "base"))
        drawn.append(word(area.right, y + 17 + LINE + 2, cut(x_name, WIDTH), "soft", "end"))
        return tag("g", *drawn)


def margin(axis: Axis) -> float:
    """Width of what stands left of a vertical axis."""
    return max(width(name) for _, name in axis.ticks) + 8


def numbers(values: Sequence[float]) -> tuple[str, ...]:
    """How many values there are, their mean, the lowest and the highest, as a picture's table has them."""
    return (str(len(values)), *(f"{value:,.4g}" for value in (mean(values), min(values), max(values))))


def tip(name: str, values: Sequence[float]) -> str:
    """What is shown where the pointer rests on a marker."""
    _, middle, low, high = numbers(values)
    return f"{name}: {middle}" + (f" ({low} to {high})" if len(values) > 1 else "")
