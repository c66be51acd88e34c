"""`metrics.jsonl`: appended line by line, read when torn, taken up again at the checkpoint; Lightning's loggers."""

import csv
import json
import signal
from functools import partial

import pytest
import runs
import yaml
from lightning.fabric.loggers import tensorboard
from lightning.pytorch.loggers import CSVLogger

from ptune.errors import InputError
from ptune.run.command import Stopped, stop_now
from ptune.run.identity import Identity
from ptune.run.loggers import Wandb, told
from ptune.run.metrics_log import MetricsLog, read_metrics


@pytest.fixture
def written(tmp_path):
    """A log of three steps and a validation at the second."""
    log = MetricsLog(str(tmp_path))
    for step in range(3):
        log.log_metrics({"train/loss": 1.0 - 0.1 * step}, step)
        if step == 1:
            log.log_metrics({"val/accuracy": 0.5}, step)
    return tmp_path / "metrics.jsonl"


def test_a_line_stands_in_the_file_as_soon_as_it_is_logged(written):
    assert [row["step"] for row in read_metrics(written)] == [0, 1, 1, 2]


def test_a_column_that_is_new_rewrites_nothing(tmp_path):
    log, file = MetricsLog(str(tmp_path)), tmp_path / "metrics.jsonl"
    before, place = b"", None
    for step, name in enumerate(("train/loss", "val/loss", "train/loss", "lr")):
        log.log_metrics({name: 1.0}, step)
        assert file.read_bytes().startswith(before)
        assert file.stat().st_ino == (place or file.stat().st_ino)
        before, place = file.read_bytes(), file.stat().st_ino
    assert [row["step"] for row in read_metrics(file)] == [0, 1, 2, 3]


def test_a_number_that_is_not_finite_is_null(tmp_path):
    MetricsLog(str(tmp_path)).log_metrics({"train/loss": float("nan"), "lr": 0.1}, 0)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"train/loss": None, "lr": 0.1, "step": 0}


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_torn_last_line_costs_that_line_alone(written, cut):
    written.write_bytes(written.read_bytes()[:-cut])
    assert [row["step"] for row in read_metrics(written)] == [0, 1, 1] + [2] * (cut == 1)


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint(written):
    log = MetricsLog(str(written.parent), resumed_at=2)
    log.log_metrics({"train/loss": 0.7}, 2)
    rows = read_metrics(written)
    assert [(row["step"], row.get("train/loss")) for row in rows] == [(0, 1.0), (1, 0.9), (1, None), (2, 0.7)]


def test_a_validation_that_was_due_at_the_checkpoint_is_logged_once(written):
    log = MetricsLog(str(written.parent), resumed_at=2)
    log.log_metrics({"val/accuracy": 0.6}, 1)
    rows = read_metrics(written)
    assert [row.get("val/accuracy") for row in rows] == [None, None, 0.6]


def test_a_torn_file_is_taken_up_without_losing_its_whole_lines(written):
    written.write_bytes(written.read_bytes()[:-5])
    MetricsLog(str(written.parent), resumed_at=3).log_metrics({"train/loss": 0.1}, 3)
    assert [row["step"] for row in read_metrics(written)] == [0, 1, 1, 3]


def test_the_table_has_a_column_for_every_name_and_a_row_a_line(written):
    MetricsLog(str(written.parent)).finalize("success")
    with written.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "1", "2"]
    assert [row["val/accuracy"] for row in rows] == ["", "", "0.5", ""]


def test_a_run_of_an_agent_of_a_wandb_sweep_has_the_id_that_the_agent_has_given_it(tmp_path, monkeypatch):
    class Begun(Exception):
        pass

    def init(**options):
        raise Begun(options["id"])

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    run, ids = Identity("rte", "PTuningV2", "bert", 1, "a" * 8, "b" * 8, "c" * 8), []
    for place, given in (("one", "abc123"), ("one", "other"), ("two", "abc123")):
        monkeypatch.setenv("WANDB_RUN_ID", given)
        if place == "two":
            monkeypatch.delenv("WANDB_SWEEP_ID")
        with pytest.raises(Begun) as begun:
            Wandb().logger(str(tmp_path / place), run, {}, ())
        ids += begun.value.args
    assert ids[:2] == ["abc123", "abc123"], "a run that goes on keeps its own"
    assert ids[2] != "abc123", "many runs of a process would share the one of its environment"


# ---- Lightning's own


@pytest.mark.slow
def test_lightnings_loggers_get_the_metrics_and_the_options(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = runs.line(tmp_path / "run", model__length=3, trainer__max_epochs=1)
    for name in ("CSVLogger", "TensorBoardLogger"):
        words += [f"--trainer.logger+={name}", f"--trainer.logger.save_dir={tmp_path / name}"]
    code, out, err = runs.call(words)
    assert code == 0, err
    assert f"  logs      {tmp_path}/run/metrics.csv, CSVLogger, TensorBoardLogger\n" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (table,), (options,) = ([*(tmp_path / "CSVLogger").rglob(name)] for name in ("metrics.csv", "hparams.yaml"))
    said = {"method": "PTuningV2", "length": 3, "chosen_on": "validation", "fingerprint": result["fingerprint"]}
    assert said.items() <= yaml.safe_load(options.read_text()).items()
    with table.open(newline="") as file:
        reached = [float(row["final/val/accuracy"]) for row in csv.DictReader(file) if row["final/val/accuracy"]]
    assert reached == [pytest.approx(result["metrics"]["validation"]["accuracy"])]
    scalars, metadata = {}, {}
    for file in (tmp_path / "TensorBoardLogger").rglob("events.*"):
        found = events.EventAccumulator(str(file)).Reload()
        scalars |= {name: [event.value for event in found.Scalars(name)] for name in found.Tags()["scalars"]}
        metadata |= found.summary_metadata
    assert scalars["final/val/accuracy"] == pytest.approx(reached)
    assert len(scalars["train/loss"]) == 3
    assert b"PTuningV2" in metadata["_hparams_/session_start_info"].plugin_data.content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CSVLogger"], "error: option --trainer.logger.save_dir is missing; give it a value."),
        (
            ["TensorBoardLogger", "--trainer.logger.save_dir", "x"],
            "error: trainer: TensorBoardLogger cannot be built (Neither",
        ),
    ],
)
def test_a_logger_that_cannot_be_had_is_one_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    code, _, err = runs.call([*runs.line(tmp_path / "run"), "--trainer.logger", *words])
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_loggers_own_error_is_told_and_others_are_not(tmp_path):
    class Service(CSVLogger):
        @property
        def experiment(self):
            fail()

    def fail():
        raise ConnectionError("the service is down\nTry later.")

    with pytest.raises(InputError, match=r"^trainer.logger: the service is down; mend that"), told():
        Service(tmp_path).log_metrics({"x": 1.0})
    with pytest.raises(ConnectionError), told():
        fail()
    fail = partial(stop_now, signal.SIGTERM, None)  # a signal that comes while the service is waited for
    with pytest.raises(Stopped), told():
        Service(tmp_path).log_metrics({"x": 1.0})
