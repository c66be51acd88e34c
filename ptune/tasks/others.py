"""Multiple choice (SWAG), span question answering (SQuAD) and tagging."""

from ptune.tasks.spec import TaskSpec

ENDINGS = ("ending0", "ending1", "ending2", "ending3")


def bio(*kinds: str) -> tuple[str, ...]:
    """O, B-kind, I-kind, ... in the order of the hub's codes."""
    return ("O", *(f"{begin}-{kind}" for kind in kinds for begin in "BI"))


def _choice(name: str, **more: object) -> TaskSpec:
    """A task with SWAG's fields."""
    return TaskSpec(
        name,
        "multiple_choice",
        text=("sent1", "sent2"),
        choices=ENDINGS,
        labels=ENDINGS,
        template="{sent1} {sent2} [MASK]",
        **more,  # type: ignore[arg-type]
    )


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


def _tagging(name: str, kinds: tuple[str, ...], hub: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec(
        name,
        "tagging",
        text=("tokens",),
        label="ner_tags",
        labels=bio(*kinds),
        metrics=("entity_f1", "entity_precision", "entity_recall"),
        hub=hub,
    )


TASKS = (
    _choice("swag", hub=("allenai/swag", "regular"), verified=False),
    _choice("codah"),  # the one with SWAG's fields whose data were to be had, as local files
    _squad("squad"),
    _squad("squad_v2", verified=False),
    _tagging("conll2003", ("PER", "ORG", "LOC", "MISC"), ("eriktks/conll2003",)),
    _tagging("conll2004", ("Peop", "Loc", "Org", "Other")),
    _tagging("wnut17", ("corporation", "creative-work", "group", "location", "person", "product"), ("leondz/wnut_17",)),
)
