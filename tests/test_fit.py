"""`python -m ptune.fit`: what a run leaves, says and repeats, and how its options reach it."""

import csv
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import types
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean

import pytest
import runs
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import ptune
from ptune import evaluate
from ptune.backbone import Backbone
from ptune.fit import main
from ptune.prompts import Prompts
from ptune.run import catalog, machine
from ptune.tuning.tuner import PromptTuner

FILES = {"config.yaml", "metrics.csv", "metrics.jsonl", "best.ckpt", "last.ckpt", "prompts.safetensors", "result.json"}
FILES |= {f"predictions/{split}.{end}" for split in ("validation", "test") for end in ("parquet", "errors.csv")}
MEASURED = {"seconds", "evaluation_seconds", "examples_per_second", "tokens_per_second", "peak_memory_mib"}
MEASURED |= {"seconds_to_best"}
NAMES = ("best", "last")
METHODS = list(catalog.classes("model"))
TRAINED = [name for name in METHODS if getattr(ptune, name).trains]
EPOCHS, ROWS, BATCH = 3, 10, 4
COUNTS = {"validation": 40, "test": 5}
STEPS = EPOCHS * -(-ROWS // BATCH)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its directory, its result.json, what it printed and what it returned."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    path = runs.data(train=ROWS, validation=COUNTS["validation"], test=COUNTS["test"])
    words, returned = runs.line(run_dir, path=path, trainer__max_epochs=EPOCHS, model__lr=0.1), []
    code, out, err = runs.call(words, lambda words: returned.append(main(words)))
    assert code == 0, err
    result = json.loads((run_dir / "result.json").read_text())
    return types.SimpleNamespace(path=path, run_dir=run_dir, result=result, out=out, words=words, returned=returned)


def comparable(result: dict) -> dict:
    """A result without what is measured, where it lies, and when and by which command it was made."""
    kept = {key: value for key, value in result.items() if key not in MEASURED | {"date", "command"}}
    kept |= {"history": runs.course(result)}
    return kept | {"config": {key: value for key, value in result["config"].items() if key != "run_dir"}}


# ---- what a run leaves


def test_a_run_leaves_its_files_and_nothing_else(finished):
    assert set(runs.contents(finished.run_dir)) == FILES


def test_a_file_gets_no_progress_bar(finished):
    assert "\r" not in finished.out


def test_a_finished_run_that_keeps_no_checkpoints_is_read_from_its_prompts(finished, tmp_path):
    """The same numbers; evaluation and answers need nothing else."""
    words = runs.line(tmp_path / "run", path=finished.path, trainer__max_epochs=EPOCHS, model__lr=0.1)
    code, _, err = runs.call([*words, "--keep_checkpoints", "false"])
    assert code == 0, err
    assert set(runs.contents(tmp_path / "run")) == FILES - {"best.ckpt", "last.ckpt"}
    assert comparable(json.loads((tmp_path / "run" / "result.json").read_text())) == comparable(finished.result)
    pairs = [("a good one", "it is good"), ("a bad one", "it is not")]
    assert ptune.load(tmp_path / "run")(pairs) == ptune.load(finished.run_dir)(pairs)
    code, _, err = runs.call([tmp_path / "run"], evaluate.main)
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["checkpoint"] == "prompts.safetensors"
    for key in ("metrics", "best_epoch", "hash", "steps"):
        assert found[key] == finished.result[key], key


def test_a_caller_in_python_gets_the_result(finished):
    assert finished.returned == [finished.result]


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--modle", "PTuningV2"], 2), (["--help"], None)])
def test_a_caller_in_python_gets_the_exit_code_of_a_command_that_does_not_end_well(words, code, capsys):
    if code is None:
        assert main(words) is None
        return
    with pytest.raises(SystemExit, match=rf"^{code}$"):
        main(words)


def test_the_result_says_what_was_run_on_what_with_what(finished):
    result = finished.result
    backbone = Backbone(runs.bert())
    said = {"task": "toy/pair", "method": "PTuningV2", "backbone": runs.bert(), "seed": 11, "monitor": "accuracy"}
    said |= {"fingerprint": backbone.fingerprint, "pooling": backbone.pooling}
    said |= {"steps": STEPS, "epochs": EPOCHS, "batch_size": BATCH}
    assert {key: result[key] for key in said} == said
    assert result["packages"]["torch"] == torch.__version__
    assert result["packages"]["ptune"] == ptune.__version__
    assert {"lightning", "transformers", "datasets"} <= set(result["packages"])


def test_the_result_counts_trained_and_all_parameters(finished):
    length, layers, width, labels = 20, 2, 32, 2
    trained = length * 2 * layers * width + width * labels + labels
    assert finished.result["trained_parameters"] == trained
    frozen = sum(value.numel() for value in Backbone(runs.bert()).parameters())
    assert finished.result["total_parameters"] == trained + frozen


def test_the_result_has_metrics_and_majority_of_every_labelled_split(finished):
    assert set(finished.result["metrics"]) == {"validation", "test"} == set(finished.result["majority"])

    def labels_of(split):
        return [json.loads(text)["label"] for text in Path(finished.path, f"{split}.jsonl").read_text().splitlines()]

    most = max((0, 1), key=labels_of("train").count)
    for split, count in COUNTS.items():
        labels = labels_of(split)
        assert finished.result["majority"][split] == {"accuracy": pytest.approx(labels.count(most) / count)}
        right = finished.result["metrics"][split]["accuracy"] * count
        assert right == pytest.approx(round(right))


def test_the_result_measures_speed_and_memory(finished):
    result = finished.result
    assert all(result[key] > 0 for key in MEASURED)
    assert result["examples_per_second"] * result["seconds"] == pytest.approx(ROWS * EPOCHS)
    assert result["tokens_per_second"] > 8 * result["examples_per_second"]


def test_the_result_says_when_where_and_by_which_command_it_was_made(finished):
    result = finished.result
    assert shlex.split(result["command"]) == ["ptune", "fit", *finished.words]
    assert datetime.fromisoformat(result["date"]).utcoffset() == timedelta(0)
    assert (result["host"], result["python"]) == (socket.gethostname(), platform.python_version())
    assert (result["git_commit"], result["git_dirty"]) == machine.checkout(machine.PACKAGE)
    assert (result["device"], result["precision"]) == (machine.device(torch.device("cpu")), "32-true")
    assert result["bytes"] == (finished.run_dir / "prompts.safetensors").stat().st_size
    assert result["limits"] == []


def test_the_history_has_every_validation_and_the_training_loss_before_it(finished):
    history = finished.result["history"]
    steps = STEPS // EPOCHS
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(i, i * steps) for i in range(1, EPOCHS + 1)]
    for name in ("accuracy", "loss"):
        assert [entry["metrics"][name] for entry in history] == runs.column(finished.run_dir, f"val/{name}")
    losses = runs.column(finished.run_dir, "train/loss")
    means = [mean(losses[i : i + steps]) for i in range(0, STEPS, steps)]
    assert [entry["train_loss"] for entry in history] == pytest.approx(means)
    seconds = [entry["seconds"] for entry in history]
    assert 0 < seconds[0] < seconds[1] < seconds[2] == finished.result["seconds"]
    assert finished.result["seconds_to_best"] == seconds[finished.result["best_epoch"] - 1]


def test_the_metrics_file_has_a_row_for_every_step_and_validation(finished):
    run_dir = finished.run_dir
    losses = runs.column(run_dir, "train/loss")
    assert len(losses) == STEPS
    assert len(set(losses)) == STEPS
    assert len(runs.column(run_dir, "val/accuracy")) == len(runs.column(run_dir, "val/loss")) == EPOCHS
    steps = [int(row["step"]) for row in runs.rows(run_dir)]
    assert steps == sorted(steps)
    for name in ("grad_norm/prompt", "grad_norm/head", "prompt_norm/layer_00", "prompt_norm/layer_01"):
        values = runs.column(run_dir, name)
        assert len(values) == STEPS, name
        assert min(values) > 0, name
    for name in ("speed/examples_per_second", "speed/tokens_per_second", "memory/peak_mib"):
        assert min(runs.column(run_dir, name)) > 0, name


def test_what_is_logged_of_the_best_checkpoint_has_a_name_of_its_own_for_each_split(finished):
    """In logs `val` is the split that chooses the checkpoint, during training and after it."""
    for logged, split in {"final/val": "validation", "final/test": "test"}.items():
        for name, value in finished.result["metrics"][split].items():
            assert runs.column(finished.run_dir, f"{logged}/{name}") == [pytest.approx(value)]
    names = {name.rpartition("/")[0] for row in runs.rows(finished.run_dir) for name in row}
    of_splits = {name for name in names if name.startswith(("val", "final", "test"))}
    assert of_splits == {"val", "final/val", "final/test"}


def test_the_mistakes_of_each_split_are_a_table_beside_the_predictions(finished):
    for split, count in COUNTS.items():
        with (finished.run_dir / "predictions" / f"{split}.errors.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(int(row["count"]) for row in rows) == count
        right = sum(int(row["count"]) for row in rows if row["gold"] == row["answer"])
        assert right / count == pytest.approx(finished.result["metrics"][split]["accuracy"])


def test_the_checkpoint_with_the_best_validation_is_evaluated_and_saved(finished):
    accuracies = runs.column(finished.run_dir, "val/accuracy")
    best = torch.load(finished.run_dir / "best.ckpt", weights_only=True)
    assert best["epoch"] == accuracies.index(max(accuracies)) == finished.result["best_epoch"] - 1
    assert finished.result["metrics"]["validation"]["accuracy"] == max(accuracies)
    saved = load_file(finished.run_dir / "prompts.safetensors")
    assert saved.keys() == best["state_dict"].keys()
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in saved.items())
    assert len(set(accuracies)) > 1, "a run whose epochs are all alike tests nothing"


def test_the_last_checkpoint_is_of_the_last_step_where_nothing_improved_after_the_first_epoch(tmp_path):
    runs.fit(tmp_path / "run", model__lr=1e-9)
    steps = {name: torch.load(tmp_path / "run" / f"{name}.ckpt", weights_only=True)["global_step"] for name in NAMES}
    assert steps == {"best": 3, "last": 6}


def test_the_prompt_file_says_what_it_belongs_to(finished):
    with safe_open(finished.run_dir / "prompts.safetensors", framework="pt") as file:
        metadata = file.metadata()
    said = {"method": "PTuningV2", "task": "toy/pair", "length": "20", "layers": "[0, 1]", "backbone": runs.bert()}
    said |= {"fingerprint": finished.result["fingerprint"], "labels": '["no", "yes"]'}
    assert said.items() <= metadata.items()


def test_the_prompts_of_a_run_give_its_scores_again(finished):
    data = ptune.Classification("toy/pair", runs.bert(), path=finished.path, batch_size=5)
    model = ptune.PTuningV2(backbone=runs.bert(), head=data.head)
    model.load_prompts(finished.run_dir / "prompts.safetensors")
    data.setup()
    (batch,) = data.loader("test")
    with torch.no_grad():
        right = (model.eval()(batch).argmax(-1) == batch["labels"]).double().mean()
    assert right.item() == pytest.approx(finished.result["metrics"]["test"]["accuracy"])


# ---- what a run says


@pytest.mark.parametrize(
    "said",
    [
        "PTuningV2 of",
        "toy/pair",
        "prompt.encoder.flat",
        "head.linear.weight, head.linear.bias",
        "2,626",
        "% of the backbone's",
        "reading   pooled: pooler",
        "positions 64, text from 0",
        "dropout   backbone off, head 0.1",
        "batch     4 (4 x 1 processes x 1 batches)",
        "rates     prompt 0.1, head 0.1; linear, weight decay 0",
        "length    3 epochs at most, 9 steps",
        "rows      10 an epoch; the checkpoint is chosen on validation",
        "PEFT      cannot be exported: shift_positions: false, but PEFT shifts the text",
        "seed      11",
        "metrics.csv (W&B is off)",
    ],
)
def test_before_training_it_says_what_is_trained_and_how(said, finished):
    assert said in finished.out.split("majority")[0]


def test_the_final_table_has_the_majority_baseline_beside_every_metric(finished):
    table = finished.out[finished.out.index("toy/pair with PTuningV2, seed 11") :].splitlines()
    assert table[1].split() == ["split", "metric", "majority", "PTuningV2"]
    for split in ("validation", "test"):
        majority, own = (finished.result[kind][split]["accuracy"] for kind in ("majority", "metrics"))
        row = next(text.split() for text in table if text.startswith(f"{split} ") and "accuracy" in text)
        assert row == [split, "accuracy", "*", f"{100 * majority:.2f}", f"{100 * own:.2f}"]


def test_a_checkpoint_that_is_chosen_on_test_is_said_to_be(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    for split in ("train", "test"):
        shutil.copy(Path(runs.data(), f"{split}.jsonl"), path)
    words = runs.line(tmp_path / "run", path=path, trainer__max_epochs=1, data__max_length=64)
    place = words.index("--data.task")
    words[place : place + 2] = ["--data.task.text", "[sentence1,sentence2]", "--data.task.labels", "[no,yes]"]
    words += ["--data.task.evaluate", "[test]"]
    code, out, err = runs.call(words)
    assert code == 0, err
    assert "; the checkpoint is chosen on test" in out
    assert out.endswith("\nThe checkpoint is chosen on test itself, so its metrics are no held-out result.\n")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["chosen_on"], result["chosen_on_test"]) == ("test", True)


def test_what_is_logged_is_a_line_each_and_a_table_of_the_same(finished):
    lines = [json.loads(line) for line in (finished.run_dir / "metrics.jsonl").read_text().splitlines()]
    table = [{key: float(value) for key, value in row.items()} for row in runs.rows(finished.run_dir)]
    assert lines == table


def test_prompts_have_the_users_umask(finished):
    modes = {file.name: file.stat().st_mode & 0o777 for file in finished.run_dir.iterdir()}
    assert modes["prompts.safetensors"] == modes["result.json"] == modes["config.yaml"]


# ---- a run again


def test_the_configuration_a_run_leaves_gives_its_numbers_again(finished, tmp_path):
    words = ["--config", finished.run_dir / "config.yaml", "--run_dir", tmp_path / "again"]
    code, _, err = runs.call(words)
    assert code == 0, err
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert comparable(again) == comparable(finished.result)
    there, here = (yaml.safe_load((d / "config.yaml").read_text()) for d in (finished.run_dir, tmp_path / "again"))
    assert here == there | {"run_dir": str(tmp_path / "again")}
    for name in ("train/loss", "val/loss", "grad_norm/prompt", "lr-AdamW/prompt"):
        assert runs.column(tmp_path / "again", name) == runs.column(finished.run_dir, name)
    first, second = (load_file(d / "prompts.safetensors") for d in (finished.run_dir, tmp_path / "again"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_another_seed_gives_other_numbers(finished, tmp_path):
    runs.fit(tmp_path / "run", path=finished.path, seed_everything=12, trainer__max_epochs=1, model__lr=0.1)
    other, first = (runs.column(d, "train/loss") for d in (tmp_path / "run", finished.run_dir))
    assert not set(other) & set(first)


def test_what_print_config_prints_is_a_configuration_and_prints_itself(tmp_path):
    texts = []
    words = runs.line("runs/x", model__length=7)
    for _ in range(2):
        config = tmp_path / f"{len(texts)}.yaml"
        config.write_text(printed([*words, "--print_config"]))
        texts.append(config.read_text())
        words = ["--config", config]
    assert texts[0] == texts[1]
    config = yaml.safe_load(texts[0])
    assert config["model"]["class_path"] == "ptune.PTuningV2"
    assert config["model"]["init_args"]["length"] == 7
    assert config["data"]["class_path"] == "ptune.Classification"
    assert not {"head", "slots"} & (config["model"]["init_args"].keys() | config["data"]["init_args"].keys())
    assert "backbone" not in config["data"]["init_args"]


def printed(words) -> str:
    """What a command line prints that only prints and exits."""
    with pytest.raises(runs.Exited) as end:
        runs.call(words)
    assert end.value.code == 0
    return end.value.out


# ---- help


def test_help_explains_every_option():
    code, out, _ = runs.call(["--help"])
    assert code == 0
    text = " ".join(out.split())
    for option in ("run_dir", "ckpt_path", "wandb.enabled", "wandb.project", "wandb.timeout", "seed_everything"):
        explanation = text.split(f" --{option} ")[-1].split(" --")[0]
        assert len(explanation.split("(type:")[0].split()) > 4, option
    assert all(name in text for name in (*METHODS, "Classification", "MultipleChoice", "SpanQA", "Tagging"))


@pytest.mark.parametrize("name", [f"--model.help={method}" for method in METHODS] + ["--data.help=SpanQA"])
def test_help_of_a_class_explains_each_of_its_options(name):
    for words in ([name], name.split("=")):
        code, text, _ = runs.call(words)
        assert code == 0
    options = text.split("\n  --")[1:]
    assert len(options) == 4 if "ManualPrompt" in name else len(options) > 8
    for option in options:
        explanation = option.split("(type:")[0].split()[1:]  # behind its name
        assert len(explanation) > 3, option


# ---- options


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("name", ["toy/single", "toy/pair", "toy/choice", "toy/qa", "toy/tagging"])
def test_every_method_that_trains_runs_on_every_format(method, name, tmp_path):
    result = runs.fit(tmp_path / "run", method, name, trainer__max_epochs=1, model__head_lr=0.01)
    task = ptune.task(name)
    assert (result["method"], result["task"], result["monitor"]) == (method, name, task.monitored)
    for split in ("validation", "test"):
        assert set(task.metrics) <= set(result["metrics"][split])
        assert set(result["majority"][split]) == (set() if task.format == "span_qa" else set(task.metrics))
    assert set(runs.contents(tmp_path / "run")) == FILES


def test_head_slots_and_backbone_are_stated_once(tmp_path):
    cli = runs.built(runs.line(tmp_path / "run", Slotted.__module__ + ".Slotted", "toy/tagging", model__p=3))
    assert cli.model.head_spec == cli.datamodule.head
    assert cli.model.head.linear.out_features == 5
    assert cli.datamodule.slots == cli.model.slots == 3
    assert cli.datamodule.backbone == cli.model.hparams["backbone"] == runs.bert()


class Slotted(PromptTuner):
    """Vectors at the input: a method in one class, as anybody may write one."""

    slot_argument = "p"

    def __init__(self, p: int = 2, **common) -> None:
        super().__init__(**common)
        self.prompt = nn.ParameterDict({"vectors": nn.Parameter(torch.randn(p, self.spec.width))})

    def prompts(self, batch):
        return Prompts(embeds=self.prompt["vectors"].expand(len(batch["input_ids"]), -1, -1))


@pytest.mark.parametrize("name", ["toy/pair", "toy/choice", "toy/qa", "toy/tagging"])
def test_a_method_of_ones_own_that_fills_input_slots_runs_without_further_code(name, tmp_path):
    result = runs.fit(tmp_path / "run", f"{__name__}.Slotted", name, trainer__max_epochs=1)
    assert result["method"] == "Slotted"
    assert min(runs.column(tmp_path / "run", "grad_norm/prompt")) > 0


def test_a_table_of_ones_own_needs_no_code(tmp_path):
    rows = [{"a": "the nurse helped", "b": f"the pilot {i}", "y": ("no", "yes")[i % 2]} for i in range(8)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("a,b,y\n" + "".join(f"{r['a']},{r['b']},{r['y']}\n" for r in rows))
    words = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--data", "Classification"]
    words += ["--data.path", tmp_path, "--data.task.text", "[a,b]", "--data.task.label", "y"]
    words += ["--data.task.labels", "[no,yes]", "--data.max_length", 64, "--trainer.max_epochs", 1, *runs.QUIET]
    code, _, err = runs.call([*words, "--run_dir", tmp_path / "run"])
    assert code == 0, err
    code, _, err = runs.call(["--config", tmp_path / "run" / "config.yaml", "--run_dir", tmp_path / "again"])
    assert code == 0, err
    first, again = (json.loads((tmp_path / d / "result.json").read_text()) for d in ("run", "again"))
    assert first["majority"] == {"validation": pytest.approx({"accuracy": 0.5, "macro_f1": 1 / 3})}
    assert comparable(first) == comparable(again)


def test_learning_rates_of_prompt_and_head_follow_the_authors_decay_apart(tmp_path):
    options = {"model__lr": 0.01, "model__head_lr": 0.001, "model__schedule": "exponential", "model__decay": 0.5}
    runs.fit(tmp_path / "run", trainer__max_epochs=3, **options)
    rates = {name: runs.column(tmp_path / "run", f"lr-AdamW/{name}") for name in ("prompt", "head")}
    assert rates["prompt"] == pytest.approx([0.01] * 3 + [0.005] * 3 + [0.0025] * 3)
    assert rates["head"] == pytest.approx([0.001] * 3 + [0.0005] * 3 + [0.00025] * 3)


def test_lightnings_own_accumulation_and_early_stopping_are_options(tmp_path):
    words = runs.line(tmp_path / "run", trainer__max_epochs=9, trainer__accumulate_grad_batches=2)
    words += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/accuracy"]
    words += ["--trainer.callbacks.mode=max", "--trainer.callbacks.patience=1", "--model.lr=1.0e-9"]
    code, out, err = runs.call(words)
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], result["steps"], result["batch_size"]) == (2, 4, 8)
    assert "batch     8 (4 x 1 processes x 2 batches)" in out


def test_a_trial_by_fast_dev_run_leaves_nothing(tmp_path):
    code, _, err = runs.call(runs.line(tmp_path / "run", trainer__fast_dev_run=True))
    assert code == 0, err
    assert runs.contents(tmp_path) == {}


@pytest.mark.slow
def test_the_module_runs_as_a_process_and_where_there_is_no_resource_module(tmp_path):
    """As on Windows; psutil, which transformers imports, has another module there."""
    (tmp_path / "sitecustomize.py").write_text("import psutil, sys\nsys.modules['resource'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "ptune.fit", *runs.line(tmp_path / "run", trainer__max_epochs=1)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "nan MiB" in done.stdout
    assert "toy/pair with PTuningV2" in done.stdout
    assert "Warning" not in done.stderr
    assert set(runs.contents(tmp_path / "run")) == FILES
