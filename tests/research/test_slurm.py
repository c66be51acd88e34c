"""Cells as jobs: through submitit's local executor, and through commands that stand in for Slurm's."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import fakes
import grids
import pytest

from ptune.errors import InputError
from ptune.grid import main, run_cell
from ptune.research import local as local_workers
from ptune.research import on_slurm
from ptune.research.attempt import End
from ptune.research.axes import read
from ptune.research.cells import Cell, cell

pytest.importorskip("submitit", reason="needs the extra ptune[slurm]")


@pytest.fixture
def of_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # a job is a new process of Python
    monkeypatch.setattr(on_slurm, "POLL", 0.1)

    def of_seed(seed):
        return cell({"seed": str(seed)}, [{"method": "LinearProbe", "task": "rte", "seed": seed}], tmp_path / str(seed))

    return of_seed


@pytest.fixture
def local(monkeypatch):
    """Jobs are processes of this machine."""
    monkeypatch.setattr(on_slurm, "CLUSTER", "local")


@pytest.mark.slow
@pytest.mark.deep
def test_a_cell_of_a_killed_driver_is_waited_for_and_not_run_twice(of_seed, local, capsys):
    slow = of_seed(7)
    before = on_slurm.work([slow], fakes.ends, 1, 1, None, {})
    assert next(before) == slow
    while not (slow.run_dir / "pid").exists():
        time.sleep(0.1)
    again = on_slurm.work([slow], fakes.ends, 1, 1, None, {})
    assert next(again) == slow
    assert capsys.readouterr().err == "note: 7 still runs, as a job of an earlier start; it is waited for.\n"
    (slow.run_dir / "go").touch()
    assert list(again) == [End(slow, "", slow.result)]
    assert slow.result["pid"] == int((slow.run_dir / "pid").read_text())
    assert list(before) == [End(slow, "", slow.result)]


@pytest.mark.slow
@pytest.mark.deep
def test_a_job_that_dies_or_fails_fails_its_cell(of_seed, local):
    ends = [
        event
        for event in on_slurm.work(map(of_seed, (13, 9)), fakes.ends, 2, 1, None, {})
        if not isinstance(event, Cell)
    ]
    errors = {end.cell.name: end.error for end in ends}
    assert errors["13"] == "13 is no seed for a grid."
    assert errors["9"].startswith("its Slurm job ")
    assert "ended without a result" in errors["9"]
    for end in ends:
        assert json.loads((end.cell.run_dir / "failed.json").read_text())["error"] == end.error


def test_a_run_that_a_signal_stops_ends_its_job_and_not_its_cell(of_seed):
    stopped = of_seed(15)
    with pytest.raises(SystemExit, match="stopped by SIGTERM"):
        on_slurm.job(stopped, fakes.ends, 1)
    assert not (stopped.run_dir / "failed.json").exists()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts commands that stand in for Slurm's on the path; they write into the test's folder."""

    def installed(commands):
        for name, text in commands.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PLACE", str(tmp_path))
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return installed


SLURM = {
    "sbatch": "echo Submitted batch job 7; bash $1 >> $PLACE/sbatch.out 2>&1 &",
    "srun": 'while [[ "${1##*/}" != python* ]]; do shift; done; SLURM_JOB_ID=7 SLURM_NTASKS=1 exec "$@"',
    "squeue": "echo 7",
    "scancel": "echo $@ >> $PLACE/scancel.out",
}


@pytest.mark.slow
@pytest.mark.deep
def test_the_jobs_script_has_the_settings_the_command_and_the_signal_that_runs_know(of_seed, installed, tmp_path):
    installed(SLURM)
    settings = {"partition": "gpu", "time": "120", "setup": "export OF_SETUP=1"}
    begin, end = on_slurm.work([of_seed(1)], fakes.ends, 1, 3, 1.0, settings)
    assert end == End(begin, "", begin.result), (tmp_path / "sbatch.out").read_text()
    (script,) = (begin.run_dir / "slurm").glob("7_submission.sh")
    found = set(script.read_text().splitlines())
    wanted = (
        "partition=gpu",
        "time=120",
        "cpus-per-task=3",
        "gpus-per-node=1",
        "dependency=singleton",
        "signal=USR1@90",
    )
    assert {*(f"#SBATCH --{setting}" for setting in wanted), f"# {begin.line}", "export OF_SETUP=1"} <= found


def test_a_job_that_leaves_the_queue_without_a_result_has_failed(of_seed, installed, monkeypatch):
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)  # for a slow file system
    installed(SLURM | {"sbatch": "echo Submitted batch job 7", "squeue": "echo 8", "sacct": "exit 1"})
    begin, end = on_slurm.work([of_seed(1)], fakes.ends, 1, 1, None, {})
    assert end.error == (f"its Slurm job 7 ended without a result; {begin.run_dir}/slurm/7_0_log.err may say why.")


REQUEUED = {
    **SLURM,
    "sbatch": "cp $1 $PLACE/script; echo Submitted batch job 7; bash $1 >> $PLACE/sbatch.out 2>&1 &",
    "scontrol": "echo $@ >> $PLACE/scontrol.out; "
    "(SLURM_RESTART_COUNT=1 bash $PLACE/script >> $PLACE/sbatch.out 2>&1) > /dev/null 2>&1 < /dev/null &",
}


@pytest.mark.slow
@pytest.mark.deep
def test_a_job_that_comes_to_its_time_limit_goes_on_in_the_queue(of_seed, installed, tmp_path):
    installed(REQUEUED)
    method = {"PTuningV2": grids.METHODS["PTuningV2"] | {"trainer.max_epochs": 40}}
    file = grids.grid(tmp_path, method=method)
    (whole,), (one,) = (read(file, tmp_path / name) for name in ("whole", "runs"))
    (_, undisturbed) = local_workers.work([whole], run_cell, 1, 1, 0)
    assert not undisturbed.error

    def limit() -> None:
        """What Slurm does before the time limit, when the run trains."""
        while not (one.run_dir / "last.ckpt").exists():
            time.sleep(0.05)
        os.kill(json.loads((one.run_dir / ".writer").read_text())["pid"], signal.SIGUSR1)

    threading.Thread(target=limit, daemon=True).start()
    _, end = on_slurm.work([one], run_cell, 1, 1, None, {})
    assert not end.error, (tmp_path / "sbatch.out").read_text()
    assert (tmp_path / "scontrol.out").read_text() == "requeue 7\n"
    found, expected = (grids.results(tmp_path / name) for name in ("runs", "whole"))
    assert found == expected
    assert grids.repeated(tmp_path / "runs") == 0


def test_a_setting_is_given_to_sbatch_as_it_is_written(of_seed, installed, tmp_path):
    installed(SLURM | {"sbatch": "cp $1 $PLACE/script; exit 1"})
    settings = {"account": "0042", "constraint": "[rack1|rack2]", "comment": "a: b: c", "exclusive": "true"}
    with pytest.raises(InputError, match="sbatch does not take the job"):
        next(on_slurm.work([of_seed(1)], fakes.ends, 1, 1, None, settings))
    found = set((tmp_path / "script").read_text().splitlines())
    wanted = ("account=0042", "constraint='[rack1|rack2]'", "comment='a: b: c'", "exclusive")
    assert {f"#SBATCH --{setting}" for setting in wanted} <= found


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"partitoin": "gpu"}, "--on slurm: Unknown argument 'partitoin' for executor 'slurm'"),
        ({"time": "abc"}, "--slurm time=abc: give a job's minutes, 5 or more"),
        ({"time": "1"}, "--slurm time=1: give a job's minutes, 5 or more"),
        ({"time": "2:00:00"}, "--slurm time=2:00:00: give a job's minutes, 5 or more"),
        ({"nodes": "2"}, "--slurm nodes: a cell is one Slurm task on one node"),
        ({"ntasks-per-node": "2"}, "--slurm ntasks_per_node: a cell is one Slurm task on one node"),
        ({}, "--on slurm: sbatch does not take the job (sbatch: error: invalid partition); see its --slurm settings."),
    ],
    ids=str,
)
def test_a_setting_that_slurm_does_not_take_is_one_sentence(of_seed, installed, capsys, settings, sentence):
    installed(SLURM | {"sbatch": "echo sbatch: error: invalid partition >&2; exit 1"})
    with pytest.raises(InputError) as error:
        next(on_slurm.work([of_seed(1)], fakes.ends, 1, 1, None, settings))
    assert str(error.value).startswith(sentence)
    assert capsys.readouterr().err == ""


def test_what_a_cell_in_a_job_cannot_have_is_one_sentence(of_seed, tmp_path, capsys):
    for gpus in (0.5, 2):
        with pytest.raises(InputError, match=rf"--gpus {gpus}: a cell is one Slurm task, .* one whole GPU"):
            next(on_slurm.work([of_seed(1)], fakes.ends, 1, 1, gpus, {}))
    file = str(grids.grid(tmp_path))
    for words, sentence in {
        ("--on", "slurm"): "--workers is missing",
        ("--slurm", "time=3"): "--slurm is for --on slurm, but the cells run on 'local'",
        ("--on", "slurm", "--slurm", "time"): "'time' must be NAME=VALUE",
        ("--on", "slum"): "'slum' is no place for cells",
        ("--gpus", "1.5"): "'1.5' must be a share of one GPU",
    }.items():
        assert main([file, *words]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


def test_without_slurm_that_is_said(of_seed, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match='--on slurm: Could not detect "srun"'):
        next(on_slurm.work([of_seed(1)], fakes.ends, 1, 1, None, {}))


def test_without_sbatch_that_is_said(of_seed, installed, tmp_path, monkeypatch):
    installed({"srun": ""})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"sbatch does not take the job .*No such file or directory: 'sbatch'"):
        next(on_slurm.work([of_seed(1)], fakes.ends, 1, 1, None, {}))


@pytest.mark.slow
@pytest.mark.deep
def test_a_grid_of_jobs_has_the_results_of_the_local_one(of_seed, local, tmp_path, capsys):
    file = grids.grid(tmp_path)
    assert main([str(file), "--runs", str(tmp_path / "local")]) == 0, capsys.readouterr()
    words = ["--runs", str(tmp_path / "runs"), "--on", "slurm", "--workers", "2"]
    assert main([str(file), *words]) == 0, capsys.readouterr()
    assert grids.results(tmp_path / "runs") == grids.results(tmp_path / "local")
    assert Path(tmp_path, "runs", "LinearProbe", "toy-pair", "seed=1", "slurm").is_dir()
