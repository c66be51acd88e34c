"""Rows with any number of labels: reading, the sigmoid head, its metrics against plain loops, a run."""

import json

import pytest
import runs
import torch

from ptune.data.multi_label import MultiLabel
from ptune.errors import InputError
from ptune.heads import head_for
from ptune.heads.metrics import Scores, majority
from ptune.run.finished import read
from ptune.serving.predictor import Predictor
from ptune.tasks.spec import HeadSpec, TaskSpec

LABELS = ("art", "sport", "war")
SPEC = HeadSpec("x", "multi_label", LABELS, ("micro_f1", "macro_f1", "exact_match"), "micro_f1")
SETS = [["sport"], ["war", "art"], [], ["sport", "war"], ["war"], ["war"]]
ROWS = [{"text": f"the nurse {i}", "labels": SETS[i % 6]} for i in range(12)]


@pytest.fixture
def backbone():
    return runs.bert()


def module(folder, rows, backbone, suffix="jsonl", **options):
    return MultiLabel(path=folder(suffix, train=rows, validation=rows), backbone=backbone, **options)


# ---- reading


def test_labels_are_read_off_the_training_split(folder, backbone):
    data = module(folder, ROWS, backbone)
    assert (data.task.text, data.task.label, data.task.labels) == (("text",), "labels", LABELS)
    assert data.said[-1] == "labels are those of the training split, sorted: [art, sport, war]"
    data.setup("fit")
    batch = data.collate([data._items["validation"][i] for i in range(4)])
    assert batch["labels"].tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert data.gold(data._items["validation"])[1] == [1, 0, 1]


def test_a_pair_of_texts_codes_and_a_separator(folder, backbone):
    rows = [{"premise": "a", "hypothesis": "b", "labels": text} for text in ("x; y", "", "y", " ;x")]
    data = module(folder, rows, backbone, "csv", separator=";")
    assert data.task.labels == ("x", "y")
    assert [data.parse(row)["label"] for row in rows] == [[1, 1], [0, 0], [0, 1], [1, 0]]
    coded = MultiLabel(TaskSpec(text=("t",), label="y", labels=LABELS), backbone)
    assert coded.parse({"t": "a", "y": [2, "art", 2]})["label"] == [1, 0, 1]
    assert coded.parse({"t": "a", "y": []})["label"] == [0, 0, 0]
    assert coded.parse({"t": "a", "y": [1, 0]})["label"] == [1, 1, 0]
    with pytest.raises(InputError, match=r"\['1', '1'\] seems to have a 0 or a 1 for each label; .* be \[0, 1\]\.$"):
        data.parse(rows[0] | {"labels": "1; 1"})
    with pytest.raises(InputError, match=r"\[0, 0, 0\] seems to have a 0 or a 1 for each label; .* would be \[\]\.$"):
        coded.parse({"t": "a", "y": [0, 0, 0]})
    assert coded.parse(coded.unanswered({"t": "a"}))["label"] == [0, 0, 0]


@pytest.mark.parametrize("separator", ["", ","])
def test_lists_in_a_csv_file_are_lists(separator, folder, backbone):
    rows = [{"text": "a", "labels": text} for text in ("['x', 'y']", "[]", '["y"]', "[1]", "[1, 0]")]
    data = module(folder, rows[:3], backbone, "csv", separator=separator)
    assert data.task.labels == ("x", "y")
    assert [data.parse(row)["label"] for row in rows] == [[1, 1], [0, 0], [0, 1], [0, 1], [1, 1]]
    for text in ("['x' 'y']", "[0 1]", "['x', nan]", "[1.0, 0.0]"):
        with pytest.raises(InputError, match=r"column 'labels': .* looks like a list and is none; save the file as"):
            data.parse({"text": "a", "labels": text})


def test_labels_that_begin_with_a_bracket_are_no_list(folder, backbone):
    rows = [{"text": "a", "labels": "[18+] x, [PG]"}]
    assert module(folder, rows, backbone, "csv", separator=",").task.labels == ("[18+] x", "[PG]")


@pytest.mark.parametrize(("separator", "splits"), [("", ["validation"]), (",", ["validation", "test"])])
def test_a_test_split_of_empty_texts_has_labels_with_a_separator_alone(separator, splits, folder, backbone):
    rows = [{"text": "a", "labels": text} for text in ("['x', 'y']", "['y']")]
    path = folder("csv", train=rows, validation=rows, test=[{"text": "a", "labels": ""}] * 2)
    data = MultiLabel(path=path, backbone=backbone, separator=separator)
    data.setup("test")
    assert data.splits == splits


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("art,war", r"line 13: column 'labels' must be a list of labels, not 'art,war'; if it holds labels, give what"),
        (3, r"line 13: column 'labels' must be a list of labels, not 3\.$"),
        (None, r"line 13: column 'labels' is empty"),
        ([None], r"line 13: column 'labels': \[None\] is no list of names or codes"),
        ([["art"]], r"line 13: column 'labels': \[\['art'\]\] is no list"),
        ([1, 0, 1], r"line 13: column 'labels': \[1, 0, 1\] seems to have a 0 or a 1 .*, which would be \[0, 2\]\.$"),
        ([0.0, 0.0, 1.0], r"line 13: column 'labels': \[0.0, 0.0, 1.0\] seems to have .* would be \[2\]\.$"),
    ],
)
def test_a_column_that_holds_no_lists_is_named_with_its_line(value, sentence, folder, backbone):
    with pytest.raises(InputError, match=sentence):
        module(folder, [*ROWS, ROWS[0] | {"labels": value}], backbone)


def test_what_cannot_be(folder, backbone):
    with pytest.raises(InputError, match=r"--data.task.labels .* must name two or more labels"):
        module(folder, [ROWS[0]], backbone)
    data = MultiLabel(
        TaskSpec(text=("text",), label="labels", labels=("art", "war")), backbone, path=folder(validation=ROWS)
    )
    with pytest.raises(InputError, match=r"train.jsonl, line 1: column 'labels': label 'sport' is none of"):
        data.setup()
    with pytest.raises(InputError, match=r"--data.shots 2: a row has any number of labels, not one class"):
        module(folder, ROWS, backbone, shots=2)


# ---- the head and its metrics


def by_loops(predicted, gold):
    """Micro and macro F1 and subset accuracy as scikit-learn defines them, with zero_division=0."""
    f1 = lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0  # noqa: E731
    counts = []
    for label in range(len(gold[0])):
        pairs = [(p[label], g[label]) for p, g in zip(predicted, gold, strict=True)]
        counts.append([pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 1))])
    return {
        "micro_f1": f1(*map(sum, zip(*counts, strict=True))),
        "macro_f1": sum(f1(*count) for count in counts) / len(counts),
        "exact_match": sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold),
    }


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_plain_loops(seed):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(40, 3, generator=draw)
    gold = (torch.rand(40, 3, generator=draw) < 0.4).long()
    if seed == 3:
        scores[:, 1], gold[:, 1] = -1, 0  # a label that no row has
    metric = Scores(SPEC)
    for part in (slice(0, 7), slice(7, None)):
        metric.update(scores[part], {"labels": gold[part]})
    assert metric.compute() == pytest.approx(by_loops((scores > 0).long().tolist(), gold.tolist()))


def test_metrics_by_hand():
    predicted = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    gold = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    metric = Scores(SPEC)
    metric.update(predicted - 0.5, {"labels": gold})
    assert metric.compute() == pytest.approx({"micro_f1": 4 / 6, "macro_f1": 2 / 3, "exact_match": 1 / 3})
    metric.reset()
    metric.update(torch.full((3, 3), -1.0), {"labels": torch.zeros(3, 3).long()})
    assert metric.compute() == {"micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 1.0}, "undefined is 0"


def test_the_majority_answers_the_most_frequent_set():
    train = [[0, 0, 1], [1, 0, 1], [0, 0, 1], [0, 1, 0]]
    gold = [[0, 0, 1], [1, 0, 1], [0, 1, 0]]
    assert majority(SPEC, train, gold) == pytest.approx(by_loops([[0, 0, 1]] * 3, gold))


def test_answers_are_what_the_table_counts(tiny):
    scores, gold = (
        torch.tensor([[3.0, -1, 4], [-1, -2, -3], [0.5, 0.1, -9]]),
        torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0]]),
    )
    head, batch = type(head_for(SPEC, runs_spec(tiny), 0.0)), {"labels": gold}
    found = [row[0] for row in head.answers(SPEC, scores, batch)]
    assert [row["answer"] for row in found] == [["war", "art"], [], ["art", "sport"]]
    assert found[0]["score"] == pytest.approx(torch.tensor([4.0, 3.0]).sigmoid().tolist())
    table = head.rows(SPEC, scores, batch)
    assert head.right(table) == [True, False, True]
    assert head.gold(SPEC, batch) == [["art", "war"], ["war"], ["art", "sport"]]
    assert table.shape[1] == len(head.columns(SPEC))


def runs_spec(tiny):
    from ptune.backbone.pretrained import describe

    return describe(tiny("bert"))


# ---- a run


def test_a_run_is_trained_evaluated_and_asked(tmp_path):
    (tmp_path / "topics").mkdir()
    for split in ("train", "validation"):
        runs.write(tmp_path / "topics" / f"{split}.jsonl", ROWS)
    words = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--model.length", 2, *runs.QUIET]
    words += [
        "--data",
        "MultiLabel",
        "--data.path",
        tmp_path / "topics",
        "--data.batch_size",
        4,
        "--data.max_length",
        32,
    ]
    words += ["--trainer.max_steps", 2, "--wandb.enabled", "false", "--run_dir", tmp_path / "run", "--model.lr", 0.1]
    code, _, err = runs.call(words)
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["metrics"]["validation"]) == ["micro_f1", "macro_f1", "exact_match", "loss"]
    assert result["majority"]["validation"] == pytest.approx(
        {"micro_f1": 8 / 13, "macro_f1": 0.8 / 3, "exact_match": 1 / 3}
    )
    model, data = read(tmp_path / "run")
    (answer,) = Predictor(model, data)([ROWS[0]["text"]])
    scores = model(data.collate(data.items([data.checked(ROWS[0])])))
    expected = [LABELS[code] for code in scores[0].argsort(descending=True).tolist() if scores[0, code] > 0]
    assert [row["label"] for row in answer] == expected
