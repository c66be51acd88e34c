"""What it costs that a run survives kills, signals and NaN: seconds a checkpoint, a step and a training epoch.

    python experiments/safety_cost.py [FILE]

An epoch of the quickstart, in one process, with a clock around each part; the same checkpoint is also written the way
Lightning writes it. Medians a call and the share of a training epoch go to FILE (experiments/results/safety_cost.json).
Run it alone on the machine.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import lightning as L
from lightning.fabric.plugins import TorchCheckpointIO

from ptune.fit import main as fit
from ptune.run.checkpoints import RunCheckpoint, WholeCheckpoints
from ptune.run.finite import Finite
from ptune.run.metrics_log import MetricsLog
from ptune.run.signals import StopAtStep

HERE = Path(__file__).parent
PARTS = {
    "checkpoint, whole and flushed to the disk": (WholeCheckpoints, ["save_checkpoint"]),
    "line of metrics.jsonl": (MetricsLog, ["log_metrics"]),
    "signals": (StopAtStep, ["on_train_batch_start", "on_train_batch_end", "on_validation_batch_end"]),
    "checkpoint by steps, where none is due": (RunCheckpoint, ["on_train_batch_end"]),
    "finite gradient": (Finite, ["on_before_optimizer_step"]),
    "finite checkpoint": (Finite, ["on_save_checkpoint"]),
}
QUIET = ["--trainer.enable_progress_bar", "false", "--wandb.enabled", "false"]
LIGHTNING = "checkpoint, as Lightning writes it"


def clocked(function, times: list[float]):
    """The function, which appends the seconds of each call."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            times.append(time.perf_counter() - start)

    return call


def main(file: str = str(HERE / "results/safety_cost.json")) -> None:
    """Run the quickstart with clocks, print and write."""
    seconds: dict[str, list[float]] = defaultdict(list)
    epochs: list[float] = []
    for name, (owner, methods) in PARTS.items():
        for method in methods:
            setattr(owner, method, clocked(getattr(owner, method), seconds[name]))
    whole = WholeCheckpoints.save_checkpoint

    def both(self, checkpoint, path, storage_options=None):
        with tempfile.TemporaryDirectory() as folder:
            clocked(TorchCheckpointIO().save_checkpoint, seconds[LIGHTNING])(checkpoint, f"{folder}/x.ckpt")
        whole(self, checkpoint, path, storage_options)

    WholeCheckpoints.save_checkpoint = both
    L.Trainer.fit = clocked(L.Trainer.fit, epochs)
    with tempfile.TemporaryDirectory() as folder:
        config = ["--config", str(HERE / "quickstart.yaml"), "--trainer.max_epochs", "1", *QUIET]
        result = fit([*config, "--run_dir", f"{folder}/run"])
    epoch = (epochs[0] - sum(seconds[LIGHTNING])) / result["epochs"]
    rows = {
        name: {
            "calls_an_epoch": len(times) / result["epochs"],
            "median_ms": 1000 * median(times),
            "percent_of_an_epoch": 100 * sum(times) / result["epochs"] / epoch,
        }
        for name, times in seconds.items()
    }
    total = sum(row["percent_of_an_epoch"] for name, row in rows.items() if name != LIGHTNING)
    print(f"{'part':<44}{'calls an epoch':>15}{'median, ms':>12}{'% of an epoch':>15}")
    for name, row in rows.items():
        calls, ms, share = row.values()
        print(f"{name:<44}{calls:>15.1f}{ms:>12.3f}{share:>15.3f}")
    print(f"in all, without Lightning's checkpoint: {total:.2f} % of an epoch of {epoch:.1f} s")
    kept = {
        "epoch_seconds": epoch,
        "steps_an_epoch": result["steps"] / result["epochs"],
        "parts": rows,
        "percent": total,
    }
    Path(file).write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
