"""`python -m ptune.dashboard`: the report's specification, made without a server, and what happens without a key."""

import http.server
import json
import os
import re
import sys
import threading

import processes
import pytest
import runs

from ptune.dashboard import COLUMNS, COSTS, SCORE, main

pytest.importorskip("wandb_workspaces")


def printed(*words, capsys) -> dict:
    """The specification that the command prints."""
    assert main([*words, "--print"]) == 0
    return json.loads(capsys.readouterr().out)


def grids(made: dict) -> list[dict]:
    """The parts of a report that have pictures."""
    return [block["metadata"] for block in made["spec"]["blocks"] if block["type"] == "panel-grid"]


def test_each_task_has_its_pictures_and_the_table_of_its_runs(capsys):
    made = printed("team/mine", "--task", "mrpc", 'my "own"', capsys=capsys)
    assert made["project"] == {"name": "mine", "entityName": "team"}
    headings = [block["children"][0]["text"] for block in made["spec"]["blocks"] if block["type"] == "heading"]
    assert headings == ["mrpc", 'my "own"']
    for task, grid, curve in zip(headings, grids(made), (["val/f1"], []), strict=True):
        (table,) = grid["runSets"]
        assert [(each["key"]["name"], each["value"]) for each in table["filters"]["filters"]] == [("task", task)]
        assert table["grouping"] == [{"section": "run", "name": "group"}]
        assert table["sort"]["keys"][0] == {"key": {"section": "summary", "name": SCORE}, "ascending": False}
        panels = [panel["config"] for panel in grid["panelBankSectionConfig"]["panels"]]
        assert [panel.get("metrics") for panel in panels[:3]] == [curve, ["train/loss"], [f"summary_metrics.{SCORE}"]]
        assert {panel["groupBy"] for panel in panels[:3]} == {"method.value"}
        assert [(panel["xAxis"], panel["yAxis"], panel["xAxisLogScale"]) for panel in panels[3:]] == [
            (f"summary:final/{name}", f"summary:{SCORE}", True) for name in COSTS
        ]


def test_without_tasks_all_runs_are_one_section_of_every_validation_metric(capsys):
    (grid,) = grids(printed("mine", capsys=capsys))
    assert grid["runSets"][0]["filters"]["filters"] == []
    first = grid["panelBankSectionConfig"]["panels"][0]["config"]
    assert (first["useMetricRegex"], first["metrics"]) == (True, [])
    assert [name for name in ("val/accuracy", "val/f1", "val/loss") if re.fullmatch(first["metricRegex"], name)] == [
        "val/accuracy",
        "val/f1",
    ]


def test_no_picture_covers_another(capsys):
    (grid,) = grids(printed("mine", capsys=capsys))
    cells = [
        (x, y)
        for panel in grid["panelBankSectionConfig"]["panels"]
        for x in range(panel["layout"]["x"], panel["layout"]["x"] + panel["layout"]["w"])
        for y in range(panel["layout"]["y"], panel["layout"]["y"] + panel["layout"]["h"])
    ]
    assert len(cells) == len({*cells})
    assert max(x for x, _ in cells) < 24


def test_what_is_drawn_is_what_a_run_logs(tmp_path):
    """Names of the summary, the configuration and the history are those of a run."""
    result = runs.fit(tmp_path / "run")
    logged = {f"summary:final/{name}" for name in result} | {f"summary:{SCORE}"}
    logged |= {f"config:{name}.value" for name in result["config"]}
    assert {*COLUMNS} <= logged
    assert {f"summary:final/{name}" for name in COSTS} <= logged
    assert {name for row in runs.rows(tmp_path / "run") for name in row} >= {"val/accuracy", "train/loss"}


def test_the_specification_is_written_into_a_file(tmp_path, capsys):
    assert main(["mine", "--out", str(tmp_path / "spec.json")]) == 0
    assert capsys.readouterr().out == f"Specification: {tmp_path}/spec.json\n"
    assert grids(json.loads((tmp_path / "spec.json").read_text()))
    assert main(["mine", "--out", str(tmp_path / "none" / "spec.json")]) == 2
    err = capsys.readouterr().err
    assert err == f"error: '{tmp_path}/none' cannot be written (No such file or directory); choose another --out.\n"


def test_a_missing_package_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["mine", "--print"]) == 2
    assert capsys.readouterr().err.endswith('is not installed; pip install "ptune[dashboard]".\n')


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """No key anywhere."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


def test_without_a_key_one_sentence_says_what_to_do(nobody, capsys):
    assert main(["mine"]) == 2
    fix = "log in with: wandb login, or write the specification of the report with --out FILE."
    assert capsys.readouterr().err.splitlines()[-1] == f"error: no W&B key; {fix}"


@pytest.mark.deep
def test_a_server_that_refuses_the_key_is_one_sentence(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.send_error(401)

        do_GET = do_POST = answer

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        key = {"WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567", "HOME": str(tmp_path)}
        key["WANDB_MODE"] = "online"
        key["WANDB_BASE_URL"] = f"http://127.0.0.1:{server.server_address[1]}"
        done = processes.Command(["-m", "ptune.dashboard", "mine"], tmp_path, dict(os.environ) | key).wait()
        server.shutdown()
    assert done.code == 2
    assert re.fullmatch(
        r"error: W&B: .+; log in with: wandb login, or write .+ --out FILE\.", done.err.splitlines()[-1]
    )
