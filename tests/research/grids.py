"""What tests of grids share: a small grid, what two equal ones have in common, and the steps that were taken."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import runs
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

METHODS = {"PTuningV2": {"length": 4, "prefix_dropout": 0.3}, "LinearProbe": {"lr": 0.01}}
EQUAL = ("metrics", "best_epoch", "steps", "seed", "method")
"""What two equal runs have in common of their `result.json`."""


class Steps(Callback):
    """Adds a line to `steps.txt` for every step that is taken, also for those that a kill makes void."""

    def on_train_batch_end(self, trainer, *_):
        with Path(trainer.default_root_dir, "steps.txt").open("a") as file:
            file.write(f"{trainer.global_step}\n")


class SlowInJobs(Steps):
    """Lets a run in a Slurm job last long enough for what Slurm does every half a minute."""

    def on_train_batch_end(self, trainer, *batch):
        super().on_train_batch_end(trainer, *batch)
        time.sleep(0.4 * ("SLURM_JOB_ID" in os.environ))


def repeated(place) -> int:
    """Steps of all cells that were taken more than once."""
    files = Path(place).rglob("steps.txt")
    return sum(count - 1 for file in files for count in Counter(file.read_text().split()).values())


def grid(folder, **axes) -> Path:
    """The file of a small grid; `axes` in place of its own, or beside them."""
    options = {
        "model.backbone": runs.bert(),
        "data.batch_size": 4,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": False,
        "trainer.log_every_n_steps": 1,
        "trainer.callbacks": {"class_path": "grids.Steps"},
    }
    axes = {"method": METHODS, "task": tasks("toy/pair"), "seed": [1]} | axes
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"options": options, "axes": axes}, sort_keys=False))
    return file


def tasks(*names) -> dict:
    """An axis of toy tasks, a few rows of each."""
    return {name: {"data.path": runs.data(name)} for name in names}


def results(place) -> dict:
    """What two equal grids have in common, by the cells' directories."""
    found = {}
    for file in sorted(Path(place).rglob("result.json")):
        result = json.loads(file.read_text())
        prompts = load_file(file.with_name("prompts.safetensors"))
        kept = {key: result[key] for key in EQUAL}
        found[str(file.parent.relative_to(place))] = kept | {name: value.tolist() for name, value in prompts.items()}
    return found
