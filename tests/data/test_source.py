import csv
import gzip
import json
from dataclasses import replace

import pytest

from ptune.data import readers, source
from ptune.data.classification import Classification
from ptune.errors import InputError
from ptune.tasks import TaskSpec

TASK = TaskSpec("own", text=("a", "b"), label="y", labels=("no", "yes"))
ROWS = [{"a": f"first {i}", "b": f"second, {i}", "y": ["no", "yes"][i % 2]} for i in range(5)]


def load(folder, backbone, task=TASK, stage=None, **options):
    data = Classification(task, backbone, path=folder, **options)
    data.setup(stage)
    return data


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "tsv", "parquet"])
def test_formats_read_the_same(folder, suffix):
    path = folder(suffix, train=ROWS, validation=ROWS[:2])
    splits = source.read(TASK, path)
    assert {name: rows.rows for name, rows in splits.items()} == {"train": ROWS, "validation": ROWS[:2]}


def test_gzipped_csv_with_a_byte_order_mark(folder, tmp_path):
    path = folder("csv", validation=ROWS)
    file = tmp_path / "data" / "validation.csv"
    (tmp_path / "data" / "validation.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + file.read_bytes()))
    file.unlink()
    assert source.read(TASK, path)["validation"].rows == ROWS


def test_quotes_are_text_in_tsv_and_line_breaks_may_be_quoted_in_csv(tmp_path):
    (tmp_path / "validation.tsv").write_text('a\tb\ty\n"so\tit "said"\tno\n')
    (tmp_path / "train.csv").write_text('a,b,y\n"one\ntwo",x,no\nthree,x,maybe\n')
    splits = source.read(TASK, str(tmp_path))
    assert splits["validation"].rows == [{"a": '"so', "b": 'it "said"', "y": "no"}]
    assert splits["train"].rows[0]["a"] == "one\ntwo"
    assert splits["train"].where(1) == f"{tmp_path / 'train.csv'}, line 4"


def write(tmp_path, name, text):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp_path)


GOOD = json.dumps(ROWS[0])


def damaged():
    """A gzip file whose compressed data are overwritten in their middle."""
    data = bytearray(gzip.compress((GOOD + "\n").encode() * 50, mtime=0))
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("validation.jsonl", GOOD + "\n\n{'a': 1}\n", r"validation.jsonl, line 3: malformed JSON \(.*column 2\)"),
        ("validation.jsonl", GOOD + "\n[1]\n", "line 2: expected a JSON object a line, got list"),
        ("validation.json", "[\n" + GOOD + ",\n}]", "validation.json, line 3: malformed JSON"),
        ("validation.json", "[1]", "validation.json, row 1: expected an object with named columns, got int"),
        ("validation.csv", "a,b,y\nx,y,no\nx,no\n", r"line 3: 2 fields where the header has 3 \(a, b, y\)"),
        ("validation.csv", 'a,b,y\n"x,y,no\n', "validation.csv, line 2: malformed row"),
        ("validation.csv", "a,a,y\nx,y,no\n", "line 1: a column name occurs twice"),
        ("validation.csv", "", "validation.csv: the file has no rows"),
        ("validation.csv", "a,b,y\n", "validation.csv: the file has no rows"),
        ("validation.jsonl", b"\xff\xfe", "validation.jsonl: not UTF-8 at byte 0"),
        ("validation.jsonl.gz", "plain", "validation.jsonl.gz: cannot be read"),
        ("validation.jsonl.gz", damaged(), r"validation.jsonl.gz: cannot be read \(Error -3 .*\); make it again"),
        (
            "validation.jsonl",
            GOOD + '\n{"a": "\\ud800", "b": "x", "y": 1}',
            r"line 2: a text holds '\\ud800', half of",
        ),
        ("validation.jsonl", '{"a": "x", "\\uDC00": "x", "y": 1}', r"line 1: a text holds '\\udc00', half of a"),
        ("validation.json", f'[{GOOD},\n{{"a": "\\udfff", "b": "x", "y": 1}}]', r"json, row 2: a text holds '\\udfff'"),
        ("validation.jsonl", GOOD + "\n" + "[" * 50_000, "validation.jsonl, line 2: JSON nested too deeply"),
        ("validation.json", "[" * 50_000, "validation.json: JSON nested too deeply"),
        ("validation.jsonl", GOOD + '\n{"a": ' + "1" * 5000 + "}", "line 2: a whole number has too many digits"),
        ("validation.parquet", "plain", "validation.parquet: not a Parquet file"),
        (
            "validation.jsonl",
            '{"a": "x", "bb": "x", "y": "no"}',
            r"line 1: no column 'b'; the row has 'a', 'bb', 'y'\.",
        ),
        ("validation.jsonl", '{"a": "x", "b": "x", "z": "no"}', r"line 1: no column 'y'; the row has 'a', 'b', 'z'\."),
        ("validation.jsonl", GOOD + '\n{"a": "x", "b": "x", "y": "on"}', r"line 2: column 'y': label 'on' is none of"),
        ("validation.jsonl", '{"a": "x", "b": "x", "y": 2}', r"line 1: column 'y': label '2' is none of"),
        ("validation.jsonl", '{"a": "x", "b": " ", "y": 1}', "line 1: column 'b' is empty"),
        ("validation.jsonl", '{"a": null, "b": "x", "y": 1}', "line 1: column 'a' is empty"),
        ("validation.jsonl", '{"a": NaN, "b": "x", "y": 1}', "line 1: column 'a' is empty"),
        ("validation.jsonl", '{"a": ["x"], "b": "x", "y": 1}', "line 1: column 'a' must be text, not list"),
        (
            "train.jsonl",
            GOOD,
            r"no file for the split 'validation': add validation \+ one of .* \(there is: train.jsonl\)",
        ),
    ],
)
def test_mistakes_name_file_line_and_fix(name, text, sentence, tmp_path, backbone):
    with pytest.raises(InputError, match=sentence) as error:
        load(write(tmp_path, name, text), backbone)
    assert "\n" not in str(error.value)


def test_both_halves_of_a_surrogate_pair_are_a_character(tmp_path):
    path = write(tmp_path, "validation.jsonl", '{"a": "\\ud83d\\ude00", "b": "\\\\ud800", "y": 1}')
    assert source.read(TASK, path)["validation"].rows == [{"a": "\U0001f600", "b": "\\ud800", "y": 1}]


def test_a_time_of_parquet_that_python_cannot_hold_is_named_by_row_and_column(tmp_path, backbone):
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.array([0, 400_000_000_000], pa.timestamp("s"))
    columns = {name: [row[name] for row in ROWS[:2]] for name in ROWS[0]}
    pq.write_table(pa.table(columns | {"when": times}), tmp_path / "validation.parquet")
    with pytest.raises(InputError, match=r"validation.parquet, row 2: column 'when' holds a value that cannot be read"):
        load(str(tmp_path), backbone)


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "validation.parquet"
    pq.write_table(pa.table([pa.array(["x"]), pa.array([0]), pa.array([1])], names=["a", "y", "y"]), file)
    with pytest.raises(InputError, match=r"validation.parquet: a column.* twice in \['a', 'y', 'y'\]; rename"):
        list(readers.parquet(file))


def test_a_parquet_file_with_a_damaged_page_says_to_make_it_again(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "validation.parquet"
    pq.write_table(pa.table({"a": [str(i) for i in range(3500)]}), file, use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[300:330] = b"\xff" * 30
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"validation.parquet: cannot be read \(.*\); make it again\.$"):
        assert source.read(TASK, str(tmp_path))["validation"].rows


def test_a_json_file_without_rows_says_so(tmp_path):
    for text in ("", "\n\n ", "[]"):
        (tmp_path / "validation.json").write_text(text)
        with pytest.raises(InputError, match=r"validation.json: the file has no rows; add some or remove it\.$"):
            assert source.read(TASK, str(tmp_path))["validation"].rows


@pytest.mark.parametrize(
    ("name", "short"), [("dev-v1.1.json", "dev.json"), ("validation_matched.tsv", "validation.tsv")]
)
def test_a_file_that_is_almost_called_as_its_split_is_to_be_renamed(tmp_path, name, short):
    for file in ("train-v1.1.json", "valid.md", "developers.csv", name):
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=rf"\(there is: .*\), or rename {name} to {short}\.$"):
        source.read(TASK, str(tmp_path))


def test_a_file_that_is_called_as_a_split_is_the_training_split_alone(tmp_path):
    file = tmp_path / "validation.jsonl"
    file.write_text(json.dumps({"a": "x", "y": 0}) + "\n")
    with pytest.raises(
        InputError, match=r"a file alone \(validation.jsonl\) is the training split, so give the folder"
    ):
        source.read(TASK, str(file))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_texts_and_numbers_are_what_the_file_says(suffix, tmp_path):
    """What the builders of `datasets` change: dates, NA, 1 beside 1.5, a column that a row lacks, large numbers."""
    if suffix == "csv":
        cells = [("NA", "null"), ("nan", ""), ("2020-01-01", "01"), (" 1 ", 'x "q"\r\ny')]
        rows = [{"a": a, "b": b} for a, b in cells]
        with (tmp_path / "validation.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["a", "b"])
            table.writeheader()
            table.writerows(rows)
    else:
        rows = [{"a": "2020-01-01", "n": 1}, {"a": "x", "n": 1.5}, {"n": 10**30}, {"a": None, "n": "1", "d": {"k": []}}]
        (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\r\n" for row in rows), newline="")
    found = source.read(TASK, str(tmp_path))["validation"].rows
    assert repr(found) == repr(rows)


def test_a_folder_without_a_validation_file_says_how_to_choose_on_its_test_file(folder, backbone):
    path = folder(train=ROWS, test=ROWS)
    instead = r", or choose the checkpoint on the test split: --data.task.evaluate '\[test\]'\.$"
    for task in (TASK, replace(TASK, evaluate=("validation",))):
        with pytest.raises(InputError, match=r"no file for the split 'validation'.*" + instead):
            load(path, backbone, task)
    assert load(path, backbone, replace(TASK, evaluate=("test",))).splits == ["test"]


def test_folder_that_is_not_there(tmp_path, backbone):
    with pytest.raises(InputError, match=r"no/such: does not exist; give the folder that holds validation.jsonl"):
        load("no/such", backbone)


def test_two_files_of_one_split(folder, backbone):
    folder("csv", validation=ROWS)
    with pytest.raises(InputError, match=r"has validation.jsonl and validation.csv for one split; keep one"):
        load(folder("jsonl", validation=ROWS), backbone)


def test_unlabelled_test_split_is_left_out(folder, backbone):
    hidden = [row | {"y": -1} for row in ROWS]
    assert load(folder(validation=ROWS, test=hidden), backbone).splits == ["validation"]
    bare = [{"a": row["a"], "b": row["b"]} for row in ROWS]
    assert load(folder(validation=ROWS, test=bare), backbone).splits == ["validation"]
    assert load(folder(validation=ROWS, test=ROWS), backbone).splits == ["validation", "test"]


def test_training_split_is_needed_to_train_only(folder, backbone):
    path = folder(validation=ROWS)
    data = load(path, backbone)
    assert data.majority("validation") == {}
    for call in (data.train_dataloader, lambda: data.setup("fit")):
        with pytest.raises(InputError, match="has no split 'train' to train on"):
            call()


def test_unreachable_hub_says_how_to_use_local_files(backbone, monkeypatch):
    import datasets

    def unreachable(*args, **options):
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError) as error:
        load(None, backbone, "rte")
    assert str(error.value) == (
        "task 'rte': nyu-mll/glue/rte cannot be loaded (Couldn't reach the Hub): use --data.path DIR with"
        " train.jsonl.gz, validation.jsonl.gz, test.jsonl.gz (or .csv, .parquet, ...) with the hub's column names."
    )
    with pytest.raises(InputError, match=r"task 'codah' has no data on the hub: use --data.path DIR"):
        source.read(TaskSpec("codah", text=("a",)), None)


def test_hub_splits_and_scripts(monkeypatch):
    import datasets

    calls = []

    def hub(*names, revision=None):
        calls.append((*names, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found rte.py")
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", hub)
    task = TaskSpec("x", text=("a",), hub=("some/where", "x"), evaluate=("test",))
    splits = source.read(task, None)
    assert {name: rows.rows for name, rows in splits.items()} == {"train": ROWS, "test": ROWS}
    assert splits["test"].where(3) == "some/where/x test, row 4"
    assert calls == [("some/where", "x", None), ("some/where", "x", "refs/convert/parquet")]
    task = TaskSpec("x", text=("a",), hub=("some/where", "x"), evaluate=("tests",))
    with pytest.raises(InputError, match=r"has no split 'tests', did you mean 'test'\?"):
        source.read(task, None)
