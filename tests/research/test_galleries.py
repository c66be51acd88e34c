"""Which pictures a report shows, and that their numbers are the runs'."""

from xml.etree import ElementTree

import pytest
import torch

from ptune.errors import InputError
from ptune.inspect import _norms
from ptune.research.galleries import galleries, learning, norms, options, picture, quality_against_cost
from ptune.research.groups import grouped
from ptune.research.prefixes import prefix_norms
from ptune.research.records import Record
from ptune.tuning import saving
from ptune.tuning.prefix import PrefixEncoder


def run(method, seed=1, task="rte", history=(), place="x", quality=0.5, cost=10, **choices):
    options_ = {"method": method, "task": task, "seed": seed, **choices}
    entries = [{"epoch": e, "step": s, "metrics": {"accuracy": q}} for e, s, q in history]
    metrics = {"validation": {"accuracy": quality - 0.1}, "test": {"accuracy": quality}}
    measured = {"metrics": metrics, "monitor": "accuracy", "trained_parameters": cost}
    return Record(str(place), options_, {**options_, **measured, "history": entries})


def test_quality_and_cost_are_those_of_the_runs():
    records = [run("LoRA", 1, quality=0.7), run("LoRA", 2, quality=0.8), run("BitFit", quality=0.6, cost=30)]
    (picture,) = quality_against_cost(grouped(records))
    assert "accuracy on test, %" in picture.body
    assert picture.rows == (
        ("BitFit", "30", "1", "60", "60", "60", "no"),
        ("LoRA", "10", "2", "75", "70", "80", "yes"),
    )


def test_the_mean_over_tasks_is_that_of_rows_with_all_of_them():
    records = [
        *(
            run("LoRA", seed, task, quality=q)
            for task, qs in {"a": (0.7, 0.8), "b": (0.5, 0.9)}.items()
            for seed, q in enumerate(qs)
        ),
        *(run("FineTuning", task=task, quality=0.9, cost=30) for task in ("a", "b")),
        run("BitFit", task="a", quality=0.6),
    ]
    mean, *rest = quality_against_cost(grouped(records), ["trained_parameters"])
    assert [picture.title for picture in (mean, *rest)] == ["mean over 2 tasks", "a", "b"]
    assert mean.rows == (
        ("LoRA", "10", "2", "72.5", "60", "85", "yes"),
        ("FineTuning", "30", "1", "90", "90", "90", "yes"),
    )
    root = ElementTree.fromstring(picture(grouped(records)))
    places = [group.get("transform") for group in root if group.tag.endswith("}g")]
    assert len({place.split()[0] for place in places}) == 2, "in two columns"
    assert places[0].split()[1] == places[1].split()[1] != places[2].split()[1]


def test_a_configuration_looks_alike_in_all_pictures():
    tasks = {"rte": ["BitFit", "LoRA"], "cola": ["LoRA", "FineTuning"]}
    records = [run(method, task=task) for task, methods in tasks.items() for method in methods]
    pictures = {picture.title: picture for picture in quality_against_cost(grouped(records))}

    def look(task, method):
        return next(part for part in pictures[task].body.split("<path")[1:] if f"<title>{method}:" in part)[:60]

    assert look("rte", "LoRA").split("transform")[0] == look("cola", "LoRA").split("transform")[0]
    assert look("rte", "LoRA").split("transform")[0] != look("rte", "BitFit").split("transform")[0]


def test_a_mean_of_a_learning_curve_is_of_all_seeds():
    long, short = [(1, 5, 0.5), (2, 10, 0.6), (3, 15, 0.7)], [(1, 5, 0.7), (2, 10, 0.8)]
    (picture,) = learning(grouped([run("LoRA", 1, history=long), run("LoRA", 2, history=short)]))
    assert picture.columns[1] == "epoch"
    assert picture.rows == (("LoRA", "1", "2", "60", "50", "70"), ("LoRA", "2", "2", "70", "60", "80"))


def test_validations_within_an_epoch_are_shown_by_step():
    (picture,) = learning(grouped([run("LoRA", history=[(1, 5, 0.5), (1, 10, 0.6)])]))
    assert [row[1:4] for row in picture.rows] == [("5", "1", "50"), ("10", "1", "60")]


def test_runs_that_keep_no_history_have_no_curve():
    assert not list(learning(grouped([run("LoRA"), run("BitFit")])))


def test_an_option_is_shown_all_else_equal():
    records = [
        run("PTuningV2", length=length, layers=layers, quality=length / 100)
        for length, layers in [(8, "all"), (16, "all"), (128, "all"), (8, "last:2")]
    ]
    length, layers = options(grouped([*records, run("LoRA")]))
    assert [row[3] for row in length.rows] == ["-2", "6", "118"]  # on validation
    assert [row[:2] for row in length.rows] == [("PTuningV2, layers all", n) for n in ("8", "16", "128")]
    assert [row[:2] for row in layers.rows] == [("PTuningV2, length 8", "all"), ("PTuningV2, length 8", "last:2")]


def test_norms_are_those_that_inspect_measures(tmp_path):
    encoder = PrefixEncoder(5, [(2, 4)] * 3)
    for seed in (1, 2):
        place = tmp_path / str(seed)
        place.mkdir()
        saving.save(place / "prompts.safetensors", {"prompt.encoder.flat": encoder.flat}, {"layers": "[0, 2, 3]"})
    found = prefix_norms(tmp_path / "1" / "prompts.safetensors")
    assert list(found) == [0, 2, 3]
    torch.testing.assert_close(torch.tensor(list(found.values())), _norms(encoder()), check_dtype=False)
    (picture,) = norms(grouped([run("PTuningV2", seed, place=tmp_path / str(seed)) for seed in (1, 2)]))
    assert [row[:3] for row in picture.rows] == [(kind, n, "2") for kind in ("keys", "values") for n in ("0", "2", "3")]


def test_a_file_without_a_prefix_has_no_norms(tmp_path):
    file = tmp_path / "prompts.safetensors"
    for tensors, layers in [({"head": torch.ones(2)}, "[0]"), ({"prompt.encoder.flat": torch.ones(2, 9)}, "[0, 1]")]:
        saving.save(file, tensors, {"layers": layers})
        assert prefix_norms(file) == {}
    saving.save(file, {"prompt.encoder.flat": torch.ones(2, 8)}, {"layers": "{not json"})
    assert prefix_norms(file) == {}
    file.write_bytes(b"torn")
    assert prefix_norms(file) == {}


def test_what_has_no_numbers_has_no_section():
    failed = Record("x", {"method": "LoRA", "task": "rte", "seed": 1}, state="failed", error="no")
    assert galleries(grouped([failed])) == []
    assert [section.title for section in galleries(grouped([run("LoRA"), run("BitFit")]))] == ["Quality against cost"]


def test_a_picture_alone_shows_each_task_with_two_rows():
    records = [run(method, task=task) for task in ("rte", "cola") for method in ("LoRA", "BitFit")]
    root = ElementTree.fromstring(picture(grouped([*records, run("LoRA", task="sst2")])))
    assert root[0].text == "cola; rte"
    with pytest.raises(InputError, match="no task has two finished rows"):
        picture(grouped([run("LoRA")]))


def test_the_best_of_many_rows_are_shown():
    groups = grouped([run("LoRA", lr=rate, quality=rate / 100) for rate in range(1, 41)])
    (picture,) = quality_against_cost(groups)
    assert picture.title == "rte, the best 20 of 40 rows"
    assert {row[3] for row in picture.rows} == {str(rate) for rate in range(21, 41)}
    (picture,) = options(groups)
    assert len(picture.rows) == 40
