"""Every row of the published data parses with its task; where they are not there this is skipped."""

from itertools import islice

import pytest

from ptune.data import modules, source
from ptune.tasks import task

FOLDERS = {
    "cola": "cola", "sst2": "sst2", "mrpc": "mrpc", "stsb": "stsb", "mnli": "mnli", "qnli": "qnli", "rte": "rte",
    "boolq": "boolq", "cb": "cb", "copa": "copa", "multirc": "multirc", "wic": "wic", "wsc": "wsc", "swag": "codah",
    "codah": "codah", "squad": "squad_subset", "conll2003": "conll2003", "conll2004": "conll2004", "wnut17": "wnut17",
}  # fmt: skip
SIZES = {
    "mrpc": {"train": 3668, "validation": 408, "test": 1725},
    "conll2003": {"train": 14041, "validation": 3250, "test": 3453},
    "mnli": {"validation_matched": 9815},
    "multirc": {"train": 27243, "validation": 4848},
}


pytestmark = [pytest.mark.slow, pytest.mark.deep]


@pytest.fixture
def masked(shared):
    """A real masked language model."""
    folder = shared.parent / "models" / "minilm-l6-mlm"
    if not folder.is_dir():
        pytest.skip(f"no real masked language model: no {folder}")
    return str(folder)


def module(name, backbone, **options):
    return modules()[task(name).format](name, backbone, **options)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_row_parses(name, shared, backbone):
    data = module(name, backbone)
    splits = source.read(task(name), str(shared / FOLDERS[name]))
    assert task(name).evaluate[0] in splits
    for split, rows in splits.items():
        assert sum(1 for _, row in rows.read() if data.checked(row)) == SIZES.get(name, {}).get(split, len(rows.rows))


@pytest.mark.parametrize(
    ("name", "majority"),
    [
        ("mrpc", {"f1": 0.8122, "accuracy": 0.6838}),
        ("rte", {"accuracy": 0.5271}),
        ("cola", {"matthews": 0.0}),
        ("copa", {"accuracy": 0.45}),
        ("cb", {"accuracy": 0.5, "macro_f1": 0.2222}),
        ("stsb", {"pearson": 0.0, "spearman": 0.0}),
        ("wsc", {"accuracy": 0.6346}),
    ],
)
def test_majority_answers_the_most_frequent_training_label(name, majority, shared, backbone):
    data = module(name, backbone)
    data.path = str(shared / name)
    data.setup("fit")
    assert data.majority("validation") == pytest.approx(majority, abs=1e-4)


TEMPLATED = {
    name: [name]
    for name in "cola sst2 mrpc mnli qnli rte boolq cb copa multirc wic wsc codah".split()  # noqa: SIM905
} | {f"fewglue/{name}": [f"fewglue/{name}", name] for name in ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")}
"""Folders of each."""
SOME = 50
"""Rows of a split that are written as a template says."""


@pytest.mark.parametrize("name", TEMPLATED)
def test_rows_are_written_in_the_tasks_template(name, shared, masked):
    data = module(name, masked, template="task", max_length=64)
    splits = source.read(task(name), [str(shared / folder) for folder in TEMPLATED[name]])
    assert set(task(name).evaluate[:2]) - {"test", "validation_mismatched"} <= set(splits)
    for rows in splits.values():
        items = data.items([data.checked(row) for _, row in islice(rows.read(), SOME)])
        batch = data.collate(items)
        assert batch["input_ids"].shape[1] <= 64
        at = batch["input_ids"].gather(1, batch["answer_at"])
        assert (at == data.tokenizer.mask_token_id).all(), "every place that is read is a mask"
        choices = len(task(name).choices) or 1
        assert len(batch["input_ids"]) == choices * len(batch["labels"])


@pytest.mark.parametrize("relation", ["P1303", "P47"])
def test_facts_of_a_relation_are_read_and_those_of_several_tokens_left_out(relation, shared, masked):
    name = f"lama/{relation}"
    data = module(name, masked, path=str(shared / "lama_trex"))
    data.setup("fit")
    assert data.splits[-1] == "test"
    for split, items in data._items.items():
        raw = source.read(task(name), str(shared / "lama_trex"))[split].rows
        assert {row["predicate_id"] for row in raw} == {relation}
        assert len(items) + data.left_out[split] == len(raw)
        words = data.tokenizer.convert_ids_to_tokens(items["label"][:])
        spelled = data.tokenizer.backend_tokenizer.normalizer.normalize_str
        assert set(words) <= {spelled(row["obj_label"].strip()) for row in raw}
