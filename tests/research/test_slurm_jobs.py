"""Cells as jobs of a real Slurm, where there is one: its queue, signals and time limits, with no stand-in for them."""

import json
import os
import shutil
import signal
import subprocess
import time

import grids
import pytest
from test_processes import Grid

from ptune.research.axes import read

pytest.importorskip("submitit", reason="needs the extra ptune[slurm]")
pytestmark = [pytest.mark.slow, pytest.mark.deep, pytest.mark.timeout(600)]


def slurm(*words) -> str:
    """What a command of Slurm prints."""
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


@pytest.fixture(autouse=True, scope="module")
def answering():
    """Asked for by the tests alone: where Slurm is installed and does not run, `sinfo` waits for it."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("needs a Slurm that answers `sinfo`")


def until(condition):
    """Wait for what Slurm and the jobs do by themselves; what the condition then is."""
    end = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def queued(place) -> list[str]:
    """The jobs of a grid's cells in the queue."""
    jobs = {file.name.split("_")[0] for file in place.rglob("*_submission.sh")}
    return sorted(jobs & {*slurm("squeue", "--me", "--noheader", "--format=%i").split()})


def steps(place) -> int:
    return sum(len(file.read_text().splitlines()) for file in place.rglob("steps.txt"))


def test_a_grid_in_the_queue_ends_with_the_local_results_and_ctrl_c_leaves_no_job(tmp_path):
    file, place = grids.grid(tmp_path, **{"trainer.max_epochs": [40]}), tmp_path / "runs"
    assert Grid(file, tmp_path / "whole").wait()[0] == 0
    grid = Grid(file, place, "--on", "slurm")
    until(lambda: list(place.rglob("last.ckpt")))
    os.killpg(grid.process.pid, signal.SIGINT)
    code, out, err = grid.wait()
    assert code == 130, out + err
    assert err == f"stopped by SIGINT with {out.count('done ')} of 2 cells done; the same command goes on.\n"
    until(lambda: not queued(place))
    assert not list(place.rglob("failed.json"))
    for jobs in (True, False):
        before = list(place.rglob("*_submission.sh"))
        code, out, err = Grid(file, place, "--on", "slurm").wait()
        assert (code, err) == (0, ""), out
        assert (list(place.rglob("*_submission.sh")) != before) is jobs
        assert grids.results(place) == grids.results(tmp_path / "whole")
        assert grids.repeated(place) == 0


def test_jobs_go_on_behind_a_time_limit_and_a_requeue_and_cells_behind_jobs_that_are_ended(tmp_path):
    slow = {"PTuningV2": grids.METHODS["PTuningV2"] | {"trainer.callbacks": {"class_path": "grids.SlowInJobs"}}}
    file = grids.grid(tmp_path, method=slow, seed=[1, 2], **{"trainer.max_epochs": [60]})
    assert Grid(file, tmp_path / "whole").wait()[0] == 0
    place = tmp_path / "runs"
    one, two = (cell.run_dir for cell in read(file, place))

    def trains(run_dir) -> str:
        """Wait for further steps of a cell; its job."""
        before = steps(run_dir)
        until(lambda: steps(run_dir) > before + 5)
        (job,) = queued(run_dir)
        return job

    def waits(job) -> None:
        """Wait for a job that is put into the queue again; Slurm would leave it there for two minutes.

        Within the second of its end it could not be started ("Job credential revoked").
        """
        until(lambda: "BeginTime" in slurm("squeue", "--noheader", f"--jobs={job}", "--format=%r"))
        slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now+5")

    grid = Grid(file, place, "--on", "slurm")
    limited, requeued = trains(one), trains(two)
    slurm("scontrol", "update", f"JobId={limited}", "TimeLimit=1")  # the signal comes within half a minute
    slurm("scontrol", "requeue", requeued)
    waits(requeued)
    waits(limited)
    assert (trains(one), trains(two)) == (limited, requeued)
    assert grids.repeated(place) == 0
    slurm("scancel", limited)
    os.kill(json.loads((two / ".writer").read_text())["pid"], signal.SIGKILL)
    code, out, err = grid.wait()
    assert code == 1, out + err
    for job in (limited, requeued):
        assert f"its Slurm job {job} ended without a result; " in err
    code, out, err = Grid(file, place, "--on", "slurm").wait()
    assert (code, err) == (0, ""), out
    assert grids.results(place) == grids.results(tmp_path / "whole")
    assert grids.repeated(place) <= 3  # the killed one's, behind its last epoch
