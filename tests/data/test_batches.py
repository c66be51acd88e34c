"""Rows that come from no split become batches: with answers as in an evaluation, and without answers."""

import pytest
import runs
import torch

from ptune.data import modules
from ptune.errors import InputError
from ptune.tasks import TaskSpec, task, toy

GROUPED = TaskSpec("own", text=("a",), label="y", labels=("no", "yes"), group="g", metrics=("f1", "question_em"))
FACT = TaskSpec("own", "fill", text=("a",), label="y", metrics=("precision_at_1",), template="{a} [MASK].")
NUMBER = TaskSpec("own", text=("a",), label="y", metrics=("pearson",))
SENTENCES = [{"a": "the nurse thanked the pilot " * (i % 3 + 1), "y": "yes", "g": f"q{i // 2}"} for i in range(7)]
ROWS = {
    "toy/pair": (task("toy/pair"), toy.generate("toy/pair", "test")[:7], {}),
    "toy/choice": (task("toy/choice"), toy.generate("toy/choice", "test")[:7], {}),
    "toy/qa": (task("toy/qa"), toy.generate("toy/qa", "test")[:7], {}),
    "toy/tagging": (task("toy/tagging"), toy.generate("toy/tagging", "test")[:7], {}),
    "group": (GROUPED, SENTENCES, {}),
    "number": (NUMBER, [row | {"y": 1.5} for row in SENTENCES], {}),
    "fact": (FACT, [row | {"y": "baker"} for row in SENTENCES], {}),
    "cloze": (GROUPED, SENTENCES, {"template": "{a} [MASK].", "verbalizer": {"no": "judge", "yes": "baker"}}),
}
ANSWERS = {"labels", "group", "references"}


def module(name):
    row, rows, options = ROWS[name]
    return modules()[row.format or "classification"](row, runs.bert(lm=True), batch_size=3, **options), rows


@pytest.mark.parametrize("name", ROWS)
def test_rows_with_answers_are_the_batches_of_an_evaluation(name, tmp_path):
    data, rows = module(name)
    for split in (data.task.train, data.task.evaluate[0]):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    data.path = str(tmp_path)
    data.setup()
    found = list(data.batches(rows))
    assert sorted(number for numbers, _ in found for number in numbers) == list(range(len(rows)))
    for (_, batch), expected in zip(found, data.loader(data.task.evaluate[0]), strict=True):
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(batch[key], value) if isinstance(value, torch.Tensor) else batch[key] == value, key


@pytest.mark.parametrize("name", ROWS)
def test_rows_without_answers_have_batches_of_the_same_texts_keys_and_shapes(name):
    data, rows = module(name)
    bare = [{key: value for key, value in row.items() if key not in (data.task.label, data.task.group)} for row in rows]
    hidden = [row | {data.task.label: None} for row in rows]
    known = list(data.batches(rows))
    for unlabelled in (bare, hidden):
        for (numbers, batch), (others, labelled) in zip(data.batches(unlabelled, labelled=False), known, strict=True):
            assert numbers == others
            assert batch.keys() == labelled.keys()
            assert batch["labels"].shape == labelled["labels"].shape
            for key in batch.keys() - ANSWERS - {"null_threshold", "max_answer_length"}:
                assert torch.equal(batch[key], labelled[key]), key
    with pytest.raises(InputError, match=r"^row 1: no column 'y'|^row 1: no column 'label'|^row 1: no column '\w+s'"):
        next(data.batches(bare))


def test_a_mistake_in_a_row_is_named_by_its_number():
    data, rows = module("group")
    with pytest.raises(InputError, match=r"^row 2: no column 'a'; the row has 'g'\.$"):
        next(data.batches([rows[0], {"g": "1"}], labelled=False))
    with pytest.raises(InputError, match=r"^no column 'a'; the row has 'b'\.$"):
        data.checked({"b": 1}, labelled=False)
