"""Runs that were never run: directories with the results and predictions that a test wants."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ptune.heads import head_class
from ptune.heads.metrics import measure
from ptune.tasks.spec import HeadSpec

CONFIG = {"length": 4, "lr": 0.01, "template": ""}
HEAD = HeadSpec("sst2", "classify", ("no", "yes"), ("accuracy", "f1"), "accuracy")


def result(task="sst2", method="PTuningV2", seed=1, value=0.5, **more) -> dict:
    """A result.json; `more` are further keys of it."""
    config = CONFIG | more.pop("config", {})
    metrics = more.pop("metrics", {split: {"accuracy": value, "loss": 0.7} for split in ("validation", "test")})
    own = {"task": task, "method": method, "backbone": "tiny", "seed": seed, "monitor": "accuracy"}
    return own | {"metrics": metrics, "config": config, "steps": 30, "best_epoch": 2} | more


def run(folder: Path, found: dict, name="result.json") -> Path:
    """A run directory with this result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed_everything: 1\n")
    (folder / name).write_text(json.dumps(found))
    return folder


def cell(root: Path, method="PTuningV2", task="sst2", seed=1) -> Path:
    """The directory of a cell of a grid of methods, tasks and seeds, without a result."""
    folder = root / method / task / f"seed={seed}"
    folder.mkdir(parents=True)
    values = {"method": method, "task": task, "seed": str(seed)}
    words = ["--model", method, "--data.task", task, "--seed_everything", str(seed)]
    (folder / "cell.json").write_text(json.dumps({"values": values, "words": words}))
    return folder


def answered(folder: Path, table, head: HeadSpec = HEAD, rows=None, gold=None, **more) -> Path:
    """A run directory whose result is measured from the table of its test split, and whose predictions hold it.

    `rows` and `gold` are those of the predictions; by default the table's rows from 0, and its second column.
    """
    table = torch.as_tensor(table).double()
    values = measure(head, table)
    metrics = {"validation": values, "test": values}
    run(folder, result(**{"task": head.task, "metrics": metrics, "monitor": head.monitor} | more))
    names = head_class(head.kind).columns(head)
    columns = {f"table/{name}": values for name, values in zip(names, table.T.tolist(), strict=True)}
    right = head_class(head.kind).right(table) or [None] * len(table)
    own = {
        "row": list(range(len(table))) if rows is None else rows,
        "gold": table[:, 1].tolist() if gold is None else gold,
        "right": pa.array(right, pa.bool_()),
    }
    (folder / "predictions").mkdir(exist_ok=True)
    file = pa.table(own | columns, metadata={"head": json.dumps(asdict(head))})
    pq.write_table(file, folder / "predictions" / "test.parquet")
    return folder


def classified(gold, guess) -> torch.Tensor:
    """The table of a head of classes, without groups: "rows 5"."""
    gold, guess = torch.as_tensor(gold).double(), torch.as_tensor(guess).double()
    return torch.stack([guess, gold, *[torch.zeros_like(gold)] * 3], dim=1)
