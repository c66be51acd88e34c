"""`python -m ptune.predict`: rows of files and pipes answered in order, bad ones told, the benchmarks' own files."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import torch

import ptune
from ptune.predict import main
from ptune.serving import files
from ptune.serving.predictor import Predictor
from ptune.serving.submissions import submission

TEXTS = ["the nurse, the pilot", 'a "judge"', "the baker was thanked by the farmer who thanked the nurse", "é"]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    """Builds the file of an untrained prompt: prompt(task)."""

    def build(task, module=ptune.Classification):
        data = module(task, runs.bert(), max_length=48)
        torch.manual_seed(2)
        model = ptune.LinearProbe(backbone=runs.bert(), head=data.head)
        model.configure_model()
        for value in model.trained().values():
            torch.nn.init.normal_(value)
        model.check_data(data)
        file = tmp_path_factory.mktemp("prompt") / "prompts.safetensors"
        model.save_prompts(file)
        return str(file)

    return build


@pytest.fixture(scope="module")
def single(prompt):
    """A prompt that reads the column `a`."""
    return prompt(ptune.TaskSpec("own", text=("a",), labels=("no", "yes")))


def predict(*words, stdin=None):
    """Exit code, stdout and stderr, with a text on stdin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(stdin or ""))
        return runs.call([*words, "--device", "cpu"], main)


def written(folder, kind):
    """The texts as a file of this kind."""
    file, rows = folder / f"in{kind}", [{"a": text, "other": i} for i, text in enumerate(TEXTS)]
    match kind:
        case ".jsonl":
            runs.write(file, rows)
        case ".json":
            file.write_text(json.dumps(rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        case ".txt":
            file.write_text("\n".join(TEXTS))
        case _:
            with file.open("w", newline="", encoding="utf-8") as out:
                form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if kind == ".tsv" else {}
                table = csv.DictWriter(out, ["a", "other"], **form)
                table.writeheader()
                table.writerows(rows)
    return file


def read(file):
    """The rows of a file of answers."""
    match file.suffix:
        case ".jsonl":
            return [json.loads(line) for line in file.read_text().splitlines()]
        case ".json":
            return json.loads(file.read_text())
        case ".parquet":
            return pq.read_table(file).to_pylist()
        case suffix:
            with file.open(newline="") as text:
                rows = list(csv.DictReader(text, delimiter="\t" if suffix == ".tsv" else ","))
            return [{"row": int(r["row"]), "label": r["label"], "score": float(r["score"])} for r in rows]


def test_every_kind_of_file_is_read_and_written_in_its_order(single, tmp_path):
    asked = ptune.load(single, device="cpu")
    expected = [{"row": i} | answer for i, answer in enumerate(asked(TEXTS))]
    assert len({answer["label"] for answer in expected}) == 2, "the answers differ"
    kinds = [".jsonl", ".csv", ".parquet", ".tsv", ".json"]
    for kind, other in [*zip(kinds, kinds[1:] + kinds[:1], strict=True), (".txt", ".jsonl")]:
        target = tmp_path / f"{kind[1:]}-out{other}"
        assert predict(single, "--input", written(tmp_path, kind), "--output", target) == (0, "", ""), kind
        assert read(target) == expected, kind


def test_a_saved_dataset_is_read_and_of_several_one_is_asked_for(single, tmp_path):
    rows = datasets.Dataset.from_list([{"a": text, "other": i} for i, text in enumerate(TEXTS)])
    datasets.DatasetDict(test=rows, train=rows).save_to_disk(tmp_path / "saved")
    code, out, err = predict(single, "--input", tmp_path / "saved" / "test")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"row": i} | answer for i, answer in enumerate(ptune.load(single, device="cpu")(TEXTS))
    ]
    code, out, err = predict(single, "--input", tmp_path / "saved")
    several = f"give one: {tmp_path}/saved/test, {tmp_path}/saved/train."
    assert (code, out, err) == (2, "", f"error: --input {tmp_path}/saved: holds saved datasets; {several}\n")


def test_pipes_take_texts_and_rows(single):
    asked = ptune.load(single, device="cpu")
    code, out, err = predict(single, "--input", "-", stdin='the nurse\n\n{"a": "the pilot"}\n')
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"row": i} | answer for i, answer in enumerate(asked(["the nurse", {"a": "the pilot"}]))
    ]
    code, out, _ = predict(single, "--input", "-", "--top_k", "2", stdin="the nurse")
    assert json.loads(out) == {"row": 0, "answers": asked("the nurse", top_k=2)}


def test_a_bad_row_is_told_with_its_line_and_the_others_are_answered(single, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"a": "the nurse"}\n{"a": \n{"b": 1}\n[]\n{"a": "the pilot"}\n')
    code, out, err = predict(single, "--input", tmp_path / "in.jsonl")
    assert code == 1
    assert [json.loads(line)["row"] for line in out.splitlines()] == [0, 4]
    starts = ["line 2: malformed JSON", "line 3: no column 'a'; the row has 'b'.", "line 4: expected a JSON object"]
    for line, start in zip(err.splitlines(), starts, strict=True):
        assert line.startswith(f"error: {tmp_path}/in.jsonl, {start}")
    (tmp_path / "in.csv").write_text('a,b\n"the\nnurse",1\nx\nthe pilot,2\n')
    code, out, err = predict(single, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv")
    assert (code, [answer["row"] for answer in read(tmp_path / "out.csv")]) == (1, [0, 2])
    assert err == f"error: {tmp_path}/in.csv, line 4: 1 fields where the header has 2 (a, b).\n"


def test_files_may_lie_in_the_home_folder(single, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, ".txt")
    code, _, err = predict(single, "--input=~/in.txt", "--output=~/out.jsonl")
    assert (code, err) == (0, "")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(TEXTS)
    (tmp_path / "prompt.safetensors").symlink_to(single)
    assert ptune.load("~/prompt.safetensors", "cpu")("the nurse")[0]["label"] in ("no", "yes")


def test_the_rows_themselves_are_not_replaced(single, tmp_path):
    file = written(tmp_path, ".jsonl")
    before = file.read_bytes()
    code, _, err = predict(single, "--input", file, "--output", file, "--overwrite")
    assert (code, file.read_bytes()) == (2, before)
    assert "is the --input, whose rows would be lost" in err


def test_two_columns_of_one_name_are_refused(single, tmp_path):
    (tmp_path / "in.csv").write_text("a,b,a\nthe nurse,x,the pilot\n")
    code, out, err = predict(single, "--input", tmp_path / "in.csv")
    assert (code, out) == (2, "")
    assert "in.csv, line 1: a column name occurs twice in ['a', 'b', 'a']; rename one." in err


def test_a_file_of_bad_rows_alone_has_no_answers(prompt, tmp_path):
    file = prompt(ptune.TaskSpec("own", text=("a", "b"), labels=("no", "yes")))
    (tmp_path / "in.csv").write_text("a,c\nthe nurse,x\n")
    code, out, err = predict(file, "--input", tmp_path / "in.csv")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}/in.csv, line 2: no column 'b'; the row has 'a', 'c'.")


def test_spans_and_entities_are_answers_of_a_row(prompt, tmp_path):
    file = prompt(ptune.TaskSpec("own", "tagging", text=("tokens",), labels=("O", "B-X", "I-X")), ptune.Tagging)
    runs.write(tmp_path / "in.jsonl", [{"tokens": ["the", "nurse"]}, {"tokens": "the pilot thanked"}])
    code, out, err = predict(file, "--input", tmp_path / "in.jsonl")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.keys() for row in rows] == [{"row", "answers"}] * 2
    assert sum(len(row["answers"]) for row in rows) > 1
    target = tmp_path / "out.parquet"
    assert predict(file, "--input", tmp_path / "in.jsonl", "--output", target)[0] == 0
    assert pq.read_table(target).to_pylist() == rows
    (tmp_path / "in.conll").write_text("-DOCSTART-\n\nthe\nnurse\n\nthe\npilot\nthanked\n")  # words without tags
    code, out, err = predict(file, "--input", tmp_path / "in.conll")
    assert (code, err) == (0, "")
    words = [["the", "nurse"], ["the", "pilot", "thanked"]]
    assert [json.loads(line) for line in out.splitlines()] == [
        {"tokens": tokens} | row for tokens, row in zip(words, rows, strict=True)
    ]


@pytest.mark.parametrize("name", ["in.conll", "in.txt", "in.conll.gz"])
@pytest.mark.parametrize("label", ["ner_tags", "2"])
def test_sentences_of_a_column_file_stand_beside_their_answers_with_their_tags(prompt, tmp_path, name, label):
    task = ptune.TaskSpec("own", "tagging", text=("tokens",), label=label, labels=("O", "B-X", "I-X"))
    file = prompt(task, ptune.Tagging)
    lines = b"-DOCSTART- -X- O\n\nthe DT O\nnurse NN B-X\n\nthe DT O\npilot NN B-Y\nthanked VB O\n"
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    code, out, err = predict(file, "--input", tmp_path / name)
    assert (code, err) == (0, "")
    tags = [["O", "B-X"], ["O", "B-Y", "O"]] if label == "ner_tags" else [["DT", "NN"], ["DT", "NN", "VB"]]
    words = [["the", "nurse"], ["the", "pilot", "thanked"]]
    assert [json.loads(line) for line in out.splitlines()] == [
        {"row": i, "tokens": words[i], "tags": tags[i], "answers": answers}
        for i, answers in enumerate(ptune.load(file)(words))
    ]
    for kind in (".csv", ".parquet"):
        assert predict(file, "--input", tmp_path / name, "--output", tmp_path / f"out{kind}") == (0, "", "")
    assert [row["tags"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist()] == tags
    with (tmp_path / "out.csv").open(newline="") as table:
        assert [json.loads(row["tokens"]) for row in csv.DictReader(table)] == words


def test_a_column_file_is_answered_whatever_the_run_calls_the_words(prompt, tmp_path):
    task = ptune.TaskSpec("own", "tagging", text=("words",), label="ner", labels=("O", "B-X", "I-X"))
    file = prompt(task, ptune.Tagging)
    (tmp_path / "in.conll").write_text("the O\nnurse B-X\n\nthe O\n")
    code, out, err = predict(file, "--input", tmp_path / "in.conll")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["tokens"] for row in found] == [["the", "nurse"], ["the"]]
    assert [row["answers"] for row in found] == ptune.load(file)([["the", "nurse"], ["the"]])


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_ranked_answers_are_a_list_in_every_kind_of_file(prompt, tmp_path, kind):
    task = ptune.TaskSpec("own", "span_qa", text=("question", "context"), label="answers")
    file, target = prompt(task, ptune.SpanQA), tmp_path / f"out{kind}"
    rows = [{"question": "who?", "context": f"the nurse thanked the {name}"} for name in ("pilot", "judge")]
    runs.write(tmp_path / "in.jsonl", rows)
    assert predict(file, "--input", tmp_path / "in.jsonl", "--output", target, "--top_k", 3) == (0, "", "")
    if kind == ".csv":
        with target.open(newline="") as text:
            found = [{"row": int(row["row"]), "answers": json.loads(row["answers"])} for row in csv.DictReader(text)]
    else:
        found = read(target)
    assert found == [{"row": i, "answers": answers} for i, answers in enumerate(ptune.load(file)(rows, top_k=3))]
    assert [len(row["answers"]) for row in found] == [3, 3]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runs/none", "--input", "-"], "runs/none: there is no such folder here, and the hub does not give it"),
        (["x", "--input", "-"], "x: does not exist; give a run directory, "),
        (["@", "--input", "no.csv"], "--input no.csv: does not exist; give a file, a folder that save_to_disk"),
        (["@", "--input", "."], "--input .: is a folder; give a file, a folder that save_to_disk of a Dataset has"),
        (["@"], "the following arguments are required: --input"),
        (["@", "--input", "-", "--output", "x.xml"], "--output x.xml: ends with none of .jsonl"),
        (["@", "--input", "-", "--output", "no/x.csv"], "--output no/x.csv: there is no folder no"),
        (["@", "--input", "-", "--output", "there.csv"], "--output there.csv: exists; choose another, or add --overwr"),
        (["@", "--input", "-", "--batch_size", "0"], "--batch_size 0: must be at least 1."),
        (["@", "--input", "-", "--device", "GPU 1"], "--device GPU 1: is no device"),
        (["@", "--input", "-", "--format", "glu"], "argument --format: invalid choice: 'glu'"),
        (["@", "--input", "-", "--format", "glue"], "--output -: the benchmark's file goes into a folder"),
        (
            ["@", "--input", "-", "--format", "glue", "--output", "RTE.tsv"],
            "--output RTE.tsv: the benchmark's file goes",
        ),
        (
            ["@", "--input", "-", "--format", "glue", "--output", "sub"],
            "--format glue: task 'own' is none of ",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_everything(single, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    (tmp_path / "there.csv").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(""))
        code, out, err = runs.call([single if word == "@" else word for word in words], main)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1
    assert runs.contents(tmp_path) == {"there.csv": b"mine"}


def test_an_output_is_replaced_if_asked_and_whole(single, tmp_path):
    source, target = written(tmp_path, ".csv"), tmp_path / "out.jsonl"
    target.write_text("mine")
    assert predict(single, "--input", source, "--output", target, "--overwrite")[0] == 0
    assert len(read(target)) == len(TEXTS)
    assert {file.name for file in tmp_path.iterdir()} == {"in.csv", "out.jsonl"}


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_answers_are_written_part_by_part(kind, single, tmp_path, monkeypatch):
    source, target = written(tmp_path, ".jsonl"), tmp_path / f"out{kind}"
    words = [single, "--output", target, "--overwrite", "--batch_size", "1", "--input"]
    assert predict(*words, source)[0] == 0
    expected, parts, answered = read(target), [], Predictor.answered
    monkeypatch.setattr("ptune.serving.predictor.PART", 1)

    def watch(self, checked, *more, **options):
        parts.append(len(checked))
        return answered(self, checked, *more, **options)

    monkeypatch.setattr(Predictor, "answered", watch)
    assert predict(*words, source)[0] == 0
    assert (read(target), parts) == (expected, [1] * len(TEXTS))
    source.write_text("")
    assert predict(*words, source)[0] == 0
    assert read(target) == []


@pytest.mark.slow
@pytest.mark.deep
def test_memory_does_not_grow_with_the_number_of_rows(single, tmp_path):
    code = (
        "import resource, sys\nfrom ptune.predict import main\nassert main(sys.argv[1:]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    largest = []
    for rows in (20_000, 100_000):
        source = tmp_path / f"{rows}.jsonl"
        source.write_text('{"a": "the nurse"}\n' * rows)
        words = [single, "--input", source, "--output", tmp_path / f"{rows}-out.jsonl", "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True, text=True
        )
        largest.append(int(done.stdout))
        assert sum(1 for _ in (tmp_path / f"{rows}-out.jsonl").open()) == rows
    print(f"MiB: {largest}")
    assert largest[1] < largest[0] + 15


def test_a_file_that_cannot_be_read_to_its_end_leaves_the_output_as_it_was(single, tmp_path, monkeypatch):
    monkeypatch.setattr("ptune.serving.predictor.PART", 1)
    (tmp_path / "in.csv").write_bytes(b"a,b\nthe nurse,1\nthe pilot,2\n\xff,3\n")
    (tmp_path / "out.csv").write_text("mine")
    code, _, err = predict(single, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv", "--overwrite")
    assert (code, "not UTF-8" in err, err.count("\n")) == (2, True, 1), err
    assert {name: (tmp_path / name).read_bytes()[:4] for name in os.listdir(tmp_path)} == {
        "in.csv": b"a,b\n",
        "out.csv": b"mine",
    }


def test_parquet_has_the_types_of_all_answers(tmp_path):
    parts = [[{"row": 0, "answers": []}], [{"row": 1, "answers": [{"word": "nurse", "start": 4}]}]]
    files.write(str(tmp_path / "out.parquet"), iter(parts))
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [*parts[0], *parts[1]]


def test_a_mistake_is_told_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom ptune.predict import main\nassert main(['nowhere', '--input', '-']) == 2\n"
        "assert not {'torch', 'transformers', 'lightning', 'datasets', 'pyarrow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=runs.REPOSITORY)


# ---- the benchmarks' files


@pytest.mark.parametrize(
    ("task", "source", "row", "answer", "file", "text"),
    [
        ("cola", "test.jsonl", {"idx": 7}, {"label": "acceptable"}, "CoLA.tsv", "7\t1"),
        ("sst2", "test.csv", {}, {"label": "negative"}, "SST-2.tsv", "0\t0"),
        ("stsb", "test.csv", {"index": "3"}, {"label": "label", "score": 5.4}, "STS-B.tsv", "3\t5.000"),
        ("mnli", "test_matched.jsonl", {}, {"label": "neutral"}, "MNLI-m.tsv", "0\tneutral"),
        ("mnli", "test_mismatched.jsonl", {}, {"label": "neutral"}, "MNLI-mm.tsv", "0\tneutral"),
        ("mnli", "ax.jsonl", {}, {"label": "contradiction"}, "AX.tsv", "0\tcontradiction"),
        ("rte", "test.jsonl", {}, {"label": "not_entailment"}, "RTE.tsv", "0\tnot_entailment"),
        ("wnli", "test.jsonl", {}, {"label": "entailment"}, "WNLI.tsv", "0\t1"),
        ("boolq", "test.jsonl", {"idx": 1}, {"label": "True"}, "BoolQ.jsonl", {"idx": 1, "label": "true"}),
        ("wsc", "test.jsonl", {"idx": 1}, {"label": "False"}, "WSC.jsonl", {"idx": 1, "label": "False"}),
        ("copa", "test.jsonl", {"idx": 1}, {"label": "choice2"}, "COPA.jsonl", {"idx": 1, "label": 1}),
        ("fewglue/cb", "test.jsonl", {"idx": 1}, {"label": "neutral"}, "CB.jsonl", {"idx": 1, "label": "neutral"}),
        ("fewglue/rte", "AX-g.jsonl", {}, {"label": "entailment"}, "AX-g.jsonl", {"idx": 0, "label": "entailment"}),
    ],
)
def test_a_submission_has_the_benchmarks_name_and_form(task, source, row, answer, file, text):
    name, content = submission(ptune.task(task), source, [row], [answer])
    assert name == file
    if isinstance(text, dict):
        assert json.loads(content) == text
    else:
        assert content == f"index\tprediction\n{text}\n"


def test_multirc_is_nested_by_paragraph_and_question():
    numbers = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (3, 4, 5)]
    rows = [{"idx": dict(zip(("paragraph", "question", "answer"), n, strict=True))} for n in numbers]
    answers = [{"label": "True"}, {"label": "False"}, {"label": "True"}, {"label": "True"}]
    name, content = submission(ptune.task("multirc"), "test.jsonl", rows, answers)
    two = {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]}
    first = [two, {"idx": 1, "answers": [{"idx": 2, "label": 1}]}]
    assert name == "MultiRC.jsonl"
    assert [json.loads(line) for line in content.splitlines()] == [
        {"idx": 0, "passage": {"questions": first}},
        {"idx": 3, "passage": {"questions": [{"idx": 4, "answers": [{"idx": 5, "label": 1}]}]}},
    ]


def test_a_run_writes_its_submission_into_a_folder(prompt, tmp_path):
    file = prompt("sst2")
    runs.write(tmp_path / "test.jsonl", [{"idx": i, "sentence": text, "label": -1} for i, text in enumerate(TEXTS)])
    words = [file, "--input", tmp_path / "test.jsonl", "--format", "glue", "--output", tmp_path / "sub"]
    assert predict(*words) == (0, f"{tmp_path}/sub/SST-2.tsv\n", "")
    answers = ptune.load(file, device="cpu")(TEXTS)
    lines = [f"{i}\t{int(answer['label'] == 'positive')}" for i, answer in enumerate(answers)]
    assert (tmp_path / "sub" / "SST-2.tsv").read_text().splitlines() == ["index\tprediction", *lines]
    code, _, err = predict(*words)
    assert code == 2
    assert "exists; choose another folder, or add --overwrite" in err
