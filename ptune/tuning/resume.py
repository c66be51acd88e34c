"""What Lightning leaves out when it resumes a run, so that the resumed run equals the uninterrupted one bit for bit.

All private names of Lightning that ptune uses stand in this file: `_batches_that_stepped`, `_checkpoint_connector`,
`_load_combined_loader_states`, the loops' attributes and the keys of their state. They were read from Lightning 2.6.6
(lightning/pytorch/loops/fit_loop.py and training_epoch_loop.py).
"""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LambdaCallback


def prepare(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """Let a resumed run start at the right place; call it before Lightning restores the state of its loops.

    - A checkpoint that was written before a validation was due continues with that validation. Lightning would continue
      with the next batch or epoch, and the best checkpoint might be missed.
    - So does a checkpoint of the last of `max_steps` steps, with which Lightning would do nothing.
    - With `max_steps`, Lightning takes the end of an epoch for a place within it and would skip what is left of the
      run, so the limit is lifted while the state is restored.

    Args:
        checkpoint: the checkpoint; the state of its loops is changed in place.
        trainer: the trainer that resumes.
    """
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
    hook, lifted = "on_train_start", -1
    if final and validates:
        trainer.val_check_batch = done  # type: ignore[assignment]  # validate after the batch of the last step
        hook, lifted = "on_validation_start", limit + 1
    loop.epoch_loop.max_steps = lifted
    restore = LambdaCallback(**{hook: lambda *_: setattr(loop.epoch_loop, "max_steps", limit)})
    trainer.callbacks.insert(0, restore)  # type: ignore[attr-defined]


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


def save(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint in this process alone; `Trainer.save_checkpoint` waits for all processes."""
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
