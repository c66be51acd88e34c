"""Every row of the published data parses with its task; where they are not there this is skipped."""

import pytest

from ptune.data import source
from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
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


def module(name, backbone):
    from ptune.data.qa import SpanQA
    from ptune.data.tagging import Tagging

    kinds = {kind.format: kind for kind in (Classification, MultipleChoice, SpanQA, Tagging)}
    return kinds[task(name).format](name, backbone)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_row_parses(name, shared, backbone):
    data = module(name, backbone)
    splits = source.read(task(name), str(shared / FOLDERS[name]))
    assert task(name).evaluate[0] in splits
    for split, rows in splits.items():
        assert len(data._parse(rows)) == SIZES.get(name, {}).get(split, len(rows.rows))


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
