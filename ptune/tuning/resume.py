"""What Lightning leaves out when it resumes a run, so that the resumed run equals the uninterrupted one bit for bit.

Private names of Lightning stand in this file, in `ptune.run.workers`, and in two places that read or set a model's
`_trainer` (`ptune.tuning.stored`, `ptune.methods.multitask_prompt`): here they are
`_accelerator_connector`, `_batches_that_stepped`, `_checkpoint_connector`, `_load_combined_loader_states`, the loops'
attributes and the keys of their state. They were read from Lightning 2.6.6
(lightning/pytorch/loops/fit_loop.py and training_epoch_loop.py).
"""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR

from ptune.tuning import schedules


def prepare(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """Let a resumed run start at the right place; call it before Lightning restores the state of its loops.

    - A checkpoint that was written before a validation was due continues with that validation. Lightning would continue
      with the next batch or epoch, and the best checkpoint might be missed.
    - So does a checkpoint of the last of `max_steps` steps, with which Lightning would do nothing.
    - With `max_steps`, Lightning takes the end of an epoch for a place within it and would skip what is left of the
      run, so the limit is lifted while the state is restored.
    - Learning rates and weight decay are those of the model that goes on, not those of the checkpoint.

    Args:
        checkpoint: the checkpoint; the state of its loops and its rates are changed in place.
        trainer: the trainer that resumes.
    """
    _take_rates(checkpoint, trainer)
    loops, loop, limit = checkpoint["loops"]["fit_loop"], trainer.fit_loop, trainer.max_steps
    loop.setup_data()  # computes `val_check_batch`
    batches, epochs, every = (
        loops["epoch_loop.batch_progress"],
        loops["epoch_progress"]["current"],
        trainer.check_val_every_n_epoch,
    )
    final = 0 <= limit <= checkpoint["global_step"] and epochs["processed"] < epochs["started"]
    between = batches["current"]["completed"] < batches["current"]["processed"]
    done = batches["current" if every else "total"]["processed"]
    validates = trainer.enable_validation and (epochs["completed"] + 1) % (every or 1) == 0
    if validates and (final or (between and done % trainer.val_check_batch == 0)):
        for count in ("current", "total"):
            batches[count]["completed"] = batches[count]["processed"]
        # Validation counts as started but not completed, so Lightning runs it again.
        validation = loops["epoch_loop.val_loop.batch_progress"]
        validation["current"] = dict.fromkeys(validation["current"], 0)
        validation["total"] = validation["current"] | {"ready": 1, "started": 1}
    if limit == -1:
        return
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    loop.epoch_loop.max_steps = -1

    def restore(*_: Any) -> None:
        loop.epoch_loop.max_steps = limit

    # Where no step is left, training does not start.
    callbacks.insert(0, LambdaCallback(on_train_start=restore, on_fit_end=restore))
    if final and validates:
        trainer.val_check_batch = done  # type: ignore[assignment]  # validate after the batch of the last step
        # Behind the other callbacks, which read the limit when training starts, and until that validation.
        lift = LambdaCallback(
            on_train_start=lambda *_: setattr(loop.epoch_loop, "max_steps", limit + 1),
            on_validation_start=lambda *_: setattr(loop.epoch_loop, "max_steps", limit),
        )
        callbacks.append(lift)


def _take_rates(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """Give a checkpoint the rates that the trainer's own optimizer and scheduler have at the checkpoint's step.

    They are the same, bit for bit, where model and trainer are as they were. The optimizer's moments stay.
    """
    if not checkpoint.get("optimizer_states"):
        return
    (saved,), (state,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    (optimizer,), own = trainer.optimizers, trainer.lr_scheduler_configs[0].scheduler
    assert isinstance(own, LambdaLR | ExponentialLR)
    by_epoch = isinstance(own, ExponentialLR)
    if by_epoch != ("gamma" in state):  # the one counts epochs, the other steps
        loops = checkpoint["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]["started"] - (
            not loops["epoch_loop.batch_progress"]["is_last_batch"]
        )
        done = epochs if by_epoch else checkpoint["global_step"]
        state.clear()
        state |= own.state_dict() | {"last_epoch": done, "_step_count": done + 1}
    rates = schedules.rates(own, state["last_epoch"])
    state |= {"base_lrs": list(own.base_lrs), "_last_lr": rates}
    if by_epoch:
        state["gamma"] = own.gamma
    for group, fresh, rate in zip(saved["param_groups"], optimizer.param_groups, rates, strict=True):
        group |= {"lr": rate, "initial_lr": fresh["initial_lr"], "weight_decay": fresh["weight_decay"]}


def place_loader(trainer: L.Trainer) -> None:
    """Restore the position of the training loader within the epoch; call it when training starts.

    Lightning restores it when it creates the loader, which is too early where a schedule asks for the number of steps.
    """
    trainer.fit_loop._load_combined_loader_states()


def log_at(trainer: L.Trainer, step: int) -> None:
    """Set the step under which loggers write the next metrics.

    Lightning counts it apart from `trainer.global_step`; the count is one short when a finished run is resumed.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def within_epoch(trainer: L.Trainer) -> bool:
    """Whether training has ended with batches of its epoch left.

    `trainer.is_last_batch` does not say so for a run that was resumed for its last validation alone.
    """
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return batches.processed < trainer.num_training_batches


def cluster(trainer: L.Trainer) -> ClusterEnvironment:
    """What has started the processes of the run, such as Slurm."""
    return trainer._accelerator_connector.cluster_environment


def save(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint in this process alone; `Trainer.save_checkpoint` waits for all processes.

    Within a validation, it is the checkpoint of the batch before: the resumed run begins with that validation.
    """
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    if trainer.validating:
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in ("current", "total"):
            batches[count]["completed"] = batches[count]["processed"] - 1
    trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
