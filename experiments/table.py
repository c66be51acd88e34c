"""Markdown table of the results in experiments/results: `python experiments/table.py [folder]`."""

import json
import sys
from pathlib import Path

METHODS = {"FineTuning": 0, "LinearProbe": 1, "PTuningV2": 2}


def table(folder: Path) -> str:
    """One row a result file, tasks by name, fine-tuning first."""
    results = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rows = ["| task | method | metric | majority | trained parameters | epochs | seconds | examples/s | MiB |"]
    rows += ["|" + "---|" * 9]
    for r in sorted(results, key=lambda r: (r["task"], METHODS[r["method"]])):
        split = next(iter(r["metrics"]))
        folder = Path(r["config"]["path"]).name
        task = r["task"] if folder == r["task"] else f"{r['task']}: {folder}"
        metrics = ", ".join(f"{k} {100 * v:.1f}" for k, v in r["metrics"][split].items() if k != "loss")
        base = r["majority"][split].get(r["monitor"])
        rows.append(
            f"| {task} | {r['method']} | {metrics} | {'-' if base is None else f'{100 * base:.1f}'} "
            f"| {r['trained_parameters']:,} | {r['epochs']} | {r['seconds']:.0f} | {r['examples_per_second']:.0f} "
            f"| {r['peak_memory_mib']:.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "results")))
