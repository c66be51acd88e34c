"""The notebooks run from top to bottom; short of steps here, and of a hub."""

import json
import os
import subprocess
import sys

import pytest
import runs

NOTEBOOKS = sorted(runs.REPOSITORY.glob("notebooks/*.ipynb"))
MASKED = runs.SHARED.parent / "models" / "minilm-l6-mlm"


def test_there_is_the_tour():
    assert [path.name for path in NOTEBOOKS] == ["tour.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path):
    if not MASKED.is_dir():
        pytest.skip(f"the pretrained language model is not there: no {MASKED}")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    (tmp_path / "cells.py").write_text((tmp_path / "cells.py").read_text().replace('"shots": 400', '"shots": 8'))
    where = {"PTUNE_LM": str(MASKED), "PTUNE_SST2": str(runs.SHARED / "sst2"), "PTUNE_STEPS": "2", "MPLBACKEND": "agg"}
    command = [sys.executable, "cells.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "P-Tuning v2" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_with_its_pictures(path):
    cells = json.loads(path.read_text())["cells"]
    pictures = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert not any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))
