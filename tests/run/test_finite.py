"""NaN and overflow end a run with one sentence, or cost the steps that may be left out; nothing of them is kept."""

import json
import math

import pytest
import runs
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from ptune.errors import InputError, TrainingError
from ptune.methods.linear_probe import LinearProbe
from ptune.run import finite
from ptune.run.checkpoints import RunCheckpoint
from ptune.run.finite import Finite

OPTIONS = {"trainer__max_epochs": 2, "model__lr": 0.05}
STEPS = 3
"""Of an epoch."""


class Spoil(Callback):
    """Makes the gradient infinite at some steps, counted from 1, or the loss of the last process, or that of the
    validations behind them NaN."""

    def __init__(self, steps: list[int], what: str = "gradient") -> None:
        self.steps, self.what = steps, what

    def on_after_backward(self, trainer, pl_module):
        if self.what == "gradient" and trainer.global_step + 1 in self.steps:
            next(iter(pl_module.trained().values())).grad[..., :1] = math.inf

    def on_train_start(self, trainer, pl_module):
        if self.what == "loss" and trainer.global_rank == trainer.world_size - 1:
            loss = pl_module.head.loss
            pl_module.head.loss = lambda scores, batch: self._infinite(trainer, *loss(scores, batch))

    def _infinite(self, trainer, total, count):
        return total + (math.inf if trainer.global_step + 1 in self.steps else 0), count

    def on_validation_batch_end(self, trainer, pl_module, *_):
        if self.what == "validation" and trainer.global_step in self.steps:
            pl_module.loss_sum.update(math.nan)


def spoiling(steps, what="gradient") -> list[str]:
    """Options that add the callback."""
    name = f"--trainer.callbacks+={__name__}.Spoil"
    return [name, f"--trainer.callbacks.steps={steps}", f"--trainer.callbacks.what={what}"]


def step_of(run_dir, name) -> int:
    """The step of a checkpoint, whose tensors must be finite."""
    checkpoint = torch.load(run_dir / f"{name}.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    return checkpoint["global_step"]


# ---- whole runs


@pytest.mark.parametrize(("method", "rate"), [("PTuningV2", 1e30), ("FineTuning", 1e6), ("PromptTuning", 1e37)])
def test_a_rate_that_explodes_ends_in_a_sentence_and_leaves_nothing(tmp_path, method, rate):
    words = runs.line(tmp_path, method, **OPTIONS | {"model__lr": rate})
    code, _, err = runs.call(words)
    assert code == 1
    assert err.startswith("error: the loss or its gradient is not finite at step 2 (learning rate: ")
    assert "there is no checkpoint yet, so begin again with another --run_dir and a lower --model.lr;" in err
    assert err.count("\n") == 1
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".ckpt", ".safetensors")]
    assert not (tmp_path / "result.json").exists()


def test_a_rate_that_adamw_cannot_compute_with_is_refused_before_anything_is_written(tmp_path):
    code, _, err = runs.call(runs.line(tmp_path / "run", **OPTIONS | {"model__lr": 1e38}))
    assert code == 2
    assert "lr: 1e+38 overflows fp32 in AdamW's step; use 1e+37 or less." in err
    assert not (tmp_path / "run").exists()


def test_the_sentence_names_step_rate_and_the_checkpoint_from_which_the_run_goes_on(tmp_path):
    words = runs.line(tmp_path, **OPTIONS, model__schedule="constant", model__head_lr=0.01)
    code, _, err = runs.call([*words, *spoiling([STEPS + 1])])
    assert (code, err) == (
        1,
        "error: the loss or its gradient is not finite at step 4 (learning rate: prompt 0.05, head 0.01); "
        f"go on from step 3 with the same command, --ckpt_path {tmp_path / 'last.ckpt'}, a lower --model.lr and "
        "--allow_change lr; --skip_nonfinite N leaves out up to N such steps.\n",
    )
    assert step_of(tmp_path, "last") == step_of(tmp_path, "best") == STEPS
    advice = ["--ckpt_path", tmp_path / "last.ckpt", "--model.lr", "0.02", "--allow_change", "lr"]
    code, _, err = runs.call([*words, *advice])
    assert code == 0, err
    assert json.loads((tmp_path / "result.json").read_text())["skipped_steps"] == 0
    assert runs.column(tmp_path, "lr-AdamW/prompt")[-1] == 0.02


def test_steps_that_may_be_left_out_are_counted_and_no_more_of_them(tmp_path):
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, *spoiling([1, 5, 6]), "--skip_nonfinite", "2"])
    assert code == 1
    assert "note: step 1 is left out: its loss or gradient is not finite (1 of at most 2)." in err
    assert "error: the loss or its gradient is not finite at step 6 " in err
    assert "go on from step 3 " in err
    code, _, err = runs.call([*words, *spoiling([5]), "--skip_nonfinite", "2", "--ckpt_path", "auto"])
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["skipped_steps"], result["steps"]) == (2, 2 * STEPS), "a resumed run goes on counting"


def test_an_epoch_whose_validation_is_not_finite_is_neither_best_nor_last(tmp_path):
    code, _, err = runs.call([*runs.line(tmp_path, **OPTIONS), *spoiling([2 * STEPS], "validation")])
    assert code == 0, err
    assert "note: epoch 2: the validation loss is not finite; no checkpoint is written." in err
    assert step_of(tmp_path, "last") == step_of(tmp_path, "best") == STEPS
    assert json.loads((tmp_path / "result.json").read_text())["best_epoch"] == 1


def test_a_run_whose_validations_are_all_not_finite_has_no_result(tmp_path):
    code, _, err = runs.call([*runs.line(tmp_path, **OPTIONS), *spoiling([3, 6], "validation")])
    assert code == 1
    assert "error: the loss of every validation is not finite at step 6 " in err
    assert not (tmp_path / "result.json").exists()


def test_a_negative_number_of_steps_is_refused(tmp_path):
    code, _, err = runs.call([*runs.line(tmp_path / "run"), "--skip_nonfinite", "-1"])
    assert (code, err) == (2, "error: option --skip_nonfinite -1: must be at least 0.\n")


# ---- steps


@pytest.fixture
def probe(tiny, head):
    """A linear probe whose rate does not change."""
    return LinearProbe(backbone=tiny("bert"), head=head("classify"), lr=0.1, schedule="constant", head_dropout=0.0)


@pytest.fixture
def batches(batch):
    """Four batches of different texts."""
    return [batch(labels=torch.tensor([0, 1, 2]), seed=seed) for seed in range(4)]


@pytest.fixture
def watching(tmp_path):
    """The callback without a run: watching(skip=1)."""

    def build(skip=0):
        return Finite(RunCheckpoint(str(tmp_path), "best", "val/accuracy"), RunCheckpoint(str(tmp_path), "last"), skip)

    return build


class States(Callback):
    """Keeps the trained tensors and the optimizer's moments behind every step."""

    def __init__(self):
        self.kept = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        self.kept.append([value.detach().clone() for value in [*pl_module.trained().values(), *moments]])


def same(one, other) -> bool:
    """Whether two states are equal bit for bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_step_that_is_left_out_moves_neither_weights_nor_moments(fit, probe, batches, watching):
    states = States()
    fit(probe, batches, callbacks=[Spoil([3]), watching(skip=1), states])
    first, second, third, fourth = states.kept
    assert same(second, third)
    assert not same(first, second)
    assert not same(third, fourth)


def test_nothing_changes_where_everything_is_finite(fit, tiny, head, batches, watching):
    kept = []
    for callbacks in ([], [watching()], [watching(skip=1)]):
        torch.manual_seed(0)
        model, states = LinearProbe(backbone=tiny("bert"), head=head("classify"), lr=0.1), States()
        fit(model, batches, callbacks=[*callbacks, states], gradient_clip_val=0.1)
        kept.append(states.kept)
    assert all(same(a, b) and same(a, c) for a, b, c in zip(*kept, strict=True))


@pytest.mark.parametrize(("accumulated", "step"), [(1, 3), (2, 2)])
def test_a_loss_that_is_not_finite_stops_though_its_gradient_is_finite(
    fit, probe, batches, watching, accumulated, step
):
    with pytest.raises(TrainingError, match=f"not finite at step {step} "):
        fit(probe, batches, callbacks=[Spoil([step], "loss"), watching()], accumulate_grad_batches=accumulated)
    assert all(value.isfinite().all() for value in probe.trained().values())


def test_on_another_device_a_step_is_read_behind_the_next_backward_pass(fit, probe, batches, watching, monkeypatch):
    class Copied:
        def synchronize(self):
            pass

    monkeypatch.setattr(finite, "_to_host", lambda value: (value, Copied()))
    states = States()
    with pytest.raises(TrainingError, match="at step 2 "):
        fit(probe, batches, callbacks=[Spoil([2]), watching(), states])
    assert len(states.kept) == 2, "stopped within the third step"
    with pytest.raises(TrainingError, match="at step 4 "):
        fit(LinearProbe(**probe_of(probe)), batches, callbacks=[Spoil([4]), watching()])  # read before the validation
    states = States()
    fit(LinearProbe(**probe_of(probe)), batches, callbacks=[Spoil([2]), watching(skip=1), states])
    assert same(states.kept[0], states.kept[1]), "where steps may be left out, each is waited for"


def probe_of(model) -> dict:
    """The arguments of another probe."""
    return {name: model.hparams[name] for name in ("backbone", "head", "lr", "schedule")}


@pytest.mark.parametrize(("scale", "stops"), [(2.0**16, False), (1.0, True)])
def test_a_gradient_that_the_scaler_has_made_infinite_does_not_stop(fit, probe, batches, watching, scale, stops):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    states, options = States(), {"plugins": [plugin]}
    if stops:
        with pytest.raises(TrainingError, match="at step 2 "):
            fit(probe, batches, callbacks=[Spoil([2]), watching(), states], **options)
        return
    fit(probe, batches, callbacks=[Spoil([2]), watching(), states], **options)
    assert same(states.kept[0], states.kept[1]), "the scaler leaves it out"
    assert plugin.scaler.get_scale() == scale / 2


def test_no_checkpoint_holds_a_tensor_that_is_not_finite(fit, probe, batches, watching, tmp_path):
    runner = fit(probe, batches, callbacks=[watching()])
    runner.save_checkpoint(tmp_path / "kept.ckpt")
    before = (tmp_path / "kept.ckpt").read_bytes()
    probe.head.linear.bias.data[1] = math.nan
    with pytest.raises(
        TrainingError, match=r"^head\.linear\.bias is not finite at step 4 \(learning rate: head 0\.1\)"
    ):
        runner.save_checkpoint(tmp_path / "kept.ckpt")
    assert (tmp_path / "kept.ckpt").read_bytes() == before


def test_values_that_are_finite_are_kept_though_their_sum_is_not(fit, probe, batches, watching, tmp_path):
    runner = fit(probe, batches, callbacks=[watching()])
    probe.head.linear.bias.data[:2] = torch.finfo(torch.float32).max
    assert not probe.head.linear.bias.sum().isfinite()
    runner.save_checkpoint(tmp_path / "kept.ckpt")
    assert (tmp_path / "kept.ckpt").exists()


def test_a_rate_of_each_group_has_the_same_bound(tiny, head):
    for name in ("lr", "head_lr"):
        with pytest.raises(InputError, match=rf"^{name}: 1e\+38 overflows fp32"):
            LinearProbe(backbone=tiny("bert"), head=head("classify"), **{name: 1e38})
