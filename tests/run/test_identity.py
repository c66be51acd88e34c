"""What a run is: the same options, rows and weights have one name and one hash, others have another."""

import json
import os
import shutil
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
    given = options(cli.resolved())
    assert identify(given | {"model.new": None}, cli.datamodule) == plain
    assert identify(given | {"model.new": 0}, cli.datamodule).hash != plain.hash


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
