"""Every shipped YAML parses and runs steps, after which what its method declares has moved, and nothing else."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest
import runs
import torch
import yaml

from ptune.evaluate import main as evaluate

YAMLS = sorted(
    path for path in runs.REPOSITORY.glob("experiments/**/*.yaml") if path.parent.name not in ("grids", "spaces")
)
FOLDERS = {"swag": "codah", "squad": "squad_subset"}
LECTURE = ("manual", "linear_probe", "prompt_tuning", "p_tuning", "p_tuning_v2", "lora", "bitfit", "fine_tuning")
FEW = ("manual", "fine_tuning", "fine_tuning_cloze", "p_tuning")
MASKED = runs.SHARED.parent / "models" / "minilm-l6-mlm"
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
    names = [FOLDERS.get(task, task), task.removeprefix("fewglue/")]
    names = ["lama_trex"] if task.startswith("lama/") else list(dict.fromkeys(names))
    places = []
    for name in names:
        source = runs.SHARED / name
        if not source.is_dir():
            pytest.skip(f"the published data are not there: no {source}")
        places.append(folder / name)
        places[-1].mkdir(parents=True)
        for file in source.glob("*.jsonl.gz"):
            with gzip.open(file, "rt") as lines:
                own = (line for line in lines if name != "lama_trex" or f'"{task.removeprefix("lama/")}"' in line)
                (places[-1] / file.name.removesuffix(".gz")).write_text("".join(islice(own, 12)))
    return ["--data.path", json.dumps([str(place) for place in places])]


def backbone(config: dict) -> str:
    """A random tiny one; with words to fill in, the real masked language model, whose vocabulary has them."""
    data = config["data"]
    if data["class_path"] == "Fill":
        if not MASKED.is_dir():
            pytest.skip(f"the pretrained language model is not there: no {MASKED}")
        return str(MASKED)
    return runs.bert(positions=512, lm="template" in data["init_args"])


def test_the_promised_experiments_are_there():
    names = {relative(path) for path in YAMLS}
    assert {"quickstart.yaml", *(f"{method}/{task}.yaml" for method in METHODS for task in TASKS)} <= names
    assert {f"lecture/{method}.yaml" for method in LECTURE} | {f"fewglue/{method}.yaml" for method in FEW} <= names


def words(path: Path, config: dict, folder: Path) -> list:
    """The command line of a shipped YAML on a few rows."""
    line = ["--config", path, "--model.backbone", backbone(config), "--run_dir", folder / "run"]
    line += [*beginning(config["data"]["init_args"]["task"], folder), "--data.batch_size", 4, *runs.QUIET]
    return [*line, "--trainer.limit_val_batches", 1]


TRAINED = [path for path in YAMLS if path.stem != "manual"]


@pytest.mark.parametrize("path", TRAINED, ids=relative)
def test_from_a_shipped_yaml_exactly_what_is_declared_moves(path, tmp_path):
    config = yaml.safe_load(path.read_text())
    line = words(path, config, tmp_path)
    line += ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3, "--trainer.check_val_every_n_epoch", 1]
    cli = runs.built(line)
    cli.model.configure_model()
    before = {name: value.detach().clone() for name, value in cli.model.named_parameters()}
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 3
    moved = {name for name, value in cli.model.named_parameters() if not torch.equal(value, before[name])}
    free = {name for name in before if name.endswith(KEY_BIAS)}
    assert moved - free == set(cli.model.trained()) - free
    assert type(cli.model).__name__ == config["model"]["class_path"]
    assert cli.trainer.callback_metrics[cli.model.monitor].isfinite()


@pytest.mark.parametrize("path", sorted(set(YAMLS) - set(TRAINED)), ids=relative)
def test_a_shipped_yaml_that_trains_nothing_is_evaluated(path, tmp_path):
    config = yaml.safe_load(path.read_text())
    code, out, err = runs.call(words(path, config, tmp_path), evaluate)
    assert code == 0, err
    assert "ManualPrompt" in out
