"""The tables of a report that say what runs reached and what it took: a row a group, mean ± deviation over seeds."""

from collections.abc import Callable, Iterable, Sequence

from ptune.research.groups import Group
from ptune.research.records import Record
from ptune.research.tables import Cell, Table, amount, counted, measured, word

COSTS: dict[str, tuple[Callable[[Record], float | None], Callable[[list[float]], Cell]]] = {
    "trained parameters": (lambda run: run.cost("trained_parameters"), counted),
    "trained, %": (lambda run: share(run), lambda values: counted(values, ".3g")),
    "kB on disk": (lambda run: _thousands(run.cost("bytes")), counted),
    "steps": (lambda run: run.cost("steps"), counted),
    "epochs": (lambda run: run.cost("epochs"), counted),
    "seconds": (lambda run: run.cost("seconds"), amount),
    "seconds to best": (lambda run: run.cost("seconds_to_best"), amount),
    "examples/s": (lambda run: run.cost("examples_per_second"), amount),
    "peak memory, MiB": (lambda run: run.cost("peak_memory_mib"), amount),
}
"""The columns of costs: the number of a run, and the cell of those of a row."""


def share(run: Record) -> float | None:
    """Trained parameters in percent of all; None where they are not recorded."""
    trained, total = run.cost("trained_parameters"), run.cost("total_parameters")
    return None if trained is None or not total else 100 * trained / total


def _thousands(value: float | None) -> float | None:
    return None if value is None else value / 1000


def results(groups: Sequence[Group]) -> Table:
    """The metric that chose the checkpoints, on every split, with the majority baseline of the last one."""
    splits = list(dict.fromkeys(split for group in groups for run in group.runs for split in run.splits))
    rows = []
    for group in groups:
        own = [[run.metric(split, group.monitor) for run in group.runs] for split in splits]
        majority = [run.result.get("majority", {}).get(run.splits[-1], {}).get(group.monitor) for run in group.runs]
        epochs = [run.cost("best_epoch") or None for run in group.runs]
        trained = [run.cost("trained_parameters") for run in group.runs]
        cells = [
            *(_cell(values, 100, 1) for values in own),
            _cell(majority[:1] if len(set(majority)) == 1 else majority, 100, 1),
            counted(_known(epochs)),
            counted(_known(trained)),
        ]
        rows.append(row(group, [word(group.monitor), *cells, seeds(group)]))
    columns = ["metric", *splits, "majority", "best epoch", "trained parameters", "seeds"]
    notes = [
        "Metrics are percentages, mean ± sample standard deviation over seeds.",
        "The majority baseline always gives the most frequent training label; it is that of the row's last split.",
        *selection(groups),
    ]
    return table("results", "Results", groups, columns, rows, notes)


def others(groups: Sequence[Group]) -> Table:
    """Every other metric on every split, the loss among them."""
    splits = list(dict.fromkeys(split for group in groups for run in group.runs for split in run.splits))
    rows = []
    for group in groups:
        names = dict.fromkeys(
            name for run in group.runs for values in run.result["metrics"].values() for name in values
        )
        for name in [name for name in names if name != group.monitor] or [""]:
            scale, digits = (1, 3) if name == "loss" else (100, 1)
            own = [[run.metric(split, name) for run in group.runs] for split in splits]
            rows.append(row(group, [word(name), *(_cell(values, scale, digits) for values in own), seeds(group)]))
    notes = ["Metrics are percentages, losses are in nats; mean ± sample standard deviation over seeds."]
    return table("metrics", "Other metrics", groups, ["metric", *splits, "seeds"], rows, notes)


def costs(groups: Sequence[Group]) -> Table:
    """What training took, and what it left on the disk."""
    rows = [
        row(group, [*(cell(_known(map(of, group.runs))) for of, cell in COSTS.values()), seeds(group)])
        for group in groups
    ]
    notes = [
        "Seconds are those of training alone, without evaluations; what is on disk are the trained tensors that are "
        "kept for the task. Mean ± sample standard deviation over seeds.",
    ]
    return table("cost", "Cost", groups, [*COSTS, "seeds"], rows, notes)


def runs(groups: Sequence[Group]) -> Table:
    """A row a run: where it lies, and what it is."""
    rows = []
    for group in groups:
        for run in (*group.runs, *group.open):
            values = [run.metric(split, group.monitor) for split in (run.splits[:1] + run.splits[-1:])]
            words = [run.result.get(name) for name in ("hash", "date", "device")]
            ends = [_cell(values[:1], 100, 1), _cell(values[1:], 100, 1)] if values else [Cell(state(run)), Cell()]
            cells = [
                Cell("-" if run.seed is None else str(run.seed), run.seed),
                *ends,
                amount(_known([run.cost("seconds")])),
            ]
            rows.append(
                (*keys(group), *cells, *(word(str(each)) if each else Cell() for each in words), word(run.place))
            )
    columns = ["seed", "first split", "last split", "seconds", "hash", "date", "device", "place"]
    notes = ["The first split chooses the checkpoint; the last one is what methods are compared on. Both in percent."]
    return table("runs", "Runs", groups, columns, rows, notes)


def table(
    name: str,
    title: str,
    groups: Sequence[Group],
    columns: Sequence[str],
    rows: list[tuple[Cell, ...]],
    notes: Iterable,
) -> Table:
    """A table whose rows are about groups, without the columns that none of the runs has a value for."""
    first = len(groups[0].values)
    names = [*groups[0].values, *columns]
    kept = [i for i in range(len(names)) if i < first or any(line[i].text != "-" for line in rows)]
    lost = [names[i] for i in range(first, len(names)) if i not in kept]
    lost_note = [f"None of these runs has recorded: {', '.join(lost)}."] * bool(lost)
    return Table(
        name,
        title,
        tuple(names[i] for i in kept),
        first,
        tuple(tuple(line[i] for i in kept) for line in rows),
        (*notes, *lost_note, *failures(groups)),
    )


def keys(group: Group) -> tuple[Cell, ...]:
    """The cells that say what a row is about."""
    return tuple(word(value) if value else Cell("") for value in group.values.values())


def row(group: Group, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The row of a group; without a finished run it says why in the place of its first number."""
    if group.runs:
        return (*keys(group), *cells)
    why = state(min(group.open, key=lambda run: run.state))
    return (*keys(group), Cell(why, count=0), *(Cell(count=0) for _ in cells[2:]), cells[-1])


def state(run: Record) -> str:
    """What became of a run without a result, in words: of one that was pruned, at which step."""
    if run.state == "pruned":
        return run.error.partition(",")[0]
    return f"failed: {run.error}" if run.state == "failed" else run.state


def seeds(group: Group) -> Cell:
    """How many finished runs are behind a row, and which are not there; † marks runs that were cut short."""
    told = {"failed": [], "pruned": [], "unfinished": []}
    for run in group.open:
        told[run.state].append("?" if run.seed is None else str(run.seed))
    told["missing"] = [str(seed) for seed in group.missing]
    lacking = "".join(f", {word} {' '.join(found)}" for word, found in told.items() if found)
    cut = " †" * any(run.result.get("limits") for run in group.runs)
    return Cell(f"{len(group.runs)}{lacking}{cut}", float(len(group.runs)), count=len(group.runs))


def failures(groups: Sequence[Group]) -> list[str]:
    """A sentence for every run that failed, one for all that were pruned, and one for those that † marks."""
    found = [
        f"Failed: {group.task}, {group.name}, seed {'?' if run.seed is None else run.seed}: {run.error}"
        for group in groups
        for run in group.open
        if run.state == "failed"
    ]
    pruned = sum(run.state == "pruned" for group in groups for run in group.open)
    if pruned:
        found.append(f"Pruned: {pruned} run{'s' * (pruned > 1)}, which a search has stopped before the end.")
    cut = dict.fromkeys(
        str(limit) for group in groups for run in group.runs for limit in run.result.get("limits") or ()
    )
    return found + [f"† Not all of the data or of the training: cut by {', '.join(cut)}."] * bool(cut)


def selection(groups: Sequence[Group]) -> list[str]:
    """How the measured checkpoints were chosen, in words: the rule of most rows, then those of others by name."""
    rules: dict[str, dict[str, None]] = {}
    for group in groups:
        for run in group.runs:
            rules.setdefault(_rule(run), {})[f"{group.task} {group.name}"] = None
    usual, *rest = sorted(rules, key=lambda rule: -len(rules[rule])) or [""]
    exceptions = [f"Not so {', '.join(rules[rule])}: {rule[0].lower()}{rule[1:]}" for rule in rest]
    return [usual, *exceptions] if usual else []


def _rule(run: Record) -> str:
    found = run.result
    if not found.get("steps"):
        return "Nothing is trained, so nothing is chosen."
    if not found.get("best_epoch"):
        return "The last step is measured: no validation chose a checkpoint."
    split = found.get("chosen_on") or run.splits[0]
    rule = f"The epoch with the best value of the metric on {split} is measured"
    if found.get("held_out"):
        return f"{rule}; that is {100 * found['held_out']:g} % of the training rows, held out of training."
    if found.get("chosen_on_test"):
        return f"{rule}; that is the test split itself, so its metrics are no held-out result."
    return f"{rule}."


def _cell(values: Iterable[float | None], scale: float = 1.0, digits: int = 0) -> Cell:
    return measured(_known(values), scale, digits)


def _known(values: Iterable[float | None]) -> list[float]:
    """The numbers that there are."""
    return [value for value in values if value is not None]
