"""SuperGLUE (Wang et al. 2019) but ReCoRD, and RTE, which GLUE has; columns and label codes as on the hub.

WiC, WSC and COPA are written as text as template 0 of the P-Tuning v2 authors does it (their
tasks/superglue/dataset.py), and MultiRC as their only form; 128 tokens as in their scripts.
"""

from ptune.tasks.spec import TaskSpec


def wic(row: dict) -> dict:
    """One text: both sentences and the question whether the word means the same in them."""
    question = f"Does {row['word']} have the same meaning in both sentences?"
    return row | {"text": f"{row['sentence1']} {row['sentence2']} {question}"}


def wsc(row: dict) -> dict:
    """First text: the pronoun and the sentence; the second is the candidate, `span1_text`."""
    return row | {"pronoun_text": f"{row['span2_text']}: {row['text']}"}


def copa(row: dict) -> dict:
    """First text: the premise and "because" or "so"; the second is a choice."""
    return row | {"context": f"{row['premise']} {'because' if row['question'] == 'cause' else 'so'}"}


def multirc(row: dict) -> dict:
    """Second text: question and answer; `question_id` names the question, whose answers count together for EM."""
    idx = row["idx"]
    return row | {
        "question_answer": f"{row['question']} {row['answer']}",
        "question_id": f"{idx['paragraph']}-{idx['question']}",
    }


def _superglue(name: str, text: tuple[str, ...], labels: tuple[str, ...], *metrics: str, **more: object) -> TaskSpec:
    return TaskSpec(name, text=text, labels=labels, metrics=metrics, hub=("aps/super_glue", name), **more)  # type: ignore[arg-type]


NO_YES = ("False", "True")

TASKS = (
    _superglue("boolq", ("question", "passage"), NO_YES, "accuracy", verified=False),  # its train set was not to be had
    _superglue("cb", ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"), "accuracy", "macro_f1"),
    _superglue(
        "copa",
        ("context",),
        ("choice1", "choice2"),
        "accuracy",
        format="multiple_choice",
        choices=("choice1", "choice2"),
        prepare=copa,
    ),
    _superglue(
        "multirc",
        ("paragraph", "question_answer"),
        NO_YES,
        "f1",
        "question_em",
        group="question_id",
        prepare=multirc,
        max_length=256,
    ),
    _superglue("wic", ("text",), NO_YES, "accuracy", prepare=wic),
    _superglue("wsc", ("pronoun_text", "span1_text"), NO_YES, "accuracy", prepare=wsc),
)
