import subprocess
import sys
from pathlib import Path

import pytest

from ptune.errors import InputError
from ptune.tasks import all_tasks, superglue, task

SHARED = Path(__file__).parents[3] / "shared" / "data"
WANTED = (
    "cola sst2 mrpc qqp stsb mnli qnli rte wnli swag squad squad_v2 conll2003 boolq cb copa multirc wic wsc"
    " toy/single toy/pair toy/choice toy/qa toy/tagging"
)


def test_all_wanted_tasks_are_there():
    assert set(WANTED.split()) <= set(all_tasks())
    for name, row in all_tasks().items():
        assert row.name == name
        assert row.head.task == name
        assert task(name) is not None
        assert row.head.monitor == row.metrics[0]


def test_every_head_has_its_metrics():
    from ptune.metrics import build

    for row in all_tasks().values():
        build(row.head)


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
