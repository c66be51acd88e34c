import subprocess
import sys
from pathlib import Path

import pytest

from ptune.data import modules
from ptune.data.source import read_file
from ptune.errors import InputError
from ptune.heads.metrics import check
from ptune.tasks import HeadSpec, all_tasks, superglue, task
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
    listed = {line.split()[0]: line.split()[-1] for line in lines[1:] if line and not line.startswith("verified")}
    assert set(listed) == set(all_tasks())
    for name in ("qqp", "wnli", "swag", "squad_v2", "mnli", "qnli", "boolq"):
        assert listed[name] == "no"
    assert listed["rte"] == listed["toy/qa"] == "yes"
    assert "lightning" not in done.stderr


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
