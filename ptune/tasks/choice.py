"""Multiple choice: SWAG (Zellers et al. 2018) and CODAH (Chen et al. 2019), which has the same columns."""

from ptune.tasks.spec import TaskSpec

ENDINGS = ("ending0", "ending1", "ending2", "ending3")


def _choice(name: str, **more: object) -> TaskSpec:
    """A task with SWAG's fields."""
    return TaskSpec(
        name,
        "multiple_choice",
        text=("sent1", "sent2"),
        choices=ENDINGS,
        labels=ENDINGS,
        metrics=("accuracy",),
        template="{sent1} {sent2} [MASK]",
        **more,  # type: ignore[arg-type]
    )


TASKS = (
    _choice("swag", hub=("allenai/swag", "regular")),
    _choice("codah", verified=True),
)
