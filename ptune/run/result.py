"""The end of a run: the best checkpoint's metrics on every split, `result.json`, and the table that is printed."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, final

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ptune.data.base import TaskData
from ptune.errors import printable
from ptune.run import checkpoints, history, machine
from ptune.run.callbacks import peak_memory
from ptune.run.directory import PREDICTIONS
from ptune.run.identity import Identity
from ptune.run.predictions import Predictions
from ptune.tuning import resume
from ptune.tuning.saving import write_whole
from ptune.tuning.tuner import PromptTuner


@final
@dataclass(frozen=True)
class Run:
    """One run: what it is made of and where it is."""

    directory: Path
    model: PromptTuner
    data: TaskData
    trainer: Trainer
    identity: Identity
    columns: dict[str, Any]
    """The run's choices, flat."""
    about: dict[str, Any]
    """When, where and with which code it is made (`ptune.run.machine.about`)."""
    changes: Sequence[dict[str, Any]] = ()
    """Options that were changed when the run was resumed: `step`, and `options` with the values before and since."""
    predictions: Predictions | None = None
    """Keeps what is answered in the evaluation, if that is to be written."""


@final
@dataclass(frozen=True)
class Progress:
    """How far the model that is evaluated was trained."""

    steps: int
    epochs: int
    best_epoch: int
    """Epoch of the checkpoint that is evaluated, from 1; 0 where it is the last state."""
    work: dict[str, Any]
    """Seconds, examples and tokens of training, steps that were left out because they were not finite, and the entries
    of the history."""
    seconds_to_best: float | None = None
    """Seconds of training until the validation that chose the checkpoint."""


UNTRAINED = Progress(0, 0, 0, {"seconds": 0.0, "examples": 0, "tokens": 0, "skipped": 0, "entries": []})


def load_best(run: Run, best: ModelCheckpoint, work: dict[str, Any]) -> Progress:
    """Give the model the best checkpoint's tensors; it keeps the last ones where no validation chose a checkpoint."""
    steps, epochs = run.trainer.global_step, run.trainer.current_epoch
    resume.log_at(run.trainer, steps)
    if not best.best_model_path:
        return Progress(steps, epochs, 0, work)
    checkpoint = checkpoints.read(Path(best.best_model_path), run.directory)
    run.model.load_state_dict(checkpoint["state_dict"], strict=False)  # it holds trained tensors only
    return Progress(steps, epochs, checkpoint["epoch"] + 1, work, history.seconds_to(checkpoint))


def report(run: Run, progress: Progress) -> dict[str, Any]:
    """The metrics of the model as it is on each labelled split, and what it took to get there."""
    model, data, trainer, work = run.model, run.data, run.trainer, progress.work
    metrics, majority, rows, start = {}, {}, {}, time.perf_counter()
    limit, limits = trainer.limit_val_batches, history.limits(trainer)
    trainer.callbacks += [run.predictions] if run.predictions else []  # type: ignore[attr-defined]
    for i, split in enumerate(data.splits):
        option = "limit_test_batches" if i else "limit_val_batches"  # all but the monitored split are tests
        trainer.limit_val_batches = trainer.limit_test_batches if i else limit
        if not trainer.limit_val_batches:
            limits.append(f"trainer.{option}")
            continue
        model.split, loader = f"final/{logged_as(split, data)}", data.loader(split)
        if run.predictions:
            run.predictions.split = split
        (values,) = trainer.validate(model, loader, verbose=False)
        metrics[split] = {name.removeprefix(f"{model.split}/"): value for name, value in values.items()}
        majority[split] = data.majority(split)
        batches = int(sum(trainer.num_val_batches)) * trainer.world_size
        rows[split] = min(len(loader.dataset), batches * data.batch_size)  # type: ignore[arg-type]
        limits += [f"trainer.{option}"] * (rows[split] < len(loader.dataset))  # type: ignore[arg-type]
    trainer.limit_val_batches = limit
    return {
        "task": data.task.name,
        "method": type(model).__name__,
        "backbone": model.hparams["backbone"],
        "fingerprint": model.backbone.fingerprint,
        "seed": run.identity.seed,
        "hash": run.identity.hash,
        "data_fingerprint": run.identity.data,
        "monitor": model.head_spec.monitor,
        "chosen_on": data.chosen_on if progress.best_epoch else None,
        "held_out": data.holdout,
        "chosen_on_test": data.chosen_on_test and bool(progress.best_epoch),
        "metrics": metrics,
        "majority": majority,
        "rows": rows,
        "limits": list(dict.fromkeys(limits)),
        "best_epoch": progress.best_epoch,
        "seconds_to_best": progress.seconds_to_best,
        "history": work["entries"],
        "trained_parameters": sum(value.numel() for value in model.trained().values()),
        "total_parameters": sum(value.numel() for value in model.parameters()),
        "steps": progress.steps,
        "skipped_steps": work["skipped"],
        "epochs": progress.epochs,
        "batch_size": data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
        "seconds": work["seconds"],
        "evaluation_seconds": time.perf_counter() - start,
        "examples_per_second": work["examples"] / work["seconds"] if work["seconds"] else None,
        "tokens_per_second": work["tokens"] / work["seconds"] if work["seconds"] else None,
        "peak_memory_mib": peak_memory(),
        "pooling": model.backbone.pooling,
        "device": machine.device(trainer.strategy.root_device),
        "precision": trainer.precision,
        **run.about,
        "changes": list(run.changes),
        "config": run.columns,
    }


def logged_as(split: str, data: TaskData) -> str:
    """The name of a split where numbers are logged: `val` for the one that chooses the checkpoint, else its own."""
    return "val" if split == data.splits[0] else split


def write(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """`prompts.safetensors`, those of single tasks, `predictions` and `result.json` into the run directory.

    Returns what `result.json` holds: the result and, under `bytes`, the size of `prompts.safetensors`.
    """
    prompts = run.directory / "prompts.safetensors"
    run.model.save_prompts(prompts)
    run.model.save_parts(run.directory / "prompts")
    if run.predictions:
        run.predictions.write(run.directory / PREDICTIONS)
    return _save(run, result | {"bytes": prompts.stat().st_size}, run.directory / "result.json")


def progress_of(file: Path) -> Progress:
    """How far the tensors of a finished run's `prompts.safetensors` were trained, as the `result.json` beside it says.

    The steps are those of the whole run. `UNTRAINED` where that file is not there, or torn.
    """
    try:
        found = _beside(file)
        return Progress(found["steps"], found["epochs"], found["best_epoch"], UNTRAINED.work)
    except KeyError:
        return UNTRAINED


def of_checkpoint(result: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The result of an evaluation, which says whose checkpoint it measures.

    `hash` is the run's, as its `result.json` has it, null where the run is not finished; `evaluation_hash` is that of
    the evaluation's own options and rows, which may be others; `checkpoint` is the name of the file.
    """
    return result | {
        "hash": _beside(checkpoint).get("hash"),
        "evaluation_hash": result["hash"],
        "checkpoint": checkpoint.name,
    }


def _beside(file: Path) -> dict[str, Any]:
    """What the `result.json` in the folder of a file holds; {} where there is none, or it is torn."""
    try:
        found = json.loads(file.with_name("result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_evaluation(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """`evaluation.json`, or `evaluation-2.json` and so on beside earlier ones, and the predictions.

    Their folder is named in the file. Returns what the file holds.
    """
    if run.predictions:
        folder = _free(run.directory, PREDICTIONS)
        run.predictions.write(folder)
        result = result | {"predictions": folder.name}
    return _save(run, result, _free(run.directory, "evaluation", ".json"))


def _free(run_dir: Path, name: str, suffix: str = "") -> Path:
    """The first of name, name-2, name-3 and so on that is not there."""
    names = chain([name], (f"{name}-{i}" for i in count(2)))
    return next(path for path in (run_dir / f"{name}{suffix}" for name in names) if not path.exists())


def _save(run: Run, result: dict[str, Any], path: Path) -> dict[str, Any]:
    result = _plain(result)
    write_whole(path, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    return result


def _plain(value: Any) -> Any:
    """A result in JSON's types: a number that JSON does not have is None, an object is its text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)


def table(result: dict[str, Any]) -> str:
    """The printed table: a row a split and metric, the majority baseline beside it."""
    rows = [("split", "metric", "majority", result["method"])]
    for split, values in result["metrics"].items():
        for name, value in values.items():
            base = result["majority"][split].get(name)
            scale = 1 if name == "loss" else 100
            star = " *" if name == result["monitor"] else ""
            rows.append(
                (printable(split), name + star, "-" if base is None else f"{base * scale:.2f}", f"{value * scale:.2f}")
            )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    form = f"{{:<{widths[0]}}}  {{:<{widths[1]}}}  {{:>{widths[2]}}}  {{:>{widths[3]}}}"
    lines = [printable(form.format(*row)) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    trained, seconds, evaluation = (result[key] for key in ("trained_parameters", "seconds", "evaluation_seconds"))
    time_of = f"{seconds:.0f} s" if seconds else f"{evaluation:.0f} s of evaluation"
    foot = f"{trained:,} trained parameters, {time_of}, {result['peak_memory_mib']:.0f} MiB; metrics in %"
    if result["best_epoch"]:
        foot += f", * chose the checkpoint (epoch {result['best_epoch']})"
        if share := result.get("held_out"):
            foot += f"\nThe checkpoint is chosen on {100 * share:g} % of the training rows, held out of training."
        if result["chosen_on_test"]:
            foot += (
                f"\nThe checkpoint is chosen on {result['chosen_on']} itself, so its metrics are no held-out result."
            )
    elif result["steps"]:
        foot += ", of the last step: no validation chose a checkpoint"
    elif trained:
        foot += ", before any training step"
    title = f"{result['task']} with {result['method']}, seed {result['seed']}, in {result['config']['run_dir']}"
    return "\n".join(["", printable(title), *lines, foot])
