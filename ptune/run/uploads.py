"""What Weights & Biases is given at the end of a run: the result, mistakes and samples of each split, the prompt."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

from ptune.errors import first_line, note
from ptune.heads.mistakes import Mistakes
from ptune.run.predictions import Predictions
from ptune.run.result import Run, logged_as
from ptune.run.samples import draw, sample

if TYPE_CHECKING:
    from wandb import Artifact

LARGEST = 100 * 2**20
"""Bytes of the largest file of trained tensors that is uploaded; that of a fine-tuned backbone stays in the run
directory."""
POINTS = 1000
"""Largest number of points of a picture."""
LABELS = 50
"""Largest number of labels of a confusion matrix that is drawn; of more, there is a table."""
KEYS = (
    *("task", "method", "backbone", "fingerprint", "seed", "hash"),
    *("trained_parameters", "best_epoch", "chosen_on", "monitor"),
)
"""What the artifact says of the run, as the result has it."""
CONFUSION = {"Actual": "gold", "Predicted": "answer", "nPredictions": "count"}
"""The columns of W&B's picture of a confusion matrix."""


def upload(run: Run, result: dict[str, Any], samples: int) -> None:
    """Give the result to Weights & Biases where the run is logged there, and end its run.

    An error is a note: the result lies in the run directory already.

    Args:
        run: the run.
        result: its result.
        samples: largest number of rows of each split that are uploaded with their texts.
    """
    for logger in run.trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            experiment = logger.experiment
            try:
                experiment.summary.update(final(run, result))
                experiment.log(tables(run, samples))
                if artifact := prompt(run, result, experiment.name):
                    experiment.log_artifact(artifact, aliases=["best" if result["best_epoch"] else "last"])
                experiment.finish()
            except (wandb.Error, OSError) as error:
                place = Path(experiment.dir).parent
                note(f"W&B has not got all of the run ({first_line(error)}); upload it with: wandb sync {place}")


def final(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the result by their names in the summary.

    `final/score` is the metric that chooses the checkpoint, under one name for all tasks.
    """
    metrics = {logged_as(split, run.data): values for split, values in result["metrics"].items()}
    flat = {f"{split}/{name}": value for split, values in metrics.items() for name, value in values.items()}
    flat |= {name: value for name, value in result.items() if isinstance(value, int | float)}
    flat["score"] = metrics.get("val", {}).get(result["monitor"])
    return {f"final/{name}": value for name, value in flat.items()}


def tables(run: Run, samples: int) -> dict[str, Any]:
    """`errors/<split>` and `samples/<split>`, and `residuals/<split>` of numbers, as W&B's types."""
    import wandb

    found: dict[str, Any] = {}
    kept = run.predictions
    if kept is None:
        return found
    for split in kept.rows:
        name, mistakes = logged_as(split, run.data), kept.mistakes(split)
        found[f"errors/{name}"] = picture(mistakes, f"{run.data.task.name}, {split}", len(kept.head.labels))
        if mistakes.kind == "numbers":
            found[f"residuals/{name}"] = residuals(kept, split, run.identity.seed)
        if samples:
            found[f"samples/{name}"] = wandb.Table(*sample(run.data, kept, split, samples, run.identity.seed))
    return found


def picture(mistakes: Mistakes, title: str, labels: int) -> Any:
    """A table of mistakes; confusions of not too many labels as a matrix."""
    import wandb

    table = wandb.Table([*mistakes.columns], [[*row] for row in mistakes.rows])
    if mistakes.kind != "confusion" or not 0 < labels <= LABELS:
        return table
    return wandb.plot_table("wandb/confusion_matrix/v1", table, CONFUSION, {"title": title})


def residuals(kept: Predictions, split: str, seed: int) -> Any:
    """The errors of some rows, drawn over their gold numbers."""
    import wandb

    columns = kept.columns(split)
    places = draw(columns["right"], POINTS, f"{seed}/{split}")
    pairs = [(columns["gold"][place], columns["answer"][place]) for place in places]
    table = wandb.Table(["gold", "error"], [[gold, answer - gold] for gold, answer in pairs])
    return wandb.plot.scatter(table, "gold", "error", title=f"answer - gold, {split}")


def prompt(run: Run, result: dict[str, Any], name: str) -> "Artifact | None":
    """The trained tensors as an artifact that says what they are; None where there are none, or they are too large."""
    import wandb

    file = run.directory / "prompts.safetensors"
    if not run.model.trains or not file.is_file() or file.stat().st_size > LARGEST:
        return None
    metadata = {key: result[key] for key in KEYS} | {"score": final(run, result)["final/score"]}
    artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name)[-128:], "prompt", metadata=metadata)
    artifact.add_file(str(file.resolve()), policy="immutable")  # it is never written again, and need not be copied
    return artifact
