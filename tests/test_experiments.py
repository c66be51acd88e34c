"""Every shipped YAML parses and runs steps, after which what its method declares has moved, and nothing else."""

import gzip
from itertools import islice
from pathlib import Path

import pytest
import runs
import torch
import yaml

YAMLS = sorted(runs.REPOSITORY.glob("experiments/**/*.yaml"))
FOLDERS = {"swag": "codah", "squad": "squad_subset"}
METHODS = ("p_tuning_v2", "fine_tuning", "linear_probe")
TASKS = ("cola", "sst2", "mrpc", "rte", "stsb", "swag", "squad", "conll2003")
KEY_BIAS = "attention.self.key.bias"
"""Attention does not depend on it: its gradient is nothing but rounding."""


def relative(path: Path) -> str:
    return str(path.relative_to(runs.REPOSITORY / "experiments"))


def beginning(task: str, folder: Path) -> list:
    """Options for the first rows of the published data; none for a generated task."""
    if task.startswith("toy/"):
        return []
    source = runs.SHARED / FOLDERS.get(task, task)
    if not source.is_dir():
        pytest.skip(f"the published data are not there: no {source}")
    for file in source.glob("*.jsonl.gz"):
        with gzip.open(file, "rt") as lines:
            (folder / file.name.removesuffix(".gz")).write_text("".join(islice(lines, 12)))
    return ["--data.path", folder]


def test_the_promised_experiments_are_there():
    names = {relative(path) for path in YAMLS}
    assert {"quickstart.yaml", *(f"{method}/{task}.yaml" for method in METHODS for task in TASKS)} <= names


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_from_a_shipped_yaml_exactly_what_is_declared_moves(path, tmp_path):
    config = yaml.safe_load(path.read_text())
    words = ["--config", path, "--model.backbone", runs.bert(positions=512), "--run_dir", tmp_path / "run"]
    words += [*beginning(config["data"]["init_args"]["task"], tmp_path), "--data.batch_size", 4, *runs.QUIET]
    words += ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3, "--trainer.limit_val_batches", 1]
    cli = runs.built(words)
    cli.model.configure_model()
    before = {name: value.detach().clone() for name, value in cli.model.named_parameters()}
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 3
    moved = {name for name, value in cli.model.named_parameters() if not torch.equal(value, before[name])}
    free = {name for name in before if name.endswith(KEY_BIAS)}
    assert moved - free == set(cli.model.trained()) - free
    assert type(cli.model).__name__ == config["model"]["class_path"]
    assert cli.trainer.callback_metrics[cli.model.monitor].isfinite()
