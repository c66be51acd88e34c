"""What a search has found: a line for each trial that ends, a table of all, and the recipe of the best one."""

from collections import Counter
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from ptune.errors import printable
from ptune.research import recipe
from ptune.research.space import shown
from ptune.research.study import ERROR, MEASURED, Trials

WORDS = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def line(trial: FrozenTrial, trials: Trials) -> str:
    """A trial that has ended, and how far the search is."""
    count, best = Counter(WORDS[each.state] for each in trials.all), trials.best
    states = ", ".join(f"{count[word]} {word}" for word in ("pruned", "failed", "running") if count[word])
    done = f"{count['done']} of {trials.count} done{states and f', {states}'}"
    found = f"; best {_shown(best.value)} of trial {best.number}" if best else ""
    start = f"{WORDS[trial.state]:<7}trial {trial.number}  {_shown(trial.value)}"
    return printable(f"{start}  {shown(trials.point(trial))}   [{done}{found}]")


def table(trials: Trials) -> str:
    """All trials, the best first, those without a value last; where they were pruned, their last value."""
    sign = -1 if trials.space.direction == "maximize" else 1
    names = [each.name for each in trials.space.dimensions]
    rows = [("trial", "state", "value", *names)]
    states = list(WORDS)
    ended = [(states.index(each.state), sign * (each.value or 0), each.number, each) for each in trials.all]
    for *_, trial in sorted(ended, key=lambda row: row[:3]):
        point = trials.point(trial)
        values = [_shown(point.get(name)) for name in names]
        rows.append((str(trial.number), WORDS[trial.state], _shown(trial.value), *values))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        printable("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
        for row in rows
    ]
    title = f"\nvalue: {_measured(trials)}" if trials.best else ""
    return "\n".join([title, lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def failures(trials: Trials) -> list[str]:
    """A sentence for each trial that failed."""
    failed = [each for each in trials.all if each.state == TrialState.FAIL]
    return [
        printable(f"failed: trial {each.number}: {each.user_attrs.get(ERROR, 'no reason is kept')}") for each in failed
    ]


def write_recipe(trials: Trials, file: Path, command: str) -> None:
    """Write the options of the best trial, which there must be."""
    best = trials.best
    assert best is not None
    (first, *_) = trials.space.cells(best.number, trials.point(best))
    header = [
        f"Trial {best.number}, the best of {len(trials.all)}: {_measured(trials)} {_shown(best.value)}. Found by:",
        f"  {command}",
        "To train with them again:",
        f"  python -m ptune.fit --config {file}",
    ]
    recipe.write(file, list(first.words), [printable(text) for text in header])


def _measured(trials: Trials) -> str:
    """What the value of a trial is."""
    assert trials.best is not None
    seeds = trials.space.seeds
    mean = f", mean of seeds {', '.join(map(str, seeds))}," if len(seeds) > 1 else ""
    return trials.best.user_attrs[MEASURED] + mean


def _shown(value: object) -> str:
    """A number with four digits; `-` for none."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
