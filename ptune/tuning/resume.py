"""What Lightning leaves out when it resumes a run, so that a resumed run is the one that was not stopped."""

from typing import Any

import lightning as L


def validate_next(loops: dict[str, Any], trainer: L.Trainer) -> None:
    """Where a checkpoint was written behind a batch and before the validation due there, begin with the validation.

    Lightning would go on with the next batch or epoch, and the best checkpoint might be missed. Call it before the
    state of the loops, `checkpoint["loops"]["fit_loop"]`, is restored.
    """
    trainer.fit_loop.setup_data()  # it knows then at which batches to validate
    batches, every = loops["epoch_loop.batch_progress"], trainer.check_val_every_n_epoch
    between = batches["current"]["completed"] < batches["current"]["processed"]
    epoch = loops["epoch_progress"]["current"]["completed"] + 1
    done = batches["current" if every else "total"]["processed"]
    if between and trainer.enable_validation and done % trainer.val_check_batch == 0 and epoch % (every or 1) == 0:
        for count in ("current", "total"):
            batches[count]["completed"] = batches[count]["processed"]
        validation = loops["epoch_loop.val_loop.batch_progress"]
        validation["current"] = dict.fromkeys(validation["current"], 0)
        validation["total"] = validation["current"] | {"ready": 1, "started": 1}  # begun: to be begun again


def place_loader(trainer: L.Trainer) -> None:
    """Put the loader to its place in the epoch; call it when training starts.

    Lightning does so when it makes the loader, which is too early where a schedule asks for the number of steps.
    """
    trainer.fit_loop._load_combined_loader_states()
