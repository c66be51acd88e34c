"""Every run below a folder is found as what it is, and nothing else is taken for one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from kept import cell, result, run

from ptune.errors import InputError
from ptune.research.groups import grouped
from ptune.research.records import read


def test_runs_are_found_below_a_folder_and_nothing_in_them_is_another(tmp_path):
    first = run(tmp_path / "a" / "x", result())
    (first / "wandb" / "files").mkdir(parents=True)
    (first / "wandb" / "files" / "config.yaml").write_text("{}")
    (first / "predictions").mkdir()
    (first / "predictions" / "test.parquet").touch()
    run(tmp_path / "b", result(method="ManualPrompt"), "evaluation.json")
    (tmp_path / "kept.json").write_text(json.dumps(result(seed=2)))
    records, notes = read([tmp_path])
    assert [(record.method, record.seed, record.state) for record in records] == [
        ("PTuningV2", 2, "done"),
        ("PTuningV2", 1, "done"),
        ("ManualPrompt", 1, "done"),
    ]
    assert notes == []
    assert [record.predictions for record in records] == [{}, {"test": first / "predictions" / "test.parquet"}, {}]
    assert records[1].metric("test", "accuracy") == 0.5
    assert records[1].metric("test", "f1") is records[1].cost("seconds_to_best") is None
    assert read([first, tmp_path / "a"])[0] == [records[1]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "no whole JSON"),
        ("[1]", "it holds no mapping"),
        (json.dumps({"relations": {}}), "it has no 'task'"),
        (json.dumps(result(metrics={"test": {"f1": 1}})), "a split has no 'accuracy'"),
        (json.dumps(result(metrics={})), "a split has no"),
        (json.dumps(result(metrics={"test": 1})), "a split has no"),
        (json.dumps(result(task=3)), "it has no 'task'"),
    ],
)
def test_what_is_no_run_is_left_out_by_name_or_refused_where_it_was_asked_for(tmp_path, text, sentence):
    (tmp_path / "good.json").write_text(json.dumps(result()))
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    records, (note,) = read([tmp_path])
    assert len(records) == 1
    assert str(bad) in note
    assert sentence in note
    with pytest.raises(InputError, match=sentence) as error:
        read([bad])
    assert str(bad) in str(error.value)


def test_without_a_run_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no run there"):
        read([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        read([tmp_path / "x"])


def test_a_run_that_failed_or_is_not_finished_stays_with_what_it_says_of_itself(tmp_path):
    run(tmp_path / "done", result(seed=1))
    words = ["--model", "PTuningV2", "--data.task", "sst2", "--model.length", "4", "--seed_everything", "2"]
    failed = tmp_path / "failed"
    failed.mkdir()
    cell = {"values": {"method": "PTuningV2", "seed": "2"}, "words": words, "digest": "0"}
    (failed / "cell.json").write_text(json.dumps(cell))
    (failed / "failed.json").write_text(json.dumps({"error": "error: no space left."}))
    begun = tmp_path / "unfinished"
    begun.mkdir()
    config = {
        "seed_everything": 3,
        "model": {"class_path": "ptune.PTuningV2", "init_args": {"length": 4, "backbone": "tiny"}},
        "data": {"class_path": "ptune.Classification", "init_args": {"task": {"name": "sst2"}}},
    }
    (begun / "config.yaml").write_text(yaml.safe_dump(config))
    records, _ = read([tmp_path])
    assert [(record.state, record.method, record.task, record.seed) for record in records] == [
        ("done", "PTuningV2", "sst2", 1),
        ("failed", "PTuningV2", "sst2", 2),
        ("unfinished", "PTuningV2", "sst2", 3),
    ]
    assert records[1].error == "no space left."
    assert records[1].options["length"] == records[2].options["length"] == 4
    (one,) = grouped(records)
    assert (len(one.runs), len(one.open), one.missing) == (1, 2, ())


def test_runs_of_one_hash_are_one(tmp_path):
    run(tmp_path / "a", result(hash="12345678"))
    run(tmp_path / "b", result(hash="12345678"))
    run(tmp_path / "c", result(hash="87654321", seed=2))
    records, (note,) = read([tmp_path])
    assert [Path(record.place).name for record in records] == ["a", "c"]
    assert note == f"counted once: {tmp_path / 'b'} is the same run as {tmp_path / 'a'} (hash 12345678)."


@pytest.fixture
def records(tmp_path):
    def records(*results):
        for i, found in enumerate(results):
            (tmp_path / f"{i}.json").write_text(json.dumps(found))
        return read([tmp_path])[0]

    return records


def test_rows_are_told_apart_by_what_differs_within_a_task_and_method(records):
    found = grouped(
        records(
            *(result(seed=seed, config={"length": length}) for seed in (1, 2) for length in (16, 4)),
            result(method="FineTuning", config={"lr": 1e-4}),
            result(task="rte", config={"length": 4, "lr": 0.5}),
        )
    )
    assert [(*group.values.items(), len(group.runs), group.missing) for group in found] == [
        (("task", "rte"), ("method", "PTuningV2"), ("length", "4"), 1, ()),
        (("task", "sst2"), ("method", "PTuningV2"), ("length", "4"), 2, ()),
        (("task", "sst2"), ("method", "PTuningV2"), ("length", "16"), 2, ()),
        (("task", "sst2"), ("method", "FineTuning"), ("length", ""), 1, ()),
    ]
    assert found[1].name == "PTuningV2, length 4"
    assert found[0].configuration == found[1].configuration


def test_of_runs_that_are_no_grid_nothing_is_missing(tmp_path):
    """As of two that were made by hand, or of two grids."""
    run(tmp_path / "a", result(seed=1))
    run(tmp_path / "b", result(task="rte", method="LoRA", seed=2))
    run(cell(tmp_path / "one", seed=3), result(seed=3))
    run(cell(tmp_path / "other", "BitFit", seed=4), result(method="BitFit", seed=4))
    found = grouped(read([tmp_path])[0])
    assert [(group.task, group.name, len(group.runs), group.missing) for group in found] == [
        *(("rte", "LoRA", 1, ()), ("sst2", "PTuningV2", 2, ()), ("sst2", "BitFit", 1, ()))
    ]


def test_within_a_grid_the_seeds_of_other_rows_are_missing(tmp_path):
    for method, task, seed in (("LoRA", "rte", 1), ("LoRA", "rte", 2), ("BitFit", "rte", 1), ("BitFit", "sst2", 3)):
        run(cell(tmp_path, method, task, seed), result(method=method, task=task, seed=seed))
    cell(tmp_path, "BitFit", "rte", 4)
    found = grouped(read([tmp_path])[0])
    assert [(group.task, group.name, len(group.open), group.missing) for group in found] == [
        *(("rte", "BitFit", 1, (2, 3)), ("rte", "LoRA", 0, (3, 4)), ("sst2", "BitFit", 0, (1, 2, 4)))
    ]
    moved = shutil.copytree(tmp_path / "LoRA" / "rte" / "seed=1", tmp_path / "elsewhere")
    (alone,) = grouped(read([moved, tmp_path / "LoRA" / "rte" / "seed=2"])[0])
    assert (len(alone.runs), alone.missing) == (2, ())


def test_the_columns_may_be_chosen(records):
    found = records(result(config={"length": 4}), result(seed=2, config={"length": 8}))
    (group,) = grouped(found, ("method",))
    assert dict(group.values) == {"task": "sst2", "method": "PTuningV2"}
    assert [group.values["length"] for group in grouped(found, ("length", "task"))] == ["4", "8"]
    with pytest.raises(InputError, match="--by lenght: no option of these runs; did you mean 'length'"):
        grouped(found, ("lenght",))


def test_what_belongs_to_one_task_alone_is_no_gap_of_another(records):
    found = grouped(records(*(result(task=task, config={"path": f"data/{task}"}) for task in "ab")), ("path", "method"))
    assert [group.values["path"] for group in found] == ["data/a", "data/b"]


def test_what_trains_nothing_lacks_no_seed(tmp_path):
    for method, seed, steps in (("LoRA", 1, 9), ("LoRA", 2, 9), ("ManualPrompt", 1, 0)):
        run(cell(tmp_path, method, seed=seed), result(method=method, seed=seed, steps=steps))
    assert [group.missing for group in grouped(read([tmp_path])[0])] == [(), ()]
