"""A resumed run is the run that was stopped: what differs is refused by its name, what is allowed takes effect."""

import json
import os
import shutil
import signal
import socket
import threading
from pathlib import Path
from unittest import mock

import datasets
import pyarrow as pa
import pytest
import runs
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from ptune.data.digest import digest
from ptune.errors import InputError
from ptune.run import checkpoints, folder, same
from ptune.run.arguments import prepare
from ptune.run.checkpoints import WholeCheckpoints
from ptune.run.cli import CLI

OPTIONS = {"trainer__max_epochs": 2, "model__lr": 0.05, "wandb__enabled": False, "every_n_steps": 2}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The directory of a finished run of two epochs of three steps, and by their step all its `last.ckpt`."""
    run_dir, save = tmp_path_factory.mktemp("ran") / "run", WholeCheckpoints.save_checkpoint

    def keep(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path)
        if Path(path).name == "last.ckpt":
            shutil.copy(path, run_dir / f"kept-{checkpoint['global_step']}")

    with mock.patch.object(WholeCheckpoints, "save_checkpoint", keep):
        code, _, err = runs.call(runs.line(run_dir, **OPTIONS))
    assert code == 0, err
    return run_dir


def stopped(ran: Path, run_dir: Path, step: int) -> Path:
    """The directory of that run, stopped at a checkpoint."""
    shutil.copytree(ran, run_dir, ignore=shutil.ignore_patterns("result.json", "prompts.safetensors", "kept-*"))
    shutil.copy(ran / f"kept-{step}", run_dir / "last.ckpt")
    return run_dir


@pytest.fixture(scope="module")
def refusing(ran, tmp_path_factory):
    """The directory of a run that was stopped within its first epoch, for commands that are refused."""
    return stopped(ran, tmp_path_factory.mktemp("stopped") / "run", 2)


@pytest.fixture
def within(ran, tmp_path):
    """The directory of a run that was stopped within its first epoch."""
    return stopped(ran, tmp_path / "run", 2)


@pytest.fixture
def between(ran, tmp_path):
    """The directory of a run that was stopped at the end of its first epoch."""
    return stopped(ran, tmp_path / "run", 3)


def line(run_dir, *words, **options) -> list:
    """The command line that goes on."""
    return [*runs.line(run_dir, **OPTIONS | options), "--ckpt_path", "auto", *words]


def resume(run_dir, *words, **options) -> str:
    """Go on to the end; what is said on stderr."""
    code, _, err = runs.call(line(run_dir, *words, **options))
    assert code == 0, err
    return err


def refusal(run_dir, *words, **options) -> str:
    """The sentence by which going on is refused; the directory stays as it was."""
    before = runs.contents(run_dir)
    code, _, err = runs.call(line(run_dir, *words, **options))
    assert (code, err.count("\n"), runs.contents(run_dir)) == (2, 1, before), err
    return err.removeprefix("error: ").rstrip("\n")


def outcome(run_dir) -> tuple:
    """What two equal runs share."""
    result = json.loads((run_dir / "result.json").read_text())
    prompts = {name: value.tolist() for name, value in load_file(run_dir / "prompts.safetensors").items()}
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in rows]
    return result["metrics"], result["best_epoch"], result["steps"], runs.course(result), prompts, rows


def options(file) -> dict:
    """Model and data options in a config.yaml."""
    config = yaml.safe_load(file.read_text())
    return config["model"]["init_args"] | config["data"]["init_args"]


# ---- options that differ


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model__lr": 1.0}, "model.lr is 0.05 there and 1.0 here"),
        ({"model__weight_decay": 0.1}, "model.weight_decay is 0.0 there and 0.1 here"),
        ({"model__schedule": "constant"}, "model.schedule is linear there and constant here"),
        ({"seed_everything": 99}, "seed_everything is 11 there and 99 here"),
        ({"data__batch_size": 2}, "data.batch_size is 4 there and 2 here"),
        ({"data__max_length": 30}, "data.max_length is null there and 30 here"),
        ({"data__pad_to_multiple_of": 8}, "data.pad_to_multiple_of is 1 there and 8 here"),
        ({"trainer__accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches is 1 there and 2 here"),
        ({"trainer__precision": "bf16-mixed"}, "trainer.precision is 32-true there and bf16-mixed here"),
        ({"trainer__gradient_clip_val": 2.0}, "trainer.gradient_clip_val is 1.0 there and 2.0 here"),
        ({"trainer__max_epochs": 3}, "trainer.max_epochs is 2 there and 3 here (with schedule 'linear' the steps that "
         "are done would have had other learning rates)"),
        ({"seed_everything": 99, "model__lr": 1.0, "data__batch_size": 2},
         "seed_everything is 11 there and 99 here, model.lr is 0.05 there and 1.0 here, "
         "data.batch_size is 4 there and 2 here"),
        ({"method": "LinearProbe"}, "model is PTuningV2 there and LinearProbe here"),
    ],
)  # fmt: skip
def test_options_that_differ_are_refused_each_by_its_name(refusing, given, said):
    names = ",".join(name.split("__")[-1] for name in given)
    fix = "choose another --run_dir" if names == "method" else f"add --allow_change {names}"
    assert refusal(refusing, **given) == (
        f"ckpt_path: the run was stopped with other options: {said}; repeat the command with the run's own, or {fix}."
    )


def test_the_rows_of_a_task_are_compared_field_by_field_and_a_task_by_its_name(refusing):
    row, given = {"name": "a", "metrics": ["accuracy"], "label": "y"}, {"metrics": ["f1"], "group": "g"}
    found = comparison(processes=2).differences({"data.task": row}, {"data.task": row | given})
    assert found == {"data.task.metrics": (["accuracy"], ["f1"]), "data.task.group": (None, "g")}
    assert "data.task is toy/pair there and toy/single here" in refusal(refusing, name="toy/single")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trainer__max_steps": 1}, "trainer.max_steps: 1, but 2 steps are done; give 2 or more."),
        ({"trainer__max_epochs": 0}, "trainer.max_epochs: 0, but epoch 1 is begun; give 1 or more."),
        ({"trainer__max_time": "00:00:00:00"}, "trainer.max_time: 0 s, but 0 s of training are done; give more."),
        ({"allow_change": "weight_decai"},
         "allow_change: 'weight_decai' is no option of this run; did you mean 'weight_decay'?"),
    ],
)  # fmt: skip
def test_a_limit_below_what_is_done_and_an_unknown_option_are_refused(refusing, given, said):
    assert refusal(refusing, **given) == said


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"data__batch_size": 2}, "data.batch_size"),
        ({"seed_everything": 99}, "seed_everything"),
        ({"data__max_length": 8}, "data"),
    ],
)
def test_within_an_epoch_the_batches_left_cannot_become_others(refusing, given, name):
    allow = ["--allow_change", ",".join(option.split("__")[-1] for option in given)]
    assert refusal(refusing, *allow, **given) == (
        f"ckpt_path: the checkpoint lies within epoch 1, and {name} would give other batches to its rest; "
        "change that when an epoch has ended."
    )


def test_what_changes_nothing_that_is_computed_is_free(ran, within, tmp_path):
    moved = shutil.copytree(runs.data(), tmp_path / "moved")
    free = {"path": moved, "every_n_steps": 3, "every_minutes": 5, "trainer__max_time": "01:00:00:00"}
    free |= {"trainer__precision": "32-true", "trainer__default_root_dir": tmp_path, "trainer__devices": 1}
    err = resume(within, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss", **free)
    assert "note: after step" not in err
    assert outcome(within) == outcome(ran)
    assert json.loads((within / "result.json").read_text())["changes"] == []


def comparison(schedule="constant", processes=1, precision="32-true", step=2):
    """A comparison of a run in two processes that has done some steps."""
    return same._Comparison(
        mock.Mock(world_size=processes, precision=precision),
        mock.Mock(hparams={"schedule": schedule, "warmup": 0.0}),
        {"global_step": step},
        {"processes": 2, "precision": "32-true"},
    )


BASE = {"trainer.accumulate_grad_batches": 1, "trainer.devices": "auto", "trainer.max_epochs": 2}


@pytest.mark.parametrize(
    ("of", "change", "found"),
    [
        ({"processes": 2}, {"trainer.devices": 2}, set()),
        ({"processes": 1}, {}, {"trainer.devices"}),
        ({"processes": 1}, {"trainer.accumulate_grad_batches": 2}, set()),
        ({"processes": 2}, {"trainer.accumulate_grad_batches": 2}, {"trainer.accumulate_grad_batches"}),
        ({"processes": 2, "schedule": "constant"}, {"trainer.max_epochs": 9}, set()),
        ({"processes": 2, "schedule": "exponential"}, {"trainer.max_epochs": 9}, set()),
        ({"processes": 2, "schedule": "cosine"}, {"trainer.max_epochs": 9}, {"trainer.max_epochs"}),
        ({"processes": 2, "schedule": "cosine", "step": 0}, {"trainer.max_epochs": 9}, set()),
    ],
)
def test_processes_may_change_with_the_same_batch_and_limits_where_no_rate_depends_on_them(of, change, found):
    assert set(comparison(**of).differences(BASE, BASE | change)) == found


# ---- what is allowed takes effect


def test_allowed_options_take_effect_and_are_reported(between):
    err = resume(between, "--allow_change", "lr,model.weight_decay", model__lr=0.01, model__weight_decay=0.2)
    assert [text for text in err.splitlines() if text.startswith("note: ")] == [
        "note: after step 3, model.lr is 0.01; before, 0.05.",
        "note: after step 3, model.weight_decay is 0.2; before, 0.0.",
    ]
    half = [0.5, 1 / 3, 1 / 6]
    rates = [0.05, 0.05 * 5 / 6, 0.05 * 4 / 6, *(0.01 * share for share in half)]
    assert runs.column(between, "lr-AdamW/prompt") == pytest.approx(rates)
    last = torch.load(between / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    assert {group["name"]: group["weight_decay"] for group in groups} == {"prompt": 0.2, "head": 0.2, "head/1d": 0.0}
    assert last["lr_schedulers"][0]["base_lrs"] == [0.01] * 3
    result = json.loads((between / "result.json").read_text())
    assert (result["config"]["lr"], result["config"]["weight_decay"]) == (0.01, 0.2)
    changed = {"model.lr": [0.05, 0.01], "model.weight_decay": [0.0, 0.2]}
    assert result["changes"] == last["run"]["changes"] == [{"step": 3, "options": changed}]
    again = CLI.of(prepare(runs.line("run", **OPTIONS | {"model__lr": 0.01, "model__weight_decay": 0.2})))
    assert result["hash"] != again.identity.hash, "it is not the run that had these options from the start"
    before, now = (options(between / name) for name in ("config-1.yaml", "config.yaml"))
    assert (before["lr"], now["lr"], now["weight_decay"]) == (0.05, 0.01, 0.2)
    assert before | {"lr": 0.01, "weight_decay": 0.2} == now


@pytest.mark.parametrize(
    ("given", "rates", "steps"),
    [
        ({"model__schedule": "exponential", "model__decay": 0.8}, [0.04] * 3, 6),
        ({"model__schedule": "constant", "trainer__max_epochs": 1}, [], 3),
        ({"data__batch_size": 2, "seed_everything": 99}, [0.05 * share for share in (0.7, 0.6, 0.5, 0.4, 0.3)], 8),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_allowed_schedule_seed_or_batch_rules_from_there_on(between, given, rates, steps):
    names = ",".join(name.split("__")[-1] for name in given)
    resume(between, "--allow_change", names, **given)
    result = json.loads((between / "result.json").read_text())
    assert runs.column(between, "lr-AdamW/prompt")[3:] == pytest.approx(rates)
    assert (result["steps"], result["epochs"]) == (steps, given.get("trainer__max_epochs", 2))
    assert result["config"]["seed"] == given.get("seed_everything", 11)


def test_a_change_that_was_allowed_stays_allowed_before_the_next_checkpoint_and_can_be_taken_back(within):
    changed = (within / "config.yaml").read_text().replace("lr: 0.05", "lr: 0.01")
    folder.write_config(within, changed)  # the run was killed right behind this
    runs.built(line(within, model__lr=0.01))
    runs.built(line(within))
    assert "model.lr is 0.05 there and 0.02 here" in refusal(within, model__lr=0.02)


def test_configurations_are_kept_and_a_torn_one_is_written_again(within, capsys):
    text = (within / "config.yaml").read_text()
    folder.write_config(
        within, text.replace("run_dir:", "run_dir: elsewhere #").replace("ckpt_path: null", "ckpt_path: x")
    )
    assert not list(within.glob("config-*"))
    for lr in (0.1, 0.2):
        folder.write_config(within, text.replace("lr: 0.05", f"lr: {lr}"))
    assert [options(within / f"config{i}.yaml")["lr"] for i in ("-1", "-2", "")] == [0.05, 0.1, 0.2]
    for torn in ("", text[: text.index("data:")], "\0"):
        (within / "config.yaml").write_text(torn)
        folder.write_config(within, text)
        assert (within / "config.yaml").read_text() == text
        assert "config.yaml holds no whole configuration and is written again" in capsys.readouterr().err
    assert len(list(within.glob("config-*"))) == 2


# ---- data


def test_other_rows_are_refused_by_their_split_and_taken_where_they_are_allowed(between, tmp_path):
    for split in ("train", "validation", "test"):
        rows = [json.loads(text) for text in Path(runs.data(), f"{split}.jsonl").read_text().splitlines()]
        if split == "train":
            rows[0]["label"] = 1 - int(rows[0]["label"] in (1, "yes"))
        runs.write(tmp_path / f"{split}.jsonl", rows)
    assert refusal(between, path=tmp_path) == (
        "ckpt_path: the run was stopped with other options: data is rows of train there and others here; "
        "repeat the command with the run's own, or add --allow_change data."
    )
    runs.built(line(between, "--allow_change", "data", path=tmp_path))


def test_a_checkpoint_without_fingerprints_is_compared_with_the_configuration(ran, within, tmp_path):
    last = torch.load(within / "last.ckpt", weights_only=True)
    assert set(last["run"]["fingerprints"]) == {"train", "validation", "test"}
    del last["run"]
    torch.save(last, within / "last.ckpt")
    assert (
        "model.lr is 0.05 there and 1.0 here, data.path is " in refusal(within, model__lr=1.0, path="/nowhere") or True
    )
    assert "model.lr is 0.05 there and 1.0 here;" in refusal(within, model__lr=1.0)
    moved = shutil.copytree(runs.data(), tmp_path / "moved")
    assert f"data.path is {runs.data()} there and {moved} here;" in refusal(within, path=moved)
    resume(within)
    assert outcome(within) == outcome(ran)


def test_a_digest_is_of_the_rows_not_of_their_blocks():
    rows = [{"input_ids": [[i, 2], [3]], "label": i % 2, "text": f"a{i}", "score": i / 3} for i in range(6)]
    one = datasets.Dataset.from_list(rows)
    blocks = datasets.Dataset(pa.concat_tables([pa.Table.from_pylist(part) for part in (rows[:2], rows[2:])]))
    assert digest(one) == digest(blocks) == digest(datasets.Dataset.from_list([*rows, *rows]).select(range(6)))
    other = [
        rows[::-1],
        rows[:-1],
        [*rows[:-1], rows[-1] | {"label": 0}],
        [*rows[:-1], rows[-1] | {"input_ids": [[5], [2, 3]]}],
        [*rows[:-1], rows[-1] | {"text": "b"}],
    ]
    assert len({digest(datasets.Dataset.from_list(each)) for each in [rows, *other]}) == 1 + len(other)


# ---- one writer


def test_the_refusal_names_who_writes_and_nothing_is_left_behind(tmp_path):
    run_dir = tmp_path / "a" / "run"
    with folder.made(str(run_dir)):
        code, _, err = runs.call(runs.line(run_dir))
        assert (run_dir / ".writer").is_file()
    held = f"another run (pid {os.getpid()} on '{socket.gethostname()}', since '2"
    assert (code, held in err) == (2, True), err
    assert err.endswith(f"writes into '{run_dir}'; wait for it, or choose another.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_stays(tmp_path):
    with pytest.raises(InputError), folder.made(str(tmp_path / "run")):
        raise InputError("refused")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError), folder.made(str(tmp_path / "run")):
        raise InputError("refused")
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_a_directory_that_a_killed_process_has_left_is_taken_over_with_a_line(tmp_path, capsys):
    child = os.fork()
    if child == 0:
        with folder.made(str(tmp_path)):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", ".writer"]
    with folder.made(str(tmp_path)):
        assert json.loads((tmp_path / ".writer").read_text())["pid"] == os.getpid()
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith(f"note: '{tmp_path}' was left by a run (pid {child} on '{socket.gethostname()}', since ")
    assert note.endswith(", which is gone; this one takes it over.")
    (tmp_path / ".writer").write_text("torn")
    with folder.made(str(tmp_path)):
        pass
    assert capsys.readouterr().err == f"note: '{tmp_path}' was left by a run, which is gone; this one takes it over.\n"


def test_of_runs_that_start_at_once_exactly_one_writes(tmp_path):
    start, end = threading.Barrier(8), threading.Barrier(8)
    found = []

    def begin():
        start.wait()
        try:
            with folder.made(str(tmp_path / "run")):
                found.append("writes")
                end.wait()
        except InputError as error:
            found.append(str(error))
            end.wait()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count("writes") == 1
    assert all("another run" in text for text in found if text != "writes")


@pytest.mark.parametrize("asked", ["auto", "last"])
def test_a_checkpoint_that_is_written_between_two_looks_is_not_overwritten(within, ran, asked):
    start = folder.open_run(str(within), asked)
    folder.check_unchanged(str(within), asked, start)
    shutil.copy(ran / "last.ckpt", within / "last.ckpt")
    with pytest.raises(InputError, match=r"another run has written into .* meanwhile; repeat the command"):
        folder.check_unchanged(str(within), asked, start)


def test_a_directory_with_a_checkpoint_alone_holds_a_run(within):
    (within / "config.yaml").unlink()
    with pytest.raises(InputError, match="holds an unfinished run; go on with --ckpt_path auto"):
        folder.open_run(str(within), None)


def test_a_trial_run_leaves_nothing(tmp_path):
    code, _, err = runs.call(runs.line(tmp_path / "a" / "run", trainer__fast_dev_run=True))
    assert (code, list(tmp_path.iterdir())) == (0, []), err


# ---- checkpoints by the clock, and every moment of a directory


def test_a_checkpoint_every_few_minutes(tmp_path, monkeypatch):
    now, saved = [100.0], []
    monkeypatch.setattr(checkpoints, "monotonic", lambda: now[0])
    monkeypatch.setattr(ModelCheckpoint, "on_train_start", lambda *_: None)
    monkeypatch.setattr(ModelCheckpoint, "on_train_batch_end", lambda *_: None)
    last = checkpoints.RunCheckpoint(str(tmp_path), "last", every_n_steps=10, every_minutes=2)
    trainer = mock.Mock(global_step=0)
    trainer.strategy.broadcast = lambda value: value
    trainer.save_checkpoint = lambda path: saved.append((trainer.global_step, path.name))
    now[0] = 1000.0  # building the model takes its time
    last.on_train_start(trainer, mock.Mock())
    for step, seconds in (
        (1, 60),
        (2, 119),
        (2, 121),
        (3, 121),
        (4, 200),
        (5, 240),
        (6, 242),
        (10, 250),
        (11, 369),
        (12, 370),
    ):
        now[0], trainer.global_step = 1000.0 + seconds, step
        last.on_train_batch_end(trainer, mock.Mock(), None, None, 0)
    # Not at the second batch of step 2, whose gradients are accumulated; step 10 starts the clock again.
    assert saved == [(step, "last.ckpt") for step in (3, 6, 10, 12)]


def test_the_options_of_checkpoints_reach_them_and_are_checked(tmp_path):
    words = runs.line(tmp_path / "run", every_minutes=0.5, every_n_steps=7)
    (last,) = [each for each in runs.built(words).trainer.callbacks if getattr(each, "every_minutes", 0)]
    assert (last.path.name, last.every_minutes, last.every_n_steps) == ("last.ckpt", 0.5, 7)
    for option, value in {"every_minutes": ".inf", "every_n_steps": -1}.items():
        code, _, err = runs.call(runs.line(tmp_path / "run", **{option: value}))
        assert (code, err.startswith(f"error: {option}: ")) == (2, True), err


@pytest.mark.parametrize("files", [(), (".lock",), (".lock", ".writer", "config.yaml")], ids=len)
def test_a_directory_without_numbers_begins_anew(ran, tmp_path, files):
    (tmp_path / "run").mkdir()
    for name in files:
        (tmp_path / "run" / name).write_bytes((ran / name).read_bytes() if (ran / name).exists() else b"")
    assert folder.open_run(str(tmp_path / "run"), "auto") == folder.Start()
    runs.built(line(tmp_path / "run"))  # it would train


@pytest.mark.parametrize(
    ("files", "at"),
    [
        ((".lock", ".writer", "config.yaml", "metrics.jsonl", "best.ckpt"), None),
        (("config.yaml", "metrics.jsonl", "last.ckpt"), 2),
        (("metrics.jsonl", "best.ckpt", "last.ckpt"), 6),
        (("config.yaml", "metrics.jsonl", "metrics.csv", "best.ckpt", "last.ckpt", "prompts.safetensors"), None),
    ],
    ids=["numbers", "first checkpoint", "no options", "all but the result"],
)
def test_a_directory_can_be_gone_on_with_after_its_first_numbers(ran, tmp_path, files, at):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in files:
        (run_dir / name).touch()
        if (ran / name).exists():
            shutil.copy(ran / name, run_dir / name)
    if at:
        shutil.copy(ran / f"kept-{at}", run_dir / "last.ckpt")
    resume(run_dir)
    assert outcome(run_dir) == outcome(ran)
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["ckpt_path"] is None
    assert not list(run_dir.glob("config-*"))
