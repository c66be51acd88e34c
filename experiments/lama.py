"""LAMA T-REx over 41 relations, manual templates against P-Tuning v1.

    python experiments/lama.py DATA BACKBONE [FOLDER]

DATA is the folder with LAMA's splits, BACKBONE a masked language model. Runs go to runs/lama, the test precision at 1
of every relation to FOLDER/<method>.json (experiments/results/lama). Finished relations are not run again.
"""

import json
import sys
from pathlib import Path

from ptune.evaluate import main as evaluate
from ptune.fit import main as fit
from ptune.tasks import lama

HERE = Path(__file__).parent
KEPT = ("backbone", "fingerprint", "seed", "trained_parameters", "packages", "git_commit")


def run(method: str, relation: str, data: str, backbone: str) -> dict:
    """The result of one relation, from its run directory if it is there."""
    folder = Path("runs/lama", method, relation)
    result = folder / ("evaluation.json" if method == "manual" else "result.json")
    if not result.exists():
        words = ["--config", str(HERE / f"lama/{method}.yaml"), "--model.backbone", backbone, "--data.path", data]
        words += ["--data.task", f"lama/{relation}", "--run_dir", str(folder), "--trainer.enable_progress_bar", "false"]
        (evaluate if method == "manual" else fit)(words)
    return json.loads(result.read_text())


def main(data: str, backbone: str, folder: str = str(HERE / "results/lama")) -> None:
    """Both methods on every relation."""
    for method in ("manual", "p_tuning"):
        relations = {}
        for relation in lama.TEMPLATES:
            result = run(method, relation, data, backbone)
            relations[relation] = {
                "rows": result["rows"]["test"],
                "majority": result["majority"]["test"]["precision_at_1"],
                "precision_at_1": result["metrics"]["test"]["precision_at_1"],
                "seconds": round(result["seconds"], 1),
            }
        summary = {key: result[key] for key in KEPT} | {"method": result["method"], "relations": relations}
        summary["backbone"] = Path(backbone).name  # where it lies says nothing
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{method}.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
