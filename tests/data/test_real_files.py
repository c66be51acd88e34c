"""Real data in the files that people have, each trained two steps; where the data are not there this is skipped."""

import csv
import gzip
import json
from itertools import groupby, islice

import pytest
import runs

from ptune.data.local import read_file
from ptune.data.tagging import Tagging


def some(shared, name, count):
    """The first rows of a published file."""
    with gzip.open(shared / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, count)]


def two_steps(run_dir, data, **options):
    """The module and the result of two training steps on the tiny model, with nothing said but format and path."""
    words = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--model.length", 2, *runs.QUIET]
    words += ["--data", data, "--data.batch_size", 4, "--trainer.max_steps", 2, "--wandb.enabled", "false"]
    words += ["--trainer.limit_val_batches", 2, "--run_dir", run_dir]
    words += [word for key, value in options.items() for word in (f"--data.{key.replace('__', '.')}", value)]
    code, out, err = runs.call(words)
    assert code == 0, err
    return out, json.loads((run_dir / "result.json").read_text())


@pytest.mark.parametrize(("scheme", "kinds"), [("IOB2", "BI"), ("IOB1", "BI"), ("IOBES", "BIES")])
def test_column_files_of_entities(scheme, kinds, shared, tmp_path):
    """As BC5CDR's: a word and its tag with a tab, sentences parted by empty lines; the tags in three schemes."""
    rows = some(shared, "conll2003/train.jsonl.gz", 120)
    place = tmp_path / "BC5CDR-like"
    place.mkdir()
    for split, end in (("train", "\n"), ("validation", "\r\n")):
        sentences = [
            end.join(
                f"{word}\t{tag}" for word, tag in zip(row["tokens"], rewritten(row["ner_tags"], scheme), strict=True)
            )
            for row in rows
        ]
        mark = "\ufeff" * (split == "validation")  # as editors of Windows write it
        (place / f"{split}.conll").write_bytes(
            (mark + "-DOCSTART-\tO" + 2 * end + (2 * end).join(sentences) + end).encode()
        )
    found = read_file(place / "validation.conll").rows
    assert [row["tokens"] for row in found] == [row["tokens"] for row in rows]
    data = Tagging(path=str(place), backbone=runs.bert(), max_length=64)
    assert data.scheme == scheme
    assert {label[0] for label in data.task.labels} == {"O", *kinds}
    if scheme == "IOB2":
        out, result = two_steps(tmp_path / "run", "Tagging", path=place, max_length=64)
        assert result["task"] == "BC5CDR-like"
        assert result["metrics"]["validation"].keys() >= {"entity_f1", "entity_precision", "entity_recall"}
        assert "IOB2 tags, O first: [O, B-LOC, I-LOC, " in out


def rewritten(tags, scheme):
    """IOB2 tags in another scheme."""
    after = [*tags[1:], "O"]
    before = ["O", *tags[:-1]]
    if scheme == "IOB1":
        return [f"I{tag[1:]}" if tag[0] == "B" and last[2:] != tag[2:] else tag
                for last, tag in zip(before, tags, strict=True)]  # fmt: skip
    if scheme == "IOBES":
        ends = [following[:1] != "I" for following in after]
        single, last = {"B": "S"}, {"I": "E"}
        return [(single.get(tag[0]) or last.get(tag[0]) or tag[0]) + tag[1:] if end else tag
                for tag, end in zip(tags, ends, strict=True)]  # fmt: skip
    return tags


def test_squads_official_json(shared, tmp_path):
    rows = some(shared, "squad_subset/train.jsonl.gz", 40)
    place = tmp_path / "squad-like"
    place.mkdir()
    articles = [
        {
            "title": title,
            "paragraphs": [
                {"context": context, "qas": [question(row) for row in those]}
                for context, those in groupby(group, key=lambda row: row["context"])
            ],
        }
        for title, group in groupby(rows, key=lambda row: row["title"])
    ]
    for split in ("train", "validation"):
        (place / f"{split}.json").write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    found = read_file(place / "train.json").rows
    columns = ("id", "title", "question", "context", "answers")
    assert found == [{name: row[name] for name in columns} for row in rows]
    out, result = two_steps(tmp_path / "run", "SpanQA", path=place, max_length=64)
    assert "text is [question, context]; label is answers" in out
    assert list(result["metrics"]["validation"]) == ["f1", "exact_match", "loss"]


def question(row):
    """A question as SQuAD's file has it."""
    answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
    return {
        "id": row["id"],
        "question": row["question"],
        "answers": [{"text": text, "answer_start": start} for text, start in answers],
    }


def test_a_csv_of_names_without_a_validation_file(shared, tmp_path):
    """As TREC's: a text and the name of its class, one file only."""
    rows = some(shared, "cola/train.jsonl.gz", 60)
    place = tmp_path / "trec-like"
    place.mkdir()
    with (place / "train.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["question", "kind"])
        table.writerows([row["sentence"], ["BAD", "GOOD"][row["label"]]] for row in rows)
    out, result = two_steps(
        tmp_path / "run", "Classification", path=place, task__text="[question]", task__label="kind", holdout=0.2,
        max_length=64,
    )  # fmt: skip
    assert "labels are those of the training split, sorted: [BAD, GOOD]" in out
    assert result["metrics"].keys() == {"holdout"}
    assert result["metrics"]["holdout"].keys() == {"accuracy", "macro_f1", "loss"}
