"""`python -m ptune.tasks`: a table of all tasks."""

from ptune.tasks import TaskSpec, all_tasks

COLUMNS = ("task", "format", "labels", "metrics (monitored first)", "source", "verified")


def answers(task: TaskSpec) -> str:
    """What an answer is: the labels, or how many there are."""
    if task.choices:
        return f"{len(task.choices)} choices"
    if task.labels:
        return ", ".join(task.labels) if len(task.labels) <= 4 else f"{len(task.labels)} labels"
    return "a number" if task.format == "classification" else "-"


def cells(task: TaskSpec) -> tuple[str, ...]:
    """One line of the table."""
    metrics = (task.monitored, *(name for name in task.metrics if name != task.monitored))
    source = "generated" if task.name.startswith("toy/") else "/".join(task.hub) or "--data.path only"
    return (
        task.name,
        task.format,
        answers(task),
        ", ".join(metrics),
        source,
        "yes" if task.verified else "no",
    )


def main() -> None:
    """Print the table."""
    rows = [COLUMNS, *(cells(task) for task in all_tasks().values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nverified: no = its data, or its training data, were not to be had where this was written.")


if __name__ == "__main__":
    main()
