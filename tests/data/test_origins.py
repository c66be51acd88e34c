"""Where rows may come from beside a folder with a file a split, and what is drawn from a training file alone."""

import json
import os
import threading
from collections import Counter
from dataclasses import replace

import datasets
import pytest
import runs

from ptune.data import cache, local, source, splits
from ptune.data.classification import Classification
from ptune.data.draws import held_out
from ptune.data.qa import SpanQA
from ptune.errors import InputError
from ptune.tasks import TaskSpec, task

TASK = TaskSpec("own", "classification", ("a",), "y", ("no", "yes"), metrics=("accuracy",))
ROWS = [{"a": f"the {word} {i}", "y": "yes" if i % 4 == 0 else "no"} for i, word in enumerate(["nurse", "pilot"] * 20)]

HUB = ["o/n", "o/n/c", "n"]


@pytest.fixture(scope="module")
def bert():
    return runs.bert()


def module(bert, path, row=TASK, kind=Classification, **options):
    data = kind(row, bert, path=path, **options)
    data.setup("fit")
    return data


def texts(data, split):
    return [row["texts"][0] for row in data._rows[split]]


# ---- folders of `datasets`, files


def test_a_saved_dataset_dict_is_read_as_files_are(bert, folder, tmp_path):
    parts = {"train": ROWS, "validation": ROWS[:6], "test": ROWS[6:9]}
    saved = datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in parts.items()})
    saved.save_to_disk(tmp_path / "saved")
    found, plain = module(bert, str(tmp_path / "saved")), module(bert, folder(**parts))
    assert found.splits == ["validation", "test"]
    assert found.fingerprints() == plain.fingerprints()
    assert source.read(TASK, str(tmp_path / "saved"))["test"].where(1) == f"{tmp_path / 'saved' / 'test'}, row 2"


def test_a_mistake_in_a_saved_dataset_has_its_row(bert, tmp_path):
    rows = datasets.Dataset.from_list([*ROWS, {"a": "the nurse", "y": "maybe"}])
    datasets.DatasetDict(train=rows, validation=rows.select([0])).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"saved/train, row 41: column 'y': label 'maybe' is none of"):
        module(bert, str(tmp_path / "saved"))
    for file in (tmp_path / "saved" / "train").glob("*.arrow"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"saved/train: cannot be read \(.*\); save the dataset again\.$"):
        module(bert, str(tmp_path / "saved"))


def test_a_file_or_a_saved_dataset_alone_is_the_training_split(bert, folder, tmp_path):
    file = os.path.join(folder("csv", train=ROWS), "train.csv")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for place in (file, str(tmp_path / "saved"), os.path.dirname(file)):
        with pytest.raises(InputError, match=r"no file for the split 'validation'.*training split: --data.holdout 0.1"):
            module(bert, place)
    found = [module(bert, place, holdout=0.25).fingerprints() for place in (file, str(tmp_path / "saved"))]
    assert found[0] == found[1]
    with pytest.raises(InputError, match=r"are both files, and a file is the training split; give one"):
        module(bert, [file, file])
    os.rename(file, tmp_path / "train.doc")
    with pytest.raises(InputError, match=r"train.doc ends with none of .jsonl"):
        module(bert, str(tmp_path / "train.doc"), holdout=0.1)


def test_a_file_beside_a_folder_is_the_training_split(bert, folder, tmp_path):
    runs.write(tmp_path / "other.jsonl", ROWS[:3])
    data = module(bert, [str(tmp_path / "other.jsonl"), folder(train=ROWS, validation=ROWS[:2])])
    assert {split: len(rows) for split, rows in data._rows.items()} == {"train": 3, "validation": 2}


@pytest.mark.parametrize("name", ["dev", "val", "valid"])
def test_other_names_stand_for_validation(bert, folder, name):
    path = folder(train=ROWS, **{name: ROWS[:3]})
    assert module(bert, path).splits == ["validation"]
    own = module(bert, path, replace(TASK, evaluate=(name,)))
    assert (own.splits, own.chosen_on) == ([name], name)
    assert source.read(TASK, path)["validation"].origin.endswith(f"{name}.jsonl"), "an error names the file"
    folder(validation=ROWS[:5])
    assert len(module(bert, path)._rows["validation"]) == 5, "the split's own name comes first"
    assert module(bert, path, replace(TASK, evaluate=("validation", name))).splits == ["validation", name]


def test_two_names_that_may_stand_for_validation_are_refused(bert, folder):
    with pytest.raises(InputError, match=r"dev and val may stand for the split 'validation'; .* '\[dev\]'"):
        module(bert, folder(train=ROWS, dev=ROWS, val=ROWS))


def test_a_dataset_of_the_hub_is_a_task(bert, monkeypatch):
    called = []

    def hub(*names, **_):
        called.append(names)
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), valid=datasets.Dataset.from_list(ROWS[:3]))

    monkeypatch.setattr(datasets, "load_dataset", hub)
    rows = [
        replace(task(f"hub:{name}"), text=("a",), label="y", labels=("no", "yes")) for name in ("o/n", "o/n/c", "n")
    ]
    assert [row.name for row in rows] == HUB
    for row in rows:
        assert module(bert, None, row).splits == ["validation"]
    assert called == [("o/n", None), ("o/n", "c"), ("n", None)]
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"task 'o/n': o/n cannot be loaded \(.*\): use --data.path DIR"):
        source.read(rows[0], None)
    words = ["--data", "Classification", "--data.task", "hub:o/n", "--data.task.text", "[a]", "--data.task.label", "y"]
    words += ["--data.task.labels", "[no,yes]", "--model", "LinearProbe", "--model.backbone", bert]
    code, _, err = runs.call([*words, "--run_dir", "never"])
    assert code == 2
    assert "task 'o/n': o/n cannot be loaded" in err


# ---- holding rows out


def test_rows_are_held_out_by_class_and_by_the_seed(bert, folder):
    path = folder(train=ROWS)
    data = module(bert, path, holdout=0.2)
    assert (data.splits, data.chosen_on) == (["holdout"], "holdout")
    assert data.chosen_how == "holdout, 20 % of the training rows, drawn by data_seed 13"
    labels = {split: Counter(row["label"] for row in rows) for split, rows in data._rows.items()}
    assert labels == {"train": {0: 24, 1: 8}, "holdout": {0: 6, 1: 2}}
    assert sorted(texts(data, "train") + texts(data, "holdout")) == sorted(row["a"] for row in ROWS)
    assert len(data.val_dataloader().dataset) == 8
    again, other = (module(bert, path, holdout=0.2, data_seed=seed) for seed in (13, 21))
    assert again.fingerprints() == data.fingerprints()
    assert other.fingerprints() != data.fingerprints()


def test_splits_that_are_there_are_evaluated_beside_the_rows_held_out(bert, folder):
    data = module(bert, folder(train=ROWS, validation=ROWS[:5], test=ROWS[:4]), holdout=0.1)
    assert data.splits == ["holdout", "validation", "test"]
    assert data.val_dataloader().dataset is data._items["holdout"]


def test_questions_of_one_context_stay_together(bert, folder):
    answer = {"text": ["nurse"], "answer_start": [4]}
    rows = [{"question": f"who {i}?", "context": f"the nurse {i % 5}", "answers": answer} for i in range(20)]
    row = TaskSpec("own", "span_qa", ("question", "context"), "answers", metrics=("f1",))
    data = module(bert, folder(train=rows), row, SpanQA, holdout=0.2)
    assert [len(data._rows[split]) for split in ("train", "holdout")] == [16, 4]
    assert not {*data._rows["train"]["context"][:]} & {*data._rows["holdout"]["context"][:]}
    grouped = replace(TASK, group="g", metrics=("f1", "question_em"))
    data = module(bert, folder(train=[row | {"g": i // 8} for i, row in enumerate(ROWS)]), grouped, holdout=0.2)
    assert [len({*data._rows[split]["group"][:]}) for split in ("train", "holdout")] == [4, 1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"holdout": 1.0}, "--data.holdout 1: must be a share of the training rows, above 0 and below 1"),
        ({"holdout": -0.1}, "--data.holdout -0.1: must be a share"),
        ({"holdout": float("nan")}, "--data.holdout nan: must be a share"),
        ({"holdout": 0.1, "shots": 2}, "--data.holdout 0.1: the shots have rows of their own"),
        ({"holdout": 0.001}, "--data.holdout 0.001: of 40 training rows 0 would be held out and 40 would stay"),
        ({"holdout": 0.1, "row": replace(TASK, evaluate=("holdout",))}, "are called 'holdout' like a file of task"),
    ],
)
def test_a_share_that_cannot_be_held_out_is_refused(bert, folder, options, why):
    with pytest.raises(InputError, match=why):
        module(bert, folder(train=ROWS), **options)


def test_a_share_is_that_of_each_class_rounded():
    stay, held = held_out(["a"] * 10 + ["b"] * 4 + ["c"], None, 0.25, 13)
    assert sorted(stay + held) == list(range(15))
    assert [sum(i in held for i in part) for part in (range(10), range(10, 14), range(14, 15))] == [2, 1, 0]


def test_a_run_says_on_which_rows_its_checkpoint_is_chosen(tmp_path):
    file = runs.data().rstrip("/") + "/train.jsonl"
    words = runs.line(tmp_path / "run", path=file, data__holdout=0.2, trainer__max_epochs=1)
    code, out, err = runs.call(words)
    assert code == 0, err
    assert "the checkpoint is chosen on holdout, 20 % of the training rows, drawn by data_seed 13" in out
    assert "The checkpoint is chosen on 20 % of the training rows, held out of training." in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["chosen_on"], result["held_out"], result["rows"]) == ("holdout", 0.2, {"holdout": 2})


# ---- what a later start relies on


def test_a_file_is_known_by_its_content_alone(bert, tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        for split in ("train", "validation"):
            runs.write(tmp_path / place / f"{split}.jsonl", ROWS)
    one, two = (module(bert, str(tmp_path / place)) for place in ("one", "two"))
    assert one.fingerprints() == two.fingerprints()
    file = tmp_path / "one" / "train.jsonl"
    times = file.stat()
    runs.write(file, [*ROWS[:-1], ROWS[-1] | {"a": "the judge 39"}])  # of the same size
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    changed = module(bert, str(tmp_path / "one"))
    assert texts(changed, "train")[-1] == "the judge 39"
    assert changed.fingerprints()["train"] != one.fingerprints()["train"]
    assert changed.fingerprints()["validation"] == one.fingerprints()["validation"]


def test_a_later_start_reads_no_rows(bert, folder, monkeypatch):
    path = folder(train=ROWS, validation=ROWS[:3], test=[{"a": "the nurse", "y": -1}])
    first = module(bert, path, holdout=0.1)
    assert first.splits == ["holdout", "validation"]
    monkeypatch.setattr(local, "_some", lambda *_: pytest.fail("a file is read"))
    monkeypatch.setattr(Classification, "encode", lambda *_: pytest.fail("rows are tokenized"))
    again = module(bert, path, holdout=0.1)
    assert again.splits == first.splits
    assert again.fingerprints() == first.fingerprints()
    assert list(again._items["holdout"]) == list(first._items["holdout"])


def test_what_is_not_of_ptune_is_not_taken_from_the_cache(bert, folder):
    path = folder(train=ROWS, validation=ROWS[:3])
    for word in ("judge", "baker"):
        data = module(bert, path, replace(TASK, prepare=lambda row, word=word: row | {"a": word}))
        assert texts(data, "train") == [word] * 40

    class Own(Classification):
        format = "own"
        word = ""

        def parse(self, row):
            return super().parse(row | {"a": self.word})

    for word in ("judge", "baker"):
        Own.word = word
        assert texts(module(bert, path, replace(TASK, format="own"), Own), "train") == [word] * 40


def test_blocks_of_wider_types_come_later(monkeypatch):
    blocks = [
        [{"n": 1, "x": [], "deep": [[]]}],
        [{"n": 2, "x": ["a"], "deep": [[1]]}],
        [],
        [{"n": 2**40, "x": [], "deep": []}],
        [{"n": 4, "x": ["b", "ü"], "deep": [[2], []]}],
    ]
    rows = [row for block in blocks for row in block]
    for made in (cache.cached("widened", lambda: blocks), cache.in_memory(blocks)):
        assert list(made) == rows
    assert cache.cached("widened", lambda: pytest.fail("made again"))._fingerprint == made._fingerprint
    assert len(cache.cached("none", lambda: [[]])) == len(cache.in_memory([])) == 0


def test_who_needs_an_entry_that_another_makes_waits_and_does_not_make_it_again(folder):
    cache.cached("first", lambda: [[{"a": 0}]])
    found = []
    with cache._locked("shared"):
        other = threading.Thread(
            target=lambda: found.append(cache.cached("shared", lambda: pytest.fail("made again"))), daemon=True
        )
        other.start()
        other.join(0.1)
        assert other.is_alive()
        cache._make(cache.folder() / "shared", [[{"a": 1}]])
    other.join(20)
    assert [list(rows) for rows in found] == [[{"a": 1}]]


def test_what_a_killed_process_has_left_is_cleared_away():
    (cache.folder() / ".shared-abc" / "made").mkdir(parents=True)
    (cache.folder() / ".other-abc").mkdir()
    cache.cached("shared", lambda: [[{"a": 1}]])
    assert sorted(file.name for file in cache.folder().iterdir()) == [cache.LOCKS, ".other-abc", "shared"]


def test_a_mistake_leaves_no_entry(bert, folder):
    with pytest.raises(InputError, match=r"train.jsonl, line 41: no column 'a'"):
        module(bert, folder(train=[*ROWS, {"y": "no"}], validation=ROWS))
    assert [file.name for file in cache.folder().iterdir()] == [cache.LOCKS]


def test_every_field_of_a_task_that_parse_reads_is_part_of_the_key():
    assert {field for field in TaskSpec.__dataclass_fields__ if field not in splits.NOT_READ} >= {
        "text", "label", "labels", "choices", "group", "prepare", "format",
    }  # fmt: skip
