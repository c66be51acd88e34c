import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ptune.tasks
from ptune.data import modules
from ptune.data.local import read_file
from ptune.errors import InputError
from ptune.heads.metrics import check
from ptune.tasks import HeadSpec, TaskSpec, all_tasks, listed, plain, spec_of, superglue, task
from ptune.tasks.__main__ import line, main
from ptune.tasks.templates import Template, Verbalizer

SHARED = Path(__file__).parents[3] / "shared" / "data"
WANTED = (
    "cola sst2 mrpc qqp stsb mnli qnli rte wnli swag squad squad_v2 conll2003 boolq cb copa multirc wic wsc"
    " toy/single toy/pair toy/choice toy/qa toy/tagging"
)


def test_all_wanted_tasks_are_there():
    assert set(WANTED.split()) <= set(all_tasks())
    for name, row in all_tasks().items():
        assert row.name == name
        assert row.monitored == row.metrics[0]
        row.check()


def test_every_head_has_its_metrics():
    kinds = modules()
    for row in all_tasks().values():
        check(
            HeadSpec(row.name, kinds[row.format].task_head(row), row.labels or row.choices, row.metrics, row.monitored)
        )


def test_unknown_task_names_the_nearest():
    with pytest.raises(InputError, match=r"no task 'squad_v3', did you mean 'squad_v2'\?"):
        task("squad_v3")


def test_superglue_as_text():
    row = {"word": "place", "sentence1": "Come to my place.", "sentence2": "It has no place here.", "label": 0}
    text = "Come to my place. It has no place here. Does place have the same meaning in both sentences?"
    assert superglue.wic(row)["text"] == text
    row = {"text": "Mark told Pete lies. He was sceptical.", "span1_text": "Mark", "span2_text": "He"}
    assert superglue.wsc(row)["pronoun_text"] == "He: Mark told Pete lies. He was sceptical."
    assert task("wsc").text == ("pronoun_text", "span1_text")
    assert superglue.copa({"premise": "It rained.", "question": "cause"})["context"] == "It rained. because"
    assert superglue.copa({"premise": "It rained.", "question": "effect"})["context"] == "It rained. so"
    row = {"paragraph": "P", "question": "Q?", "answer": "A", "idx": {"paragraph": 3, "question": 40, "answer": 7}}
    made = superglue.multirc(row)
    assert (made["question_answer"], made["question_id"]) == ("Q? A", "3-40")


def test_table_lists_every_task():
    done = subprocess.run([sys.executable, "-m", "ptune.tasks"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    shown = {line.split()[0]: line.split()[-1] for line in lines[1:] if line and not line.startswith("verified")}
    assert set(shown) == set(listed())
    assert [row for rows in listed().values() for row in rows] == list(all_tasks().values())
    for name in ("qqp", "wnli", "swag", "squad_v2", "mnli", "qnli", "boolq"):
        assert shown[name] == "no"
    assert shown["rte"] == shown["toy/qa"] == shown["lama/*"] == shown["fewglue/*"] == "yes"
    assert "lightning" not in done.stderr


def test_a_new_row_is_not_verified_until_somebody_says_so():
    assert not TaskSpec("own").verified
    unverified = "qqp wnli swag squad_v2 mnli qnli boolq"
    assert {name for name, row in all_tasks().items() if not row.verified} == set(unverified.split())


def test_a_family_takes_one_line_and_is_listed_by_its_name(capsys):
    assert {name: len(rows) for name, rows in listed().items() if len(rows) > 1} == {"lama/*": 41, "fewglue/*": 7}
    assert main([]) == 0
    table = capsys.readouterr().out
    assert "41 tasks" in table
    assert "lama/P19" not in table
    assert main(["lama/*"]) == 0
    assert sum(line.startswith("lama/P") for line in capsys.readouterr().out.splitlines()) == 41


def test_labels_are_counted_as_labels_and_spans_have_none():
    trec = TaskSpec("trec", text=("text",), labels=tuple("abcdef"))
    assert line("trec", [trec])[2] == "6 labels"
    assert [line(name, [task(name)])[2] for name in ("stsb", "swag", "squad")] == ["a number", "4 choices", "-"]


@pytest.mark.parametrize("name", all_tasks())
def test_a_task_is_shown_whole(name, capsys):
    row = task(name)
    assert main([name]) == 0
    out = capsys.readouterr()
    lines = out.out.splitlines()
    facts = {line[:14].strip(): line[14:].strip() for line in lines[1:]}
    assert (lines[0], out.err) == (name, "")
    assert facts["format"] == row.format
    assert facts["reads"].split(", ") == list(row.text)
    assert facts["metrics"].split(", ") == list(row.metrics)
    assert not row.labels or facts["labels"].split(", ") == list(row.labels)
    assert all(split in facts["splits"] and split in facts["--data.path"] for split in (row.train, *row.evaluate))
    assert facts.get("template", "") == row.template
    assert all(word in facts["verbalizer"] for word in row.verbalizer.values())
    assert row.label in facts["columns"] or row.prepare
    assert ("/".join(row.hub) or "generated" * name.startswith("toy/") or "--data.path only") == facts["source"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["rtee"], "error: no task 'rtee', did you mean 'rte'?"),
        (["lama/P1900"], "error: no task 'lama/P1900', did you mean 'lama/P190'?"),
        (["--all"], "error: option --all does not exist; usage: python -m ptune.tasks [NAME]"),
        (["rte", "cola"], "error: 2 names, rte cola, where one is shown at a time; usage: "),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(args, sentence, capsys):
    assert main(args) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith(sentence)
    assert out.err.count("\n") == 1


def test_help_is_a_usage_line(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m ptune.tasks [NAME]")


def test_a_closed_pipe_is_no_mistake():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "ptune.tasks"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_of_rows_is_found_where_it_lies(tmp_path, monkeypatch):
    (tmp_path / "sentences.py").write_text("from ptune.tasks.spec import TaskSpec\n\nTASKS = (TaskSpec('trec'),)\n")
    monkeypatch.setattr(ptune.tasks, "__path__", [*ptune.tasks.__path__, str(tmp_path)])
    all_tasks.cache_clear()
    try:
        assert task("trec") == TaskSpec("trec")
    finally:
        all_tasks.cache_clear()


TEMPLATED = {name: row for name, row in all_tasks().items() if row.template}


def test_every_benchmark_of_words_has_a_template():
    wanted = [
        "cola",
        "sst2",
        "mrpc",
        "qqp",
        "mnli",
        "qnli",
        "rte",
        "boolq",
        "cb",
        "copa",
        "multirc",
        "wic",
        "wsc",
        "swag",
        "codah",
    ]
    few = [f"fewglue/{name}" for name in ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")]
    assert {*wanted, *few} <= set(TEMPLATED)
    assert sum(name.startswith("lama/") for name in TEMPLATED) == 41
    assert not {"stsb", "squad", "conll2003"} & set(TEMPLATED)


@pytest.mark.parametrize("name", TEMPLATED)
def test_a_tasks_template_parses_and_has_a_word_for_every_label(name):
    row = TEMPLATED[name]
    template = Template(row.template)
    assert template.slots == 0, "any method can fill in its own, or none"
    if row.format == "classification":
        assert len(Verbalizer(row.verbalizer, row.labels).words) == len(row.labels)
    else:
        assert not row.verbalizer
    if not name.endswith("copa"):  # whose choices stand before the mask
        assert not set(template.columns) & set(row.choices)


def test_lamas_templates_are_the_published_ones():
    file = SHARED / "lama_trex" / "relations.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"LAMA is not there: no {file}")
    published = {row["relation"]: row["template"] for row in read_file(file).rows if row["type"] != ""}
    for name, row in TEMPLATED.items():
        if name.startswith("lama/"):
            text = published[name.removeprefix("lama/")].replace("[X]", "{sub_label}").replace("[Y]", "[MASK]")
            assert text.replace(" .", ".").strip() == row.template


def test_a_generated_row_or_one_of_the_users_files_is_shown(tmp_path, capsys):
    assert main(["toy/tagging"]) == 0
    assert '"tags": ["' in capsys.readouterr().out
    assert main(["rte"]) == 0
    assert "example" not in capsys.readouterr().out
    row = {"sentence1": "é" * 300, "sentence2": "b", "label": 0}
    (tmp_path / "validation.jsonl").write_text(json.dumps(row) + "\n")
    for words in (["rte", "--data.path", str(tmp_path)], [f"--data.path={tmp_path}", "rte"]):
        assert main(words) == 0
        shown = capsys.readouterr().out.partition("  example")[2].strip()
        assert json.loads(shown) == row | {"sentence1": "é" * 200 + "..."}
    assert main(["rte", "--data.path"]) == 2
    assert capsys.readouterr().err.startswith("error: option --data.path names no folder; usage")


def test_a_whole_number_names_a_column_or_a_label():
    named = TaskSpec(text=("1",), label="3", labels=("0", "1"), choices=("4",), group="5", where=("6", "7"))
    assert TaskSpec(text=(1,), label=3, labels=(0, 1), choices=(4,), group=5, where=(6, 7)) == named


def test_a_task_is_a_mapping_of_plain_values_and_back():
    for row in all_tasks().values():
        assert spec_of(json.loads(json.dumps(plain(row)))) == row
    with pytest.raises(InputError, match=r"data\.task\.colour: a task has no such field"):
        spec_of({"name": "x", "colour": "red"})
