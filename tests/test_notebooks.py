"""The notebooks run from top to bottom, with few steps and without the hub; their committed outputs are checked."""

import json
import os
import re
from itertools import product

import processes
import pytest
import runs
from safetensors import safe_open

NOTEBOOKS = sorted(runs.REPOSITORY.glob("notebooks/*.ipynb"))
FILMS = ("a film", "a movie", "good fun", "a bore")
HEADER = 4
"""KiB that the names, shapes and metadata of a saved file take at most."""
BILL = re.compile(r"^(\S.*?) {2,}([\d,]+) +([\d,.]+) +[\d.]+ +\d+$", re.MULTILINE)
"""A line of the bill: method, trained parameters, kept KiB, accuracy, seconds."""
REPORT = """
import json, shutil
print("BILL", json.dumps(bill))
shutil.copytree(folder.name, "kept")
"""


def printed_bill(text: str) -> dict[str, tuple[int, float]]:
    """Trained parameters and kept KiB by method, as the notebook prints them."""
    return {
        name: (int(trained.replace(",", "")), float(kept.replace(",", "")))
        for name, trained, kept in BILL.findall(text)
    }


def check_bill(bill: dict[str, tuple[int, float]]) -> None:
    """What is kept is what a task needs after training: P-Tuning v1 keeps the vectors alone, direct use nothing."""
    assert len(bill) == 7
    for name, (trained, kept) in bill.items():
        if name.endswith("text prompt"):
            assert (trained, kept) == (0, 0), name
        elif name != "P-Tuning v1":
            assert 4 * trained / 2**10 < kept < 4 * trained / 2**10 + HEADER + 0.001 * kept, name
    vectors = 4 * bill["prompt tuning"][0] / 2**10
    trained, kept = bill["P-Tuning v1"]
    assert vectors < kept < vectors + HEADER
    assert kept < 4 * trained / 2**10 / 100


def test_there_is_the_tour():
    assert [path.name for path in NOTEBOOKS] == ["tour.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_bills_the_bytes_of_the_saved_files(path, tmp_path):
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells[-1] == "folder.cleanup()"
    text = "\n\n".join([*cells[:-1], REPORT, cells[-1]])
    assert '"shots": 400' in text
    (tmp_path / "cells.py").write_text(text.replace('"shots": 400', '"shots": 8'))
    texts = [f"{who} was {what}" for who, what in product("abcdefghij", FILMS)]
    rows = [{"sentence": text, "label": i % 2} for i, text in enumerate(texts)]
    for split in ("train", "validation"):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    backbone = runs.bert(width=384, positions=128, lm=True, more=("terrible", "great", "bad", "good"))
    where = {"PTUNE_LM": backbone, "PTUNE_SST2": str(tmp_path), "PTUNE_STEPS": "2", "MPLBACKEND": "agg"}
    done = processes.Command(["cells.py"], tmp_path, os.environ | where).wait()
    assert done.code == 0, done.err
    assert "P-Tuning v2" in done.out
    (line,) = re.findall(r"^BILL (.*)$", done.out, re.MULTILINE)
    bill = {name: kept for name, _, kept, _, _ in json.loads(line)}
    files = {file.stem: file.stat().st_size for file in (tmp_path / "kept").iterdir()}
    assert bill == files | {"text prompt": 0, "another text prompt": 0}
    with safe_open(tmp_path / "kept" / "P-Tuning v1.safetensors", framework="pt") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {"prompt.vectors": [9, 384]}  # noqa: SIM118
    printed = printed_bill(done.out)
    assert {name: kept for name, (_, kept) in printed.items()} == {n: round(v / 2**10, 1) for n, v in bill.items()}
    check_bill(printed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_with_its_pictures(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    drawing = [cell for cell in cells if "plt.subplots" in "".join(cell["source"])]
    assert len(pictures) == len(drawing) >= 3
    assert not any(output["output_type"] == "error" for output in outputs)
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_the_paths_of_a_machine(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    text = "".join("".join(cell["source"]) for cell in cells) + "".join(
        "".join(output.get("text", [])) for output in outputs
    )
    assert not re.search(r"(?<![\w.])/(work|tmp|home|root|usr|mnt|Users)/|site-packages|[A-Z]:\\", text)
    assert not any(output.get("name") == "stderr" for output in outputs)


def test_the_tours_committed_bill_counts_what_is_kept():
    cells = json.loads(NOTEBOOKS[0].read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    check_bill(printed_bill("".join("".join(output.get("text", [])) for output in outputs)))
