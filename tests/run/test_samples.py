"""Rows with texts and answers for a reader: half of them wrong, in the columns of the data, the same every time."""

import json
from pathlib import Path

import pytest
import runs

import ptune
from ptune.data import modules
from ptune.run.predictions import Predictions
from ptune.run.samples import ANSWERED, draw, sample
from ptune.tasks import task


@pytest.mark.parametrize(
    ("wrong", "right", "most", "drawn"),
    [(100, 100, 20, (10, 10)), (3, 100, 20, (3, 17)), (100, 4, 20, (16, 4)), (2, 3, 20, (2, 3)), (9, 9, 5, (2, 3))],
)
def test_half_of_what_is_drawn_is_wrong_where_there_is_enough(wrong, right, most, drawn):
    of = [False, True] * min(wrong, right) + [False] * (wrong - right) + [True] * (right - wrong)
    places = draw(of, most, "11/test")
    assert (sum(not of[place] for place in places), sum(of[place] for place in places)) == drawn
    assert places == sorted({*places}) == draw(of, most, "11/test")


def test_the_seed_decides_which_rows_are_drawn():
    of = [None] * 1000
    assert len({tuple(draw(of, 20, f"{seed}/test")) for seed in range(5)}) == 5


def module(name: str, path: str, **options):
    """The data module of a toy task, read."""
    data = modules()[task(name).format](name, backbone=runs.bert(lm=True), path=path, **options)
    data.setup()
    return data


def answered(data, split: str, values: list[dict]) -> Predictions:
    """Predictions as if the rows from the second one on had these answers."""
    kept = Predictions(data)
    kept.rows[split] = dict(zip(data.row_numbers(split)[1:], values, strict=False))
    return kept


@pytest.mark.parametrize(
    ("name", "options", "columns"),
    [
        ("toy/single", {}, ("sentence",)),
        ("toy/pair", {}, ("sentence1", "sentence2")),
        ("toy/pair", {"template": "{sentence2} [MASK]", "verbalizer": {"no": "was", "yes": "by"}}, ("sentence2",)),
        ("toy/choice", {}, ("context", "ending0", "ending1")),
        ("toy/choice", {"template": "{context} [MASK]"}, ("context", "ending0", "ending1")),
        ("toy/qa", {}, ("question", "context")),
        ("toy/tagging", {}, ("tokens",)),
    ],
)
def test_a_sample_has_the_texts_of_its_rows_in_every_format(name, options, columns):
    path = runs.data(name)
    rows = [json.loads(line) for line in Path(path, "validation.jsonl").read_text().splitlines()]
    data = module(name, path, **options)
    values = [{"answer": f"a{i}", "score": i / 10, "right": i % 2 == 0, "gold": f"g{i}"} for i in range(len(rows) - 1)]
    names, found = sample(data, answered(data, "validation", values), "validation", 4, 11)
    assert names == ["row", *columns, *ANSWERED]
    assert len(found) == 4
    for number, *cells in found:
        texts = [rows[number][column] for column in columns]
        assert cells[: len(columns)] == [" ".join(text) if isinstance(text, list) else text for text in texts]
        value = values[number - 1]
        assert cells[len(columns) :] == [value[name] for name in ANSWERED]


def test_rows_that_were_left_out_do_not_shift_the_texts(tmp_path):
    """Rows of LAMA whose word is no single token are left out; the others keep their numbers."""
    rows = [{"sub_label": f"w{i}", "obj_label": word} for i, word in enumerate(["nurse", "abcxyz", "pilot"])]
    for split in ("train", "validation"):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    spec = ptune.TaskSpec(
        "own", "fill", ("sub_label",), "obj_label", evaluate=("validation",), template="{sub_label} [MASK]"
    )
    data = ptune.Fill(spec, backbone=runs.bert(lm=True), path=str(tmp_path))
    data.setup()
    assert list(data.row_numbers("validation")) == [0, 2]
    assert data.texts_of("validation", [2, 0]) == [{"sub_label": "w2"}, {"sub_label": "w0"}]


def test_lists_are_one_text_and_their_score_the_mean(tmp_path):
    rows = [{"text": "the nurse", "score": "long " * 1000, "labels": ["a", "b"]} for _ in range(3)]
    for split in ("train", "validation"):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    spec = ptune.TaskSpec("own", text=("text", "score"), label="labels", labels=("a", "b"), evaluate=("validation",))
    data = ptune.MultiLabel(spec, backbone=runs.bert(), path=str(tmp_path))
    data.setup()
    values = [
        {"answer": ["b", "a"], "score": [0.9, 0.7], "right": True, "gold": ["a", "b"]},
        {"answer": [], "score": [], "right": False, "gold": ["a", "b"]},
    ]
    names, found = sample(data, answered(data, "validation", values), "validation", 9, 11)
    assert names == ["row", "text", "score (text)", *ANSWERED]
    assert [row[3:] for row in found] == [["a | b", "b | a", pytest.approx(0.8), True], ["a | b", "", None, False]]
    assert {len(row[2]) for row in found} == {2000}
