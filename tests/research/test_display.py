"""What a grid shows while it runs."""

import io
from pathlib import Path

import pytest

from ptune.research import display
from ptune.research.attempt import End
from ptune.research.cells import Cell
from ptune.research.display import Display, duration


def cell(name):
    return Cell({"seed": name}, (), Path(name), "")


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_cell_has_the_counts_and_the_time_left(clock, capsys):
    with Display(5, done=1) as shown:
        for name in ("a", "b"):
            shown.show(cell(name))
        clock[0] = 100.0
        shown.show(End(cell("a"), ""))
        clock[0] = 200.0
        shown.show(End(cell("b"), "a mistake."))
    found = capsys.readouterr()
    assert found.out.splitlines() == [
        "done   a   [2 of 5 done, 0 failed, 1 running, about 5 min left]",
        "failed b   [2 of 5 done, 1 failed, 0 running, about 3 min left]",
    ]
    assert found.err == "", "a bar is for terminals"
    assert [end.error for end in shown.failed] == ["a mistake."]


def test_a_terminal_has_a_bar_too(clock, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Display(2) as shown:
        shown.show(cell("a"))
        shown.show(End(cell("a"), ""))
    assert "1/2" in terminal.getvalue()
    assert "running=0" in terminal.getvalue()
    assert "done   a   [1 of 2 done" in capsys.readouterr().out


def test_a_time_is_told_in_the_largest_unit_that_it_has_two_of():
    assert [duration(seconds) for seconds in (0, 119, 120, 7199, 7200, 90000)] == [
        *("0 s", "119 s", "2 min", "120 min"),
        *("2.0 h", "25.0 h"),
    ]
