"""A grid that is killed and started again ends with the results of one that nothing disturbed."""

import json
import os
import random
import signal
import time
from pathlib import Path

import processes
import pytest
import runs
import yaml
from safetensors.torch import load_file

from ptune.grid import main
from ptune.tasks import task

METHODS = {"PTuningV2": {"length": 4, "prefix_dropout": 0.3}, "LinearProbe": {"lr": 0.01}}
SEEDS = [1]


def grid(folder, **changes) -> Path:
    """The file of a small grid."""
    options = {
        "model.backbone": runs.bert(),
        "data.path": runs.data(),
        "data.batch_size": 4,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": False,
        "trainer.log_every_n_steps": 1,
        "every_n_steps": 1,
    }
    axes = {"method": METHODS, "task": ["toy/pair"], "seed": SEEDS} | changes
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"options": options, "axes": axes}, sort_keys=False))
    return file


def results(place) -> dict:
    """What two equal grids share."""
    found = {}
    for file in sorted(Path(place).rglob("result.json")):
        result = json.loads(file.read_text())
        prompts = load_file(file.with_name("prompts.safetensors"))
        kept = {key: result[key] for key in ("metrics", "best_epoch", "steps", "seed", "method")}
        found[str(file.parent.relative_to(place))] = kept | {name: value.tolist() for name, value in prompts.items()}
    return found


def started(folder, place, *words) -> processes.Command:
    """The grid in a process of its own."""
    return processes.Command(["-m", "ptune.grid", grid(folder), "--runs", place, *words], folder)


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
    found = results(folder / "runs")
    assert set(found) == {f"{method}/toy-pair/seed={seed}" for method in METHODS for seed in SEEDS}
    assert {(value["method"], value["seed"]) for value in found.values()} == {(m, s) for m in METHODS for s in SEEDS}
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
    assert main([str(grid(folder)), "--runs", str(folder / "runs")]) == 0
    assert capsys.readouterr().out.startswith("2 of 2 cells are done")
    assert runs.contents(folder / "runs") == before
    assert main([str(grid(folder)), "--runs", str(folder / "runs"), "--dry-run"]) == 0
    assert "2 cells, 2 done, 0 to do" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.deep
def test_killed_at_random_moments_a_grid_goes_on_to_the_same_results(whole, tmp_path, request):
    expected, place = results(whole[0] / "runs"), tmp_path / "runs"
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    for _ in range(request.config.getoption("--kills")):
        command = started(tmp_path, place)
        time.sleep(draw.uniform(0.5, 3))
        if command.process.is_alive():
            os.kill(command.process.pid, signal.SIGKILL)
        command.wait()
    done = started(tmp_path, place).wait()
    assert done.code == 0, f"seed {seed}: {done.out}{done.err}"
    assert results(place) == expected, f"seed {seed}"


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_and_does_not_stop_the_others(tmp_path, capsys):
    place = tmp_path / "runs"
    axes = {"method": {"LinearProbe": {}}, "seed": [1], "data.max_length": [9999, 32]}
    file = grid(tmp_path, **axes)
    assert main([str(file), "--runs", str(place)]) == 1
    found = capsys.readouterr()
    sentence = "9999 tokens do not fit into the 64 positions"
    assert found.err.count("\n") == 1
    assert found.err.startswith("failed: LinearProbe toy/pair 1 9999: ")
    assert sentence in found.err
    assert "1 of 2 cells are done" in found.out
    (failed,) = place.rglob("failed.json")
    assert sentence in json.loads(failed.read_text())["error"]
    assert len(results(place)) == 1


@pytest.mark.slow
def test_a_method_that_trains_nothing_is_a_cell_of_the_comparison(tmp_path, capsys):
    words = dict(zip(task("toy/pair").labels, "ab", strict=True))
    options = {"data.template": "{sentence1} {sentence2} [MASK]", "data.verbalizer": words}
    file = grid(tmp_path, method={"ManualPrompt": options | {"model.backbone": runs.bert(lm=True)}})
    assert main([str(file), "--runs", str(tmp_path / "runs")]) == 0, capsys.readouterr().err
    (evaluation,) = (tmp_path / "runs").rglob("evaluation.json")
    assert json.loads(evaluation.read_text())["method"] == "ManualPrompt"
    assert main([str(file), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 cells, 1 done" in out
    assert "ptune evaluate --model ManualPrompt" in out


def test_a_directory_with_other_options_is_refused(whole, capsys):
    folder, _ = whole
    other = {"method": METHODS | {"PTuningV2": {"length": 5}}}
    assert main([str(grid(folder, **other)), "--runs", str(folder / "runs")]) == 2
    found = capsys.readouterr().err
    assert "holds a run of cell 'PTuningV2 toy/pair 1' with other options (" in found
    assert found.count("\n") == 1


def test_the_number_of_workers_is_checked(tmp_path, capsys):
    for value in ("0", "two"):
        assert main([str(grid(tmp_path)), "--workers", value]) == 2
        assert f"argument --workers: '{value}' must be a whole number, at least 1" in capsys.readouterr().err
