"""Trials are begun, gone on with, shared out and told as they should be; nothing is trained here."""

import shutil
from collections import Counter

import pytest

optuna = pytest.importorskip("optuna", reason="needs the extra ptune[sweep]")

from optuna.trial import TrialState  # noqa: E402

from ptune.errors import InputError  # noqa: E402
from ptune.research.attempt import End  # noqa: E402
from ptune.research.outcome import failures, line, table  # noqa: E402
from ptune.research.space import read  # noqa: E402
from ptune.research.storage import Store  # noqa: E402
from ptune.research.study import PRUNED, Trials  # noqa: E402

FILE = """
options: {method: PTuningV2, task: rte}
space:
  model.lr: {low: 1.0e-4, high: 1.0e-1, log: true}
  model.length: [4, 8, 16]
sampler: random
"""


@pytest.fixture
def search(tmp_path):
    """Trials of the search in a folder, as a process would begin them; `storage` is that of another place."""

    def search(count=6, text=FILE, storage=None):
        file = tmp_path / "space.yaml"
        file.write_text(text)
        space = read(file, tmp_path / "runs")
        store = Store(storage or str(tmp_path / "journal.log"), "runs", space.direction, space.pruner)
        return Trials(space, store, count)

    return search


def result(value, **more) -> dict:
    """What a run leaves."""
    metrics = {"holdout": {"accuracy": value, "loss": 1.0}, "validation": {"accuracy": 0.0, "loss": 2.0}}
    return {"monitor": "accuracy", "chosen_on": "holdout", "metrics": metrics} | more


def rate(cell) -> float:
    return float(dict(zip(cell.words[::2], cell.words[1::2], strict=True))["--model.lr"])


def work(trials, value=rate) -> list:
    """Run all there is to run; a run reaches its learning rate. The cells, in their order."""
    cells = []
    for cell in trials.cells():
        cells.append(cell)
        trials.take(End(cell, "", result(value(cell))))
    return cells


def points(trials) -> list[dict]:
    return [trial.params for trial in trials.all]


def test_a_search_has_as_many_trials_as_are_asked_for_and_a_longer_one_goes_on(search):
    with search(4) as trials:
        assert [cell.values for cell in work(trials)] == [{"trial": str(number)} for number in range(4)]
        assert [trial.state for trial in trials.all] == [TrialState.COMPLETE] * 4
        rates = [trial.params["model.lr"] for trial in trials.all]
        assert trials.best.value == max(rates)
        assert [trial.value for trial in trials.all] == rates
        first = points(trials)
    with search(4) as trials:
        assert work(trials) == []
    with search(6) as trials:
        assert [cell.values["trial"] for cell in work(trials)] == ["4", "5"]
        assert points(trials)[:4] == first
        assert len({str(point) for point in points(trials)}) == 6


def test_trials_of_a_process_that_has_ended_are_gone_on_with(search):
    with search() as trials:
        cells = trials.cells()
        begun = [next(cells) for _ in range(3)]
        trials.take(End(begun[1], "", result(0.5)))
    with search() as trials:
        again = work(trials)
        assert [cell.values["trial"] for cell in again] == ["0", "2", "3", "4", "5"]
        assert again[:2] == [begun[0], begun[2]]
        assert {trial.state for trial in trials.all} == {TrialState.COMPLETE}
        assert trials.all[1].value == 0.5


def test_what_a_process_works_on_no_other_takes(search):
    with search() as one, search() as other:
        first, second = one.cells(), other.cells()
        cells = [next(first), next(second), next(first), next(second)]
        for trials, cell in zip((one, other, one, other), cells, strict=True):
            trials.take(End(cell, "", result(0.1)))
        rest = work(one)
        assert [cell.values["trial"] for cell in [*cells, *rest]] == list("012345")
        assert next(second, None) is None
        assert len({str(point) for point in points(one)}) == 6


def test_a_process_that_dies_before_a_point_is_drawn_loses_no_trial(search):
    with search() as trials:
        (trials.space.place(0)).mkdir(parents=True)
        trial = trials.study.ask()
        trial.suggest_float("model.lr", 1e-4, 1e-1, log=True)
        drawn = trial.params["model.lr"]
    with search() as trials:
        assert [cell.values["trial"] for cell in work(trials)] == list("012345")
        assert trials.all[0].params["model.lr"] == drawn


def test_a_trial_is_the_mean_of_its_seeds(search):
    with search(2, FILE + "seeds: [3, 5]\n") as trials:
        for cell in trials.cells():
            assert cell.run_dir.name == f"seed={cell.values['seed']}"
            trials.take(End(cell, "", result(float(cell.values["seed"]) / 10)))
        assert [trial.value for trial in trials.all] == [0.4, 0.4]
        assert "value: accuracy on holdout, mean of seeds 3, 5" in table(trials)


def test_a_trial_that_fails_is_recorded_and_stops_no_other(search):
    with search(3, FILE + "seeds: [1, 2]\n") as trials:
        begun = []
        for cell in trials.cells():
            begun.append((cell.values["trial"], cell.values["seed"]))
            failed = cell.values["trial"] == "1"
            ended = trials.take(End(cell, "the loss is not finite." if failed else "", None if failed else result(0.1)))
            assert bool(ended) is (failed or cell.values["seed"] == "2")
        assert begun == [("0", "1"), ("0", "2"), ("1", "1"), ("2", "1"), ("2", "2")]
        assert Counter(trial.state.name for trial in trials.all) == {"COMPLETE": 2, "FAIL": 1}
        assert failures(trials) == ["failed: trial 1: the loss is not finite."]
        assert line(trials.all[1], trials).startswith("failed trial 1  -  model.lr=")
        assert "[2 of 3 done, 1 failed; best 0.1 of trial 0]" in line(trials.all[1], trials)


def test_a_trial_that_a_signal_has_stopped_is_gone_on_with_later(search):
    with search(2) as trials:
        for cell in trials.cells():
            assert trials.take(End(cell, "stopped by SIGTERM at step 3.", stopped=True)) is None
        assert {trial.state for trial in trials.all} == {TrialState.RUNNING}
    with search(2) as trials:
        assert [cell.values["trial"] for cell in work(trials)] == ["0", "1"]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"metrics": {"holdout": {"accuracy": None}}}, "its accuracy on holdout is not a number."),
        ({"monitor": "f1"}, "its f1 on holdout is not a number."),
        ({"chosen_on": None, "metrics": {}}, "its accuracy on nothing is not a number."),
    ],
)
def test_a_run_without_a_number_is_a_failure(search, found, sentence):
    with search(1) as trials:
        trials.take(End(next(trials.cells()), "", result(0.5, **found)))
        assert failures(trials) == [f"failed: trial 0: {sentence}"]
        assert trials.best is None


def test_another_metric_may_be_searched_for_and_made_small(search):
    with search(3, FILE + "metric: loss\n") as trials:
        for cell in trials.cells():
            found = result(0.5)
            found["metrics"]["holdout"]["loss"] = 3.0 - int(cell.values["trial"])
            trials.take(End(cell, "", found))
        assert (trials.best.number, trials.best.value) == (2, 1.0)
        rows = table(trials).splitlines()
        assert [row.split()[0] for row in rows[-3:]] == ["2", "1", "0"]


def test_a_trial_that_was_stopped_is_told_so_even_if_the_process_died_meanwhile(search):
    with search(2) as trials:
        next(trials.cells())
        trial = optuna.Trial(trials.study, trials.all[0]._trial_id)
        trial.report(0.25, 1)
        trial.set_user_attr(PRUNED, "pruned at step 3.")
    with search(2) as trials:
        assert [cell.values["trial"] for cell in work(trials)] == ["1"]
        assert (trials.all[0].state, trials.all[0].value) == (TrialState.PRUNED, 0.25)
        assert trials.best.number == 1


def test_values_that_do_not_go_together_fail_their_trial(search):
    text = "options: {task: rte}\nsampler: grid\nspace:\n  method: [PTuningV2, FineTuning]\n"
    text += "  model.head_lr: {values: [0.1], when: {method: FineTuning}}\n  size: {a: {}, b: {length: 4}}\n"
    with search(4, text) as trials:
        assert len(work(trials, lambda cell: 0.5)) == 3
        (failed,) = failures(trials)
        assert failed.startswith("failed: trial 3: option --model.length does not exist here; it belongs to")


def test_a_grid_has_each_of_its_points_once_in_two_processes(search):
    text = FILE.replace("random", "grid").replace("{low: 1.0e-4, high: 1.0e-1, log: true}", "[0.1, 0.2]")
    with search(6, text) as one, search(6, text) as other:
        first, second = one.cells(), other.cells()
        for _ in range(3):
            for trials, cells in ((one, first), (other, second)):
                trials.take(End(next(cells), "", result(0.5)))
        assert next(first, None) is next(second, None) is None
        found = [tuple(point.values()) for point in points(one)]
        assert found == [(a, b) for a in ("0.1", "0.2") for b in ("4", "8", "16")]


def test_a_point_that_a_user_has_put_in_line_comes_first(search):
    with search(3) as trials:
        trials.study.enqueue_trial({"model.lr": 0.01, "model.length": "8"})
        work(trials)
        assert points(trials)[0] == {"model.lr": 0.01, "model.length": "8"}
        assert len(trials.all) == 3


def test_the_same_seed_draws_the_same_points_and_another_one_others(search, tmp_path):
    found = []
    for seed in (0, 0, 1):
        name = tmp_path / f"{len(found)}.log"
        with search(5, f"{FILE}sampler_seed: {seed}\n", str(name)) as trials:
            work(trials)
            found.append({str(point) for point in points(trials)})
    assert found[0] == found[1]
    assert not found[0] & found[2]


@pytest.mark.filterwarnings("error")
def test_tpe_comes_near_what_is_best(search):
    with search(30, FILE.replace("random", "tpe")) as trials:
        work(trials)
        later = [trial.params["model.lr"] for trial in trials.all[20:]]
        assert sum(rate > 1e-2 for rate in later) >= 7  # a third of the range, in its logarithm


def test_a_search_of_another_space_is_refused(search):
    with search(1) as trials:
        work(trials)
    with pytest.raises(InputError, match="holds a search of another space; choose another --runs"):
        search(1, FILE.replace("rte", "wic"))
    with search(2, FILE.replace("random", "tpe") + "pruner: median\n") as trials:
        assert len(work(trials)) == 1


def test_a_trial_in_another_directory_is_refused(search):
    with search(2) as trials:
        next(trials.cells())
        shutil.rmtree(trials.space.place(0))
    with search(2) as trials, pytest.raises(InputError, match="trial 0 of this search runs elsewhere"):
        next(trials.cells())


def test_a_line_of_the_journal_that_a_kill_has_torn_is_cut_off(search, tmp_path):
    with search(1) as trials:
        work(trials)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"')
    with search(2) as trials:
        assert len(work(trials)) == 1
        assert len(trials.all) == 2
    assert journal.read_bytes().startswith(whole + b"{")
    with search(2) as trials:
        assert len(trials.all) == 2


def test_a_database_keeps_the_trials_too(search, tmp_path):
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    with search(2, storage=url) as trials:
        next(trials.cells())
    with search(2, storage=url) as trials:
        assert [cell.values["trial"] for cell in work(trials)] == ["0", "1"]
    with pytest.raises(InputError, match=r"--storage .*host/db: cannot be opened \(") as error:
        search(2, storage="nosuch://user:secret@host/db")
    assert "secret" not in str(error.value)
