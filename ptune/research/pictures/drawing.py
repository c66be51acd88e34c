"""SVG elements, and `Picture`: one drawing with its text alternative and its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import final

from ptune.errors import printable
from ptune.research.pictures.labels import LINE

WIDTH = 400
"""Width of every picture; its text is readable where a unit is 0.9 pixels or more."""
MARGIN = 12
"""Empty space around the pictures of a file."""
STYLE = Path(__file__).with_name("picture.css")
"""Colours and lines of all pictures, light and dark."""
COLOURS = 5
"""Number of colours in STYLE: those of Okabe & Ito (2008) that stand out from the paper, so no yellow."""
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MARKERS = (
    "M4 0A4 4 0 1 1 -4 0A4 4 0 1 1 4 0Z",  # circle
    "M-3.5 -3.5H3.5V3.5H-3.5Z",  # square
    "M0 -4.8L4.6 3.6H-4.6Z",  # triangle
    "M0 -5L5 0L0 5L-5 0Z",  # diamond
    "M0 4.8L4.6 -3.6H-4.6Z",  # triangle that points down
    "M-1.6 -4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z",  # cross
    "M0 -5L1.5 -1.8L4.8 -1.5L2.3 .8L3 4.3L0 2.5L-3 4.3L-2.3 .8L-4.8 -1.5L-1.5 -1.8Z",  # star
)
"""Dashes and markers, so that no two of many rows look alike where their colours do: the counts share no divisor."""


@final
@dataclass(frozen=True)
class Picture:
    """A drawing, 400 units wide."""

    title: str
    """What it shows, in a few words; written above the drawing."""
    summary: str
    """What is to be seen in it, in whole sentences: the alternative for who does not see it."""
    height: float
    body: str
    """SVG elements."""
    columns: tuple[str, ...]
    """Names of the columns of its numbers."""
    rows: tuple[tuple[str, ...], ...]
    """Its numbers."""

    def svg(self, name: str) -> str:
        """The picture as an element of a page, which has STYLE; `name` is its own within the page."""
        return tag(
            "svg",
            tag("title", text(self.title), id=f"{name}-title"),
            tag("desc", text(self.summary), id=f"{name}-desc"),
            self.body,
            class_="picture",
            role="img",
            viewBox=f"0 0 {WIDTH} {number(self.height)}",
            aria_labelledby=f"{name}-title {name}-desc",
        )


def file(pictures: Sequence[Picture]) -> str:
    """A file with pictures, more than two in two columns, light or dark as its reader's system is."""
    columns = 1 if len(pictures) <= 2 else 2
    bottom, bodies = 0.0, []
    for first in range(0, len(pictures), columns):
        row = pictures[first : first + columns]
        for i, picture in enumerate(row):
            place = f"{number(i * (WIDTH + 2 * LINE))} {number(bottom)}"
            bodies.append(tag("g", picture.body, transform=f"translate({place})"))
        bottom += max(picture.height for picture in row) + 2 * LINE
    width, height = columns * (WIDTH + 2 * LINE) - 2 * LINE + 2 * MARGIN, bottom - 2 * LINE + 2 * MARGIN
    return tag(
        "svg",
        tag("title", text("; ".join(picture.title for picture in pictures)), id="title"),
        tag("desc", text(" ".join(f"{picture.title}: {picture.summary}" for picture in pictures)), id="desc"),
        tag("style", STYLE.read_text(encoding="utf-8")),
        tag("rect", class_="paper", x=-MARGIN, y=-MARGIN, width=width, height=height),
        *bodies,
        class_="picture",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
        width=1.2 * width,
        height=1.2 * height,
        viewBox=f"{-MARGIN} {-MARGIN} {width} {number(height)}",
        aria_labelledby="title desc",
    )


def tag(name: str, *inside: str, **attributes: str | float) -> str:
    """An element with elements or escaped text inside; `_` in the name of an attribute is `-`, `class_` is `class`."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{shown}>{''.join(inside)}</{name}>" if inside else f"<{name}{shown}/>"


def text(value: object) -> str:
    """Any text as SVG and HTML take it."""
    return escape(printable(value))


def number(value: float) -> str:
    """A coordinate to a tenth of a unit."""
    return f"{round(value, 1) + 0.0:g}"  # adding 0 turns -0 into 0


def word(x: float, y: float, value: object, class_: str = "", anchor: str = "start") -> str:
    """A text whose letters stand on y."""
    return tag("text", text(value), x=x, y=y, **_class(class_), text_anchor=anchor)


def line(points: Sequence[tuple[float, float]], class_: str, dash: str = "") -> str:
    """A line through points."""
    return tag("polyline", points=coordinates(points), class_=class_, **({"stroke_dasharray": dash} if dash else {}))


def coordinates(points: Sequence[tuple[float, float]]) -> str:
    """Points as elements of SVG take them."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def marker(x: float, y: float, i: int, hollow: bool = False, tip: str = "") -> str:
    """The marker of the i-th row, and what is shown where the pointer rests on it."""
    inside = (tag("title", text(tip)),) if tip else ()
    shape = {"d": MARKERS[i % len(MARKERS)], "transform": f"translate({number(x)} {number(y)})"}
    return tag("path", *inside, class_=f"mark{' hollow' * hollow} {colour(i)}", **shape)


def colour(i: int) -> str:
    """The class of the i-th row's colour."""
    return f"c{i % COLOURS}"


def dash(i: int) -> str:
    """The dashes of the i-th row's line."""
    return DASHES[i % len(DASHES)]


def _class(name: str) -> dict[str, str]:
    return {"class_": name} if name else {}
