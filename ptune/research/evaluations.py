"""Evaluations of trained runs, made after them: the splits that they add are columns of the run's own row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ptune.research import records
from ptune.research.records import Record

FREE = ("run_dir", "path", "batch_size", "max_epochs", "accumulate_grad_batches")
"""Options of an evaluation that may differ from the run's: they decide neither how a row is read nor what is answered
to it. The rows themselves are compared by what is measured on them."""
EQUAL = 1e-4
"""Metrics of the same rows differ by less, on another device, too."""


def read(places: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The runs at these places, as `ptune.research.records.read` gives them, with their evaluations joined."""
    found, notes = records.read(places)
    return joined(found, notes), notes


def joined(found: Sequence[Record], notes: list[str]) -> list[Record]:
    """The records, each evaluation of a run among them joined with the run's.

    What chose the checkpoint stays with the run: an evaluation adds the splits that the run has not measured, with
    their metrics, majority baselines and predictions. One with other options, or of other rows under the same name of
    a split, is a row of its own, and so is one whose run is not among the records.

    Args:
        found: runs and evaluations.
        notes: gets a sentence for each evaluation that is left out, because it is of another checkpoint than its run's
            row.
    """
    runs = {record.result["hash"]: record for record in found if record.result.get("hash") and not record.evaluation}
    alone = []
    for each in (record for record in found if record.evaluation):
        run = runs.get(each.result["hash"])
        if run is None or not _alike(run, each):
            alone.append(each)
        elif each.result["checkpoint"] in _measured(run):
            runs[run.result["hash"]] = _with(run, each)
        else:
            of = each.result["checkpoint"]
            notes.append(f"left out: {each.place} is of {of}, its run's row of {_measured(run)[0]}.")
    own = [runs.get(record.result.get("hash", ""), record) for record in found if not record.evaluation]
    return own + alone


def _measured(run: Record) -> tuple[str, str]:
    """Names of the checkpoint that a run's result is of, and of the file with the same tensors that every run keeps."""
    return "best.ckpt" if run.result.get("best_epoch") else "last.ckpt", "prompts.safetensors"


def _alike(run: Record, evaluation: Record) -> bool:
    """Whether an evaluation reads rows as its run does, and the same ones in the splits that both have measured."""
    own, other = (
        {name: value for name, value in each.result["config"].items() if name not in FREE} for each in (run, evaluation)
    )
    if own != other:
        return False
    if evaluation.result["checkpoint"] not in _measured(run):  # whose metrics are others
        return run.result.get("data_fingerprint") == evaluation.result.get("data_fingerprint")
    values = (
        (value, evaluation.metric(split, name))
        for split in set(run.splits) & set(evaluation.splits)
        for name in run.result["metrics"][split]
        if (value := run.metric(split, name)) is not None
    )
    return all(again is not None and abs(value - again) < EQUAL for value, again in values)


def _with(run: Record, evaluation: Record) -> Record:
    """The run with the splits that its evaluation adds."""
    result = dict(run.result)
    for key in ("metrics", "majority", "rows"):
        own = run.result.get(key, {})
        result[key] = own | {k: v for k, v in evaluation.result.get(key, {}).items() if k not in own}
    limits = (limit for each in (run, evaluation) for limit in each.result.get("limits") or ())
    result["limits"] = list(dict.fromkeys(limits))
    return replace(run, result=result, predictions={**evaluation.predictions, **run.predictions})
