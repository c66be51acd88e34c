"""SuperGLUE (Wang et al. 2019) but ReCoRD, and RTE, which GLUE has; columns and label codes as on the hub.

WiC, WSC and COPA are written as text as template 0 of the P-Tuning v2 authors does it (their
tasks/superglue/dataset.py), and MultiRC as their only form; 128 tokens as in their scripts. The templates are those of
P-Tuning v1 without its slots (THUDM/P-tuning f4225d4, PT-Fewshot/pet/pvp.py); WSC's asks for yes or no, not the noun.
`fewglue/...` are the same tasks at 32 shots (Schick & Schütze 2021), chosen on the 32 rows of `dev32`.
"""

from dataclasses import replace

from ptune.tasks.glue import TASKS as GLUE
from ptune.tasks.spec import TaskSpec


def rte(row: dict) -> dict:
    """SuperGLUE's column names for a row of GLUE's RTE, which are the same pairs."""
    return {"premise": row["sentence1"], "hypothesis": row["sentence2"]} | row if "sentence1" in row else row


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
    fields = {"format": "classification", "text": text, "labels": labels, "metrics": metrics} | more
    return TaskSpec(name, hub=("aps/super_glue", name), **fields)  # type: ignore[arg-type]


NO_YES = ("False", "True")
SAYS = dict(zip(NO_YES, ("No", "Yes"), strict=True))

TASKS = (
    _superglue(
        "boolq",
        ("question", "passage"),
        NO_YES,
        "accuracy",
        # not verified: its training data were not available
        template="{passage} Question: {question}? Answer: [MASK].",
        verbalizer=SAYS,
    ),
    _superglue(
        "cb",
        ("premise", "hypothesis"),
        ("entailment", "contradiction", "neutral"),
        "accuracy",
        "macro_f1",
        template="{premise} Question: {hypothesis}? Answer: [MASK].",
        verbalizer={"entailment": "Yes", "contradiction": "No", "neutral": "Maybe"},
        verified=True,
    ),
    _superglue(
        "copa",
        ("context",),
        ("choice1", "choice2"),
        "accuracy",
        format="multiple_choice",
        choices=("choice1", "choice2"),
        prepare=copa,
        template="{choice1} or {choice2}? {context} [MASK]",
        verified=True,
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
        template="{paragraph} Question: {question}? Is it {answer}? [MASK].",
        verbalizer=SAYS,
        verified=True,
    ),
    _superglue(
        "wic",
        ("text",),
        NO_YES,
        "accuracy",
        prepare=wic,
        template="{sentence1} {sentence2} Does {word} have the same meaning in both sentences? [MASK].",
        verbalizer=SAYS,
        verified=True,
    ),
    _superglue(
        "wsc",
        ("pronoun_text", "span1_text"),
        NO_YES,
        "accuracy",
        prepare=wsc,
        template="{text} Does {span2_text} refer to {span1_text}? [MASK].",
        verbalizer=SAYS,
        verified=True,
    ),
)

RTE = replace(
    next(row for row in GLUE if row.name == "rte"),
    text=("premise", "hypothesis"),
    prepare=rte,
    template="{premise} Question: {hypothesis}? Answer: [MASK].",
)
TASKS += tuple(
    replace(row, name=f"fewglue/{row.name}", hub=(), evaluate=("dev32", "validation"), verified=True)
    for row in (RTE, *TASKS)
)
