"""The protocol of the comparison: equal numbers of settings, chosen by held-out rows alone."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import runs
import yaml

from ptune.research.axes import read

CLAIMS = runs.REPOSITORY / "experiments" / "claims"
GRID = yaml.safe_load((CLAIMS / "grids" / "search.yaml").read_text())
SETTINGS = list(GRID["axes"]["setting"])


def search(folder: Path, best: set[str], tasks: list[str]) -> Path:
    """Results of a search in which these settings are best on held-out rows, and worst on validation."""
    for task in tasks:
        for setting in SETTINGS:
            score = float(setting in best)
            run = folder / task / f"setting={setting}"
            run.mkdir(parents=True)
            metrics = {"holdout": {"accuracy": score}, "validation": {"accuracy": 1 - score}}
            (run / "result.json").write_text(json.dumps({"monitor": "accuracy", "metrics": metrics}))
    return folder


def test_every_method_has_as_many_settings_on_both_search_tasks():
    cells = read(CLAIMS / "grids" / "search.yaml")
    counts = Counter((cell.values["task"], cell.values["setting"].rpartition("-")[0]) for cell in cells)
    assert set(counts.values()) == {4}
    assert len(counts) == 11 * 2
    assert all("--data.holdout" in cell.line for cell in cells)


def test_the_setting_that_is_best_on_held_out_rows_runs_on_three_seeds(tmp_path):
    """Of equal settings the first one; a search task that is not finished gives no grid."""
    best = {"FineTuning-3", "LoRA-4", "BitFit-1", "published-2", "gated-3", "gated_lora-2", "PTuning-4", "LoRA_all-3"}
    found = search(tmp_path / "search", best, ["cola", "conll2003"])
    (found / "conll2003" / "setting=gated-1" / "result.json").unlink()
    (tmp_path / "grids").mkdir()
    shutil.copy(CLAIMS / "choose.py", tmp_path / "choose.py")
    shutil.copy(CLAIMS / "grids" / "search.yaml", tmp_path / "grids")
    done = subprocess.run([sys.executable, tmp_path / "choose.py", found], capture_output=True, text=True, check=True)
    assert "conll2003: not all 44 settings are finished" in done.stdout
    assert [file.name for file in sorted((tmp_path / "grids").iterdir())] == ["final_cola.yaml", "search.yaml"]
    scores = json.loads((tmp_path / "search_cola.json").read_text())
    assert {setting for setting, score in scores.items() if score} == best
    assert not (tmp_path / "search_conll2003.json").exists()
    cells = read(tmp_path / "grids" / "final_cola.yaml")
    assert {cell.values["task"] for cell in cells} == {"cola", "sst2", "stsb", "wic", "rte", "swag", "mrpc", "squad"}
    first = {"PromptTuning-1", "LinearProbe-1", "gated_lora_all-1"}
    chosen = {
        method: GRID["axes"]["setting"][setting]
        for method, setting in [(name.rpartition("-")[0], name) for name in best | first]
    }
    for task, holdout, rows in [("cola", "0.12", 2000), ("rte", "0.2", 0)]:  # RTE has fewer than 2,000
        of_task = [cell for cell in cells if cell.values["task"] == task]
        assert Counter(cell.values["seed"] for cell in of_task) == {"1": 11, "2": 11, "3": 11}
        for cell in of_task:
            assert f"--model.lr {float(chosen[cell.values['method']]['lr'])}" in cell.line
            assert f"--data.path data/{task} --data.holdout {holdout}" in cell.line
            assert f"--data.train_rows {rows} " in cell.line
