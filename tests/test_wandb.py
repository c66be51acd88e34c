"""Weights & Biases: what an offline run holds, and that nothing about it asks, waits or costs the run."""

import http.server
import json
import os
import re
import struct
import sys
import threading
import time
import types
from pathlib import Path

import processes
import pytest
import runs

from ptune.run import loggers
from ptune.run.arguments import prepare
from ptune.run.cli import CLI
from ptune.tasks import toy

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # LevelDB's log: blocks of records with crc32, length, type
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def process(words, folder, **environment) -> types.SimpleNamespace:
    """A run in a process without a W&B key, home, mode or terminal: its folder, output and seconds."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    home = folder / "home"
    home.mkdir()
    start = time.monotonic()
    places = {"HOME": str(home), "NETRC": str(home / ".netrc")}
    done = processes.Command(["-m", "ptune.fit", *words], folder, kept | places | environment).wait()
    assert done.code == 0, done.out + done.err
    return types.SimpleNamespace(folder=folder, out=done.out, err=done.err, seconds=time.monotonic() - start)


def records(file: Path) -> list:
    """The records of a `.wandb` file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + HEADER.size <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER.size:
            at += room
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        parts += data[at : at + length]
        at += length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def values(items) -> dict:
    """Keys and values of a list of W&B's items, nested keys joined by a slash-free dot."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A run without key and mode, read back from the folder that it says to sync."""
    folder = tmp_path_factory.mktemp("offline")
    words = runs.line("run", model__lr=0.02, data__batch_size=1, seed_everything=12, wandb__samples=4)  # 20 steps
    run = process(words, folder)
    (place,) = re.findall(r"upload with: wandb sync (\S+)", run.out)
    (file,) = Path(folder, place).glob("*.wandb")
    read = records(file)
    run.place, run.read = place, read

    def of(kind):
        return [getattr(record, kind) for record in read if record.WhichOneof("record_type") == kind]

    run.history = [values(row.item) for row in of("history")]
    run.summary = {key: value for update in of("summary") for key, value in values(update.update).items()}
    run.artifacts = {artifact.name: artifact for artifact in of("artifact")}
    run.metrics = {metric.name or metric.glob_name: metric for metric in of("metric")}
    (run.about,) = of("run")
    run.result = json.loads((folder / "run" / "result.json").read_text())
    return run


@pytest.mark.slow
def test_without_key_and_mode_a_run_logs_offline_and_says_in_one_line_where_and_how_to_sync(offline):
    said = [line for line in offline.out.splitlines() if "W&B" in line]
    assert said == [f"  logs      W&B offline (no W&B key); upload with: wandb sync {offline.place}"]
    assert offline.place.startswith("run/wandb/offline-run-")
    assert "wandb" not in offline.err.lower()
    assert not any((offline.folder / "home").rglob(".netrc"))


@pytest.mark.slow
def test_the_configuration_is_flat_columns(offline):
    config = values(offline.about.config.update)
    expected = {
        "method": "PTuningV2",
        "task": "toy/pair",
        "backbone": runs.bert(),
        "length": 20,
        "lr": 0.02,
        "seed": 12,
    }
    expected |= {"batch_size": 1, "schedule": "linear", "layers": "all", "max_epochs": 2}
    expected |= {"monitor": "accuracy", "chosen_on": "validation"}
    expected |= {key: offline.result[key] for key in ("fingerprint", "data_fingerprint", "hash")}
    expected |= {"majority/val/accuracy": offline.result["majority"]["validation"]["accuracy"]}
    expected |= {"majority/test/accuracy": offline.result["majority"]["test"]["accuracy"]}
    assert {key: config[key] for key in expected} == expected
    assert not [key for key, value in config.items() if isinstance(value, dict) and key != "_wandb"]


@pytest.mark.slow
def test_runs_that_differ_in_the_seed_alone_are_a_group_and_the_name_is_that_of_the_default_directory(offline):
    cli = CLI.of(prepare(runs.line("run", model__lr=0.02, data__batch_size=1, seed_everything=12)))
    assert offline.about.display_name == cli.identity.name
    assert (offline.about.run_group, offline.about.job_type) == (cli.identity.group, "PTuningV2")
    assert list(offline.about.tags) == ["toy/pair", "PTuningV2", cli.identity.backbone]
    assert offline.about.project == "ptune"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("train/loss", "lr-AdamW/prompt", "lr-AdamW/head", "val/accuracy", "val/loss"),
        *("speed/examples_per_second", "speed/tokens_per_second", "memory/peak_mib"),
        *("prompt_norm/layer_00", "prompt_norm/layer_01", "grad_norm/prompt", "grad_norm/head"),
    ],
)
def test_the_history_has_what_metrics_csv_has(name, offline):
    logged = [row[name] for row in offline.history if name in row]
    assert len(logged) == (2 if name.startswith("val/") else 20)
    assert logged == pytest.approx(runs.column(offline.folder / "run", name))


@pytest.mark.slow
def test_the_summary_is_the_best_validation_and_the_final_result(offline):
    logged = {name: [row[name] for row in offline.history if name in row] for name in ("val/accuracy", "val/loss")}
    assert offline.summary["val/accuracy"] == {"max": max(logged["val/accuracy"])}
    assert offline.summary["val/loss"] == {"min": min(logged["val/loss"])}
    assert {offline.metrics[name].step_metric for name in ("*", *logged)} == {"trainer/global_step"}
    for split, name in {"validation": "val", "test": "test"}.items():
        for metric, value in offline.result["metrics"][split].items():
            assert offline.summary[f"final/{name}/{metric}"] == pytest.approx(value)
    assert offline.summary["final/score"] == offline.result["metrics"]["validation"]["accuracy"]
    for name in ("trained_parameters", "total_parameters", "steps", "epochs", "seconds", "peak_memory_mib"):
        assert offline.summary[f"final/{name}"] == pytest.approx(offline.result[name])


@pytest.mark.slow
def test_the_mistakes_and_some_rows_of_each_split_are_tables(offline):
    tables = {
        str(file.relative_to(offline.folder / offline.place / "files/media/table"))
        .rpartition("_")[0]
        .rpartition("_")[0]: json.loads(file.read_text())
        for file in Path(offline.folder, offline.place).rglob("*.table.json")
    }
    assert tables.keys() == {"errors/val_table", "errors/test_table", "samples/val", "samples/test"}
    assert sum(count for *_, count in tables["errors/val_table"]["data"]) == offline.result["rows"]["validation"]
    texts = {row["sentence1"] for row in toy.generate("toy/pair", "test")}
    assert tables["samples/test"]["columns"] == ["row", "sentence1", "sentence2", "gold", "answer", "score", "right"]
    assert len(tables["samples/test"]["data"]) == 4
    assert {row[1] for row in tables["samples/test"]["data"]} <= texts


@pytest.mark.slow
def test_the_best_prompt_is_an_artifact_that_lies_in_the_run_directory(offline):
    artifact = offline.artifacts[offline.about.display_name.replace("/", "-")]
    assert (artifact.type, set(artifact.aliases)) == ("prompt", {"latest", "best"})
    (entry,) = artifact.manifest.contents
    assert Path(entry.local_path) == offline.folder / "run" / "prompts.safetensors"
    said = json.loads(artifact.metadata)
    keys = ("task", "method", "backbone", "fingerprint", "seed", "trained_parameters", "best_epoch")
    assert {key: said[key] for key in keys} == {key: offline.result[key] for key in keys}


@pytest.fixture
def server(request):
    """The address of a server that is not there, one that never answers, or one that refuses everything."""
    if request.param == "absent":
        yield "http://127.0.0.1:9"
        return
    quiet = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            if request.param == "silent":
                quiet.wait(60)
            self.send_error(401)

        do_GET = do_POST = answer

        def log_message(self, *_):
            """Say nothing."""

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    quiet.set()
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("server", "answers"), [("absent", False), ("silent", False), ("refusing", True)], indirect=["server"]
)
def test_a_server_that_is_there_but_silent_is_waited_for_no_longer_than_told(server, answers):
    start = time.monotonic()
    assert loggers._answers(server, timeout=0.3) == answers
    assert time.monotonic() - start < 3


@pytest.mark.slow
@pytest.mark.parametrize("server", ["absent", pytest.param("refusing", marks=pytest.mark.deep)], indirect=True)
def test_a_key_that_cannot_be_used_costs_seconds_and_the_run_goes_on_offline_and_says_why(server, tmp_path, request):
    key = "0123456789abcdef0123456789abcdef01234567"
    words = runs.line("run", trainer__max_epochs=1, wandb__timeout=1, wandb__enabled=True)  # of three steps
    run = process(words, tmp_path, WANDB_API_KEY=key, WANDB_BASE_URL=server)
    (said,) = [line for line in run.out.splitlines() if "W&B" in line]
    why = re.search(r"W&B offline \((.+)\); upload with: wandb sync run/wandb/offline-run-", said)[1]
    if "refusing" in request.node.name:
        assert "401" in why or "auth" in why.lower() or "permission" in why.lower()
    else:
        assert why == f"no answer from {server}"
    assert run.seconds < 60
    assert key not in run.out + run.err
    assert (tmp_path / "run" / "result.json").is_file()


# ---- switched off

OFF = "W&B is off"
FEW = f"{OFF} for fewer than 20 steps; --wandb.enabled true logs them"


@pytest.mark.parametrize(
    ("mode", "options", "said"),
    [("disabled", {"wandb__enabled": True}, OFF), (None, {"wandb__enabled": False}, OFF), (None, {}, FEW)],
)
def test_switched_off_it_leaves_no_folder_and_is_not_even_imported(mode, options, said, tmp_path, monkeypatch):
    if mode is None:
        monkeypatch.delenv("WANDB_MODE")
    else:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it is an error
    monkeypatch.chdir(tmp_path)
    code, out, err = runs.call(runs.line("run", trainer__max_epochs=1, **options))
    assert code == 0, err
    assert f"run/metrics.csv ({said})\n" in out
    assert not list(tmp_path.rglob("wandb"))


@pytest.mark.parametrize(("enabled", "steps"), [("auto", loggers.FEW), ("auto", float("inf")), (True, 1)])
def test_a_run_is_logged_that_is_long_enough_or_asked_for(enabled, steps, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match="wandb"):
        loggers.Wandb(enabled).logger(str(tmp_path), None, {}, (), steps)
