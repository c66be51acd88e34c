"""A search by its command: trials, a recipe, runs that are stopped early, and processes that are killed or share it."""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import processes
import pytest
import runs
import yaml

optuna = pytest.importorskip("optuna", reason="needs the extra ptune[sweep]")

from optuna.trial import TrialState, create_trial  # noqa: E402

from ptune.research import executors  # noqa: E402
from ptune.research.attempt import attempt  # noqa: E402
from ptune.research.storage import Store  # noqa: E402
from ptune.sweep import main  # noqa: E402

RATE = {"low": 1.0e-3, "high": 1.0e-1, "log": True}


def space(folder, **changes) -> Path:
    """The file of a small space."""
    options = {
        "method": "PTuningV2",
        "task": "toy/pair",
        "model.backbone": runs.bert(),
        "model.prefix_dropout": 0.3,
        "data.path": runs.data(),
        "data.batch_size": 4,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": False,
        "trainer.log_every_n_steps": 1,
        "every_n_steps": 1,
        "predictions": False,
    }
    dimensions = {"model.lr": RATE, "model.length": [2, 4]}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"options": options, "space": dimensions} | changes, sort_keys=False))
    return file


def study(place) -> optuna.Study:
    """The study of a search that lies in a directory."""
    return Store(str(Path(place) / "journal.log"), Path(place).name, "maximize", "none").study()


@pytest.fixture
def here(monkeypatch):
    """Run cells in this process, which has imported everything."""

    def work(cells, run, options):
        for cell in cells:
            yield cell
            yield attempt(cell, run)

    monkeypatch.setattr(executors, "work", work)


@pytest.mark.slow
def test_a_search_ends_in_a_table_and_in_a_recipe_that_runs(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = space(tmp_path, seeds=[1, 2])
    code, out, err = runs.call([file, "--trials", 2, "--set", "data.holdout=0.4", "--runs", "mine"], main)
    assert code == 0, err
    found = study("mine").trials
    results = [json.loads(path.read_text()) for path in sorted(Path("mine").rglob("result.json"))]
    assert [str(path.parent) for path in sorted(Path("mine").rglob("result.json"))] == [
        f"mine/trial-{number:04d}/seed={seed}" for number in (0, 1) for seed in (1, 2)
    ]
    values = [result["metrics"]["holdout"]["accuracy"] for result in results]
    assert [trial.value for trial in found] == [sum(values[:2]) / 2, sum(values[2:]) / 2]
    best = max(found, key=lambda trial: trial.value)
    assert "value: accuracy on holdout, mean of seeds 1, 2" in out
    assert out.splitlines()[-1] == f"best: trial {best.number}; next: python -m ptune.fit --config mine/best.yaml"
    text = Path("mine/best.yaml").read_text()
    assert f"# Trial {best.number}, the best of 2: accuracy on holdout, mean of seeds 1, 2, {best.value:.4g}." in text
    assert "--trials 2 --set data.holdout=0.4 --runs mine" in text
    recipe = yaml.safe_load(text)
    assert recipe["model"]["init_args"]["lr"] == best.params["model.lr"]
    assert recipe["seed_everything"] == 1
    again = runs.call(["--config", "mine/best.yaml", "--run_dir", "again"])
    assert again[0] == 0, again[2]
    first = results[2 * best.number]
    assert json.loads(Path("again/result.json").read_text())["metrics"] == first["metrics"]
    before = runs.contents("mine")
    assert runs.call([file, "--trials", 2, "--set", "data.holdout=0.4", "--runs", "mine"], main)[0] == 0
    assert runs.contents("mine") == before


def finished(place, count: int) -> None:
    """A study with trials that were good from the beginning."""
    Path(place).mkdir()
    for _ in range(count):
        study(place).add_trial(
            create_trial(
                params={"model.lr": 0.01, "model.length": "2"},
                distributions={
                    "model.lr": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
                    "model.length": optuna.distributions.CategoricalDistribution(("2", "4")),
                },
                value=1.0,
                intermediate_values={1: 1.0, 2: 1.0},
                user_attrs={"measured": "accuracy on validation"},
            )
        )


def numbers(run_dir) -> list[dict]:
    """What a run has logged, but for what the clock decides."""
    rows = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("speed", "memory"))} for row in rows]


@pytest.mark.slow
def test_a_run_that_falls_behind_is_stopped_and_is_the_same_run_otherwise(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished("mine", 5)
    file = space(tmp_path, pruner="median", seeds=[1, 2])
    code, out, err = runs.call([file, "--trials", 6, "--runs", "mine"], main)
    assert code == 0, err
    trial = study("mine").trials[5]
    assert (trial.state, list(trial.intermediate_values)) == (TrialState.PRUNED, [1])
    assert "pruned trial 5  " in out
    pruned, other = Path("mine/trial-0005/seed=1"), Path("mine/trial-0005/seed=2")
    assert not other.exists()
    assert not (pruned / "result.json").exists()
    assert json.loads((pruned / "failed.json").read_text())["error"].startswith("pruned at step 3, after validation 1")
    words = json.loads((pruned / "cell.json").read_text())["words"]
    assert runs.call([*words, "--run_dir", "whole"])[0] == 0
    config, expected = (Path(place, "config.yaml").read_text() for place in (pruned, "whole"))
    assert config == expected.replace("run_dir: whole", f"run_dir: {pruned}")
    stopped, lines = ((Path(place) / "metrics.jsonl").read_text().splitlines() for place in (pruned, "whole"))
    numbers = [{k: v for k, v in json.loads(row).items() if "speed" not in k and "memory" not in k} for row in lines]
    assert [
        {k: v for k, v in json.loads(row).items() if "speed" not in k and "memory" not in k} for row in stopped
    ] == (numbers[: len(stopped)])
    assert runs.call([*words, "--run_dir", pruned, "--ckpt_path", "auto"])[0] == 0
    results = [json.loads(Path(place, "result.json").read_text()) for place in (pruned, "whole")]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["hash"] == results[1]["hash"]


@pytest.mark.slow
def test_a_search_that_finds_nothing_says_why(here, tmp_path):
    file = space(tmp_path, space={"data.max_length": [9999, 9998]}, sampler="grid")
    code, out, err = runs.call([file, "--runs", tmp_path / "mine"], main)
    assert code == 1
    lines = err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" trial 0", " trial 1"]
    assert "9999 tokens do not fit into the 64 positions" in lines[0]
    assert not (tmp_path / "mine" / "best.yaml").exists()
    assert "[0 of 2 done, 2 failed]" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--trials is missing: say how many points the sampler, tpe, draws."),
        (["--trials", 0], "'0' must be a whole number, at least 1"),
        (["--trials", 2, "--set", "task"], "'task' must be NAME=VALUE, e.g. task=cola"),
        (["--trials", 2, "--set", "model.lr=1"], "model.lr is an option of all trials and a dimension; remove one"),
        (["--trials", 2, "--set", "tasks=cola"], "option --model.tasks does not exist"),
        (["--trials", 2, "--recipe", "no/best.yaml"], "--recipe no/best.yaml: there is no folder no; make it first."),
        (["--wandb", "no/sweep.yaml"], "--wandb no/sweep.yaml: there is no folder no; make it first."),
        (["--trials", 2, "--runs", "small.yaml"], "'small.yaml' cannot be written (File exists); choose another"),
        (["--wandb", "small.yaml"], "--wandb small.yaml: is the file of the space, which would be lost; give another"),
        (["--trials", 2, "--recipe", "./small.yaml"], "--recipe small.yaml: is the file of the space, which would"),
        (["--trials", 2, "--storage", "nosuch://x"], "--storage nosuch://x: cannot be opened ("),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_written(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = runs.call([space(tmp_path), *words], main)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not list(Path("runs").glob("*/trial*"))


def test_without_optuna_one_sentence_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = runs.call([space(tmp_path), "--trials", 2], main)
    assert (code, err) == (2, "error: package 'optuna' is not installed; pip install \"ptune[sweep]\".\n")


@pytest.fixture
def patient(monkeypatch):
    """Twelve trials take minutes where much else runs."""
    monkeypatch.setattr(processes, "LIMIT", 500)


def started(folder, *words, **changes) -> processes.Command:
    """The search in a process of its own."""
    return processes.Command(["-m", "ptune.sweep", space(folder, **changes), "--trials", 12, *words], folder)


def check(folder) -> None:
    """The twelve trials of a search are all done, in their directories, at twelve points."""
    place = folder / "runs/small"
    trials = study(place).trials
    assert Counter(trial.state.name for trial in trials) == {"COMPLETE": 12}
    assert len({str(trial.params) for trial in trials}) == 12
    assert len(list(place.glob("trial-*"))) == 12
    for trial in trials:
        result = json.loads((place / f"trial-{trial.number:04d}" / "result.json").read_text())
        assert result["metrics"]["validation"]["accuracy"] == trial.value
        assert result["config"]["lr"] == trial.params["model.lr"]
        assert result["steps"] == 6


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("on", ["local", "ray"])
def test_runs_are_stopped_wherever_they_run(patient, tmp_path, on):
    if on == "ray":
        pytest.importorskip("ray", reason="needs the extra ptune[ray]")
    done = started(tmp_path, "--on", on, "--workers", 2, metric="loss", pruner="asha").wait()
    assert done.code == 0, done.out + done.err
    states = Counter(trial.state.name for trial in study(tmp_path / "runs/small").trials)
    assert states.keys() == {"COMPLETE", "PRUNED"}
    assert states.total() == 12
    assert len(list(tmp_path.rglob("result.json"))) == states["COMPLETE"]


def await_trial(folder, number: int) -> None:
    """Wait until a trial trains, but not for ever."""
    until = time.monotonic() + processes.LIMIT
    while time.monotonic() < until and not (folder / f"runs/small/trial-{number:04d}/metrics.jsonl").exists():
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(900)
def test_a_search_that_is_killed_at_random_moments_goes_on(patient, tmp_path, request):
    seed, place = random.randrange(2**32), tmp_path / "runs/small"
    draw, left = random.Random(seed), 0
    for kill in range(request.config.getoption("--kills")):
        command = started(tmp_path, "--workers", 2)
        await_trial(tmp_path, min(2 * kill, 11))
        time.sleep(draw.uniform(0, 2))
        os.kill(command.process.pid, signal.SIGKILL)
        command.wait()
        left += sum(trial.state == TrialState.RUNNING for trial in study(place).trials)
    assert left, f"seed {seed}: no trial was running when its search was killed"
    done = started(tmp_path, "--workers", 2).wait()
    assert done.code == 0, f"seed {seed}: {done.out}{done.err}"
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.timeout(900)
def test_two_processes_share_a_search_and_one_goes_on_where_the_other_is_killed(patient, tmp_path):
    (tmp_path / "runs").mkdir()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs").symlink_to(tmp_path / "runs")
    killed, other = (started(tmp_path / name) for name in ("one", "other"))
    await_trial(tmp_path, 3)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.wait()
    assert any(trial.state == TrialState.RUNNING for trial in study(tmp_path / "runs/small").trials)
    done = other.wait()
    assert done.code == 0, done.out + done.err
    check(tmp_path)
    both = (tmp_path / "one/.0.stdout").read_text() + done.out
    ended = Counter(line.split()[2] for line in both.splitlines() if line.startswith("done"))
    assert max(ended.values()) == 1, "no trial is told twice"
