"""A run on files of one's own whose task is not named: what it says, what it stores, and who reads that again."""

import json

import pytest
import runs
import yaml

from ptune.evaluate import main as evaluate
from ptune.run.finished import read

ROWS = [{"question": f"the nurse {i}", "kind": ["NUM", "DESC", "HUM"][i % 3]} for i in range(12)]
WORDS = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--model.length", 2, *runs.QUIET]
WORDS += [
    "--model.schedule",
    "constant",
    "--trainer.max_steps",
    1,
    "--wandb.enabled",
    "false",
    "--data",
    "Classification",
    "--data.batch_size",
    4,
    "--data.max_length",
    32,
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of the data, the directory of a run, and what it printed."""
    top = tmp_path_factory.mktemp("open")
    (top / "trec").mkdir()
    for split in ("train", "validation"):
        runs.write(top / "trec" / f"{split}.jsonl", ROWS)
    words = [*WORDS, "--data.task.text", "[question]", "--data.task.label", "kind", "--data.path", top / "trec"]
    code, out, err = runs.call([*words, "--run_dir", top / "run"])
    assert code == 0, err
    return top / "trec", top / "run", out


def test_the_summary_says_what_was_read_off_the_data(finished):
    _, _, out = finished
    (line,) = (line for line in out.splitlines() if line.startswith("  data "))
    assert line.split(maxsplit=1)[1] == "labels are those of the training split, sorted: [DESC, HUM, NUM]"
    assert out.splitlines()[0].endswith(" on trec")


def test_the_run_stores_it(finished):
    _, run_dir, _ = finished
    task = yaml.safe_load((run_dir / "config.yaml").read_text())["data"]["init_args"]["task"]
    assert (task["name"], task["labels"], task["format"]) == ("trec", ["DESC", "HUM", "NUM"], "classification")
    assert task["metrics"] == ["accuracy", "macro_f1"]
    assert json.loads((run_dir / "result.json").read_text())["task"] == "trec"


def test_whoever_reads_the_run_takes_what_is_stored(finished):
    """Other training rows would have other labels, and another folder another name."""
    path, run_dir, _ = finished
    other = path.parent / "other"
    other.mkdir()
    runs.write(other / "train.jsonl", [ROWS[0] | {"kind": "ABBR"}])
    runs.write(other / "validation.jsonl", ROWS[:2])
    model, data = read(run_dir, "--data.path", str(other))
    assert model.head_spec == data.head
    assert (data.task.name, data.task.labels, data.completed, data.said) == ("trec", ("DESC", "HUM", "NUM"), None, [])
    words = ["--config", run_dir / "config.yaml", "--run_dir", run_dir]
    code, _, err = runs.call(words, evaluate)
    assert code == 0, err


def test_resuming_from_the_configuration_keeps_the_labels(finished):
    _, run_dir, _ = finished
    (run_dir / "result.json").unlink()
    words = ["--config", run_dir / "config.yaml", "--run_dir", run_dir, "--ckpt_path", "auto", "--trainer.max_steps", 2]
    code, out, err = runs.call(words)
    assert code == 0, err
    assert "labels are those" not in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--data", "Classification"], ["--data.task is missing", "python -m ptune.tasks", "--data.path DIR"]),
        (["--data", "Tagging", "--data.path", "@"], ["--data.task.text must name", "train.jsonl: 'question', 'kind'."]),
        (
            ["--data", "Classification", "--data.path", "@", "--data.task.text", "[question]"],
            ["label", "'question', 'kind'."],
        ),
    ],
)
def test_what_is_missing_is_asked_for_in_one_sentence(words, parts, finished, tmp_path):
    words = [str(finished[0]) if word == "@" else word for word in words]
    code, _, err = runs.call([*WORDS[: WORDS.index("--data")], *words, "--run_dir", tmp_path / "run"])
    lines = [line for line in err.splitlines() if not line.startswith("Seed")]
    assert (code, len(lines)) == (2, 1), err
    assert all(part in lines[0] for part in parts), lines


def test_a_column_file_is_read_by_the_numbers_of_its_columns(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.conll").write_text("the D O\nnurse N B-X\n\nthe D O\n")
    (tmp_path / "task.yaml").write_text(
        f"data:\n  class_path: Tagging\n  init_args:\n    path: {tmp_path}\n    task: {{text: [1], label: 2}}\n"
    )
    model = ["--model", "PTuningV2", "--model.backbone", runs.bert(), *runs.QUIET, "--run_dir", tmp_path / "run"]
    data = ["--data", "Tagging", "--data.path", tmp_path, "--data.task.text", "[1]", "--data.task.label", 2]
    for words in ([*model, "--config", tmp_path / "task.yaml"], [*model, *data]):
        task = runs.built(words).datamodule.task
        assert (task.text, task.label, task.labels) == (("1",), "2", ("D", "N"))


def test_the_format_named_twice_is_no_mistake(tmp_path):
    rows = [{"tokens": ["the", "nurse"], "tags": ["O", "B-X"]}] * 4
    for split in ("train", "validation"):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    words = [
        *WORDS[: WORDS.index("--data")],
        "--data",
        "Tagging",
        "--data.path",
        tmp_path,
        "--data.task.format",
        "tagging",
    ]
    words += ["--data.max_length", 32]
    data = runs.built([*words, "--data.task.text", "[tokens]", "--data.task.label", "tags"]).datamodule
    assert (data.task.labels, data.task.metrics[0]) == (("O", "B-X", "I-X"), "entity_f1")


def test_the_command_repeated_goes_on_as_the_same_run(finished, tmp_path):
    path, *_ = finished
    words = [*WORDS, "--data.task.text", "[question]", "--data.task.label", "kind", "--data.path", path]
    words += ["--run_dir", tmp_path / "run"]
    assert runs.call(words)[0] == 0
    (tmp_path / "run" / "result.json").unlink()
    code, out, err = runs.call([*words, "--ckpt_path", "auto", "--trainer.max_steps", 2])
    assert code == 0, err
    assert "[DESC, HUM, NUM]" in out, "read again, and the same"
