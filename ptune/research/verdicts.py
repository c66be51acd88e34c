"""The tables of a report that compare each row with a reference, over seeds and seed by seed."""

import math
from collections.abc import Sequence

from ptune.research.comparison import Comparison, SeedPair, corrected
from ptune.research.statistics import EXACT, LEVEL, RESAMPLES, Difference, holm
from ptune.research.summary import keys
from ptune.research.tables import Cell, Table, word

NONE = "no difference shown"
INTERVALS = f"{100 * LEVEL:g} % interval"
RULE = f"A difference is shown where p with Holm's correction over the whole table is below {1 - LEVEL:.2f}."
BOOTSTRAP = (
    "Differences are of means over seeds, in points. Interval and p are those of a t distribution whose variance is "
    "that of the seeds and that of the rows; the latter is from a paired bootstrap, in which the metric is measured "
    f"anew on {RESAMPLES:,} resamples of the rows (ptune.research.statistics)."
)
MCNEMAR = (
    f"McNemar's test, exact below {EXACT} rows that one side alone answers right, else chi-square with continuity "
    "correction"
)


def against(comparisons: Sequence[Comparison]) -> Table:
    """A row a comparison: the difference, its interval, and whether it is shown."""
    rows = []
    for each, p in zip(comparisons, corrected(comparisons), strict=True):
        about = (*keys(each.group), word(each.reference.name), word(each.split), word(each.group.monitor))
        if each.difference is None:
            text = f"{each.why.removesuffix('.')}: not compared"
            rows.append((*about, *[Cell()] * 5, word(text), Cell(), Cell()))
            continue
        verdict = _verdict(each.difference.value, p)
        seeds = f"{len(each.group.runs)}, {len(each.reference.runs)}"
        numbers = [*interval_cells(each.difference), p_cell(each.difference.p), p_cell(p)]
        rows.append((*about, *numbers, word(verdict), Cell(f"{each.rows:,}", float(each.rows)), word(seeds)))
    columns = ["reference", "split", "metric", "difference", "from", "to", "p", "p, Holm", "finding", "rows", "seeds"]
    notes = [BOOTSTRAP, f"From and to are the {INTERVALS} of the difference.", RULE]
    if any(each.exact for each in comparisons):
        notes.append(f"Between single runs, where the metric is the share of right rows, p is that of {MCNEMAR}.")
    if any(each.difference and 1 in (len(each.group.runs), len(each.reference.runs)) for each in comparisons):
        notes.append("What has one seed has no known variance among seeds: the interval does not contain it.")
    return _table("comparisons", "Comparisons", comparisons, columns, rows, notes)


def by_seed(comparisons: Sequence[Comparison]) -> Table | None:
    """A row a pair of runs with one seed; None where there is none but single runs, which `against` has tested."""
    found: list[tuple[Comparison, SeedPair]] = [
        (each, pair) for each in comparisons if not each.exact for pair in each.pairs
    ]
    if not found:
        return None
    rows = []
    for (each, pair), p in zip(found, holm([pair.p for _, pair in found]), strict=True):
        counts = [Cell(f"{count:,}", float(count)) for count in (pair.own, pair.reference)]
        verdict = _verdict(pair.own - pair.reference, p)
        about = (*keys(each.group), word(each.reference.name), word(str(pair.seed)))
        rows.append((*about, *counts, p_cell(pair.p), p_cell(p), word(verdict)))
    columns = ["reference", "seed", "right alone", "reference alone", "p", "p, Holm", "finding"]
    notes = [
        f"Two runs of one seed, row by row: {MCNEMAR}. It is about these runs, not about other seeds.",
        RULE,
    ]
    return _table("mcnemar", "Seed by seed", comparisons, columns, rows, notes)


def _table(
    name: str, title: str, comparisons: Sequence[Comparison], columns: list[str], rows: list, notes: Sequence[str]
) -> Table:
    own = tuple(comparisons[0].group.values)
    return Table(name, title, (*own, *columns), len(own), tuple(rows), tuple(notes))


def _verdict(value: float, p: float) -> str:
    if math.isnan(p):
        return "no variance: not tested"
    return NONE if p >= 1 - LEVEL else "better" if value > 0 else "worse"


def interval_cells(found: Difference) -> list[Cell]:
    """A difference and the two ends of its interval, in points."""
    return [points(found.value), *map(points, found.interval)]


def points(value: float) -> Cell:
    """A difference of fractions, in points with its sign."""
    return Cell(f"{100 * value:+.1f}".replace("-", "−"), value)


def p_cell(value: float) -> Cell:
    """A p-value; nothing where there is none."""
    if math.isnan(value):
        return Cell()
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)
