"""The history of a run: an entry for each validation of its training, and what has cut it short."""

from datetime import timedelta
from types import SimpleNamespace
from unittest import mock

import pytest
import runs
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn

from ptune.run.callbacks import Telemetry
from ptune.run.history import History, limits, seconds_to

MODEL = SimpleNamespace(split="val")


def trainer(step=0, accuracy=0.5, fn=TrainerFn.FITTING, sanity=False, accumulated=1):
    """A trainer that has done some steps, and whose last validation has measured this."""
    metrics = {"val/accuracy": torch.tensor(accuracy), "train/loss": torch.tensor(9.0)}
    return mock.Mock(
        **{"current_epoch": 0, "global_step": step, "callback_metrics": metrics, "state.fn": fn},
        sanity_checking=sanity,
        accumulate_grad_batches=accumulated,
    )


def train(history, *losses, accumulated=1):
    """Train on batches of these losses."""
    for loss in losses:
        outputs = {"loss": torch.tensor(loss) / accumulated}
        history.on_train_batch_end(trainer(accumulated=accumulated), MODEL, outputs, None, 0)


def resumed(history) -> History:
    """A run that goes on from a checkpoint of this moment."""
    found = History(Telemetry())
    found.load_state_dict(history.state_dict())
    return found


def test_the_training_loss_is_the_mean_since_the_entry_before_also_of_batches_that_share_a_step():
    history = History(Telemetry())
    train(history, 1.0, 3.0, accumulated=2)
    history.on_validation_end(trainer(1), MODEL)
    train(history, 5.0, 8.0, accumulated=2)
    history.on_validation_end(trainer(2), MODEL)
    assert [(entry["step"], entry["train_loss"]) for entry in history.entries] == [(1, 2.0), (2, 6.5)]
    assert history.entries[0]["metrics"] == {"accuracy": 0.5}


def test_a_run_that_goes_on_before_within_or_behind_a_validation_has_the_same_entries():
    whole = History(Telemetry())
    for step, losses in enumerate([(0.1, 0.2), (0.3, 0.7)], 1):
        train(whole, *losses)
        whole.on_validation_end(trainer(step), MODEL)
    within = History(Telemetry())
    train(within, 0.1)
    within = resumed(within)
    train(within, 0.2)
    within.on_validation_end(trainer(1), MODEL)
    at = resumed(within)
    at.on_validation_end(trainer(1), MODEL)  # from the best checkpoint, whose validation is repeated
    for history in (at, resumed(within)):
        train(history, 0.3, 0.7)
        history.on_validation_end(trainer(2), MODEL)
        assert history.entries == whole.entries


@pytest.mark.parametrize("options", [{"fn": TrainerFn.VALIDATING}, {"sanity": True}])
def test_a_validation_that_is_not_of_the_training_is_no_entry(options):
    history = History(Telemetry())
    history.on_validation_end(trainer(**options), MODEL)
    assert history.entries == []


def test_a_checkpoint_of_before_there_was_a_history_does_not_say_its_seconds():
    assert seconds_to({"callbacks": {}}) is None


def test_a_validation_within_an_epoch_is_an_entry_and_a_result_says_what_has_cut_it_short(tmp_path):
    options = {"trainer__limit_train_batches": 2, "trainer__max_steps": 3, "trainer__val_check_interval": 1}
    result = runs.fit(tmp_path, trainer__limit_val_batches=1, trainer__limit_test_batches=0, **options)
    assert [(entry["epoch"], entry["step"]) for entry in result["history"]] == [(1, 1), (1, 2), (2, 3)]
    assert result["limits"] == [
        f"trainer.{name}" for name in ("limit_train_batches", "max_steps", "limit_val_batches", "limit_test_batches")
    ]


@pytest.mark.parametrize(("seconds", "found"), [(0, ["trainer.max_time"]), (60, [])])
def test_training_that_ends_by_the_clock_is_cut_short(seconds, found):
    timer = Timer(timedelta(seconds=seconds))
    assert limits(mock.Mock(train_dataloader=None, max_steps=-1, callbacks=[timer])) == found


def test_a_limit_that_cuts_nothing_is_not_named(tmp_path):
    options = {"trainer__limit_train_batches": 3, "trainer__limit_val_batches": 9, "trainer__max_steps": 3}
    assert runs.fit(tmp_path, **options)["limits"] == []
