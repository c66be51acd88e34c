"""Pictures: round ticks, labels that do not overlap, colours that everybody tells apart, text for who sees none."""

import os
import random
import re
import subprocess
import sys
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from ptune.research.pictures import axes
from ptune.research.pictures.costs import Point, costs, front
from ptune.research.pictures.curves import Curve, curves
from ptune.research.pictures.drawing import COLOURS, MARKERS, STYLE, WIDTH, colour, dash, file
from ptune.research.pictures.labels import Box, cut, width

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["ManualPrompt", "PromptTuning", "PTuningV2, length 128", "LoRA", "FineTuning", "", "MMMM WWWW", "名前 名前"]


def of_costs(seed=0, rows=8):
    draw = random.Random(seed)
    return costs(
        "sst2",
        "accuracy on validation, %",
        "trained parameters",
        [
            Point(
                draw.choice(NAMES),
                draw.choice([0, 768, 92_930, 1e6, 2.2e7]),
                tuple(draw.uniform(50, 90) for _ in "ab"),
                i,
            )
            for i in range(rows)
        ],
    )


def of_curves(seed=0, rows=8):
    draw = random.Random(seed)
    return curves(
        "sst2",
        "accuracy on validation, %",
        "epoch",
        [
            Curve(
                draw.choice(NAMES),
                {x: tuple(draw.uniform(80, 82) for _ in "abc") for x in range(1, draw.randint(2, 9))},
                i,
            )
            for i in range(rows)
        ],
    )


def boxes(svg):
    """The boxes of all texts of a picture, by their estimated widths."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        x, y, wide = float(element.get("x")), float(element.get("y")), width(element.text or "")
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
        found.append((Box(left, y - 9, left + wide, y + 3), element.text))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_two_texts_overlap_and_none_is_cut_off(seed):
    for picture in (of_costs(seed, 1 + seed), of_curves(seed, 1 + seed)):
        placed = [(box, text) for box, text in boxes(file([picture])) if text]
        assert not [(a[1], b[1]) for a, b in combinations(placed, 2) if a[0].meets(b[0])]
        assert all(box.within(Box(-12, 0, WIDTH + 12, picture.height)) for box, _ in placed)
        assert len(placed) >= 6 + seed // 2  # labels are placed, not dropped


@pytest.mark.parametrize("seed", range(60))
def test_ticks_are_few_and_round_and_hold_all_values(seed):
    draw = random.Random(seed)
    low = draw.choice([0, 1, -1]) * 10 ** draw.uniform(-3, 6)
    values = [low + 10 ** draw.uniform(-4, 6) * draw.random() for _ in range(draw.randint(1, 5))]
    axis = axes.linear(values, 300, 0)
    shown = [float(text.replace(",", "")) for _, text in axis.ticks]
    steps = {round(b - a, 9) for a, b in pairwise(shown)}
    assert 2 <= len(shown) <= 6
    assert len(steps) == 1
    assert float(f"{steps.pop():.0e}"[0]) in (1, 2, 5)
    assert [axis.ticks[0][0], axis.ticks[-1][0]] == pytest.approx([300, 0], abs=1e-6)
    assert all(-1e-6 <= axis.place(value) <= 300 + 1e-6 for value in values)
    assert all(abs(axis.place(value) - at) < 1e-3 for value, (at, _) in zip(shown, axis.ticks, strict=True))


def test_whole_numbers_have_whole_ticks():
    assert [text for _, text in axes.linear([1, 2, 3], 0, 100).ticks] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([770, 22_566_146], ["1k", "10k", "100k", "1M", "10M"]),
        ([0, 770, 22_566_146], ["0", "1k", "10k", "100k", "1M", "10M"]),
        ([723, 1579], ["500", "1k", "2k"]),
        ([100, 100], ["100", "200"]),
        ([0], ["0", "1", "2"]),
        ([1, 1e12], ["1", "1k", "1M", "1B", "1T"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(values, ticks):
    axis = axes.logarithmic(values, 0, 300)
    assert [text for _, text in axis.ticks] == ticks
    assert (axis.gap is not None) == (0 in values)
    assert all(0 <= axis.place(value) <= 300 for value in values)


def test_a_logarithmic_axis_refuses_what_is_below_zero():
    with pytest.raises(ValueError, match="no place for -1"):
        axes.logarithmic([-1, 1], 0, 1)


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (92_930, "92.9k"), (999_700, "1M"), (7e9, "7B")])
def test_numbers_in_few_letters(value, text):
    assert axes.short(value) == text


def test_the_front_is_what_nothing_beats():
    rows = [Point("", cost, (quality,), 0) for cost, quality in [(1, 5), (1, 4), (2, 5), (3, 7), (3, 7), (9, 6)]]
    assert front(rows) == {0, 3, 4}


def test_the_front_is_filled_and_told():
    picture = costs("t", "q", "c", [Point("a", 1, (5.0,), 0), Point("b", 2, (4.0,), 1), Point("c", 3, (6.0,), 2)])
    marks = [m.get("class") for m in ElementTree.fromstring(file([picture])).iter(f"{SVG}path")]
    assert ["hollow" in mark for mark in marks] == [False, True, False]
    assert picture.summary.endswith("by rising cost: a, c.")
    assert [row[-1] for row in picture.rows] == ["yes", "no", "yes"]


def test_a_band_reaches_from_the_lowest_to_the_highest_seed():
    picture = curves("t", "q", "epoch", [Curve("a", {1: (0.0, 10.0), 2: (4.0, 6.0)}, 0)])
    (band,) = ElementTree.fromstring(file([picture])).iter(f"{SVG}polygon")
    heights = [float(point.split(",")[1]) for point in band.get("points").split()]
    assert (max(heights), min(heights)) == (heights[0], heights[3])
    assert picture.rows == (("a", "1", "2", "5", "0", "10"), ("a", "2", "2", "5", "4", "6"))


def test_what_is_drawn_is_told_in_words_and_numbers():
    for picture in (of_costs(), of_curves()):
        root = ElementTree.fromstring(picture.svg("p1").replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))
        assert root.get("role") == "img"
        assert root.get("aria-labelledby").split() == [root[0].get("id"), root[1].get("id")] == ["p1-title", "p1-desc"]
        assert (root[0].text, root[1].text) == (picture.title, picture.summary)
        assert all(len(row) == len(picture.columns) for row in picture.rows)
        assert picture.rows


def test_names_are_text_and_no_markup():
    evil = "</text><script>alert(1)</script>\"'&\u202e\n"
    for picture in (
        costs(evil, evil, evil, [Point(evil, 1, (1.0,), 0)]),
        curves(evil, evil, evil, [Curve(evil, {0: (1.0,)}, 0)], [evil]),
    ):
        svg = file([picture])
        ElementTree.fromstring(svg)
        assert "<script" not in svg
        assert "\u202e" not in svg


def test_the_same_numbers_give_the_same_bytes():
    code = "import test_pictures as t; print(t.file([t.of_costs(), t.of_curves()]))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)]),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert found == {file([of_costs(), of_curves()]) + "\n"}


def test_a_long_name_is_cut():
    assert cut("FineTuning", 200) == "FineTuning"
    short = cut("a rather long name of a row", 60)
    assert short.endswith("…")
    assert width(short) <= 60


def palette():
    """The colours by name, light and dark, as RGB from 0 to 1."""
    found = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", STYLE.read_text())
    return {name: [_rgb(value) for value in values] for name, *values in found}


def _rgb(text):
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    return np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def _light(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2's contrast of two colours."""
    low, high = sorted(_light(x) @ [0.2126, 0.7152, 0.0722] for x in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out(dark):
    colours = {name: pair[dark] for name, pair in palette().items()}
    assert contrast(colours["ink"], colours["paper"]) > 7
    assert contrast(colours["soft"], colours["paper"]) > 4.5
    assert all(contrast(colours[f"c{i}"], colours["paper"]) > 3 for i in range(COLOURS))


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "nobody": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("eyes", BLIND)
@pytest.mark.parametrize("dark", [False, True])
def test_colours_differ_for_all_eyes(eyes, dark):
    def lab(rgb):
        seen = np.clip(np.array(BLIND[eyes]) @ _light(rgb), 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        x, y, z = np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-4) ** (1 / 3)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    colours = [lab(palette()[f"c{i}"][dark]) for i in range(COLOURS)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 15


def test_rows_differ_by_colour_dashes_or_marker():
    looks = {(colour(i), dash(i), MARKERS[i % len(MARKERS)]) for i in range(140)}
    assert len(looks) == 140
    assert {f"c{i}" for i in range(COLOURS)} == {name for name in palette() if name[1:].isdigit()}


def test_converters_that_do_not_know_variables_have_colours():
    uses = re.findall(r"([\w-]+): [^;{]*;? ?\1: var|[\w-]+: var", STYLE.read_text())
    assert len(uses) > 10
    assert all(uses)
