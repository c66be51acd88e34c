"""Seconds that a cell of a grid takes beyond its training, on a worker that has worked before.

    python experiments/cell_start.py [BACKBONE]

One worker process runs short cells of each method one after the other. What is printed are medians over all but a
method's first cell: the start, from handing the cell over to its first step (options, data, backbone); all that it
takes beyond the seconds of training that its result says, so with checkpoints, the evaluation of the best one and
files; and the evaluation alone, of one batch a split. The runs are too short for W&B.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lightning.pytorch.callbacks import Callback

from ptune import fit
from ptune.backbone.pretrained import MINILM
from ptune.research import local
from ptune.research.cells import Cell, cell

METHODS = ("LinearProbe", "PTuningV2", "FineTuning")
SEEDS = range(1, 8)
OPTIONS = {"task": "toy/pair", "trainer.max_epochs": 1, "data.batch_size": 8}
OPTIONS |= {f"trainer.limit_{part}_batches": 1 for part in ("train", "val", "test")}
BEGAN = "began"


class Began(Callback):
    """Leaves a file when the first step begins."""

    def on_train_start(self, trainer, *_) -> None:
        """Write it."""
        Path(trainer.default_root_dir, BEGAN).touch()


def run(words: list[str]) -> object:
    """A cell's command, `fit`, with that callback."""
    return fit.main(words, more=[Began()])


def cells(backbone: str, place: Path) -> list[Cell]:
    """The cells of all methods."""
    return [
        cell(
            {"method": method, "seed": str(seed)},
            [{"method": method, "seed": seed, "backbone": backbone}, OPTIONS],
            place / method / str(seed),
        )
        for method in METHODS
        for seed in SEEDS
    ]


def measure(backbone: str, place: Path) -> dict[str, list[tuple[float, float, float]]]:
    """For each method and each of its cells the seconds of its start, beyond its training, and of its evaluation."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    start = time.time()
    for event in local.work(cells(backbone, place), run, workers=1, cpus=1, gpus=0):
        if isinstance(event, Cell):
            continue
        if event.result is None:
            raise SystemExit(f"{event.cell.name}: {event.error}")
        now, began = time.time(), (event.cell.run_dir / BEGAN).stat().st_mtime - start
        beyond = now - start - event.result["seconds"]
        found.setdefault(event.cell.values["method"], []).append((began, beyond, event.result["evaluation_seconds"]))
        start = now
    return found


def main() -> None:
    """Measure, and print a row a method."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else MINILM
    with tempfile.TemporaryDirectory() as place:
        found = measure(backbone, Path(place))
    print("| method | s before the first step | s beyond training | of them evaluation |\n|---|---|---|---|")
    for method, values in found.items():
        print(f"| {method} |", *(f"{median(column):.2f} |" for column in zip(*values[1:], strict=True)))


if __name__ == "__main__":
    main()
