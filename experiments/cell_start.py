"""Seconds that a cell of a grid takes beyond its training, on a worker that has worked before.

    python experiments/cell_start.py [BACKBONE]

One worker process runs short cells of each method one after the other. What is printed is the median over all but a
method's first cell of the time from handing the cell over to its end, less the seconds of training that its result
says: options, data, backbone, checkpoints, evaluation of the last step on one batch a split, and files. The runs are
too short for W&B.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from ptune.backbone.pretrained import MINILM
from ptune.grid import run_cell
from ptune.research import local
from ptune.research.cells import Cell, cell

METHODS = ("LinearProbe", "PTuningV2", "FineTuning")
SEEDS = range(1, 8)
OPTIONS = {"task": "toy/pair", "trainer.max_epochs": 1, "data.batch_size": 8}
OPTIONS |= {f"trainer.limit_{part}_batches": 1 for part in ("train", "val", "test")}


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


def measure(backbone: str, place: Path) -> dict[str, list[tuple[float, float]]]:
    """For each method and each of its cells the seconds beyond training, and those of them that are evaluation."""
    found: dict[str, list[tuple[float, float]]] = {}
    start = time.perf_counter()
    for event in local.work(cells(backbone, place), run_cell, workers=1, cpus=1, gpus=0):
        if isinstance(event, Cell):
            continue
        if event.result is None:
            raise SystemExit(f"{event.cell.name}: {event.error}")
        now = time.perf_counter()
        beyond = now - start - event.result["seconds"]
        found.setdefault(event.cell.values["method"], []).append((beyond, event.result["evaluation_seconds"]))
        start = now
    return found


def main() -> None:
    """Measure, and print a row a method."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else MINILM
    with tempfile.TemporaryDirectory() as place:
        found = measure(backbone, Path(place))
    print("| method | s beyond training | of them evaluation |\n|---|---|---|")
    for method, values in found.items():
        beyond, evaluation = (median(column) for column in zip(*values[1:], strict=True))
        print(f"| {method} | {beyond:.2f} | {evaluation:.2f} |")


if __name__ == "__main__":
    main()
