"""The end of a run: the best checkpoint's metrics on every split, `result.json`, and the table that is printed."""

import json
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import WandbLogger

from ptune.run.callbacks import peak_memory

if TYPE_CHECKING:
    from ptune.run.cli import CLI

PACKAGES = ("ptune", "torch", "lightning", "transformers", "datasets", "torchmetrics")


def evaluate(cli: "CLI") -> dict[str, Any]:
    """Evaluate the best checkpoint of a run on each labelled split; the whole of `result.json`."""
    model, trainer = cli.model, cli.trainer
    steps, epochs = trainer.global_step, trainer.current_epoch
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps  # what rows are logged at; one less if resumed at the end
    best_epoch = 0
    if cli.best.best_model_path:  # empty where training ended before its first validation: then the last state counts
        best = torch.load(cli.best.best_model_path, map_location=model.device, weights_only=True)
        model.load_state_dict(best["state_dict"], strict=False)  # it holds trained tensors only
        best_epoch = best["epoch"] + 1
    return report(cli, steps, epochs, best_epoch)


def report(cli: "CLI", steps: int, epochs: int, best_epoch: int) -> dict[str, Any]:
    """The metrics of the model as it is on each labelled split, and what it took to get there."""
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    metrics, majority, start = {}, {}, time.perf_counter()
    rows, limit = {}, trainer.limit_val_batches
    for i, split in enumerate(data.splits):
        trainer.limit_val_batches = trainer.limit_test_batches if i else limit  # all but the monitored split are tests
        if not trainer.limit_val_batches:
            continue
        model.split, loader = split, data.loader(split)
        (values,) = trainer.validate(model, loader, verbose=False)
        metrics[split] = {name.removeprefix(f"{split}/"): value for name, value in values.items()}
        majority[split] = data.majority(split)
        batches = int(sum(trainer.num_val_batches)) * trainer.world_size
        rows[split] = min(len(loader.dataset), batches * data.batch_size)
    trainer.limit_val_batches = limit
    evaluation_seconds, work = time.perf_counter() - start, cli.telemetry.state_dict()
    return {
        "task": data.task.name,
        "method": type(model).__name__,
        "backbone": model.hparams.backbone,
        "fingerprint": model.backbone.fingerprint,
        "seed": cli.config.seed_everything,
        "monitor": model.head_spec.monitor,
        "metrics": metrics,
        "majority": majority,
        "rows": rows,
        "best_epoch": best_epoch,
        "trained_parameters": sum(value.numel() for value in model.trained().values()),
        "total_parameters": sum(value.numel() for value in model.parameters()),
        "steps": steps,
        "epochs": epochs,
        "batch_size": data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
        "seconds": work["seconds"],
        "evaluation_seconds": evaluation_seconds,
        "examples_per_second": work["examples"] / work["seconds"] if work["seconds"] else None,
        "tokens_per_second": work["tokens"] / work["seconds"] if work["seconds"] else None,
        "peak_memory_mib": peak_memory(),
        "pooling": model.backbone.pooling,
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "config": cli.flat_config(),
    }


def write(cli: "CLI", result: dict[str, Any]) -> None:
    """`prompts.safetensors` and `result.json` into the run directory, the result into W&B's summary."""
    run_dir = Path(cli.run_dir)
    cli.model.save_prompts(run_dir / "prompts.safetensors")
    _save(cli, result, run_dir / "result.json")


def write_evaluation(cli: "CLI", result: dict[str, Any]) -> None:
    """`evaluation.json`, or `evaluation-2.json` and so on beside earlier ones, and the result into W&B's summary."""
    _save(cli, result, next(path for path in _free(Path(cli.run_dir)) if not path.exists()))


def _free(run_dir: Path) -> Iterator[Path]:
    yield run_dir / "evaluation.json"
    yield from (run_dir / f"evaluation-{i}.json" for i in count(2))


def _save(cli: "CLI", result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=2, default=str) + "\n")
    for logger in cli.trainer.loggers:
        if isinstance(logger, WandbLogger):
            metrics = {f"{split}/{k}": v for split, values in result["metrics"].items() for k, v in values.items()}
            numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
            logger.experiment.summary.update({f"final/{key}": value for key, value in (metrics | numbers).items()})
            logger.experiment.finish()


def table(result: dict[str, Any]) -> str:
    """The printed table: a row a split and metric, the majority baseline beside it."""
    rows = [("split", "metric", "majority", result["method"])]
    for split, values in result["metrics"].items():
        for name, value in values.items():
            base = result["majority"][split].get(name)
            scale = 1 if name == "loss" else 100
            star = " *" if name == result["monitor"] else ""
            rows.append((split, name + star, "-" if base is None else f"{base * scale:.2f}", f"{value * scale:.2f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    form = f"{{:<{widths[0]}}}  {{:<{widths[1]}}}  {{:>{widths[2]}}}  {{:>{widths[3]}}}"
    lines = [form.format(*row) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    trained, seconds, evaluation = (result[key] for key in ("trained_parameters", "seconds", "evaluation_seconds"))
    time_of = f"{seconds:.0f} s" if seconds else f"{evaluation:.0f} s of evaluation"
    foot = f"{trained:,} trained parameters, {time_of}, {result['peak_memory_mib']:.0f} MiB; metrics in %"
    if result["best_epoch"]:
        foot += f", * chose the checkpoint (epoch {result['best_epoch']})"
    elif result["steps"]:
        foot += ", of the last step: no validation chose a checkpoint"
    return "\n".join([f"\n{result['task']} with {result['method']}, seed {result['seed']}", *lines, foot])


def _git_commit() -> str | None:
    """Commit of the working directory, None outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
