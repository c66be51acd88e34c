"""Evaluations that are made after a run add columns to its row, and change nothing of what chose its checkpoint."""

import json

import pytest
from kept import answered, classified, result, run

from ptune.report import report
from ptune.research.evaluations import read

OWN = {"validation": {"accuracy": 0.5, "loss": 0.7}}
BOTH = OWN | {"test": {"accuracy": 0.25, "loss": 0.9}}
OF_RUN = {"hash": "aaaaaaaa", "evaluation_hash": "bbbbbbbb", "checkpoint": "best.ckpt", "chosen_on": "validation"}


@pytest.fixture
def trained(tmp_path):
    """A finished run that has measured validation alone."""
    return run(tmp_path / "run", result(hash="aaaaaaaa", metrics=OWN, chosen_on="validation", rows={"validation": 9}))


def evaluated(folder, name="evaluation.json", **more):
    """Leave an evaluation of that run in a folder."""
    found = {"metrics": BOTH, "rows": {"validation": 9, "test": 4}, "config": {"path": "with/labels"}}
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(result(**(found | OF_RUN | more))))


@pytest.mark.parametrize("checkpoint", ["best.ckpt", "prompts.safetensors"])  # of a run that keeps no checkpoints
@pytest.mark.parametrize("place", ["run", "elsewhere"])
def test_another_split_is_a_column_of_the_runs_row_and_the_selection_stays(trained, tmp_path, place, checkpoint):
    evaluated(tmp_path / place, checkpoint=checkpoint)
    (record,), notes = read([tmp_path])
    assert notes == []
    assert record.splits == ("validation", "test")
    assert record.place == str(trained)
    assert record.result["hash"] == "aaaaaaaa"
    assert record.result["rows"] == {"validation": 9, "test": 4}
    (table,) = report([tmp_path], [], [], ["results"]).tables
    assert table.columns[:5] == ("task", "method", "metric", "validation", "test")
    assert [cell.text for cell in table.rows[0]][:5] == ["sst2", "PTuningV2", "accuracy", "50.0", "25.0"]
    assert any("best value of the metric on validation is measured" in note for note in table.notes)


def test_each_split_is_compared_by_the_predictions_of_the_evaluation_that_has_measured_it(tmp_path):
    gold, guess = [0, 1] * 6, [0] * 12
    for seed, hash in ((1, "aaaaaaaa"), (2, "cccccccc")):
        answers = guess if seed == 1 else gold
        folder = answered(tmp_path / str(seed), classified(gold, answers), hash=hash, seed=seed, best_epoch=2)
        found = json.loads((folder / "result.json").read_text())
        told = OF_RUN | {"hash": hash, "evaluation_hash": f"e{hash}", "predictions": "predictions-2"}
        (folder / "evaluation.json").write_text(json.dumps(found | told))
        (folder / "predictions").rename(folder / "predictions-2")
        found["metrics"].pop("test")
        (folder / "result.json").write_text(json.dumps(found))
    records, _ = read([tmp_path])
    assert [{split: file.parent.name for split, file in record.predictions.items()} for record in records] == [
        {"test": "predictions-2"}
    ] * 2


@pytest.mark.parametrize(
    "more",
    [
        {"config": {"path": "with/labels", "length": 3}},  # read or answered otherwise
        {"metrics": {"validation": {"accuracy": 0.4, "loss": 0.7}}},  # of other rows
        {"hash": "dddddddd"},  # whose run is not here
    ],
)
def test_what_is_not_the_runs_own_measure_is_a_row_of_its_own(trained, tmp_path, more):
    evaluated(tmp_path / "elsewhere", **more)
    records, notes = read([tmp_path])
    assert ([record.splits for record in records if not record.evaluation], notes) == ([("validation",)], [])
    assert sum(record.evaluation for record in records) == 1


def test_another_checkpoint_of_the_run_is_left_out_by_name(trained, tmp_path):
    evaluated(trained, "evaluation-2.json", checkpoint="last.ckpt", data_fingerprint=None)
    (trained / "evaluation-3.json").write_text("{")
    (record,), (torn, other) = read([tmp_path])
    assert record.splits == ("validation",)
    assert other == f"left out: {trained / 'evaluation-2.json'} is of last.ckpt, its run's row of best.ckpt."
    assert "evaluation-3.json: no whole JSON" in torn


def test_evaluations_with_equal_options_are_of_their_own_run_and_checkpoint(tmp_path):
    for hash in ("aaaaaaaa", "cccccccc"):  # they differ in an option of training alone, which an evaluation has not
        folder = run(tmp_path / hash, result(hash=hash, metrics=OWN, chosen_on="validation"))
        evaluated(folder, "evaluation-2.json", hash=hash, checkpoint="last.ckpt")
        for name in ("evaluation.json", "evaluation-3.json"):
            evaluated(folder, name, hash=hash)
    records, notes = read([tmp_path])
    assert [(record.result["hash"], record.splits) for record in records] == [
        ("aaaaaaaa", ("validation", "test")),
        ("cccccccc", ("validation", "test")),
    ]
    assert sum("counted once" in note for note in notes) == sum("of last.ckpt" in note for note in notes) == 2


def test_an_evaluation_without_predictions_has_not_those_of_the_run(tmp_path):
    folder = answered(tmp_path / "run", classified([0, 1], [0, 0]), hash="aaaaaaaa")
    evaluated(folder, config={"length": 3})
    alone = next(record for record in read([tmp_path])[0] if record.evaluation)
    assert alone.predictions == {}


def test_a_run_that_is_evaluated_on_its_way_is_not_finished_by_that(tmp_path):
    found = result(hash=None, evaluation_hash="bbbbbbbb", checkpoint="best.ckpt")
    folder = run(tmp_path / "run", found, "evaluation.json")
    (record,), (note,) = read([tmp_path])
    assert (record.place, record.state, record.result) == (str(folder), "unfinished", {})
    assert note == f"left out: {folder / 'evaluation.json'} is of a checkpoint of a run that was not finished."
    run(folder, result(hash="aaaaaaaa"))
    (record,), notes = read([tmp_path])
    assert (record.state, record.result["hash"], notes) == ("done", "aaaaaaaa", [note])


def test_the_evaluation_of_what_trains_nothing_is_its_run(tmp_path):
    own = result(method="ManualPrompt", hash="eeeeeeee", steps=0)
    run(tmp_path / "manual", own, "evaluation.json")
    (tmp_path / "manual" / "evaluation-2.json").write_text(json.dumps(own))
    records, _ = read([tmp_path])
    assert [record.evaluation for record in records] == [False]
