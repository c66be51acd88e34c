"""Named entities: CoNLL 2003, CoNLL 2004 and WNUT 2017."""

from ptune.tasks.spec import TaskSpec


def bio(*kinds: str) -> tuple[str, ...]:
    """O, B-kind, I-kind, ... in the order of the hub's codes."""
    return ("O", *(f"{begin}-{kind}" for kind in kinds for begin in "BI"))


def _tagging(name: str, kinds: tuple[str, ...], hub: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec(
        name,
        "tagging",
        text=("tokens",),
        label="ner_tags",
        labels=bio(*kinds),
        metrics=("entity_f1", "entity_precision", "entity_recall"),
        hub=hub,
        verified=True,
    )


TASKS = (
    _tagging("conll2003", ("PER", "ORG", "LOC", "MISC"), ("eriktks/conll2003",)),
    _tagging("conll2004", ("Peop", "Loc", "Org", "Other")),
    _tagging("wnut17", ("corporation", "creative-work", "group", "location", "person", "product"), ("leondz/wnut_17",)),
)
