"""The GLUE benchmark (Wang et al. 2019), columns and label codes as on the hub; test labels are not public."""

from ptune.tasks.spec import TaskSpec

ENTAILMENT = ("entailment", "not_entailment")
REPEATS = ("not_equivalent", "equivalent")


def _glue(name: str, text: tuple[str, ...], labels: tuple[str, ...], *metrics: str, **more: object) -> TaskSpec:
    return TaskSpec(name, text=text, labels=labels, metrics=metrics, hub=("nyu-mll/glue", name), **more)  # type: ignore[arg-type]


TASKS = (
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews", max_length=64),
    _glue("sst2", ("sentence",), ("negative", "positive"), "accuracy"),
    _glue("mrpc", ("sentence1", "sentence2"), REPEATS, "f1", "accuracy"),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "accuracy", "f1", verified=False),
    _glue("stsb", ("sentence1", "sentence2"), (), "pearson", "spearman"),
    _glue(
        "mnli",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        evaluate=("validation_matched", "validation_mismatched"),
        verified=False,  # its train set was not to be had
    ),
    _glue("qnli", ("question", "sentence"), ENTAILMENT, "accuracy", verified=False),  # nor this one
    _glue("rte", ("sentence1", "sentence2"), ENTAILMENT, "accuracy", max_length=256),
    _glue("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment"), "accuracy", verified=False),
)
