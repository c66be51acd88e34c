"""Grids whose cells start processes of their own, and grids that Ctrl-C stops: what runs, ends, and nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grids
import pytest


class Grid:
    """A grid as a terminal starts it: a session of its own, all processes of which get Ctrl-C."""

    def __init__(self, file: Path, place: Path, *words: str) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        line = [sys.executable, "-m", "ptune.grid", str(file), "--runs", str(place), "--workers", "2", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(line, env=environment, start_new_session=True, **pipes)

    def wait(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err

    def left(self) -> list[str]:
        """The processes of its session, but for those that end within the next seconds."""
        until = time.monotonic() + 20
        while True:
            lines = subprocess.run(["ps", "-eo", "sess=,stat=,args="], capture_output=True, text=True).stdout
            found = [line.split(maxsplit=2) for line in lines.splitlines()]
            alive = [args for session, state, args in found if session == str(self.process.pid) and state[0] != "Z"]
            if not alive or time.monotonic() > until:
                return alive
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("option", [{"trainer.devices": [2]}, {"data.workers": [1]}], ids=str)
def test_cells_with_processes_of_their_own_run_beside_each_other(tmp_path, option):
    file = grids.grid(tmp_path, **option)
    for place, words in {"two": (), "one": ("--workers", "1")}.items():
        grid = Grid(file, tmp_path / place, *words)
        code, out, err = grid.wait()
        assert (code, err) == (0, ""), out
        assert "2 of 2 cells are done" in out
        assert grid.left() == []
    assert grids.results(tmp_path / "two") == grids.results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("on", ["local", "ray"])
def test_ctrl_c_stops_the_runs_at_their_steps_and_the_same_command_goes_on(tmp_path, on):
    if on == "ray":
        pytest.importorskip("ray", reason="needs the extra ptune[ray]")
    file = grids.grid(tmp_path, seed=[1, 2], **{"trainer.max_epochs": [6]})
    assert Grid(file, tmp_path / "whole").wait()[0] == 0
    grid, place = Grid(file, tmp_path / "runs", "--on", on), tmp_path / "runs"
    while grid.process.poll() is None and len(list(place.rglob("last.ckpt"))) < 2:
        time.sleep(0.05)
    os.killpg(grid.process.pid, signal.SIGINT)
    code, out, err = grid.wait()
    assert code == 130, out + err
    (line,) = err.splitlines()
    assert line.startswith("stopped by SIGINT with ")
    assert line.endswith(" of 4 cells done; the same command goes on.")
    assert grid.left() == []
    assert not list(place.rglob("failed.json"))
    assert len(grids.results(place)) < 4
    code, out, err = Grid(file, place, "--on", on).wait()
    assert code == 0, out + err
    assert grids.results(place) == grids.results(tmp_path / "whole")
    assert grids.repeated(place) == 0
