"""`python -m ptune.report RUNS...`: tables of runs, mean ± deviation over seeds, compared by what they answered.

    python -m ptune.report runs/mine --against FineTuning --out report.html --out report.csv
    python -m ptune.report experiments/results/lecture --by method template --tables results cost
    python -m ptune.report runs/mine --keep results/mine

RUNS are run directories, result files that were kept as JSON, or folders that are searched for both. Runs that failed
or are not finished stay visible, and in a row of a grid the seeds that only its other rows have. An evaluation that was
made later (`ptune.evaluate`) adds the splits that it alone has measured to its run's row. Without `--out` the report is
printed as Markdown, with it a line of what was written. With `--keep`, results and predictions are written into a
folder that can be committed: small, without private parts, and the same report is made of it.
"""

import shlex
import sys
from pathlib import Path

from ptune.errors import InputError, nearest, note
from ptune.research import budgets, evaluations, groups, mixtures, overall, summary, verdicts
from ptune.research.comparison import Comparison, reference_of
from ptune.research.formats import FORMATS
from ptune.research.keeping import keep
from ptune.research.tables import Report
from ptune.run.command import Arguments, guarded, place
from ptune.run.disk import told
from ptune.tuning.saving import write_whole

PURPOSE = "Report on runs: means over seeds, costs, and paired comparisons with a reference."


def report(places: list[Path], by: list[str], against: list[str], tables: list[str], title: str = "Report") -> Report:
    """The report on the runs at these places.

    Args:
        places: run directories, result files, or folders of them.
        by: columns that runs are grouped by; empty for task, method and what else differs.
        against: what marks the reference, such as `FineTuning` or `length=20`; empty for no comparison.
        tables: names of the tables; empty for all.
        title: title of the report.

    Raises:
        InputError: there are no runs, or a column, reference or table does not exist.
    """
    found, notes = evaluations.read(places)
    rows = groups.grouped(found, by)
    comparisons: list[Comparison] = []
    if against:
        from ptune.research.pairing import compared  # it imports torch, which takes seconds

        comparisons = compared(rows, reference_of(rows, against))
    made = [
        summary.results(rows),
        overall.side_by_side(rows, comparisons),
        summary.others(rows),
        summary.costs(rows),
        budgets.at_equal(rows, "steps", "At equal steps"),
        budgets.at_equal(rows, "seconds", "At equal time"),
        *((verdicts.against(comparisons), verdicts.by_seed(comparisons)) if comparisons else ()),
        overall.over_tasks(rows, comparisons),
        summary.runs(rows),
    ]
    every = {table.name: table for table in made if table}
    for name in tables:
        if name not in every:
            raise InputError(f"--tables {name}: there is no such table; {nearest(name, every)}")
    return Report(title, tuple(every[name] for name in tables or every), (*mixtures.mixtures(rows), *notes), rows)


def run(args: list[str]) -> None:
    """Read, compare, and write or print."""
    options = _arguments().parse_args(args)
    for file in options.out:
        if file.suffix not in FORMATS:
            raise InputError(
                f"--out {file}: no format has the suffix {file.suffix!r}; choose one of {', '.join(FORMATS)}."
            )
        if not file.absolute().parent.is_dir():
            raise InputError(f"--out {file}: there is no folder {file.parent}; make it first.")
        if file.is_dir():
            raise InputError(f"--out {file}: is a folder; give a file in it, such as {file / 'report.html'}.")
    named = [str(each) for each in options.runs]
    if options.keep:
        count = keep(evaluations.read(options.runs)[0], options.keep)
        print(f"{count} results are kept; next: python -m ptune.report {shlex.quote(str(options.keep))}")
        if not options.out:
            return
    title = f"Report on {', '.join(named[:3])}" + f" and {len(named) - 3} more" * (len(named) > 3)
    made = report(options.runs, options.by, options.against, options.tables, title)
    if not options.out:
        print(FORMATS[".md"](made), end="")
        return
    for sentence in made.notes:
        note(sentence)
    texts = {file: FORMATS[file.suffix](made) for file in options.out}
    for file, text in texts.items():
        with told(file.parent, "choose another --out."):
            write_whole(file, text.encode())
    print(f"{' and '.join(map(str, texts))} written: {_counts(made)}")


def _counts(made: Report) -> str:
    """The numbers of runs and of comparisons that a report tells, in words."""
    opened = sum(len(group.open) for group in made.groups)
    counts = {
        "run": sum(len(group.runs) for group in made.groups) + opened,
        "comparison": sum(len(table.rows) for table in made.tables if table.name == "comparisons"),
    }
    words = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items()]
    if opened:
        words[0] += f" ({opened} of them failed, pruned or not finished)"
    return ", ".join(words)


def _arguments() -> Arguments:
    arguments = Arguments("python -m ptune.report", description=PURPOSE)
    arguments.add_argument("runs", nargs="+", type=place, help="run directories, result files, or folders of them")
    what = "columns that runs are grouped by, e.g. task method length; by default task, method and what else differs"
    arguments.add_argument("--by", nargs="+", default=[], metavar="COLUMN", help=what)
    what = "the row that the others are compared with: a method, or column=value, more than one if need be"
    arguments.add_argument("--against", nargs="+", default=[], metavar="VALUE", help=what)
    names = "results, scores, metrics, cost, steps, seconds, comparisons, mcnemar, tasks, runs"
    what = f"names of the tables: {names}; default: all"
    arguments.add_argument("--tables", nargs="+", default=[], metavar="NAME", help=what)
    what = (
        "a file: .md, .csv, .tex, .html (a page with pictures) or .svg (one picture: quality against trained "
        "parameters); may be given several times; without it the report is printed as Markdown"
    )
    arguments.add_argument("--out", type=place, action="append", default=[], metavar="FILE", help=what)
    what = "a new folder to commit: results and predictions of the finished runs, small and without private parts"
    arguments.add_argument("--keep", type=place, metavar="FOLDER", help=what)
    return arguments


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return guarded(lambda: run(sys.argv[1:] if args is None else args))


if __name__ == "__main__":
    sys.exit(main())
