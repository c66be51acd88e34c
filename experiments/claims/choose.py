"""The setting of each method that did best on held-out training rows of a search task, as grids of several seeds.

    python experiments/claims/choose.py runs/search

Of each search task whose settings are all finished, the held-out scores go to experiments/claims/search_<task>.json and
a grid of it and all tasks that take its settings (`OTHERS`) to experiments/claims/grids/final_<task>.yaml. The number
that decides is that of the split `holdout`; validation and test are not looked at. Of equal settings the first wins.
"""

import json
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
GRID = HERE / "grids" / "search.yaml"
SEEDS = [1, 2, 3]
OTHERS = {  # the tasks that take a search task's settings, with about 500 held-out training rows or a fifth of them;
    # those with fewer than 2,000 rows train on all
    "cola": {
        "sst2": {"data.path": "data/sst2", "data.holdout": 0.0075},
        "stsb": {"data.path": "data/stsb", "data.holdout": 0.087},
        "wic": {"data.path": "data/wic", "data.holdout": 0.092},
        "rte": {"data.path": "data/rte", "data.holdout": 0.2, "data.train_rows": 0},
        "swag": {"data.path": "data/codah", "data.holdout": 0.2, "data.train_rows": 0, "data.batch_size": 16},
        "mrpc": {"data.path": "data/mrpc", "data.holdout": 0.14},
        "squad": {"data.path": "data/squad_subset", "data.holdout": 0.046, "data.batch_size": 16},
    },
    "conll2003": {
        "wnut17": {"data.path": "data/wnut17", "data.holdout": 0.15},
        "conll2004": {"data.path": "data/conll2004", "data.holdout": 0.2, "data.train_rows": 0},
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
    for searched, own in grid["axes"]["task"].items():
        scores = {setting: score(runs / searched / f"setting={setting}") for setting in settings}
        if None in scores.values():
            print(f"{searched}: not all {len(settings)} settings are finished")
            continue
        (HERE / f"search_{searched}.json").write_text(json.dumps(scores, indent=2) + "\n")
        chosen = best(scores)  # type: ignore[arg-type]
        methods = {method: settings[setting] for method, setting in chosen.items()}
        axes = {"task": {searched: own} | OTHERS[searched], "method": methods, "seed": SEEDS}
        final = {"runs": "runs/claims", "options": shared, "axes": axes}
        text = yaml.safe_dump(final, sort_keys=False, default_flow_style=None, width=120)
        file = HERE / "grids" / f"final_{searched}.yaml"
        file.write_text(f"# Written by experiments/claims/choose.py: {', '.join(chosen.values())}.\n{text}")
        print(f"python -m ptune.grid {file.relative_to(HERE.parents[1])} --workers 2   # {', '.join(chosen.values())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
