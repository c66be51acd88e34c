"""The GLUE benchmark (Wang et al. 2019), columns and label codes as on the hub; test labels are not public."""

from ptune.tasks.spec import TaskSpec

ENTAILMENT = ("entailment", "not_entailment")
REPEATS = ("not_equivalent", "equivalent")


def _glue(name: str, text: tuple[str, ...], labels: tuple[str, ...], *metrics: str, **more: object) -> TaskSpec:
    hub = ("nyu-mll/glue", name)
    return TaskSpec(name, "classification", text, labels=labels, metrics=metrics, hub=hub, **more)  # type: ignore[arg-type]


ENTAILS = dict(zip(ENTAILMENT, ("Yes", "No"), strict=True))
"""The words of P-Tuning v1 (THUDM/P-tuning f4225d4, PT-Fewshot/pet/pvp.py)."""

TASKS = (
    _glue(
        "cola",
        ("sentence",),
        ("unacceptable", "acceptable"),
        "matthews",
        max_length=64,
        template="{sentence} This is [MASK].",  # LM-BFF's, as SST-2's
        verbalizer={"unacceptable": "incorrect", "acceptable": "correct"},
        verified=True,
    ),
    _glue(
        "sst2",
        ("sentence",),
        ("negative", "positive"),
        "accuracy",
        template="{sentence} It was [MASK].",
        verbalizer={"negative": "terrible", "positive": "great"},
        verified=True,
    ),
    _glue(
        "mrpc",
        ("sentence1", "sentence2"),
        REPEATS,
        "f1",
        "accuracy",
        template="{sentence1} {sentence2} The two sentences mean something [MASK].",
        verbalizer={"not_equivalent": "different", "equivalent": "similar"},
        verified=True,
    ),
    _glue(
        "qqp",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "accuracy",
        "f1",
        template="{question1} {question2} The two questions mean something [MASK].",
        verbalizer={"not_duplicate": "different", "duplicate": "similar"},
    ),
    _glue("stsb", ("sentence1", "sentence2"), (), "pearson", "spearman", verified=True),
    _glue(
        "mnli",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        evaluate=("validation_matched", "validation_mismatched"),
        # not verified: its training data were not available
        template="{premise} Question: {hypothesis}? Answer: [MASK].",
        verbalizer={"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
    ),
    _glue(
        "qnli",
        ("question", "sentence"),
        ENTAILMENT,
        "accuracy",
        # not verified: its training data were not available
        template="{sentence} Does this say, {question} Answer: [MASK].",
        verbalizer=ENTAILS,
    ),
    _glue(
        "rte",
        ("sentence1", "sentence2"),
        ENTAILMENT,
        "accuracy",
        max_length=256,
        template="{sentence1} Question: {sentence2}? Answer: [MASK].",
        verbalizer=ENTAILS,
        verified=True,
    ),
    _glue("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment"), "accuracy"),
)
