"""Markdown tables of the committed results: `python experiments/table.py [NAME]`, a name of `TABLES`."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

RESULTS = Path(__file__).parent / "results"
METHODS = ("ManualPrompt", "LinearProbe", "PromptTuning", "PTuning", "PTuningV2", "BitFit", "LoRA", "FineTuning")


def results(folder: Path) -> list[dict]:
    """The result files of a folder, tasks by name, methods in the lecture's order."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(found, key=lambda r: (r["task"], place(r["method"]), bool(asked(r)), r["seed"]))


def place(method: str) -> int:
    """The lecture's order of methods; others stand behind."""
    return METHODS.index(method) if method in METHODS else len(METHODS)


def asked(result: dict) -> str:
    """The template it was read with, if any."""
    return result["config"].get("template") or ""


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(folder: Path) -> str:
    """One row a result: metrics of the split it was chosen on, parameters, time and memory."""
    rows = ["| task | method | metric | majority | trained parameters | epochs | seconds | examples/s | MiB |"]
    rows += ["|" + "---|" * 9]
    for r in results(folder):
        split = next(iter(r["metrics"]))
        path = r["config"]["path"]
        task = r["task"] if Path(path).name == r["task"] else f"{r['task']}: {Path(path).name}"
        metrics = ", ".join(f"{k} {percent(v)}" for k, v in r["metrics"][split].items() if k != "loss")
        base = r["majority"][split].get(r["monitor"])
        speed = r["examples_per_second"]
        method = f"{r['method']}, template" if asked(r) and r["method"] != "ManualPrompt" else r["method"]
        rows.append(
            f"| {task} | {method} | {metrics} | {percent(base)} | {r['trained_parameters']:,} | {r['epochs']} "
            f"| {r['seconds']:.0f} | {'-' if speed is None else f'{speed:.0f}'} | {r['peak_memory_mib']:.0f} |"
        )
    return "\n".join(rows)


def lecture(folder: Path) -> str:
    """One row a method: the metric on both splits; without seconds, which these runs took beside others."""
    rows = ["| method | validation | test | majority (test) | trained parameters |", "|" + "---|" * 5]
    for r in results(folder):
        scores = [percent(r["metrics"][split]["accuracy"]) for split in ("validation", "test")]
        base = percent(r["majority"]["test"]["accuracy"])
        method = f"{r['method']}, template" if asked(r) else r["method"]
        rows.append(f"| {method} | {' | '.join(scores)} | {base} | {r['trained_parameters']:,} |")
    return "\n".join(rows)


def seeds(folder: Path) -> str:
    """One row a task and method: mean and standard deviation over seeds on the validation split."""
    groups = defaultdict(list)
    for r in results(folder):
        groups[r["task"], r["method"], bool(asked(r)) and r["method"] == "FineTuning"].append(r)
    rows = ["| task | method | accuracy | majority | chosen on dev32 | rows | seeds |", "|" + "---|" * 7]
    for (task, method, template), runs in groups.items():
        cells = []
        for split in ("validation", "dev32"):
            values = [100 * r["metrics"][split]["accuracy"] for r in runs]
            cells.append(f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else ""))
        base = percent(runs[0]["majority"]["validation"]["accuracy"])
        name = f"{method}, template" if template else method
        rows.append(
            f"| {task} | {name} | {cells[0]} | {base} | {cells[1]} | {runs[0]['rows']['validation']} | {len(runs)} |"
        )
    return "\n".join(rows)


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


def speed(file: Path) -> str:
    """One row a method of the lecture: seconds of a training step against fine-tuning's."""
    found = json.loads(file.with_suffix(".json").read_text())["methods"]
    rows = ["| method | trained parameters | ms a step of 32 | against fine-tuning |", "|" + "---|" * 4]
    for name, values in sorted(found.items(), key=lambda item: item[1]["ratio"]):
        rows.append(
            f"| {name} | {values['trained_parameters']:,} | {values['milliseconds']:.0f} | {values['ratio']:.2f} |"
        )
    return "\n".join(rows)


TABLES = {"minilm": table, "lecture": lecture, "speed": speed, "fewglue": seeds, "lama": lama}

if __name__ == "__main__":
    for name in sys.argv[1:] or TABLES:
        print(TABLES[name](RESULTS / name), end="\n\n")
