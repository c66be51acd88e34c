"""The trials of a search: which are to be run, what came of them, and how processes that share them keep apart."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Self, final

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, Trial, TrialState

from ptune.errors import InputError
from ptune.research.attempt import End
from ptune.research.cells import Cell
from ptune.research.space import Point, Space
from ptune.research.storage import Store
from ptune.run.disk import told

LOCK = ".sweep.lock"
"""Locked in the directory of the search while a trial is begun, and in that of a trial by the process that it is of."""
SPACE, ERROR, PRUNED, MEASURED = "space", "error", "pruned", "measured"
"""What is noted of a study: its space; and of a trial: why it failed, why it was stopped, and what its value is."""


@final
@dataclass
class _Own:
    """A trial that belongs to this process."""

    trial: Trial
    lock: FileLock
    left: list[Cell] = field(default_factory=list)
    """Runs that are not begun."""
    running: int = 0
    values: list[float] = field(default_factory=list)
    """Of the runs that have ended."""
    error: str = ""
    stopped: bool = False
    """A signal has stopped a run; the trial stays begun, to be gone on with."""


@final
class Trials:
    """The trials of a search that belong to this process, which begins them until there are `count` of all processes.

    A trial that was begun by a process that has ended is gone on with, from where its runs were left. The processes of
    a search share its directory. Each locks there what belongs to it, and the system frees the locks of one that ends.

    Args:
        space: what is searched over.
        store: the study.
        count: number of trials of all processes; of a grid, no more than its points.

    Raises:
        InputError: the study cannot be opened, or is that of another space.
    """

    def __init__(self, space: Space, store: Store, count: int) -> None:
        self.space, self.count = space, count
        self._own: dict[int, _Own] = {}
        self._lock = FileLock(space.runs / LOCK)
        with told(space.runs, "choose another --runs."):
            space.runs.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self.study = store.study()
            found = self.study.user_attrs.get(SPACE)
            if found is None:
                self.study.set_user_attr(SPACE, space.digest)
            elif found != space.digest:
                raise InputError(f"{space.runs} holds a search of another space; choose another --runs, or remove it.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for own in self._own.values():
            own.lock.release()

    def cells(self) -> Iterator[Cell]:
        """The runs of one trial after the other; what a trial is, is decided when its first run is asked for."""
        while own := self._next():
            while own.left and not own.error and not own.stopped:
                own.running += 1
                yield own.left.pop(0)

    def take(self, end: End) -> FrozenTrial | None:
        """Note how a run has ended; the trial, where it has ended with it."""
        own = self._own[int(end.cell.values["trial"])]
        own.running -= 1
        if end.stopped:
            own.stopped = True
        elif end.error:
            own.error = own.error or end.error
        else:
            measured, value = _measured(end.result or {}, self.space.metric)
            own.trial.set_user_attr(MEASURED, measured)
            if value is None:
                own.error = own.error or f"its {measured} is not a number."
            else:
                own.values.append(value)
        if own.running or own.stopped or (own.left and not own.error):
            return None
        return self._close(own)

    @property
    def all(self) -> list[FrozenTrial]:
        """Those of all processes."""
        return self.study.get_trials(deepcopy=False)

    @property
    def best(self) -> FrozenTrial | None:
        """The best one that has ended; of equal ones, the first."""
        ended = [trial for trial in self.all if trial.state == TrialState.COMPLETE]
        sign = 1 if self.space.direction == "maximize" else -1
        return max(ended, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def point(self, trial: FrozenTrial) -> Point:
        """The values of a trial."""
        return {each.name: trial.params[each.name] for each in self.space.dimensions if each.name in trial.params}

    def _next(self) -> _Own | None:
        """A trial to work on: one that nobody goes on with, or a new one; None where all have begun."""
        with self._lock:
            trials = self.study.get_trials(deepcopy=False)
            left = (each for each in trials if each.state == TrialState.RUNNING and each.number not in self._own)
            if own := next(filter(None, map(self._take_over, left)), None):
                return own
            waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
            number = min(waiting, default=len(trials))
            return self._begin(number, bool(waiting)) if number < self.count else None

    def _take_over(self, trial: FrozenTrial) -> _Own | None:
        place = self.space.place(trial.number)
        if not place.is_dir():
            raise InputError(
                f"trial {trial.number} of this search runs elsewhere: there is no {place}; give the directory that its "
                "processes share by --runs, or another --storage."
            )
        lock = FileLock(place / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return self._drawn(_Own(Trial(self.study, trial._trial_id), lock))

    def _begin(self, number: int, waiting: bool) -> _Own:
        place = self.space.place(number)
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / LOCK)
        lock.acquire()
        self.study.sampler = _sampler(self.space, number)
        if self.space.sampler == "grid" and not waiting:
            self.study.enqueue_trial(self.space.grid()[number])
        return self._drawn(_Own(self.study.ask(), lock))

    def _drawn(self, own: _Own) -> _Own:
        """The trial with its runs; one that is stopped already has none."""
        self._own[own.trial.number] = own
        try:
            point = self.space.point(lambda each: each.suggest(own.trial))
            own.left = self.space.cells(own.trial.number, point)
        except InputError as error:  # of values that do not go together
            own.error = str(error)
        own.error = kept(self.study, own.trial.number).user_attrs.get(PRUNED, own.error)
        if own.error:
            self._close(own)
        return own

    def _close(self, own: _Own) -> FrozenTrial:
        """Tell the study how a trial has ended."""
        number, value, state = own.trial.number, None, TrialState.COMPLETE
        if own.error:
            state = TrialState.PRUNED if PRUNED in kept(self.study, number).user_attrs else TrialState.FAIL
            own.trial.set_user_attr(ERROR, own.error)
        else:
            value = mean(own.values)
        try:
            return self.study.tell(number, value, state)
        finally:
            own.lock.release()


def kept(study: optuna.Study, number: int) -> FrozenTrial:
    """A trial as it is in the storage now."""
    return study.get_trials(deepcopy=False)[number]


def _measured(result: dict[str, Any], metric: str | None) -> tuple[str, float | None]:
    """What a trial is compared by, in words, and its number, on the split that chose the checkpoint."""
    metrics, metric = result.get("metrics") or {"nothing": {}}, metric or result.get("monitor")
    split = result.get("chosen_on") or next(iter(metrics))
    return f"{metric} on {split}", metrics[split].get(metric)


def _sampler(space: Space, number: int) -> optuna.samplers.BaseSampler:
    """What draws a trial's values. Its seed is the trial's own, so that two processes do not draw the same ones."""
    (seed,) = np.random.SeedSequence([space.sampler_seed, number]).generate_state(1).tolist()
    if space.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`, for conditions
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
