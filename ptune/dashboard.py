"""`python -m ptune.dashboard PROJECT`: write a Weights & Biases report of a project's runs.

Each task has learning curves by method, quality against cost, and the table of its runs, in which the seeds of a
configuration are one row. The pictures are W&B's own and follow the runs that are there when they are looked at. It
needs `ptune[dashboard]`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptune.errors import InputError, first_line, require
from ptune.run.command import Arguments, place, printed
from ptune.run.disk import told
from ptune.run.loggers import obstacle
from ptune.tasks import all_tasks
from ptune.tuning.saving import write_whole

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import PanelGrid, Report

COSTS = {"trained_parameters": "trained parameters", "seconds": "seconds of training"}
COLUMNS = ("config:method.value", "config:lr.value", "summary:final/score", "summary:final/trained_parameters")
COLUMNS += ("summary:final/seconds", "summary:final/peak_memory_mib", "summary:final/best_epoch")
"""What stands first in the table of the runs."""
PATIENCE = 10
"""Seconds that the server may take to answer."""
SCORE = "final/score"
"""Where `ptune.run.uploads` puts the metric that chooses the checkpoint."""


def report(project: str, entity: str = "", tasks: Sequence[str] = ()) -> "Report":
    """The report, not saved yet.

    Args:
        project: the W&B project.
        entity: the user or team that it belongs to.
        tasks: names of the tasks that have a section each; without any, all runs are one section.
    """
    wr = require("wandb_workspaces.reports.v2", "dashboard")
    blocks = [block for task in tasks or [""] for block in (wr.H2(task or "All tasks"), section(task))]
    text = f"{SCORE} is the metric that chooses the checkpoint, on the split that it is chosen on."
    title = f"{project}: methods compared"
    return wr.Report(project, entity, title, description=text, blocks=blocks, width="fluid")


def section(task: str) -> "PanelGrid":
    """Pictures and table of the runs of a task, of all runs without one."""
    wr, expr = (require(f"wandb_workspaces.{name}", "dashboard") for name in ("reports.v2", "expr"))
    by_method = {"groupby": wr.Config("method"), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    known = all_tasks().get(task)
    # Of a task of one's own, and where tasks are mixed, every metric; only `loss` begins with l.
    curve = {"y": [f"val/{known.monitored}"]} if known else {"metric_regex": "val/[^l].*"}
    score, step = wr.SummaryMetric(SCORE), "trainer/global_step"
    panels = [
        wr.LinePlot("Validation, mean and range of each method", step, **curve, **by_method),
        wr.LinePlot("Training loss", step, ["train/loss"], **by_method),
        wr.BarPlot("Best checkpoint", [score], **by_method),
        *(
            wr.ScatterPlot(f"Quality against {words}", wr.SummaryMetric(f"final/{name}"), score, log_x=True)
            for name, words in COSTS.items()
        ),
    ]
    width = 24 // 3
    for number, panel in enumerate(panels):
        panel.layout = wr.Layout(number % 3 * width, number // 3 * width, width, width)
    runs = wr.Runset(
        name=task or "runs",
        filters=expr.And(expr.Config("task") == task) if task else "",
        groupby=["group"],
        order=[wr.OrderBy(score)],
        pinned_columns=list(COLUMNS),
    )
    return wr.PanelGrid([runs], panels=panels)


def run(args: list[str] | None = None) -> str:
    """Write the report that the command line asks for; where it is, or its specification."""
    parser = Arguments("python -m ptune.dashboard", description="Write a W&B report of a project's runs.")
    parser.add_argument("project", help="the project, or ENTITY/PROJECT")
    parser.add_argument("--task", nargs="+", default=[], help="tasks that have a section each (default: all in one)")
    parser.add_argument("--print", action="store_true", help="print the specification (JSON); needs no key")
    parser.add_argument("--out", type=place, help="write the specification (JSON) into this file; needs no key")
    arguments = parser.parse_args(args)
    entity, _, project = arguments.project.rpartition("/")
    made = report(project, entity, arguments.task)
    if not (arguments.print or arguments.out):
        return save(made)
    text = made._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
    if arguments.out:
        with told(arguments.out.parent, "choose another --out."):
            write_whole(arguments.out, f"{text}\n".encode())
    return text if arguments.print else f"Specification: {arguments.out}"


def save(made: "Report") -> str:
    """Save the report on the server; its address.

    Raises:
        InputError: there is no key, or the server does not answer or refuses it.
    """
    import wandb

    fix = "log in with: wandb login, or write the specification of the report with --out FILE"
    if why := obstacle(PATIENCE):
        raise InputError(f"{why}; {fix}.")
    try:
        made.entity = made.entity or wandb.Api().default_entity or ""
        return f"Report: {made.save().url}"
    except (wandb.Error, ValueError, OSError) as error:
        raise InputError(f"W&B: {first_line(error)}; {fix}.") from error


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return printed(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
