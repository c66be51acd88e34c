"""Seconds of a training step by method, side by side in one process.

    python experiments/speed.py DATA BACKBONE [FILE]

The methods of experiments/lecture on the same rows of SST-2. Rounds go over all methods in turn, so that whatever else
the machine does hits all alike; medians of the rounds and their ratio to fine-tuning go to FILE
(experiments/results/speed.json). Run it alone on the machine.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import median

import lightning as L
import torch
import yaml

import ptune

HERE = Path(__file__).parent
ROUNDS, STEPS = 9, 4


def prepared(path: Path, data: str, backbone: str) -> tuple:
    """Model, optimizer and batches of one of the lecture's YAMLs."""
    config = yaml.safe_load(path.read_text())
    arguments, rows = config["model"].get("init_args", {}), config["data"]["init_args"]
    slots = arguments["length"] if "template" in rows and "length" in arguments else 0
    module = ptune.Classification(rows.pop("task"), backbone, path=f"{data}/sst2", slots=slots, shots=64, **rows)
    module.setup("fit")
    numbers = {
        key: float(value) if isinstance(value, str) and "e-" in value else value for key, value in arguments.items()
    }
    model = getattr(ptune, config["model"]["class_path"])(backbone=backbone, head=module.head, **numbers)
    model.configure_model()
    batches = list(islice(module.train_dataloader(), STEPS))
    return model.train(), torch.optim.AdamW(model.trained().values(), lr=1e-5), batches


def step(model: ptune.PromptTuner, optimizer: torch.optim.Optimizer, batch: dict) -> None:
    """One training step."""
    total, count = model.head.loss(model(batch), batch)
    (total / count).backward()
    optimizer.step()
    optimizer.zero_grad()


def main(data: str, backbone: str, file: str = str(HERE / "results/speed.json")) -> None:
    """Warm up, measure, write."""
    L.seed_everything(11, verbose=False)
    paths = sorted(path for path in HERE.glob("lecture/*.yaml") if path.stem != "manual")
    methods = {path.stem: prepared(path, data, backbone) for path in paths}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(ROUNDS + 1):
        for name, (model, optimizer, batches) in methods.items():
            start = time.perf_counter()
            for batch in batches:
                step(model, optimizer, batch)
            if turn:  # the first is to warm up
                seconds[name].append((time.perf_counter() - start) / len(batches))
    whole = median(seconds["fine_tuning"])
    found = {
        name: {
            "milliseconds": round(1000 * median(values), 1),
            "ratio": round(median(values) / whole, 3),
            "trained_parameters": sum(value.numel() for value in methods[name][0].trained().values()),
        }
        for name, values in seconds.items()
    }
    about = {"backbone": Path(backbone).name, "threads": torch.get_num_threads(), "batch_size": 32, "rounds": ROUNDS}
    Path(file).write_text(json.dumps(about | {"torch": torch.__version__, "methods": found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
