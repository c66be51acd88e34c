"""A report says what the results say: recomputed here, in every format, with what failed or is not alike."""

import csv
import io
import json
import re
from statistics import mean, stdev

import pytest
import runs
from kept import answered, cell, classified, result, run

from ptune.errors import InputError
from ptune.report import main, report
from ptune.research.formats import FORMATS
from ptune.research.tables import Cell, Report, Table, counted, measured, word

RESULTS = runs.REPOSITORY / "experiments" / "results"


def rows(table):
    """The rows of a table as mappings of columns to cells."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def of(folder, name="results", by=(), against=()):
    (table,) = report([folder], list(by), list(against), [name]).tables
    return table


def test_a_list_of_words_is_shown_as_words(tmp_path):
    for i, also in enumerate((["lora", "bias"], [], ["lora"])):
        run(tmp_path / str(i), result(config={"also": also}))
    assert [row["also"].text for row in rows(of(tmp_path))] == ["lora", "lora, bias", "none"]


@pytest.mark.parametrize("folder", ["lecture", "minilm", "fewglue"])
def test_the_numbers_of_committed_results_are_recomputed(folder):
    files = [file for file in (RESULTS / folder).rglob("*.json") if file.name != "cell.json"]
    found = [json.loads(file.read_text()) for file in files]
    table, cost = of(RESULTS / folder), of(RESULTS / folder, "cost")
    covered = 0
    for row, spent in zip(rows(table), rows(cost), strict=True):
        template = row.get("template", Cell("")).text
        own = [
            each
            for each in found
            if (each["task"], each["method"]) == (row["task"].text, row["method"].text)
            and (not template or (each["config"]["template"] or "none") == template)
        ]
        covered += len(own)
        for split, values in own[0]["metrics"].items():
            values = [each["metrics"][split][each["monitor"]] for each in own]
            assert row[split].value == pytest.approx(mean(values))
            assert row[split].count == len(values)
            text = f"{100 * mean(values):.1f}"
            if len(values) > 1:
                assert row[split].deviation == pytest.approx(stdev(values))
                text += f" ± {100 * stdev(values):.1f}"
            assert row[split].text == text
        assert row["trained parameters"].text == f"{own[0]['trained_parameters']:,}"
        assert spent["seconds"].value == pytest.approx(mean(each["seconds"] for each in own))
        assert spent["trained, %"].value == pytest.approx(
            100 * own[0]["trained_parameters"] / own[0]["total_parameters"]
        )
    assert covered == len(found)


def test_what_failed_or_is_missing_is_in_every_table(tmp_path):
    for seed in (1, 2):
        run(cell(tmp_path, seed=seed), result(seed=seed))
    run(cell(tmp_path, "LoRA", "rte", 2), result(seed=2, method="LoRA", task="rte"))
    for seed, method in ((3, "PTuningV2"), (1, "BitFit")):
        failed = cell(tmp_path, method, seed=seed)
        (failed / "failed.json").write_text(json.dumps({"error": "error: CUDA is out of memory | here."}))
    for name in ("results", "metrics", "cost"):
        table = of(tmp_path, name)
        found = {(row["task"].text, row["method"].text): row for row in rows(table)}
        assert found["sst2", "PTuningV2"]["seeds"].text == "2, failed 3"
        texts = [cell.text for cell in found["sst2", "BitFit"].values()]
        assert "failed: CUDA is out of memory | here." in texts
        assert found["sst2", "BitFit"]["seeds"].text == "0, failed 1, missing 2 3"
        assert found["rte", "LoRA"]["seeds"].text == "1, missing 1 3"
        assert ("sst2", "LoRA") not in found
        assert any("Failed: sst2, BitFit, seed 1: CUDA is out of memory" in note for note in table.notes)
    assert len(report([tmp_path], [], ["LoRA"], []).tables) > 4


def test_what_a_search_has_pruned_has_a_state_of_its_own(tmp_path):
    run(tmp_path / "a", result(seed=1))
    for seed, method in ((2, "PTuningV2"), (1, "BitFit")):
        cell = tmp_path / f"pruned{seed}"
        cell.mkdir()
        words = ["--model", method, "--data.task", "sst2", "--seed_everything", str(seed)]
        (cell / "cell.json").write_text(json.dumps({"values": {}, "words": words}))
        why = f"pruned at step {3 * seed}, after validation {seed}, by comparison with other trials."
        (cell / "failed.json").write_text(json.dumps({"error": why}))
    table = of(tmp_path)
    seeds = {row["method"].text: row["seeds"].text for row in rows(table)}
    assert seeds == {"PTuningV2": "1, pruned 2", "BitFit": "0, pruned 1"}
    assert "Pruned: 2 runs, which a search has stopped before the end." in table.notes
    assert "pruned at step 3" in [cell.text for row in rows(table) for cell in row.values()]
    places = {row["place"].text: row["first split"].text for row in rows(of(tmp_path, "runs"))}
    assert places[str(tmp_path / "pruned2")] == "pruned at step 6"
    whole = report([tmp_path], [], [], [])
    page, text = FORMATS[".html"](whole), FORMATS[".md"](whole)
    assert "1 finished run in 1 row; 2 pruned." in page
    assert "pruned at step 3<" in page
    assert "failed" not in text.lower()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "The epoch with the best value of the metric on validation is measured."),
        ({"chosen_on": "holdout", "held_out": 0.1}, "holdout is measured; that is 10 % of the training rows, held out"),
        (
            {"chosen_on": "test", "chosen_on_test": True},
            "that is the test split itself, so its metrics are no held-out",
        ),
        ({"best_epoch": 0}, "The last step is measured: no validation chose a checkpoint."),
        ({"best_epoch": 0, "steps": 0}, "Nothing is trained, so nothing is chosen."),
    ],
)
def test_the_rule_of_selection_is_said(tmp_path, more, sentence):
    run(tmp_path / "a", result(**more))
    assert any(sentence in note for note in of(tmp_path).notes)
    run(tmp_path / "b", result(method="LoRA", seed=1))
    run(tmp_path / "c", result(method="BitFit"))
    if more:
        assert any(note.startswith("Not so sst2 PTuningV2: ") for note in of(tmp_path).notes)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"data_fingerprint": {"train": "b"}}, "of different data: "),
        ({"device": "H100"}, "of different devices: CPU, H100"),
        ({"rows": {"test": 5}}, "of different numbers of rows"),
        ({"config": {"lr": 0.1}}, "that differ in lr: 0.01, 0.1"),
        ({"seed": 1}, "of which several have seed 1"),
        ({}, None),
    ],
)
def test_what_runs_of_a_row_do_not_share_is_said(tmp_path, more, sentence):
    base = {"data_fingerprint": {"train": "a"}, "device": "CPU", "rows": {"test": 9}}
    run(tmp_path / "a", result(seed=1, **base))
    run(tmp_path / "b", result(**{"seed": 2} | base | more))
    notes = report([tmp_path], ["method"], [], []).notes
    if sentence is None:
        assert notes == ()
    else:
        assert any(sentence in note for note in notes), notes


def test_rows_of_a_task_on_other_devices_are_said(tmp_path):
    run(tmp_path / "a", result(device="CPU"))
    run(tmp_path / "b", result(device="H100", method="LoRA"))
    assert report([tmp_path], [], [], []).notes == ("sst2: rows of the table differ in devices: CPU, H100.",)
    for seed, device in enumerate(("CPU", "H100")):
        run(tmp_path / device, result(task="rte", device=device, seed=seed))
    mixed, apart = report([tmp_path], [], [], []).notes
    assert mixed == "rte, PTuningV2: the mean is over runs of different devices: CPU, H100."
    assert apart == "sst2: rows of the table differ in devices: CPU, H100."


def test_rows_of_a_task_whose_metrics_are_others_are_said(tmp_path):
    run(tmp_path / "a", result())
    run(tmp_path / "b", result(method="LoRA", monitor="f1", metrics={"test": {"f1": 0.5}}))
    assert "sst2: rows of the table differ in metrics that chose: accuracy, f1." in report([tmp_path], [], [], []).notes


def test_the_trained_share_of_a_row_is_that_of_all_its_runs(tmp_path):
    for seed, count in enumerate((10, 30)):
        more = {"trained_parameters": count, "total_parameters": 1000, "config": {"length": count}}
        run(tmp_path / str(seed), result(seed=seed, **more))
    (table,) = report([tmp_path], ["method"], [], ["cost"]).tables
    assert rows(table)[0]["trained, %"].text == "1–3"


def test_a_run_that_was_cut_short_is_marked(tmp_path):
    run(tmp_path / "a", result(limits=["trainer.limit_val_batches"]))
    table = of(tmp_path)
    assert rows(table)[0]["seeds"].text == "1 †"
    assert "† Not all of the data or of the training: cut by trainer.limit_val_batches." in table.notes


def history(*values):
    return [
        {"epoch": i + 1, "step": 10 * (i + 1), "seconds": 2.0 * (i + 1), "metrics": {"accuracy": value}}
        for i, value in enumerate(values)
    ]


def test_runs_are_seen_at_equal_steps_and_at_equal_time(tmp_path):
    run(tmp_path / "a", result(steps=20, seconds=9.0, history=history(0.5, 0.7)))
    run(tmp_path / "b", result(steps=40, seconds=4.0, method="LoRA", history=history(0.6, 0.4, 0.8, 0.9)))
    run(tmp_path / "c", result(steps=0, seconds=0.0, method="ManualPrompt", value=0.3))
    found = {
        name: {row["method"].text: row["best until then"].value for row in rows(of(tmp_path, name))}
        for name in ("steps", "seconds")
    }
    assert found["steps"] == {"PTuningV2": 0.7, "LoRA": 0.6, "ManualPrompt": 0.3}
    assert found["seconds"] == {"PTuningV2": 0.7, "LoRA": 0.6, "ManualPrompt": 0.3}
    run(tmp_path / "d", result(steps=30, seconds=2.0, method="BitFit", history=history(0.2)))
    assert {row["method"].text: row["best until then"].value for row in rows(of(tmp_path, "seconds"))} == {
        "PTuningV2": 0.5,
        "LoRA": 0.6,
        "ManualPrompt": 0.3,
        "BitFit": 0.2,
    }


def test_a_cell_is_the_mean_and_the_sample_deviation():
    assert measured([0.5, 0.6], 100) == Cell("55.0 ± 7.1", 0.55, pytest.approx(0.0707, abs=1e-4), 2)
    assert measured([0.5], 100) == Cell("50.0", 0.5, None, 1)
    assert measured([]) == Cell("-", None, None, 0)
    assert counted([3.0, 3.0]).text == "3"
    assert counted([2.0, 3.0]).text == "2–3"


ODD = "a|b <i>&_%$#{}~^\\ [x](y) `z` ± †"
STRANGE = Report(
    "Odd & ends",
    (Table("x", "T_1", ("task", "a & b"), 1, ((word(ODD), Cell("83.4 ± 0.3", 0.8341234567, 0.003, 3)),), (ODD,)),),
    ("note",),
    (),
)


def test_markdown_has_no_markup_of_others():
    text = FORMATS[".md"](STRANGE)
    head, line, row, *_ = text.splitlines()
    assert head == "| task | a & b |"
    assert line == "|---|---|"
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert not re.search(r"(?<!\\)[<\[`]", text)


def test_csv_has_every_digit():
    (row,) = csv.DictReader(io.StringIO(FORMATS[".csv"](STRANGE)))
    assert row == {
        "table": "x",
        "task": ODD,
        "row": "0",
        "column": "a & b",
        "value": "0.8341234567",
        "deviation": "0.003",
        "count": "3",
        "text": "83.4 ± 0.3",
    }


def test_latex_is_escaped_and_balanced():
    text = FORMATS[".tex"](STRANGE)
    assert r"a\textbar{}b \textless{}i\textgreater{}\&\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}" in text
    assert r"\textbackslash{} [x](y)" in text
    assert r"83.4 $\pm$ 0.3 \\" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"\begin{tabular}{lr}" in text
    assert r"\toprule" in text
    assert r"\caption{T\_1}" in text
    assert r"task & a \& b \\" in text


def test_the_command_writes_every_format_and_prints_markdown(tmp_path, capsys):
    for method, share in (("FineTuning", 40), ("LoRA", 20)):
        table = classified([1] * 50, [1] * share + [0] * (50 - share))
        answered(tmp_path / "runs" / method, table, method=method, trained_parameters=share)
    words = [str(tmp_path / "runs"), "--against", "FineTuning"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "## Comparisons" in printed.out
    assert printed.err == ""
    files = [tmp_path / f"r{suffix}" for suffix in (".md", ".csv", ".tex", ".html", ".svg")]
    assert main([*words, *(word for file in files for word in ("--out", str(file)))]) == 0
    assert capsys.readouterr() == (f"{' and '.join(map(str, files))} written: 2 runs, 1 comparison\n", "")
    run(tmp_path / "runs" / "open", {}, "other.json")
    assert main([words[0], "--out", str(tmp_path / "all.md")]) == 0
    line = f"{tmp_path / 'all.md'} written: 3 runs (1 of them failed, pruned or not finished), 0 comparisons\n"
    assert capsys.readouterr().out == line
    assert files[0].read_text() == printed.out
    assert all(file.stat().st_size > 500 for file in files)
    found = list(csv.DictReader(files[1].open()))
    (value,) = (
        row["value"] for row in found if (row["table"], row["method"], row["column"]) == ("results", "LoRA", "test")
    )
    assert float(value) == 0.4
    (difference,) = (row["value"] for row in found if (row["table"], row["column"]) == ("comparisons", "difference"))
    assert float(difference) == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: runs"),
        (["nowhere"], "nowhere: does not exist"),
        (["RUNS", "--by", "lenght"], "--by lenght: no option of these runs; did you mean 'length'?"),
        (["RUNS", "--against", "LoRA"], "--against method=LoRA: no row has it"),
        (["RUNS", "--tables", "result"], "--tables result: there is no such table; did you mean 'results'?"),
        (["RUNS", "--agianst", "LoRA"], "option --agianst does not exist; did you mean '--against'?"),
        (["RUNS", "--table", "cost"], "option --table does not exist; did you mean '--tables'?"),
        (["RUNS", "--out", "x.pdf"], "no format has the suffix '.pdf'"),
        (["RUNS", "--out", "no/where/x.md"], "--out no/where/x.md: there is no folder no/where; make it first."),
        (["RUNS", "--out", "folder.md"], "--out folder.md: is a folder"),
        (["RUNS", "--out", "x.md", "--out", "x.svg"], "no task has two finished rows"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "runs" / "a", result())
    (tmp_path / "folder.md").mkdir()
    assert main([word.replace("RUNS", "runs") for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
    assert not list(tmp_path.glob("x.*"))


def test_a_report_is_refused_by_nothing_that_a_run_may_hold():
    with pytest.raises(InputError, match=r"safety_cost\.json: no result"):
        report([RESULTS / "safety_cost.json"], [], [], [])
    assert any("safety_cost.json" in note for note in report([RESULTS], [], [], []).notes)
