"""The setting of each method and task that did best on held-out training rows, as grids of several seeds.

    python experiments/claims/choose.py runs/search

A grid for each task of which all settings are finished goes to experiments/claims/grids/final_<task>.yaml. The number
that decides is that of the split `holdout`; validation and test are not looked at. Of equal settings the first wins.
"""

import json
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
GRID = HERE / "grids" / "search.yaml"
SEEDS = [1, 2, 3]


def score(run: Path) -> float | None:
    """The monitored metric of a finished run on the held-out rows, higher is better; None where it has not finished."""
    try:
        result = json.loads((run / "result.json").read_text())
    except FileNotFoundError:
        return None
    return result["metrics"]["holdout"][result["monitor"]]


def best(runs: Path, task: str, settings: list[str]) -> dict[str, str] | None:
    """The best setting of each method on a task; None where not all of them are finished."""
    scores = {setting: score(runs / task / f"setting={setting}") for setting in settings}
    if None in scores.values():
        return None
    methods: dict[str, list[str]] = {}
    for setting in settings:
        methods.setdefault(setting.rpartition("-")[0], []).append(setting)
    return {method: max(own, key=scores.__getitem__) for method, own in methods.items()}  # type: ignore[arg-type]


def main(runs: Path) -> None:
    """Write a grid for each task whose search is finished, and say which are not."""
    grid = yaml.safe_load(GRID.read_text())
    settings = grid["axes"]["setting"]
    for task, options in grid["axes"]["task"].items():
        chosen = best(runs, task, list(settings))
        if chosen is None:
            print(f"{task}: not all {len(settings)} settings are finished")
            continue
        final = {
            "runs": "runs/claims",
            "options": {name: value for name, value in grid["options"].items() if name != "seed"},
            "axes": {
                "seed": SEEDS,
                "task": {task: options},
                "method": {method: settings[setting] for method, setting in chosen.items()},
            },
        }
        lines = f"# Written by experiments/claims/choose.py: {', '.join(chosen.values())}.\n"
        file = HERE / "grids" / f"final_{task}.yaml"
        file.write_text(lines + yaml.safe_dump(final, sort_keys=False, default_flow_style=None, width=120))
        print(f"python -m ptune.grid {file.relative_to(HERE.parents[1])}   # {', '.join(chosen.values())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
