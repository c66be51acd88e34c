"""Markdown tables of committed results that are no runs: `python experiments/table.py [NAME]`, a name of `TABLES`.

Those of runs are made by `python -m ptune.report`.
"""

import json
import sys
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parent / "results"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.1f}"


def lama(folder: Path) -> str:
    """Mean precision at 1 over the relations, and in how many relations each method is the best."""
    methods = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("manual", "p_tuning")}
    scores = {name: {k: v["precision_at_1"] for k, v in m["relations"].items()} for name, m in methods.items()}
    scores = {"majority": {k: v["majority"] for k, v in methods["manual"]["relations"].items()}} | scores
    rows = ["| LAMA T-REx | mean precision at 1 | best in | trained parameters |", "|" + "---|" * 4]
    names = {"majority": "most frequent object", "manual": "manual template", "p_tuning": "P-Tuning v1"}
    for name, values in scores.items():
        best = sum(values[k] == max(other[k] for other in scores.values()) for k in values)
        trained = methods[name]["trained_parameters"] if name in methods else 0
        rows.append(f"| {names[name]} | {percent(mean(values.values()))} | {best} of {len(values)} | {trained:,} |")
    return "\n".join(rows)


TABLES = {"lama": lama}

if __name__ == "__main__":
    for name in sys.argv[1:] or TABLES:
        print(TABLES[name](RESULTS / name), end="\n\n")
