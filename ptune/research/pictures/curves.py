"""Curves: a metric over epochs, an option or the layers, one line a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import final

from ptune.research.pictures.axes import linear, named
from ptune.research.pictures.drawing import WIDTH, Picture, colour, coordinates, dash, line, marker, tag, word
from ptune.research.pictures.frame import TOP, Frame, margin, numbers, tip
from ptune.research.pictures.labels import LINE, Box, cut, spread, width

HEIGHT = 190
"""Height of the area, if the labels do not need more."""
LABEL = 145
"""Greatest width of a label; the numbers of the picture have the whole name."""
MARKED = 6
"""Greatest number of points on a curve that have a marker each; its label has one in any case."""


@final
@dataclass(frozen=True)
class Curve:
    """The values of one row."""

    name: str
    points: dict[float, tuple[float, ...]]
    """For each x the values of all its seeds; at least one x with one value."""
    look: int
    """Number of its colour, dashes and marker; a configuration has the same one in all pictures."""

    @property
    def last(self) -> tuple[float, float]:
        """The greatest x, and the mean there."""
        x = max(self.points)
        return x, mean(self.points[x])


def curves(title: str, quantity: str, over: str, rows: Sequence[Curve], names: Sequence[str] = ()) -> Picture:
    """Means over seeds as lines, in bands from the lowest to the highest value.

    Args:
        title: what the picture shows.
        quantity: what the values are, with their unit.
        over: what x is.
        rows: the curves, at least one.
        names: for an x that is no number, the names that x counts from 0.
    """
    labels = [cut(row.name, LABEL) for row in rows]
    bottom = TOP + max(HEIGHT, LINE * len(rows))
    y = linear([value for row in rows for values in row.points.values() for value in values], bottom, TOP)
    area = Box(margin(y), TOP, WIDTH - max(map(width, labels)) - 24, bottom)
    xs = sorted({x for row in rows for x in row.points})
    x = named(names, area.left, area.right) if names else linear(xs, area.left + 4, area.right - 4)
    frame = Frame(area, x, y)
    drawn = [_curve(row, frame) for row in rows]
    ends = [(x.place(at), y.place(value)) for at, value in (row.last for row in rows)]
    heights = spread([height for _, height in ends], TOP, bottom)
    for row, label, end, height in zip(rows, labels, ends, heights, strict=True):
        drawn.append(line([end, (area.right + 8, height)], f"leader {colour(row.look)}"))
        drawn.append(marker(area.right + 13, height, row.look) + word(area.right + 22, height + 4, label))
    seeds = max(len(values) for row in rows for values in row.points.values())
    band = f"Means of up to {seeds} runs; bands reach from the lowest to the highest. " if seeds > 1 else ""
    best = max(rows, key=lambda row: row.last[1])
    return Picture(
        title,
        f"{quantity}, over {over}. {band}{best.name} ends highest, at {best.last[1]:.4g}.",
        frame.height,
        frame.elements(title, over, quantity) + "".join(drawn),
        ("row", over, "runs", "mean", "lowest", "highest"),
        tuple(
            (row.name, names[int(at)] if names else f"{at:g}", *numbers(values))
            for row in rows
            for at, values in sorted(row.points.items())
        ),
    )


def _curve(row: Curve, frame: Frame) -> str:
    """Band, line and markers of a row."""
    x, y, points = frame.x.place, frame.y.place, sorted(row.points.items())
    low, high = ([(x(at), y(end(values))) for at, values in points] for end in (min, max))
    band = tag("polygon", points=coordinates(low + high[::-1]), class_="band") if low != high else ""
    way = line([(x(at), y(mean(values))) for at, values in points], "curve", dash(row.look))
    marked = points if len(points) <= MARKED else []
    marks = [marker(x(at), y(mean(values)), row.look, tip=tip(row.name, values)) for at, values in marked]
    return tag("g", band, way, *marks, class_=colour(row.look))
