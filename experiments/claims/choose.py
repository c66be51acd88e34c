"""The setting of each method that did best on held-out training rows of a search task, as grids of several seeds.

    python experiments/claims/choose.py runs/search

Of each search task whose settings are all finished, a grid goes to experiments/claims/grids/NAME.yaml for every task
that takes its settings (`TASKS`). The number that decides is that of the split `holdout`; validation and test are not
looked at. Of equal settings the first wins. The held-out scores of all settings go to experiments/claims/search.json.
"""

import json
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
GRID = HERE / "grids" / "search.yaml"
SEEDS = [1, 2, 3]
TASKS = {  # the tasks of a search task, each with 500 to 1,000 held-out training rows, or a fifth of a small set
    "cola": {
        "cola": {"data.path": "data/cola", "data.holdout": 0.12},
        "sst2": {"data.path": "data/sst2", "data.holdout": 0.0075},
        "stsb": {"data.path": "data/stsb", "data.holdout": 0.087},
        "wic": {"data.path": "data/wic", "data.holdout": 0.092},
        "rte": {"data.path": "data/rte", "data.holdout": 0.2},
        "swag": {"data.path": "data/codah", "data.holdout": 0.2, "data.batch_size": 16},
        "mrpc": {"data.path": "data/mrpc", "data.holdout": 0.14},
        "squad": {"data.path": "data/squad_subset", "data.holdout": 0.046, "data.batch_size": 16},
    },
    "conll2003": {
        "conll2003": {"data.path": "data/conll2003", "data.holdout": 0.036},
        "wnut17": {"data.path": "data/wnut17", "data.holdout": 0.15},
        "conll2004": {"data.path": "data/conll2004", "data.holdout": 0.2},
    },
}


def score(run: Path) -> float | None:
    """The monitored metric of a finished run on the held-out rows, higher is better; None where it has not finished."""
    try:
        result = json.loads((run / "result.json").read_text())
    except FileNotFoundError:
        return None
    return result["metrics"]["holdout"][result["monitor"]]


def best(scores: dict[str, float]) -> dict[str, str]:
    """The best setting of each method."""
    methods: dict[str, list[str]] = {}
    for setting in scores:
        methods.setdefault(setting.rpartition("-")[0], []).append(setting)
    return {method: max(own, key=scores.__getitem__) for method, own in methods.items()}


def main(runs: Path) -> None:
    """Write the grids of each search task that is finished, and say which is not."""
    grid = yaml.safe_load(GRID.read_text())
    settings = grid["axes"]["setting"]
    shared = {name: value for name, value in grid["options"].items() if name != "seed"}
    found: dict[str, dict[str, float]] = {}
    for searched, tasks in TASKS.items():
        scores = {setting: score(runs / searched / f"setting={setting}") for setting in settings}
        if None in scores.values():
            print(f"{searched}: not all {len(settings)} settings are finished")
            continue
        found[searched] = scores  # type: ignore[assignment]
        chosen = best(found[searched])
        named = ", ".join(chosen.values())
        methods = {method: settings[setting] for method, setting in chosen.items()}
        for task, options in tasks.items():
            final = {
                "runs": "runs/claims",
                "options": shared,
                "axes": {"method": methods, "task": {task: options}, "seed": SEEDS},
            }
            file = HERE / "grids" / f"{task}.yaml"
            text = yaml.safe_dump(final, sort_keys=False, default_flow_style=None, width=120)
            file.write_text(f"# Written by experiments/claims/choose.py: {named}.\n{text}")
            print(f"python -m ptune.grid {file.relative_to(HERE.parents[1])} --workers 2")
        print(f"# {searched}: {named}")
    (HERE / "search.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
