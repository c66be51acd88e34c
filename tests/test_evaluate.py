"""`python -m ptune.evaluate`: a trained run's own metrics again, and the metrics of a method that trains nothing."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import runs

from ptune.evaluate import main

TEMPLATE = ("--data.template", "{sentence1} who? {sentence2} [MASK]")
WORDS = ("--data.verbalizer", "{no: judge, yes: baker}")


def evaluate(words) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `ptune.evaluate` in this process."""
    code, out, err = runs.call(words, main)
    return code, out, "".join(line for line in err.splitlines(True) if not line.startswith("Seed set to"))


def manual(run_dir, *more) -> list[str]:
    """A command line that trains nothing."""
    words = ["--model", "ManualPrompt", "--model.backbone", runs.bert(lm=True), "--run_dir", str(run_dir)]
    words += ["--data", "Classification", "--data.task", "toy/pair", "--data.path", runs.data()]
    return [*words, *TEMPLATE, *WORDS, *map(str, runs.QUIET), *more]


@pytest.fixture(scope="module", params=["PTuningV2", "PTuning", "template"])
def finished(request, tmp_path_factory):
    """A finished run: with a task head, with slots, with a template."""
    run_dir = tmp_path_factory.mktemp("evaluate") / "run"
    asked = {"model__backbone": runs.bert(lm=True), "data__template": TEMPLATE[1], "data__verbalizer": WORDS[1]}
    method = "PTuning" if request.param == "template" else request.param
    # Rates at which the best epoch is not surely the last.
    runs.fit(run_dir, method, model__lr=0.05, model__length=3, **asked if request.param == "template" else {})
    return run_dir


def test_a_finished_run_is_evaluated_to_its_own_metrics_and_left_as_it_was(finished):
    before = runs.contents(finished)
    result = json.loads(before["result.json"])
    lines = {
        "evaluation.json": [finished, "--data.batch_size", 7],  # the run had batches of 4 and 3 rows
        "evaluation-2.json": ["--config", finished / "config.yaml", "--run_dir", finished],
    }
    for number, (name, words) in enumerate(lines.items(), start=2):
        code, out, err = evaluate(words)
        assert (code, err) == (0, "")
        after = runs.contents(finished)
        assert {key: after[key] for key in before} == before
        answers = [f"predictions-{number}/{split}.parquet" for split in result["metrics"]]
        errors = [f"predictions-{number}/{split}.errors.csv" for split in result["metrics"]]
        assert set(after) - set(before) == {name, *answers, *errors}
        for file in answers:
            tables = [pq.read_table(finished / place / Path(file).name) for place in ("predictions", Path(file).parent)]
            own, again = (table.select(["row", "answer", "right", "gold"]) for table in tables)
            assert again.equals(own)
        evaluation = json.loads(after[name])
        assert evaluation["predictions"] == f"predictions-{number}"
        assert (evaluation["hash"], evaluation["checkpoint"]) == (result["hash"], "best.ckpt")
        assert (evaluation["evaluation_hash"] == result["hash"]) == (name == "evaluation-2.json")
        for split, values in result["metrics"].items():
            assert evaluation["metrics"][split] == pytest.approx(values, abs=1e-6)
        same = ("task", "method", "backbone", "fingerprint", "seed", "monitor", "majority", "rows", "best_epoch")
        for key in (*same, "trained_parameters", "total_parameters", "pooling"):
            assert evaluation[key] == result[key], key
        assert f"{100 * result['metrics']['validation']['accuracy']:.2f}" in out
        before = after


def test_another_checkpoint_and_other_data_are_evaluated_if_asked(finished, tmp_path):
    path = runs.data(train=3, validation=6, test=5)
    options = ["--run_dir", tmp_path / "other", "--data.path", path, "--trainer.accelerator", "cpu"]
    code, out, err = evaluate([finished, *options, "--ckpt_path", "last"])
    assert (code, err) == (0, "")
    written = {f"predictions/{split}.{end}" for split in ("validation", "test") for end in ("parquet", "errors.csv")}
    assert set(runs.contents(tmp_path / "other")) == {"evaluation.json", *written}
    evaluation = json.loads((tmp_path / "other" / "evaluation.json").read_text())
    assert evaluation["rows"]["validation"] == 6
    assert (evaluation["epochs"], evaluation["checkpoint"]) == (2, "last.ckpt")
    assert (evaluation["best_epoch"], evaluation["chosen_on"]) == (0, None), "no validation has chosen it"
    assert "of the last step: no validation chose a checkpoint" in out
    own = json.loads((finished / "result.json").read_text())["hash"]
    assert evaluation["hash"] == own != evaluation["evaluation_hash"]
    assert evaluation["steps"] == json.loads((finished / "result.json").read_text())["steps"]
    assert "toy/pair with" in out


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("missing.ckpt", "ckpt_path: 'missing.ckpt' does not exist; checkpoints in"),
        ("@config.yaml", "is not a checkpoint that a run wrote"),
        ("@prompts.safetensors", "is not a checkpoint that a run wrote"),
        ("@", "does not exist; checkpoints in"),
    ],
)
def test_a_wrong_checkpoint_is_one_sentence_and_nothing_is_written(finished, path, parts):
    before = runs.contents(finished)
    path = path.replace("@", f"{finished}/")
    code, out, err = evaluate([finished, "--ckpt_path", path])
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert parts in err
    assert runs.contents(finished) == before


def test_a_method_that_trains_needs_a_checkpoint(tmp_path):
    code, _, err = evaluate(runs.line(tmp_path / "run"))
    assert code == 2
    assert err == (
        f"error: ckpt_path: '{tmp_path}/run/best.ckpt' does not exist; checkpoints in '{tmp_path}/run': none.\n"
    )
    assert runs.contents(tmp_path) == {}


def test_a_checkpoint_of_another_model_is_one_sentence(finished):
    before = runs.contents(finished)
    code, _, err = evaluate(
        ["--config", finished / "config.yaml", "--run_dir", finished, "--model.backbone", runs.bert(seed=3, lm=True)]
    )
    assert code == 2
    assert err.startswith("error: the checkpoint does not fit this model: backbone is ")
    assert err.count("\n") == 1
    assert runs.contents(finished) == before


def test_direct_use_is_evaluated_without_a_checkpoint_or_training_rows(tmp_path):
    path = runs.FOLDER / "validation-alone"
    path.mkdir(exist_ok=True)
    (path / "validation.jsonl").write_bytes((runs.Path(runs.data()) / "validation.jsonl").read_bytes())
    code, out, err = evaluate(manual(tmp_path / "run", "--data.path", str(path)))
    assert (code, err) == (0, "")
    files = {"evaluation.json", "predictions/validation.parquet", "predictions/validation.errors.csv"}
    assert {*files, "config.yaml"} >= set(runs.contents(tmp_path / "run")) >= files
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["metrics"].keys() == {"validation"}
    assert (result["trained_parameters"], result["steps"], result["epochs"]) == (0, 0, 0)
    assert result["majority"] == {"validation": {}}
    assert (result["seconds"], result["evaluation_seconds"] > 0) == (0, True)
    assert "ManualPrompt" in out
    assert " s of evaluation" in out


def test_limits_hold_for_the_split_they_are_named_after_and_rows_are_those_scored(tmp_path):
    limits, test = ("--trainer.limit_val_batches", "2", "--data.batch_size", "3"), "--trainer.limit_test_batches"
    results = []
    for name, more in {"all": [], "one": [test, "1"], "none": [test, "0"]}.items():
        code, _, err = evaluate(manual(tmp_path / name, *limits, *more))
        assert (code, err) == (0, "")
        results.append(json.loads((tmp_path / name / "evaluation.json").read_text()))
    test_rows = len((runs.Path(runs.data()) / "test.jsonl").read_text().splitlines())
    assert [result["rows"] for result in results] == [
        {"validation": 6, "test": test_rows},
        {"validation": 6, "test": 3},
        {"validation": 6},
    ]
    assert results[2]["metrics"].keys() == {"validation"}


def test_direct_use_in_fewer_bits(tmp_path):
    code, _, err = evaluate(manual(tmp_path / "run", "--model.backbone_dtype", "bf16", "--predictions", "false"))
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["fingerprint"].endswith("-bf16")
    assert not (tmp_path / "run" / "predictions").exists()


def test_calibration_and_demonstrations_are_options_of_direct_use(tmp_path):
    losses = {}
    for name, more in {
        "plain": (),
        "again": (),
        "calibrated": ("--model.calibrate", "true"),
        "shown": ("--data.demonstrations", "1", "--data.max_length", "64"),
        "all shown": ("--data.demonstrations", "2", "--data.max_length", "64", "--data.path", runs.data(train=2)),
    }.items():
        code, _, err = evaluate(manual(tmp_path / name, *more))
        assert (code, err) == (0, ""), name
        losses[name] = json.loads((tmp_path / name / "evaluation.json").read_text())["metrics"]["validation"]["loss"]
    assert losses.pop("again") == losses["plain"]
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--ckpt_path", "x.ckpt"), "ckpt_path: ManualPrompt trains nothing and has no checkpoint."),
        (("--data.template", "{sentence1} who?"), "--data.template '{sentence1} who?' has no [MASK]; write one where"),
        (("--data.path", "/missing"), "--data.path /missing: does not exist"),
    ],
)
def test_mistakes_of_direct_use_are_one_sentence_and_leave_nothing(tmp_path, more, sentence):
    code, out, err = evaluate(manual(tmp_path / "run", *more))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1
    assert runs.contents(tmp_path) == {}


def test_direct_use_is_refused_by_fit_which_names_evaluate(tmp_path):
    code, _, err = runs.call(manual(tmp_path / "run"))
    assert code == 2
    assert err.endswith("error: --model ManualPrompt trains nothing: use python -m ptune.evaluate.\n")
    assert runs.contents(tmp_path) == {}
