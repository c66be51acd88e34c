"""Comparisons are of the same rows, by the metric itself, and say what they do not know."""

import json
import shutil
import time

import numpy as np
import pytest
import runs
import torch
from kept import HEAD, answered, classified, result, run
from scipy import stats

from ptune.errors import InputError
from ptune.heads.metrics import measure
from ptune.report import report
from ptune.research.comparison import corrected, reference_of
from ptune.research.groups import grouped
from ptune.research.pairing import compared
from ptune.research.records import read
from ptune.research.statistics import mcnemar
from ptune.tasks.spec import HeadSpec


def comparisons(folder, *against):
    groups = grouped(read([folder])[0])
    return compared(groups, reference_of(groups, against or ("FineTuning",)))


def methods(folder, seeds=(1, 2, 3), rows=400, **shares):
    """Runs of methods that answer 400 rows right with these shares, paired by how difficult a row is."""
    random = np.random.default_rng(0)
    gold, difficulty = random.integers(0, 2, rows), random.normal(0, 1, rows)
    for method, share in shares.items():
        for seed in seeds:
            right = difficulty + random.normal(0, 0.3, rows) + random.normal(0, 0.05) < stats.norm.ppf(share)
            answered(folder / f"{method}{seed}", classified(gold, gold ^ ~right), method=method, seed=seed)


def test_a_difference_is_shown_and_none_is_said_to_be_none(tmp_path):
    methods(tmp_path, FineTuning=0.8, PTuningV2=0.8, LoRA=0.65)
    table = next(table for table in report([tmp_path], [], ["FineTuning"], []).tables if table.name == "comparisons")
    rows = {row[1].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert {name: row["finding"].text for name, row in rows.items()} == {
        "PTuningV2": "no difference shown",
        "LoRA": "worse",
    }
    assert rows["LoRA"]["from"].value < rows["LoRA"]["difference"].value < rows["LoRA"]["to"].value < 0
    assert rows["PTuningV2"]["from"].value < 0 < rows["PTuningV2"]["to"].value
    assert (rows["LoRA"]["rows"].text, rows["LoRA"]["seeds"].text) == ("400", "3, 3")
    assert any("paired bootstrap" in note and "2,000 resamples" in note for note in table.notes)
    assert any("Holm's correction" in note for note in table.notes)
    found = comparisons(tmp_path)
    assert (
        corrected(found)
        == [2 * min(each.difference.p for each in found), max(each.difference.p for each in found)][
            :: -1 if found[0].difference.p > found[1].difference.p else 1
        ]
    )


def test_seeds_of_one_number_are_tested_row_by_row(tmp_path):
    methods(tmp_path, seeds=(1, 2), FineTuning=0.8, LoRA=0.6)
    (found,) = comparisons(tmp_path)
    assert [pair.seed for pair in found.pairs] == [1, 2]
    pair = found.pairs[0]
    assert pair.p == mcnemar(pair.own, pair.reference) < 0.05
    assert pair.reference - pair.own == round(400 * (_value(tmp_path / "FineTuning1") - _value(tmp_path / "LoRA1")))
    table = next(table for table in report([tmp_path], [], ["FineTuning"], []).tables if table.name == "mcnemar")
    assert [row[-1].text for row in table.rows] == ["worse", "worse"]


def _value(folder):
    return json.loads((folder / "result.json").read_text())["metrics"]["test"]["accuracy"]


def test_single_runs_are_compared_by_mcnemar(tmp_path):
    methods(tmp_path, seeds=(1,), FineTuning=0.8, LoRA=0.76)
    (found,) = comparisons(tmp_path)
    assert found.exact
    assert found.difference.p == found.pairs[0].p
    tables = {table.name: table for table in report([tmp_path], [], ["FineTuning"], []).tables}
    assert "mcnemar" not in tables
    assert any("McNemar" in note for note in tables["comparisons"].notes)
    assert any("one seed" in note for note in tables["comparisons"].notes)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("classify", "f1"),
        ("classify", "matthews"),
        ("regress", "pearson"),
        ("regress", "spearman"),
        ("tag", "entity_f1"),
    ],
)
def test_the_variance_of_the_rows_is_the_metrics_own(tmp_path, kind, metric):
    random = torch.Generator().manual_seed(0)
    head = HeadSpec("x", kind, ("O", "B-X") if kind == "tag" else ("no", "yes"), (metric,), metric)
    gold = torch.randint(0, 2, (300,), generator=random) if kind == "classify" else torch.randn(300, generator=random)
    tables = []
    for method, noise in (("FineTuning", 0.8), ("LoRA", 1.2)):
        drawn = torch.randn(300, generator=random) * noise
        if kind == "classify":
            table = classified(gold, (gold - 0.5 + drawn > 0).long())
        elif kind == "regress":
            table = torch.stack([gold + drawn, gold], 1)
        else:
            counts = torch.randint(0, 4, (300, 3), generator=random)
            table = torch.cat([counts[:, :1], counts[:, :1] + counts[:, 1:], torch.ones(300, 2)], 1)
        tables.append(table.double())
        answered(tmp_path / method, table, head, gold=gold.tolist(), method=method)
    (found,) = comparisons(tmp_path)
    drawn = torch.randint(0, 300, (500, 300), generator=random)
    expected = [measure(head, tables[1][rows])[metric] - measure(head, tables[0][rows])[metric] for rows in drawn]
    assert found.difference.error == pytest.approx(np.std(expected), rel=0.1)
    assert found.difference.value == pytest.approx(
        measure(head, tables[1])[metric] - measure(head, tables[0])[metric], abs=1e-9
    )
    assert not found.exact


def test_rows_of_a_question_are_drawn_together(tmp_path):
    gold = torch.randint(0, 2, (400,), generator=torch.Generator().manual_seed(0))
    for method, wrong in (("FineTuning", ()), ("LoRA", range(0, 100, 5))):
        table = classified(gold, gold)
        table[:, 2] = torch.arange(400) // 4  # 100 questions of 4 rows, which are right or wrong together
        for question in wrong:
            table[4 * question : 4 * question + 4, 0] = 1 - table[4 * question : 4 * question + 4, 1]
        answered(tmp_path / method, table, method=method)
    (found,) = comparisons(tmp_path)
    assert found.difference.error == pytest.approx((0.2 * 0.8 / 100) ** 0.5, rel=0.1)


def test_answers_of_a_version_whose_heads_had_fewer_options_are_compared(tmp_path):
    import pyarrow.parquet as pq

    methods(tmp_path, seeds=(1,), FineTuning=0.8, LoRA=0.76)
    file = tmp_path / "LoRA1" / "predictions" / "test.parquet"
    table = pq.read_table(file)
    head = json.loads(table.schema.metadata[b"head"])
    del head["decoding"]
    pq.write_table(table.replace_schema_metadata({"head": json.dumps(head)}), file)
    (found,) = comparisons(tmp_path)
    assert found.difference is not None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rows": [*range(399), 400]}, "are not of the same rows: 400 and 400"),
        ({"gold": [5.0] * 400}, "differ in what is right in row 0"),
        ({"metrics": {"test": {"accuracy": 0.5}}}, "not the result's 0.5"),
        ("none", "no predictions"),
        ("torn", "cannot be read"),
        ("old", "does not say of which head it is"),
    ],
)
def test_what_cannot_be_paired_is_not_compared_and_says_why(tmp_path, change, why):
    methods(tmp_path, seeds=(1,), FineTuning=0.8, LoRA=0.76)
    lora, gold = tmp_path / "LoRA1", np.arange(400) % 2
    file = lora / "predictions" / "test.parquet"
    if change == "none":
        shutil.rmtree(lora / "predictions")
    elif change == "torn":
        file.write_bytes(file.read_bytes()[:300])
    elif change == "old":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    else:
        answered(lora, classified(gold, gold), **{"method": "LoRA"} | change)
    (found,) = comparisons(tmp_path)
    assert why in found.why
    assert found.difference is None
    (table,) = report([tmp_path], [], ["FineTuning"], ["comparisons"]).tables
    assert "not compared" in table.rows[0][table.columns.index("finding")].text
    assert "p" not in table.columns or table.rows[0][table.columns.index("p")].text == "-"


def test_the_reference_is_one_row_of_each_task(tmp_path):
    for i, more in enumerate(({"config": {"length": 4}}, {"config": {"length": 8}}, {"method": "FineTuning"})):
        run(tmp_path / str(i), result(**more))
    groups = grouped(read([tmp_path])[0])
    assert reference_of(groups, ["length=8"])["sst2"].values["length"] == "8"
    for against, sentence in {
        "PTuningV2": "has two such rows, 'PTuningV2, length 4' and 'PTuningV2, length 8'; add a value of length",
        "FineTunin": "no row has it; did you mean 'FineTuning'",
        "size=3": "no column 'size'",
    }.items():
        with pytest.raises(InputError, match=sentence):
            reference_of(groups, [against])


def test_means_over_tasks_have_their_interval_ranks_and_wins(tmp_path):
    for task, shares in {"a": (0.8, 0.7, 0.6), "b": (0.9, 0.8, 0.85)}.items():
        head = HeadSpec(task, "classify", HEAD.labels, HEAD.metrics, "accuracy")
        for method, share in zip(("FineTuning", "LoRA", "BitFit"), shares, strict=True):
            gold = np.arange(100) % 2
            guess = np.where(np.arange(100) < 100 * share, gold, 1 - gold)
            answered(tmp_path / task / method, classified(gold, guess), head, method=method)
    (table,) = report([tmp_path], [], ["FineTuning"], ["tasks"]).tables
    rows = {row[0].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert {name: row["average rank"].value for name, row in rows.items()} == {
        "BitFit": 2.5,
        "LoRA": 2.5,
        "FineTuning": 1.0,
    }
    assert {name: row["wins"].value for name, row in rows.items()} == {"BitFit": 0, "LoRA": 0, "FineTuning": 2}
    assert rows["LoRA"]["mean gap"].value == pytest.approx(-0.1)
    low, high = rows["LoRA"]["from"].value, rows["LoRA"]["to"].value
    assert low < -0.1 < high < 0
    each = (0.1 * 0.9 / 100) ** 0.5  # of one task
    assert (high - low) / 2 == pytest.approx(1.98 * each / 2**0.5, rel=0.07)
    (table,) = report([tmp_path], [], ["FineTuning"], ["scores"]).tables
    scores = {row[0].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    (low, high) = (rows["LoRA"][name].text for name in ("from", "to"))
    assert [scores["LoRA"][name].text for name in ("a, accuracy", "b, accuracy", "mean", "mean gap")] == [
        *("70.0", "80.0", "75.0", f"−10.0 ({low} to {high})")
    ]
    assert scores["FineTuning"]["mean gap"].text == "-"
    shutil.rmtree(tmp_path / "b" / "BitFit")
    (table,) = report([tmp_path], [], [], ["scores"]).tables
    assert "mean gap" not in table.columns
    row = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0].text == "BitFit")
    assert [row[name].text for name in ("a, accuracy", "b, accuracy", "mean")] == ["60.0", "-", "-"]
    shutil.rmtree(tmp_path / "a" / "LoRA" / "predictions")
    (table,) = report([tmp_path], [], ["FineTuning"], ["tasks"]).tables
    row = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0].text == "LoRA")
    assert row["mean gap"].value == pytest.approx(-0.1)
    assert row["from"].text == row["p"].text == "-"


@pytest.mark.slow
def test_ten_thousand_rows_and_three_seeds_take_seconds(tmp_path):
    head = HeadSpec("x", "classify", ("no", "yes"), ("f1", "matthews"), "f1")
    random = np.random.default_rng(0)
    gold = random.integers(0, 2, 10_000)
    for method in ("FineTuning", "LoRA"):
        for seed in (1, 2, 3):
            guess = np.where(random.random(10_000) < 0.8, gold, 1 - gold)
            answered(tmp_path / f"{method}{seed}", classified(gold, guess), head, method=method, seed=seed)
    start = time.process_time()  # not the time of other processes
    (found,) = comparisons(tmp_path)
    assert time.process_time() - start < 20
    assert found.rows == 10_000
    assert not found.pairs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_a_run_leaves_is_what_a_report_compares(tmp_path):
    for method in ("LinearProbe", "BitFit"):
        runs.fit(tmp_path / method, method, wandb__enabled=False)
    (found,) = comparisons(tmp_path, "LinearProbe")
    assert found.difference is not None, found.why
    assert (found.rows, found.split, found.exact) == (5, "test", True)


@pytest.mark.deep
def test_of_200_reports_on_one_method_with_other_seeds_at_most_5_percent_show_a_difference(tmp_path):
    random, shown = np.random.default_rng(7), 0
    head = HeadSpec("x", "classify", ("no", "yes"), ("f1",), "f1")
    gold = random.integers(0, 2, 200)
    for number in range(200):
        difficulty = random.normal(0, 1, 200)
        for method in ("FineTuning", "LoRA", "BitFit"):
            for seed in (1, 2, 3):
                ability = random.normal(1, 0.2) + random.normal(0, 0.5, 200)
                table = classified(gold, np.where(difficulty < ability, gold, 1 - gold))
                answered(tmp_path / f"{number}" / f"{method}{seed}", table, head, method=method, seed=seed)
        (table,) = report([tmp_path / f"{number}"], [], ["FineTuning"], ["comparisons"]).tables
        findings = {row[table.columns.index("finding")].text for row in table.rows}
        assert findings <= {"no difference shown", "better", "worse"}
        shown += findings != {"no difference shown"}
    assert shown <= 10
