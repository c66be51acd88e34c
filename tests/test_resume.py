"""A run that is resumed is the run that was not stopped, bit for bit, from every checkpoint it wrote."""

import json
import shutil
from pathlib import Path

import pytest
import runs
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import load_file

EPOCHS = 2
MEASURED = ("speed/", "memory/")
CASES = {
    "prefix and head dropout": {"method": "PTuningV2", "model__prefix_dropout": 0.3, "model__head_dropout": 0.3},
    "backbone dropout": {"method": "FineTuning", "model__lr": 1e-3},
    "accumulated gradients": {"method": "PTuningV2", "trainer__accumulate_grad_batches": 2, "model__mlp": 8},
    "validation within the epoch": {"method": "PTuningV2", "trainer__val_check_interval": 2},
    "adapters that drop out": {"method": "LoRA", "model__dropout": 0.3},
    "max_steps within the second epoch": {"method": "PTuningV2", "trainer__max_steps": 4},
    "max_steps at its end": {"method": "PTuningV2", "trainer__max_steps": 6},
    "max_steps and accumulated gradients": {
        "method": "PTuningV2",
        "trainer__max_steps": 3,
        "trainer__accumulate_grad_batches": 2,
        "trainer__val_check_interval": 2,
    },
    "a gate over tokens in the units of their layers": {
        "method": "PTuningV2",
        "model__init": "tokens",
        "model__gate": True,
        "model__scaled": True,
    },
    "vectors that the layers project": {"method": "PTuningV2", "model__form": "hidden", "model__init": "tokens"},
    "companions": {
        "method": "PTuningV2",
        "model__also": "[bias, layer_norm]",
        "model__gate": True,
        "model__gate_lr": 0.1,
    },
    "gates and adapters": {"method": "APT", "model__also": "[lora, adapter]", "model__also_gate": True},
    "a late prompt over kept layers": {"method": "LatePromptTuning", "model__length": 3, "cache_frozen": True},
    "a memory": {"method": "PrefixMemory"},
    "a residual network": {"method": "ResidualPromptTuning", "model__length": 3, "model__bottleneck": 4},
    "a low-rank pair": {"method": "DePT", "model__length": 3, "model__rank": 2, "model__pair_lr": 0.1},
    "decay by the epoch": {"method": "PTuningV2", "name": "toy/tagging", "model__schedule": "exponential"},
}
WHEN = {"step": "every_n_train_steps=1", "validation": "monitor=val/loss", "epoch": "save_on_train_epoch_end=true"}


class Keep(Checkpoint):
    """Keeps a checkpoint of every step, validation and epoch, when Lightning's ModelCheckpoint would write it."""

    def _keep(self, trainer, when):
        name = f"{when}-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(Path(trainer.default_root_dir, "kept", name))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._keep(trainer, "step")

    def on_validation_end(self, trainer, pl_module):
        if trainer.state.fn == "fit" and trainer.val_check_interval != 1.0:  # otherwise at the end of the epoch
            self._keep(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self._keep(trainer, "epoch")


def keeping(run_dir, **options) -> list[str]:
    """The command line of a run with that callback."""
    line = runs.line(run_dir, trainer__max_epochs=EPOCHS, **options)
    return [*line, f"--trainer.callbacks+={__name__}.Keep"]


def with_checkpoints(run_dir, **options) -> list[str]:
    """The command line of a run with Lightning's own callbacks that keep a checkpoint of every step and epoch.

    To parse them takes as long as the run.
    """
    words = runs.line(run_dir, trainer__max_epochs=EPOCHS, **options)
    for name, when in WHEN.items():
        options = (when, "save_top_k=-1", f"dirpath={run_dir}/kept", f"filename={name}-{{epoch}}-{{step}}")
        words += ["--trainer.callbacks+=ModelCheckpoint", *(f"--trainer.callbacks.{option}" for option in options)]
    return words


def outcome(run_dir: Path) -> dict:
    """All that must be the same: last and best state, optimizer, result, rows of metrics.csv."""
    last, best = (torch.load(run_dir / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    result = json.loads((run_dir / "result.json").read_text())
    rows = [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in runs.rows(run_dir)]
    return {
        "last": last["state_dict"],
        "best": best["state_dict"],
        "prompts": load_file(run_dir / "prompts.safetensors"),
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "rows": rows,
        "history": runs.course(result),
        **{key: result[key] for key in ("metrics", "best_epoch", "steps", "epochs", "limits")},
    }


def differences(one, other, path="") -> list[str]:
    """Paths at which two nested values differ by a bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}/{i}")]
    return [] if one == other else [f"{path}: {one} != {other}"]


one_case = pytest.mark.parametrize("whole", ["prefix and head dropout"], indirect=True)


OFTEN = ("prefix and head dropout", "validation within the epoch", "max_steps within the second epoch")
DEEP = [pytest.mark.slow, pytest.mark.deep]


@pytest.fixture(scope="module", params=[pytest.param(c, marks=[] if c in OFTEN else DEEP) for c in CASES])
def whole(request, tmp_path_factory):
    """A run that was not stopped: its command line, directory, a copy of that, its outcome and what it said."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    words = (with_checkpoints if request.param == next(iter(CASES)) else keeping)(run_dir, **CASES[request.param])
    code, out, err = runs.call(words)
    assert code == 0, err
    shutil.copytree(run_dir, run_dir.with_name("copy"))
    return words, run_dir, run_dir.with_name("copy"), outcome(run_dir) | {"length": length(out)}


def length(out: str, else_: str = "") -> str:
    """What a run says of its epochs and steps before it trains; `else_` where no training is left."""
    return next((line for line in out.splitlines() if line.startswith("  length ")), else_)


def stopped(run_dir: Path, copy: Path) -> None:
    """Make a finished run's directory that of a run which was stopped after its last checkpoint."""
    shutil.rmtree(run_dir)
    shutil.copytree(copy, run_dir, ignore=shutil.ignore_patterns("result.json", "prompts.safetensors"))


def test_from_every_checkpoint_a_resumed_run_ends_as_the_whole_one(whole):
    words, run_dir, copy, expected = whole
    checkpoints = sorted(path.relative_to(copy) for path in copy.rglob("*.ckpt"))
    steps = {torch.load(copy / path, weights_only=True)["global_step"] for path in checkpoints}
    assert steps == set(range(1, expected["steps"] + 1)), "a checkpoint of every step"
    wrong = {}
    for path in checkpoints:
        stopped(run_dir, copy)
        code, out, err = runs.call([*words, "--ckpt_path", run_dir / path])
        assert code == 0, err
        said = {"length": length(out, expected["length"])}
        wrong[str(path)] = differences(expected, outcome(run_dir) | said)
    assert not any(wrong.values()), "\n".join(f"{path}: {found[:4]}" for path, found in wrong.items() if found)


@one_case
def test_a_run_goes_on_from_its_last_checkpoint_and_says_how_fast_it_was(whole):
    words, run_dir, copy, expected = whole
    stopped(run_dir, copy)
    kept = sorted(copy.glob("kept/step-epoch=0-*.ckpt"))[0]
    shutil.copy(kept, run_dir / "last.ckpt")
    code, out, err = runs.call([*words, "--ckpt_path", "last"])
    assert code == 0, err
    assert not differences(expected, outcome(run_dir) | {"length": length(out)})
    result = json.loads((run_dir / "result.json").read_text())
    assert 0 < result["seconds"] < 60
    assert result["examples_per_second"] * result["seconds"] == pytest.approx(10 * EPOCHS)
    assert max(runs.column(run_dir, "speed/examples_per_second")) < 1e5
    assert min(runs.column(run_dir, "speed/examples_per_second")) > 1


@one_case
def test_a_checkpoint_begins_a_run_in_another_directory_which_gets_all_its_files(whole, tmp_path):
    words, run_dir, copy, expected = whole
    stopped(run_dir, copy)
    before = runs.contents(run_dir)
    (first,) = run_dir.glob("kept/step-epoch=0-step=1.ckpt")
    code, out, err = runs.call([*words, "--run_dir", tmp_path / "run", "--ckpt_path", first])
    assert code == 0, err
    found = outcome(tmp_path / "run") | {"length": length(out)}
    assert differences(expected | {"rows": 0}, found | {"rows": 0}) == []
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["ckpt_path"] is None
    result, other = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "run", copy))
    assert result["went_on_from"] == {"step": 1, "checkpoint": str(first)}
    assert (result["changes"], result["hash"], other["went_on_from"]) == ([], other["hash"], None)
    kept = {path for path in before if not path.startswith("kept/")}  # those are where the options say
    assert {path: data for path, data in runs.contents(run_dir).items() if path in kept} == {
        path: before[path] for path in kept
    }


# ---- a run that ends within an epoch


def test_max_steps_within_the_epoch_ends_with_a_validation_and_a_best_checkpoint(tmp_path):
    result = runs.fit(tmp_path / "run", data__batch_size=1, trainer__max_steps=3)
    best, last = (torch.load(tmp_path / "run" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["global_step"], last["global_step"], result["steps"]) == (3, 3, 3)
    assert result["best_epoch"] == 1
    validated = [row for row in runs.rows(tmp_path / "run") if "val/accuracy" in row]
    assert [row["step"] for row in validated] == ["2"], "the third step, counted from 0"
    assert float(validated[0]["val/accuracy"]) == pytest.approx(result["metrics"]["validation"]["accuracy"])


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.parametrize(
    "options", [{"trainer__check_val_every_n_epoch": 2}, {"trainer__limit_val_batches": 0}], ids=lambda o: next(iter(o))
)
def test_max_steps_do_not_validate_where_the_trainer_is_not_to(tmp_path, options):
    runs.fit(tmp_path / "run", data__batch_size=1, trainer__max_steps=3, **options)
    assert not (tmp_path / "run" / "best.ckpt").exists()
    assert not runs.column(tmp_path / "run", "val/accuracy")
