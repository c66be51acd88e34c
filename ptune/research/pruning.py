"""Pruning: a run of a trial reports each validation to the study, and ends where the study stops the trial.

The callback is no option of the run, so a run that is pruned and one that is not have the same configuration and, as
far as both train, the same numbers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from ptune.errors import InputError, TrainingError, nearest
from ptune.research.cells import CELL, PRUNED_AT
from ptune.research.storage import Store
from ptune.research.study import PRUNED, kept
from ptune.run.history import History
from ptune.tuning.tuner import PromptTuner


@final
@dataclass(frozen=True)
class Reporting:
    """The command of a trial's runs, in place of `main`.

    Where a trial has several seeds, the run of the first one reports, and all are stopped.
    """

    main: Callable[[list[str], list[Callback]], Any]
    """It takes the words of a command line and further callbacks, as `ptune.fit.main`."""
    store: Store
    metric: str | None
    first_seed: str | None
    """None where a trial has but one run."""

    def __call__(self, words: list[str]) -> Any:
        """Run a cell of a trial."""
        run_dir = Path(words[words.index("--run_dir") + 1])
        values = json.loads((run_dir / CELL).read_text(encoding="utf-8"))["values"]
        reports = values.get("seed") == self.first_seed
        return self.main(words, [Pruning(self.store, int(values["trial"]), self.metric, reports)])


@final
class Pruning(Callback):
    """Stops the run before its next step when the study stops the trial; the last validation of a run stops nothing.

    Args:
        store: the study.
        number: number of the trial.
        metric: the metric that is reported; the monitored one if None.
        reports: whether this run reports; another one of the trial does if not.
    """

    def __init__(self, store: Store, number: int, metric: str | None, reports: bool) -> None:
        self.store, self.number, self.metric, self.reports = store, number, metric, reports
        self._due = False

    @cached_property
    def study(self) -> optuna.Study:
        """The study."""
        return self.store.study()

    @cached_property
    def trial(self) -> optuna.Trial:
        """The trial, to report to."""
        return optuna.Trial(self.study, kept(self.study, self.number)._trial_id)

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Refuse several processes, of which one would be stopped while the others wait for it."""
        if trainer.world_size > 1:
            raise InputError("pruner: a run of several processes cannot be stopped by a search; choose pruner: none.")

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Report."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._due = True
        done, metric = _validations(trainer), self.metric or pl_module.head_spec.monitor
        if metric not in done[-1]["metrics"]:
            raise InputError(f"metric: {metric!r} is none of this run's; {nearest(metric, done[-1]['metrics'])}")
        # A run that goes on may begin with the validation that it has ended with.
        if self.reports and len(done) not in kept(self.study, self.number).intermediate_values:
            self.trial.report(done[-1]["metrics"][metric], len(done))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: PromptTuner, batch: object, batch_idx: int) -> None:
        """Stop, now that the checkpoint of the validation is written."""
        if not self._due:
            return
        self._due = False
        at = f"{PRUNED_AT} {trainer.global_step}, after validation {len(_validations(trainer))}"
        why = f"{at}, by comparison with other trials."
        if self.reports and self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, why)
        if PRUNED in kept(self.study, self.number).user_attrs:
            raise TrainingError(why)


def _validations(trainer: L.Trainer) -> list[dict[str, Any]]:
    """What the validations of a run have measured; a run that goes on has those before it was stopped."""
    return next(each for each in trainer.callbacks if isinstance(each, History)).entries  # type: ignore[attr-defined]
