"""A grid that is killed and started again ends with the results of one that nothing disturbed."""

import json
import os
import random
import signal
import time

import grids
import processes
import pytest
import runs
from filelock import FileLock, Timeout

from ptune.grid import main
from ptune.tasks import task


def started(folder, place, **axes) -> processes.Command:
    """The grid in a process of its own."""
    return processes.Command(["-m", "ptune.grid", grids.grid(folder, **axes), "--runs", place], folder)


def kill(place, command, worker: bool) -> None:
    """Kill a grid, and its worker, too, which would else write a checkpoint and stop."""
    if command.process.is_alive():
        os.kill(command.process.pid, signal.SIGKILL)
    for writer in place.rglob(".writer") if worker else ():
        lock = FileLock(writer.with_name(".lock"))
        try:
            lock.acquire(timeout=0)
            lock.release()  # an earlier kill has left the file
        except Timeout:
            os.kill(json.loads(writer.read_text())["pid"], signal.SIGKILL)
    command.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The grid that nothing disturbs: its folder and process."""
    folder = tmp_path_factory.mktemp("whole")
    done = started(folder, folder / "runs").wait()
    assert done.code == 0, done.out + done.err
    return folder, done


@pytest.mark.slow
def test_every_cell_is_a_run_in_its_directory(whole):
    folder, done = whole
    found = grids.results(folder / "runs")
    assert set(found) == {f"{method}/toy-pair/seed=1" for method in grids.METHODS}
    assert {(value["method"], value["seed"]) for value in found.values()} == {(method, 1) for method in grids.METHODS}
    lines = done.out.splitlines()
    assert lines[-1] == f"2 of 2 cells are done; their runs lie in {folder / 'runs'}"
    assert lines[-2].startswith("done   LinearProbe toy/pair 1   [2 of 2 done, 0 failed, 0 running")
    assert not done.err
    (output,) = (folder / "runs/PTuningV2/toy-pair/seed=1").glob("output.txt")
    assert "toy/pair with PTuningV2, seed 1" in output.read_text()


@pytest.mark.slow
def test_a_grid_started_again_repeats_nothing(whole, capsys):
    folder, _ = whole
    before = runs.contents(folder / "runs")
    assert main([str(grids.grid(folder)), "--runs", str(folder / "runs")]) == 0
    assert capsys.readouterr().out.startswith("2 of 2 cells are done")
    assert runs.contents(folder / "runs") == before
    assert main([str(grids.grid(folder)), "--runs", str(folder / "runs"), "--dry-run"]) == 0
    assert "2 cells, 2 done, 0 to do" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.deep
def test_killed_at_random_moments_a_grid_ends_with_the_same_results_and_repeats_less_than_an_epoch(tmp_path, request):
    axes = {"task": grids.tasks("toy/pair", "toy/single"), "seed": [1, 2, 3]}
    start = time.monotonic()
    done = started(tmp_path, tmp_path / "whole", **axes).wait()
    assert done.code == 0, done.err
    expected, took = grids.results(tmp_path / "whole"), time.monotonic() - start
    assert len(expected) == 12
    seed = random.randrange(2**32)
    draw, place, kills = random.Random(seed), tmp_path / "runs", max(5, request.config.getoption("--kills"))
    for number in range(kills):
        command = started(tmp_path, place, **axes)
        time.sleep(draw.uniform(0, took / 2))
        kill(place, command, worker=number % 2 == 1)
    done = started(tmp_path, place, **axes).wait()
    assert done.code == 0, f"seed {seed}: {done.out}{done.err}"
    assert grids.results(place) == expected, f"seed {seed}"
    assert grids.repeated(tmp_path / "whole") == 0
    assert grids.repeated(place) <= kills * 3, f"seed {seed}: an epoch has 3 steps"


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_and_does_not_stop_the_others(tmp_path, capsys):
    place = tmp_path / "runs"
    axes = {"method": {"LinearProbe": {}}, "seed": [1], "data.max_length": [9999, 32]}
    file = grids.grid(tmp_path, **axes)
    assert main([str(file), "--runs", str(place)]) == 1
    found = capsys.readouterr()
    sentence = "9999 tokens do not fit into the 64 positions"
    assert found.err.count("\n") == 1
    assert found.err.startswith("failed: LinearProbe toy/pair 1 9999: ")
    assert sentence in found.err
    assert "1 of 2 cells are done" in found.out
    (failed,) = place.rglob("failed.json")
    assert sentence in json.loads(failed.read_text())["error"]
    assert len(grids.results(place)) == 1


@pytest.mark.slow
def test_a_method_that_trains_nothing_is_a_cell_of_the_comparison(tmp_path, capsys):
    words = dict(zip(task("toy/pair").labels, "ab", strict=True))
    options = {"data.template": "{sentence1} {sentence2} [MASK]", "data.verbalizer": words}
    file = grids.grid(tmp_path, method={"ManualPrompt": options | {"model.backbone": runs.bert(lm=True)}})
    assert main([str(file), "--runs", str(tmp_path / "runs")]) == 0, capsys.readouterr().err
    (evaluation,) = (tmp_path / "runs").rglob("evaluation.json")
    assert json.loads(evaluation.read_text())["method"] == "ManualPrompt"
    assert main([str(file), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 cells, 1 done" in out
    assert "ptune evaluate --model ManualPrompt" in out


def test_a_directory_with_other_options_is_refused(whole, capsys):
    folder, _ = whole
    other = {"method": grids.METHODS | {"PTuningV2": {"length": 5}}}
    assert main([str(grids.grid(folder, **other)), "--runs", str(folder / "runs")]) == 2
    found = capsys.readouterr().err
    assert "holds a run of cell 'PTuningV2 toy/pair 1' with other options (" in found
    assert found.count("\n") == 1


def test_the_number_of_workers_is_checked(tmp_path, capsys):
    for value in ("0", "two"):
        assert main([str(grids.grid(tmp_path)), "--workers", value]) == 2
        assert f"argument --workers: '{value}' must be a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"method": {"PTuningV2": {"lr": -1}}}, "cell PTuningV2 toy/pair 1: lr: -1.0 must be "),
        ({"model.backbone": ["./no"]}, "backbone './no': there is no config.json in no; give the folder"),
        ({"model.backbone": ["package:no_such/model"]}, "the Python package 'no_such' is not installed"),
        ({"task": {"toy/pair": {"data.path": "no/rows"}}}, "--data.path no/rows: does not exist; give the folder"),
        ({"data.batch_size": [4, -4]}, "cell PTuningV2 toy/pair 1 -4: --data.batch_size -4: must be at least 1."),
        ({"trainer.devices": [9999]}, "trainer.devices: 9999, but this machine has "),
        ({"trainer.callbacks": ["EarlyStoping"]}, "trainer.callbacks"),
    ],
)
def test_a_dry_run_refuses_what_a_cell_would_be_refused_for(tmp_path, capsys, axes, sentence):
    assert main([str(grids.grid(tmp_path, **axes)), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err.count("\n")) == ("", 1)
    assert found.err.startswith(f"error: {tmp_path / 'small.yaml'}, cell PTuningV2 toy/pair 1")
    assert sentence in found.err
    assert not (tmp_path / "runs").exists()


def test_a_backbone_that_the_hub_does_not_give_here_is_noted_once(tmp_path, capsys):
    file = grids.grid(tmp_path, seed=[1, 2], **{"model.backbone": ["no-one/no-bert"]})
    assert main([str(file), "--dry-run"]) == 0
    found = capsys.readouterr()
    assert "4 cells, 0 done, 4 to do" in found.out
    (note,) = found.err.splitlines()
    assert note.startswith("note: not all of PTuningV2 toy/pair 1 no-one/no-bert could be checked: backbone 'no-one")


def test_options_given_twice_add_up(tmp_path, capsys):
    more = ["--set", "head_lr=0.1", "--set", "warmup=0.2", "--only", "seed=2", "--only", "method=LinearProbe"]
    assert main([str(grids.grid(tmp_path, seed=[1, 2])), *more, "--dry-run"]) == 0
    found = capsys.readouterr().out
    assert "1 cells, 0 done, 1 to do" in found
    assert "--model.head_lr 0.1 --model.warmup 0.2" in found
