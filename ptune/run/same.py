"""Whether a resumed run is the run that was stopped: the same options, data, metric and precision.

A checkpoint holds what it is compared with under the key `run`. Checkpoints of older versions have none: they are
compared with the `config.yaml` of their directory.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.data.base import TaskData
from ptune.errors import InputError, nearest
from ptune.run import catalog
from ptune.run.folder import Start
from ptune.run.resolved import FREE, Options, options, precision, stored
from ptune.tuning.schedules import needs_total
from ptune.tuning.tuner import PromptTuner

Changes = dict[str, tuple[Any, Any]]
"""For each option that differs, its value before and now."""

LIMITS = ("trainer.max_epochs", "trainer.max_steps")
ROWS = ("data.", "seed_everything")
"""How options begin that decide which rows there are, or their order."""
NOT_ROWS = ("data.path", "data.workers", "data.pad_to_multiple_of", "data.batch_size")
ORDER = ("data.batch_size", "trainer.devices", "trainer.num_nodes", "trainer.limit_train_batches", "seed_everything")
"""Options that decide, beside the rows themselves, which rows the batches of an epoch have."""

WHOLE = {"data", "monitor"}
"""What is compared beside options, as `--allow_change` names it: the rows, the metric that chooses the checkpoint."""
ACCUMULATED = "trainer.accumulate_grad_batches"


@final
class Provenance(Callback):
    """Puts into every checkpoint what a resumed run is compared with.

    Args:
        config: the resolved options as YAML.
        data: the data module, set up when the first checkpoint is written.
    """

    def __init__(self, config: str, data: TaskData) -> None:
        self.config = config
        self.data = data
        self.changes: list[dict[str, Any]] = []
        """What was changed on resuming: the `step`, and under `options` the value before and since by option."""
        self.went_on_from: dict[str, Any] | None = None
        """The `step` and the path of the `checkpoint` of another run that this one went on from."""
        self._notes: list[str] = []

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return self.data.fingerprints()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: PromptTuner, checkpoint: dict[str, Any]) -> None:
        """Add it, in the process that writes."""
        if trainer.is_global_zero:
            checkpoint["run"] = {
                "config": self.config,
                "fingerprints": self._fingerprints,
                "monitor": pl_module.monitor,
                "precision": trainer.precision,
                "processes": trainer.world_size,
                "changes": self.changes,
                "went_on_from": self.went_on_from,
            }

    def check(self, trainer: L.Trainer, model: PromptTuner, run_dir: Path, start: Start, allowed: str | None) -> None:
        """Compare a run that goes on with its checkpoint and `config.yaml`; what is changed is told when it trains.

        An option may have the value of the checkpoint, or the one in `config.yaml`: a change that was allowed stays
        allowed where the run was stopped before its next checkpoint.

        Args:
            trainer: the trainer, before its fit.
            model: the model, its backbone not loaded yet.
            run_dir: the run directory.
            start: where it goes on from; of a checkpoint elsewhere, the path is kept.
            allowed: the value of `--allow_change`.

        Raises:
            InputError: options or data differ and are not allowed to, a limit lies below what is done, or a change
                would alter the batches of an epoch that is partly done.
        """
        if rank_zero_only.rank != 0:
            return
        given, checkpoint = options(self.config) or {}, start.checkpoint
        may = _allowed(allowed, given)
        recorded = stored(run_dir / "config.yaml") or {}
        told = checkpoint.get("run") or {}
        before = (options(told["config"]) if told else None) or recorded
        if checkpoint:
            _check_limits(trainer, checkpoint)
        self.changes, self.went_on_from = list(told.get("changes", [])), told.get("went_on_from")
        compare = _Comparison(trainer, model, checkpoint, told)
        changed = compare.differences(before, given)
        of_file = compare.differences(recorded, given)
        wanted = {name: pair for name, pair in changed.items() if name in of_file or not _has(recorded, name)}
        splits = self._other_splits(told.get("fingerprints", {}))
        if splits and not any(name.startswith(ROWS) and name not in NOT_ROWS for name in changed):
            changed["data"] = wanted["data"] = (f"rows of {', '.join(splits)}", "others")
        if told and told["monitor"] != model.monitor and not any(name.startswith("data.task") for name in changed):
            changed["monitor"] = wanted["monitor"] = (told["monitor"], model.monitor)
        refused = {name: pair for name, pair in wanted.items() if not may(name)}
        if refused:
            raise _refusal(refused, given, model)
        if told and told["processes"] != trainer.world_size:  # dropout is drawn for each process, so it is told
            changed["trainer.devices"] = (told["processes"], trainer.world_size)
        if checkpoint:
            order = [name for name in changed if name in ORDER]
            _check_epoch(order + ["data"] * (self.data.task.train in splits), checkpoint)
            step = checkpoint["global_step"]
            if start.elsewhere:
                self.went_on_from = {"step": step, "checkpoint": start.path}
            if changed:
                pairs = {name: list(pair) for name, pair in changed.items()}
                self.changes.append({"step": step, "options": pairs})
                self._notes = [
                    f"note: after step {step}, {name} is {_shown(now)}; before, {_shown(before)}."
                    for name, (before, now) in changed.items()
                ]

    def _other_splits(self, fingerprints: dict[str, str]) -> list[str]:
        """Splits whose rows are not those of the checkpoint."""
        own = self._fingerprints if fingerprints else {}
        return sorted(split for split, digest in fingerprints.items() if own.get(split) != digest)

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Tell what is changed, now that nothing refuses it any more."""
        for note in self._notes:
            print(note, file=sys.stderr)


@final
@dataclass(frozen=True)
class _Comparison:
    """What a run is compared by, beside its options."""

    trainer: L.Trainer
    model: PromptTuner
    checkpoint: dict[str, Any]
    told: dict[str, Any]
    """What the checkpoint holds under `run`."""

    def differences(self, before: Options, given: Options) -> Changes:
        """The options that differ, in the order of the command's; {} where there are none to compare with."""
        if not before:
            return {}
        before, given = dict(before), dict(given)
        free = set(FREE) | self._free(before, given)
        other = {group for group in catalog.GROUPS if before.get(group) != given.get(group)}
        found: Changes = {}
        for name, now in given.items():
            group, _, rest = name.partition(".")
            if name in free or name not in before or (rest and group in other):
                continue
            was = before[name]
            if isinstance(was, dict) and isinstance(now, dict):  # a task's row
                pairs = {f"{name}.{key}": (was.get(key), now.get(key)) for key in {**was, **now}}
                found |= {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
            elif was != now:
                found[name] = (was, now)
        return found

    def _free(self, before: Options, given: Options) -> set[str]:
        """Further options that need not be equal; precision and processes of both sides become what they amount to."""
        told, free = self.told, set()
        for side in (before, given):
            side["trainer.precision"] = precision(side)
        if self.checkpoint:
            free |= {"model.backbone"}  # the checkpoint's fingerprint of the weights is compared
        schedule, warmup = self.model.hparams["schedule"], self.model.hparams["warmup"]
        if not self.checkpoint.get("global_step") or not needs_total(schedule, warmup):
            free |= set(LIMITS)
        if told:
            free |= {"data.path", "trainer.num_nodes"}  # the rows and the number of processes are
            before["trainer.precision"], given["trainer.precision"] = told["precision"], self.trainer.precision
            before["trainer.devices"], given["trainer.devices"] = told["processes"], self.trainer.world_size
            steps = [side["trainer.devices"] * side.get(ACCUMULATED, 1) for side in (before, given)]
            free |= {"trainer.devices", ACCUMULATED} if steps[0] == steps[1] else set()
        return free


def _has(recorded: Options, name: str) -> bool:
    """Whether a `config.yaml`, which may be torn, holds an option."""
    return ".".join(name.split(".")[:2]) in recorded


def _allowed(allowed: str | None, given: Options) -> Callable[[str], bool]:
    """Whether an option may change: it is named, by its last part, or by the section that it lies in."""
    names = [name.strip() for name in (allowed or "").split(",") if name.strip()]
    known = set(given) | WHOLE | set(catalog.GROUPS)
    known |= {f"{name}.{key}" for name, value in given.items() if isinstance(value, dict) for key in value}
    for name in names:
        if not any(_names(name, option) for option in known):
            near = nearest(name, {option.rpartition(".")[2] for option in known})
            raise InputError(f"allow_change: {name!r} is no option of this run; {near}")
    return lambda option: any(_names(name, option) for name in names)


def _names(name: str, option: str) -> bool:
    return option == name or option.endswith(f".{name}") or option.startswith(f"{name}.")


def _refusal(refused: Changes, given: Options, model: PromptTuner) -> InputError:
    """The sentence that names each option that differs."""
    shown = [f"{name} is {_shown(before)} there and {_shown(now)} here" for name, (before, now) in refused.items()]
    if any(name in LIMITS for name in refused):
        schedule = model.hparams["schedule"]
        shown[-1] += f" (with schedule {schedule!r} the steps that are done would have had other learning rates)"
    tails = [name.rpartition(".")[2] for name in {**given, **refused}]
    short = [tail if tails.count(tail := name.rpartition(".")[2]) == 1 else name for name in refused]
    fix = "choose another --run_dir" if "model" in refused else f"add --allow_change {','.join(short)}"
    return InputError(
        f"ckpt_path: the run was stopped with other options: {', '.join(shown)}; "
        f"repeat the command with the run's own, or {fix}."
    )


def _check_limits(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Raise InputError for a limit of training that lies below what is done."""
    done = checkpoint["global_step"]
    if 0 <= trainer.max_steps < done:
        raise InputError(f"trainer.max_steps: {trainer.max_steps}, but {done} steps are done; give {done} or more.")
    epochs = _epochs(checkpoint)["started"]
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs < epochs:
        raise InputError(
            f"trainer.max_epochs: {trainer.max_epochs}, but epoch {epochs} is begun; give {epochs} or more."
        )
    timer = next((each for each in trainer.callbacks if isinstance(each, Timer)), None)  # type: ignore[attr-defined]
    left = timer.time_remaining() if timer else None
    spent = checkpoint.get("callbacks", {}).get("Timer", {}).get("time_elapsed", {}).get("train", 0.0)
    if left is not None and left <= spent:
        raise InputError(f"trainer.max_time: {left:.0f} s, but {spent:.0f} s of training are done; give more.")


def _check_epoch(order: list[str], checkpoint: dict[str, Any]) -> None:
    """Raise InputError where changed options, `order`, give other batches to the rest of an epoch that is begun."""
    epochs = _epochs(checkpoint)
    if order and epochs["started"] > epochs["processed"]:
        raise InputError(
            f"ckpt_path: the checkpoint lies within epoch {epochs['started']}, and {', '.join(order)} would give other "
            "batches to its rest; change that when an epoch has ended."
        )


def _epochs(checkpoint: dict[str, Any]) -> dict[str, int]:
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]


def _shown(value: Any) -> str:
    """A value as it is written on the command line, not longer than a line."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return ascii(text)[1:-1][:200]
