"""Span question answering: SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018)."""

from ptune.tasks.spec import TaskSpec


def _squad(name: str, **more: object) -> TaskSpec:
    return TaskSpec(
        name,
        "span_qa",
        text=("question", "context"),
        label="answers",
        metrics=("f1", "exact_match"),
        hub=(f"rajpurkar/{name}",),
        evaluate=("validation",),
        max_length=384,
        **more,  # type: ignore[arg-type]
    )


TASKS = (
    _squad("squad", verified=True),
    _squad("squad_v2"),
)
