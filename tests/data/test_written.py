"""Files as pandas and spreadsheets write them: 1.0 for 1, lists as texts, no labels, another separator."""

import csv
import json

import pytest
import runs

from ptune.data.classification import Classification
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.tasks.spec import TaskSpec


@pytest.fixture
def backbone():
    """A tokenizer that is loaded in no time."""
    return runs.bert()


def of_file(folder, name, text):
    """A folder with the same file for training and validation."""
    for split in ("train", "validation"):
        (folder / name.replace("train", split)).write_text(text)
    return str(folder)


def test_labels_that_are_numbers_are_compared_as_numbers(folder, backbone):
    """Whole numbers next to a gap are written as 1.0: 1 in another file is not the code of the second label."""
    train = [{"text": f"a {i}", "label": f"{i % 4 + 1}.0"} for i in range(8)]
    other = [{"text": f"a {i}", "label": str(i + 1)} for i in range(3)]
    data = Classification(None, backbone, path=folder("csv", train=train, validation=other))
    data.setup("fit")
    assert data.task.labels == ("1.0", "2.0", "3.0", "4.0")
    assert sorted(label for batch in data.val_dataloader() for label in batch["labels"].tolist()) == [0, 1, 2]
    wrong = [{"text": "a", "label": "0"}]
    with pytest.raises(InputError, match="line 2: column 'label': label '0' is none of"):
        Classification(None, backbone, path=folder("csv", train=train, validation=wrong)).setup("fit")
    long = Classification(TaskSpec(text=("text",), labels=("90071992547409931", "1e99999999999999999999")), backbone)
    assert long.code("90071992547409931.0") == 0
    for value in ("90071992547409930", "1e99999999999999999998", "1"):  # the first is the same float
        with pytest.raises(InputError, match=f"label '{value}' is none of"):
            long.code(value)


@pytest.mark.parametrize("nothing", ["", "-1"])
def test_a_test_split_without_labels_is_left_out(nothing, folder, backbone):
    rows = [{"text": "a", "label": name} for name in ("0", "1")]
    test = [{"text": "a", "label": nothing}]
    data = Classification(None, backbone, path=folder("csv", train=rows, validation=rows, test=test))
    data.setup("test")
    assert "test" not in data._items
    with pytest.raises(InputError, match=r"label '' is none of|label '-1' is none of"):
        Classification(None, backbone, path=folder("csv", train=rows, validation=rows, test=[*test, *rows])).setup(
            "test"
        )


def test_a_test_split_of_nan_is_left_out(folder, backbone):
    rows = [{"text": "a", "label": name} for name in ("no", "yes")]
    test = [{"text": "a", "label": float("nan")}] * 2
    data = Classification(None, backbone, path=folder(train=rows, validation=rows, test=test))
    data.setup("test")
    assert data.splits == ["validation"]


def test_a_test_split_without_numbers_is_left_out_and_minus_one_is_a_number(folder, backbone):
    rows = [{"text": "a", "label": name} for name in ("0.5", "-1")]
    for value, splits in (("", ["validation"]), ("-1", ["validation", "test"])):
        test = [{"text": "a", "label": value}] * 2
        data = Classification(None, backbone, path=folder("csv", train=rows, validation=rows, test=test))
        data.setup("test")
        assert (data.head.kind, data.splits) == ("regress", splits)


@pytest.mark.parametrize("minus", ["-1", "-1.0"])
def test_minus_one_may_be_a_label(minus, folder, backbone):
    rows = [{"text": "a", "label": name} for name in (minus, minus.replace("-", ""))]
    data = Classification(None, backbone, path=folder("csv", train=rows, validation=rows, test=rows[:1]))
    data.setup("test")
    assert len(data._items["test"]) == 1


@pytest.mark.parametrize("write", [str, json.dumps])
def test_lists_in_a_csv_file_are_lists(write, folder, backbone):
    rows = [{"tokens": write(["it's", "x y", "["]), "tags": write(["B-X", "I-X", "O"])}]
    data = Tagging(path=folder("csv", train=rows, validation=rows), backbone=backbone)
    assert data.task.labels == ("O", "B-X", "I-X")
    assert data.parse(rows[0]) == {"words": ["it's", "x y", "["], "tags": [1, 2, 0]}


def test_lists_of_codes_in_a_csv_file_are_lists(folder, backbone):
    rows = [{"tokens": "['a']", "tags": "[1]"}, {"tokens": "['a', ' ']", "tags": "[0, 1]"}]
    data = Tagging(path=folder("csv", train=rows, validation=rows), backbone=backbone)
    assert data.task.labels == ("0", "1")
    assert [data.parse(row) for row in rows] == [
        {"words": ["a"], "tags": [1]},
        {"words": ["a", " "], "tags": [0, 1]},
    ]


@pytest.mark.parametrize(
    "text", ["['O' 'B-X']", "['O', x]", "[1, B]", "[1 0]", "['O', None]", "['O'], ['B-X']", '["O", "\\ud83d"]']
)
def test_what_looks_like_a_list_and_is_none_is_refused(text, folder, backbone):
    rows = [{"tokens": "a b", "tags": text}]
    with pytest.raises(InputError, match="looks like a list and is none; save the file as JSON lines or Parquet"):
        Tagging(path=folder("csv", train=rows, validation=rows), backbone=backbone).setup("fit")


def test_brackets_that_are_words_stay_words(folder, backbone):
    texts = ("[ 1 ]", "[UNK] x [1]", "[ 1 , 2 ]", "[1] x [2]", "[1]", "[ ]", "[ ' Yes ' ]", '[ " Yes " ]')
    rows = [{"tokens": text, "tags": " ".join(["B-X", *["O"] * text.count(" ")])} for text in texts]
    data = Tagging(path=folder("csv", train=rows, validation=rows), backbone=backbone)
    assert [data.parse(row)["words"] for row in rows] == [text.split() for text in texts]


@pytest.mark.parametrize(
    ("name", "header"),
    [("train.csv", "a;y"), ("train.csv", "a\ty"), ("train.tsv", "a,y"), ("train.tsv", "a, y"), ("train.tsv", "a;y")],
)
def test_a_file_with_another_separator_is_told(name, header, tmp_path, backbone):
    path = of_file(tmp_path, name, f"{header}\n1\n")
    with pytest.raises(InputError) as error:
        Classification(None, backbone, path=path)
    assert str(error.value).endswith(
        f"{name}, line 1: one column {header!r}; the fields of a .csv are separated by commas and those of a .tsv by "
        "tabs; save the file so."
    )


@pytest.mark.parametrize(
    ("name", "header"), [("train.csv", "the text"), ("train.tsv", "text"), ("train.csv", '"a, b"')]
)
def test_one_column_may_stand_alone(name, header, tmp_path, backbone):
    path = of_file(tmp_path, name, f"{header}\nsome words\n")
    column = next(csv.reader([header]))[0]
    data = Classification(TaskSpec(text=(column,), labels=("no", "yes")), backbone, path=path)
    with pytest.raises(InputError, match=f"line 2: no column 'label'; the row has '{column}'"):
        data.setup()


def test_a_space_in_the_name_of_a_column_is_seen(tmp_path, backbone):
    with pytest.raises(InputError, match=r"label must name the column of the answer, of .*: 'text', ' label'\.$"):
        Classification(None, backbone, path=of_file(tmp_path, "train.csv", "text, label\na, b\n"))
