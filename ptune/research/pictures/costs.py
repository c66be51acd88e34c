"""Quality against cost, with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import final

from ptune.research.pictures.axes import linear, logarithmic, short
from ptune.research.pictures.drawing import WIDTH, Picture, colour, line, marker, word
from ptune.research.pictures.frame import TOP, Frame, margin, numbers, tip
from ptune.research.pictures.labels import LINE, Box, cut, place

HEIGHT = 190
"""Height of the area."""
LABEL = 200
"""Greatest width of a label; the numbers of the picture have the whole name."""


@final
@dataclass(frozen=True)
class Point:
    """The quality of one row, and what it costs."""

    name: str
    cost: float
    values: tuple[float, ...]
    """Quality of all its seeds, at least one."""
    look: int
    """Number of its colour and marker; a configuration has the same one in all pictures."""


def costs(title: str, quantity: str, cost: str, rows: Sequence[Point]) -> Picture:
    """Means over seeds, with bars from the lowest to the highest value, against the cost on a logarithmic axis.

    A marker is filled where its row is on the Pareto front, which a dotted line follows.

    Args:
        title: what the picture shows.
        quantity: what the values are, with their unit; higher is better.
        cost: what the costs are, with their unit.
        rows: the points, at least one.
    """
    y = linear([value for row in rows for value in row.values], TOP + HEIGHT, TOP + 8)
    area = Box(margin(y), TOP, WIDTH, TOP + HEIGHT)
    x = logarithmic([row.cost for row in rows], area.left + 12, area.right - 16)
    frame, best = Frame(area, x, y), front(rows)
    points = [(x.place(row.cost), y.place(mean(row.values))) for row in rows]
    steps = _steps([points[i] for i in best], area.right)
    drawn, taken = (
        [line(steps, "front")],
        [Box(a, min(b, d) - 2, c, max(b, d) + 2) for (a, b), (c, d) in pairwise(steps)],
    )
    for i, (row, (at, middle)) in enumerate(zip(rows, points, strict=True)):
        low, high = y.place(min(row.values)), y.place(max(row.values))
        drawn.append(line([(at, low), (at, high)], f"bar {colour(row.look)}"))
        drawn.append(marker(at, middle, row.look, i not in best, f"{tip(row.name, row.values)} at {short(row.cost)}"))
        taken += [Box(at - 6, middle - 6, at + 6, middle + 6), Box(at - 2, high, at + 2, low)]
    labels = [cut(row.name, LABEL) for row in rows]
    bottom = frame.height
    boxes = place(labels, points, taken, area)
    for row, label, point, box in zip(rows, labels, points, boxes, strict=True):
        if box is None:  # there is no room near its point: a legend below
            bottom += LINE
            drawn.append(marker(area.left + 6, bottom - 4, row.look) + word(area.left + 18, bottom, label))
        else:
            drawn.append(_leader(point, box, row.look) + word(box.left, box.bottom - 3.5, label, "halo"))
    return Picture(
        title,
        f"{quantity}, against {cost}. On the Pareto front, by rising cost: "
        f"{', '.join(rows[i].name for i in sorted(best, key=lambda i: rows[i].cost))}.",
        bottom + LINE / 2,
        frame.elements(title, cost, quantity) + "".join(drawn),
        ("row", cost, "runs", "mean", "lowest", "highest", "on the front"),
        tuple(
            (row.name, f"{row.cost:,.6g}", *numbers(row.values), "yes" if i in best else "no")
            for i, row in enumerate(rows)
        ),
    )


def front(rows: Sequence[Point]) -> set[int]:
    """Numbers of the rows on the Pareto front: no other is at least as good for no higher cost and better in one."""
    found = [(row.cost, -mean(row.values)) for row in rows]
    return {
        i for i, own in enumerate(found) if not any(a <= own[0] and b <= own[1] and (a, b) != own for a, b in found)
    }


def _steps(points: Sequence[tuple[float, float]], right: float) -> list[tuple[float, float]]:
    """The corners of a line from each point of the front to the next, and on to the right end."""
    points = sorted(points)
    corners = [corner for a, b in pairwise(points) for corner in (a, (b[0], a[1]))]
    return [*corners, points[-1], (right, points[-1][1])]


def _leader(point: tuple[float, float], box: Box, look: int) -> str:
    """A line from a point to a label that does not stand right beside it."""
    end = min(max(point[0], box.left), box.right), min(max(point[1], box.top + 2), box.bottom - 2)
    far = abs(end[0] - point[0]) + abs(end[1] - point[1])
    return line([point, end], f"leader {colour(look)}") if far > 14 else ""
