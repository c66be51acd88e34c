"""One field of a task changes, the others stay: on the command line, in files, in the saved configuration."""

import json
from dataclasses import replace
from itertools import count

import pytest
import runs
import yaml

from ptune.run.arguments import prepare
from ptune.run.cli import CLI
from ptune.tasks import task

CHANGED = replace(task("rte"), metrics=("f1",))
MODEL = ["--model", "PTuningV2", "--model.backbone", runs.bert(), *map(str, runs.QUIET)]
DATA = [*MODEL, "--data", "Classification"]


def parsed(*words):
    return CLI.of(prepare([*map(str, words)]))


@pytest.fixture
def config(tmp_path):
    """Writes a file with a task: config(value) -> the words that name it."""

    def write(value, name="c"):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"data": {"class_path": "Classification", "init_args": {"task": value}}})
        )
        return ["--config", str(tmp_path / f"{name}.yaml")]

    return write


FIELD = ["--data.task.metrics", "[f1]"]


@pytest.mark.parametrize(
    "words",
    [
        ["--data.task", "rte", *FIELD],
        ["--data.task=rte", "--data.init_args.task.metrics=[f1]"],
        ["--data.task", '{"name": "rte", "metrics": ["f1"]}'],
    ],
    ids=["two options", "with equals signs", "a mapping"],
)
def test_of_a_task_on_the_command_line(words):
    assert parsed(*DATA, *words).datamodule.task == CHANGED


def test_of_a_task_in_a_file(config):
    def as_file(*values):
        return [word for value in values for word in config(value, str(next(number)))]

    number = count()
    for words in (
        [*as_file("rte"), *FIELD],
        as_file({"name": "rte", "metrics": ["f1"]}),
        as_file("rte", {"metrics": ["f1"]}),
        [f"--config={as_file('rte')[1]}", *FIELD],
    ):
        assert parsed(*MODEL, *words).datamodule.task == CHANGED, words
    assert parsed(*MODEL, *as_file("rte"), "--data.task", "mrpc", *FIELD).datamodule.task == replace(
        task("mrpc"), metrics=("f1",)
    )


YAML_TOO = "Review: {premise}\nVerdict: [MASK]"
"""A template that YAML would read as a mapping."""


@pytest.mark.parametrize("text", [YAML_TOO, "Review: of {premise} [MASK]", "{premise}: [MASK]"])
@pytest.mark.parametrize("equals", [False, True])
def test_a_text_that_is_yaml_too_stays_a_text(text, equals):
    words = ["--data.template", text] if not equals else [f"--data.template={text}"]
    arguments = parsed(*DATA, "--data.task", "rte", *words, "--data.shots", "4").config.data.init_args
    assert (arguments.template, arguments.task, arguments.shots) == (text, "rte", 4)


def test_a_text_of_a_task_that_is_yaml_too_stays_a_text():
    words = [*DATA, "--data.task", "rte", "--data.task.template", YAML_TOO, *FIELD]
    assert parsed(*words).datamodule.task == replace(CHANGED, template=YAML_TOO)


def test_a_column_and_a_path_that_are_yaml_too_stay_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd: x").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "odd: x" / f"{split}.csv").write_text("a,review: text\nx,no\ny,yes\n")
    words = ["--data.task.text", "[a]", "--data.task.label", "review: text", "--data.path", "odd: x"]
    arguments = parsed(*DATA, *words).config.data.init_args
    assert (arguments.task.label, arguments.path) == ("review: text", "odd: x")


def test_a_name_alone_stays_a_name(config):
    words = [*DATA, "--data.task", "rte"]
    assert prepare(words) == words
    assert prepare([*MODEL, *config("rte")]) == [*MODEL, *config("rte")]
    assert parsed(*words).config.data.init_args.task == "rte"


def test_a_task_of_ones_own_has_its_own_fields_only(config):
    own = parsed(*DATA, "--data.task.text", "[a]", "--data.task.labels", "[no,yes]").datamodule.task
    assert (own.text, own.hub, own.template) == (("a",), (), "")


def test_what_is_saved_is_whole_and_read_again_with_its_function(config):
    cli = parsed(*DATA, "--data.task", "wic", *FIELD)
    saved = yaml.safe_load(cli.resolved)["data"]["init_args"]["task"]
    assert (saved["name"], saved["metrics"], saved["prepare"]) == ("wic", ["f1"], "wic")
    again = parsed(*MODEL, *config(json.loads(json.dumps(saved)))).datamodule.task
    assert again == cli.datamodule.task == replace(task("wic"), metrics=("f1",))


def test_a_run_with_a_changed_field_ends_and_is_evaluated_from_its_configuration(tmp_path):
    found = runs.fit(tmp_path / "run", data__task__metrics="[macro_f1]", trainer__max_steps=1, wandb__enabled=False)
    assert found["task"] == "toy/pair"
    assert set(found["metrics"]["validation"]) == {"macro_f1", "loss"}
    from ptune.evaluate import main as evaluate

    words = ["--config", f"{tmp_path}/run/config.yaml", "--run_dir", tmp_path / "run"]
    assert runs.call(words, evaluate)[0] == 0
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert again["metrics"]["validation"] == pytest.approx(found["metrics"]["validation"])
