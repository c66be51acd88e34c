"""Answers in the files that the GLUE and SuperGLUE benchmarks take, by the names and in the forms that they publish.

File names, labels and MultiRC's nesting are those of the benchmarks' own jiant (nyu-mll/jiant,
scripts/postproc/glue/glue_submission_formatter.py and the SuperGLUE one beside it).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptune.errors import InputError
from ptune.tasks.spec import TaskSpec

Form = Callable[[TaskSpec, dict[str, Any]], Any]
"""From an answer {label, score} to what the benchmark calls a prediction or a label."""


def _code(task: TaskSpec, answer: dict[str, Any]) -> int:
    return (task.labels or task.choices).index(answer["label"])


def _name(task: TaskSpec, answer: dict[str, Any]) -> str:
    return answer["label"]


def _lower(task: TaskSpec, answer: dict[str, Any]) -> str:
    return answer["label"].lower()


def _number(task: TaskSpec, answer: dict[str, Any]) -> str:
    return f"{min(max(answer['score'], 0.0), 5.0):.3f}"  # similarities are from 0 to 5


GLUE: dict[str, tuple[str, Form]] = {
    "cola": ("CoLA", _code),
    "sst2": ("SST-2", _code),
    "mrpc": ("MRPC", _code),
    "stsb": ("STS-B", _number),
    "qqp": ("QQP", _code),
    "mnli": ("MNLI-m", _name),
    "qnli": ("QNLI", _name),
    "rte": ("RTE", _name),
    "wnli": ("WNLI", _code),
}
SUPERGLUE: dict[str, tuple[str, Form]] = {
    "boolq": ("BoolQ", _lower),
    "cb": ("CB", _name),
    "copa": ("COPA", _code),
    "multirc": ("MultiRC", _code),
    "fewglue/rte": ("RTE", _name),
    "wic": ("WiC", _lower),
    "wsc": ("WSC", _name),
}
NUMBERS = ("idx", "index")
"""Columns of the benchmark's number of a row."""
DIAGNOSTICS = {"ax": "AX", "axb": "AX-b", "axg": "AX-g"}
"""Files of the diagnostic sets, by the beginning of the input's name without hyphens."""


def form_of(name: str, source: str) -> tuple[str, Form]:
    """The file's name and the form of an answer for the task `name` and rows of the file `source`.

    Raises:
        InputError: the task is in neither benchmark.
    """
    base = name if name in SUPERGLUE else name.removeprefix("fewglue/")
    stem = Path(source).name.partition(".")[0].lower().replace("-", "").replace("_", "")
    if base in GLUE and not name.startswith("fewglue/"):
        file, form = GLUE[base]
        if base == "mnli":
            file = "MNLI-mm" if "mismatched" in stem else DIAGNOSTICS.get(stem, file)
        return f"{file}.tsv", form
    if base in SUPERGLUE:
        file, form = SUPERGLUE[base]
        return f"{DIAGNOSTICS.get(stem, file) if base == 'fewglue/rte' else file}.jsonl", form
    known = ", ".join((*GLUE, *SUPERGLUE))
    raise InputError(f"--format glue: task {name!r} is none of the benchmarks'; they have: {known}.")


def submission(
    task: TaskSpec, source: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[dict[str, Any]]
) -> tuple[str, str]:
    """Name and content of the file that the benchmark takes.

    Args:
        task: the task, by whose name the benchmark's is known.
        source: name of the file of the rows; it tells MNLI's matched rows from the mismatched, and diagnostic ones.
        rows: the rows; their `idx` or `index` is the benchmark's number, or their place from 0 where they have none.
        answers: {label, score} of each row.

    Raises:
        InputError: the task is in neither benchmark, or rows of MultiRC lack their numbers.
    """
    file, form = form_of(task.name, source)
    numbers = [row.get("idx", row.get("index", place)) for place, row in enumerate(rows)]
    pairs = [(number, form(task, answer)) for number, answer in zip(numbers, answers, strict=True)]
    if file.endswith(".tsv"):
        return file, "index\tprediction\n" + "".join(f"{place}\t{label}\n" for place, label in pairs)
    if file == "MultiRC.jsonl":
        lines = _nested(pairs)
    else:
        lines = [{"idx": int(place), "label": label} for place, label in pairs]
    return file, "".join(json.dumps(line) + "\n" for line in lines)


def _nested(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """MultiRC's answers by question by paragraph."""
    paragraphs: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for place, label in pairs:
        if not isinstance(place, Mapping) or not {"paragraph", "question", "answer"} <= place.keys():
            raise InputError("--format glue: MultiRC's rows need idx {paragraph, question, answer}; give them.")
        questions = paragraphs.setdefault(place["paragraph"], {})
        questions.setdefault(place["question"], []).append({"idx": place["answer"], "label": label})
    return [
        {"idx": number, "passage": {"questions": [{"idx": q, "answers": found} for q, found in questions.items()]}}
        for number, questions in paragraphs.items()
    ]
