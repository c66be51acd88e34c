"""FewGLUE-32 with every few-shot method.

    python experiments/fewglue.py DATA BACKBONE [FOLDER]

DATA holds fewglue/<task> (train, dev32) and <task> (validation); BACKBONE is a masked language model. Each method is
chosen on dev32 and measured on the validation split, with three seeds where there is something to draw. Runs go to
runs/fewglue, results to FOLDER/<method>-<task>-s<seed>.json (experiments/results/fewglue); what is there is not run
again.
"""

import json
import sys
from pathlib import Path

from ptune.evaluate import main as evaluate
from ptune.fit import main as fit

HERE = Path(__file__).parent
SEEDS = {"manual": (11,), "fine_tuning": (11, 12, 13), "fine_tuning_cloze": (11, 12, 13), "p_tuning": (11, 12, 13)}
SLOTS = {
    "cb": "{premise} Question: {hypothesis}? [P] Answer: [MASK].",
    "rte": "{premise} Question: {hypothesis}? [P] Answer: [MASK].",
    "wic": "{sentence1} {sentence2} [P] Does {word} have the same meaning in both sentences? [MASK].",
}


def main(data: str, backbone: str, folder: str = str(HERE / "results/fewglue")) -> None:
    """All methods, tasks and seeds."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for task, template in SLOTS.items():
        for method, seeds in SEEDS.items():
            for seed in seeds:
                result = Path(folder, f"{method}-{task}-s{seed}.json")
                if result.exists():
                    continue
                run = f"runs/fewglue/{task}/{method}-s{seed}"
                words = ["--config", str(HERE / f"fewglue/{method}.yaml"), "--seed_everything", str(seed)]
                words += ["--model.backbone", backbone, "--data.task", f"fewglue/{task}", "--run_dir", run]
                words += ["--data.path", json.dumps([f"{data}/fewglue/{task}", f"{data}/{task}"])]
                words += ["--data.template", template] if method == "p_tuning" else []
                words += ["--trainer.enable_progress_bar", "false"]
                (evaluate if method == "manual" else fit)(words)
                done = Path(run, "evaluation.json" if method == "manual" else "result.json")
                result.write_text(done.read_text().replace(backbone, Path(backbone).name))  # where it lies says nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
